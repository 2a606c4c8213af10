"""8-bit images that keep their targets: the picks against brute force, and the stage as a whole."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import outgen_jax as og
from outgen_jax.solvers import jacobian
from outgen_jax.solvers.limits import Restriction
from outgen_jax.synthesis import picks, quantize, rounds
from outgen_jax.synthesis.bound import Bound
from outgen_jax.synthesis.request import Meaning
from outgen_jax.synthesis.rounds import Levels

SHAPE = (8, 8, 3)
WEIGHTS = reference.perceptron(SHAPE, steepness=2.8)


def distances(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Total variation of what the network says of uint8 images, in float64."""
    network = reference.perceptron_gradient(WEIGHTS)
    probs = [reference.softmax(network(i / 255, r)[0]) for i, r in zip(images, rows, strict=True)]
    return np.abs(np.stack(probs) - rows).sum(1) / 2


@pytest.fixture(scope="module")
def exact() -> tuple[np.ndarray, np.ndarray]:
    """Images on random targets, in float32, and the targets."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, *SHAPE)).astype(np.uint8)
    images[:, :2], images[:, 2:4] = 0, 255
    rows = rng.dirichlet(np.ones(5), 10).astype(np.float32)
    result = og.synthesize(
        reference.perceptron_logits, WEIGHTS, images, rows, solver=og.gauss_newton(), tolerance=1e-5
    )
    assert result.converged.all()
    return result.images, rows


def squared_error(change: np.ndarray, effects: np.ndarray, error: np.ndarray) -> float:
    return float(((error - effects @ change) ** 2).sum())


def test_the_first_pick_is_the_best_of_all():
    rng = np.random.default_rng(1)
    for _ in range(20):
        levels = rng.choice([0.0, 100.0, 255.0], 7)
        effects, error = rng.normal(size=(3, 7)), 3 * rng.normal(size=3)
        arrays = (jnp.asarray(a, jnp.float32) for a in (levels, effects, error))
        change, _ = picks.greedy_picks(*arrays, 1)
        change = np.asarray(change)
        singles = [s * unit for s, unit in itertools.product((-1, 1), np.eye(7))] + [np.zeros(7)]
        allowed = [c for c in singles if (levels + c).min() >= 0 and (levels + c).max() <= 255]
        best = min(squared_error(c, effects, error) for c in allowed)
        np.testing.assert_allclose(squared_error(change, effects, error), best, rtol=1e-4)


def test_more_picks_only_help_and_each_pixel_moves_once():
    rng = np.random.default_rng(2)
    levels = jnp.asarray(rng.integers(0, 256, 200), jnp.float32)
    effects, error = jnp.asarray(rng.normal(size=(3, 200)), jnp.float32), jnp.full(3, 20.0)
    whole, order = map(np.asarray, picks.greedy_picks(levels, effects, error))
    errors = []
    for limit in (0, 1, 4, 16, 64):
        change = np.asarray(picks.greedy_picks(levels, effects, error, limit)[0])
        assert np.abs(change).sum() <= limit
        np.testing.assert_array_equal(change, np.where(order < limit, whole, 0))
        assert set(np.unique(change)) <= {-1, 0, 1}
        errors.append(squared_error(change, effects, error))
    assert errors[0] == 1200
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("size", [3, 256, 300, 1000])
def test_picks_among_candidates_do_as_well_as_picks_among_all_pixels(size):
    rng = np.random.default_rng(size)
    levels, effects = rng.integers(0, 256, size), rng.normal(size=(3, size))
    error = np.full(3, 60.0)
    arrays = (jnp.asarray(a, jnp.float32) for a in (levels, effects, error))
    change, order = map(np.asarray, picks.greedy_picks(*arrays))
    made = np.sort(order[change != 0])
    np.testing.assert_array_equal(
        made, np.arange(len(made))
    )  # no pick is counted twice or left out
    assert (levels + change).min() >= 0
    assert (levels + change).max() <= 255
    best = np.zeros(size)
    while True:
        along = (error - effects @ best) @ effects
        moved = levels + np.sign(along)
        is_open = (best == 0) & (moved >= 0) & (moved <= 255)
        gain = np.where(is_open, 2 * np.abs(along) - (effects**2).sum(0), 0)
        if gain.max() <= 0:
            break
        best[gain.argmax()] = np.sign(along[gain.argmax()])
    ours, brute = (squared_error(c, effects, error) for c in (change, best))
    if size <= picks._CANDIDATES:
        np.testing.assert_allclose(ours, brute, rtol=1e-4)
    else:
        assert ours < 2 * brute + 1e-2


def test_rounded_images_meet_their_targets(exact):
    images, rows = exact
    plain = distances(og.data.to_uint8(images), rows)
    result = og.quantize(reference.perceptron_logits, WEIGHTS, images, rows)
    assert result.dtype == np.uint8
    found = distances(result, rows)
    assert np.median(plain) > 2e-3  # there is something to mend
    assert found.max() < 1e-3
    assert (found <= plain + 1e-6).all()
    # And they stay the images they were.
    assert np.abs(result - images * 255).max() < quantize.ROUNDS + 0.5


@pytest.fixture(scope="module")
def limited() -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    """Sources of 8 bits, the outputs of images within some limits, and these limits."""
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (6, *SHAPE)).astype(np.uint8)
    mask = np.zeros(SHAPE[:2])
    mask[:, :5] = 1
    change = rng.uniform(-1.6, 1.6, images.shape) * mask[:, :, None]
    near = np.clip((images + change) / 255, 0, 1).astype(np.float32)
    rows = np.asarray(og.predict(reference.perceptron_logits, WEIGHTS, near))
    return images, rows, {"mask": mask, "max_change": 1.7 / 255}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_limits_of_a_solver_are_kept(limited, dtype):
    images, rows, limits = limited
    source = images if dtype == np.uint8 else images / np.float32(255)
    network = reference.perceptron_logits, WEIGHTS
    solver = og.smallest_change(**limits)
    result = og.synthesize(*network, source, rows, solver=solver, tolerance=1e-4)
    assert result.converged.all()
    options = {"tolerance": 1e-4}
    free = og.quantize(*network, result.images, rows, **options)
    kept = og.quantize(*network, result.images, rows, source=source, **limits, **options)
    change = kept.astype(int) - images
    assert (np.abs(free.astype(int) - images)[:, :, 5:] > 0).any()  # or the test shows nothing
    np.testing.assert_array_equal(change[:, :, 5:], 0)
    assert np.abs(change).max() == 1
    plain = np.clip(og.data.to_uint8(result.images), images - 1.0, images + 1.0)
    assert np.median(distances(kept, rows)) < 0.5 * np.median(distances(plain, rows))


def test_a_range_without_a_level_has_the_nearest_one():
    source = jnp.full((1, 1, 3), jnp.array([0.0, 100.4, 254.9]) / 255)
    for change, expected in ((0.1, [0, 100, 255]), (0.5, [0, 100, 255])):
        low, high = rounds.level_range(Restriction(max_change=change / 255), source)
        np.testing.assert_array_equal(low[0, 0], expected)
        np.testing.assert_array_equal(high[0, 0], expected)
    low, high = rounds.level_range(Restriction(max_change=2 / 255), source)
    np.testing.assert_array_equal(low[0, 0], [0, 99, 253])
    np.testing.assert_array_equal(high[0, 0], [2, 102, 255])
    low, high = rounds.level_range(Restriction(), source)
    assert (low.max(), high.min()) == (0, 255)


def test_limits_without_their_source_are_refused(limited):
    images, rows, limits = limited
    network = reference.perceptron_logits, WEIGHTS
    with pytest.raises(ValueError, match=r"quantize: mask and max_change are about .* source="):
        og.quantize(*network, images, rows, **limits)
    with pytest.raises(ValueError, match=r"quantize: source must have the shape .*\[6, 8, 8, 3\]"):
        og.quantize(*network, images, rows, source=images[:5], **limits)
    with pytest.raises(ValueError, match=r"mask is 4x4x1, images are 8x8x3"):
        og.quantize(*network, images, rows, source=images, mask=np.ones((4, 4)))


def test_does_not_depend_on_batch_or_order(exact):
    images, rows = exact
    whole = og.quantize(reference.perceptron_logits, WEIGHTS, images, rows)
    parts = og.quantize(
        reference.perceptron_logits, WEIGHTS, images[::-1], rows[::-1], batch_size=4
    )
    assert np.mean(whole != parts[::-1]) < 1e-3


def test_leaves_alone_what_is_on_target(exact):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    rows = og.predict(reference.perceptron_logits, WEIGHTS, images)
    result = og.quantize(reference.perceptron_logits, WEIGHTS, images, rows)
    np.testing.assert_array_equal(result, images)
    far = np.eye(5, dtype=np.float32)[[0, 1, 2]]
    untouched = og.quantize(reference.perceptron_logits, WEIGHTS, images, far, rounds=0)
    np.testing.assert_array_equal(untouched, images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.full((2, *SHAPE), 2.0, np.float32)}, r"quantize: .*\[0, 1\].*images / 255"),
        ({"images": np.zeros(SHAPE, np.uint8)}, r"quantize: .*\[B, H, W, C\]"),
        ({"targets": np.full((2, 5), 0.3)}, r"quantize: .*sum to 1"),
        ({"targets": np.full((2, 4), 0.25)}, r"quantize: targets must have one of the shapes"),
        ({"rounds": -1}, "quantize: rounds must not be negative, got -1; 0 rounds to the nearest"),
        ({"rounds": 1.5}, "quantize: rounds must be an integer, got 1.5"),
        ({"batch_size": 1.5}, "quantize: batch_size must be an integer, got 1.5"),
        ({"tolerance": 0.0}, "quantize: tolerance must be .*, got 0.0; 0.0005 is the default"),
        ({"tolerance": None}, "quantize: tolerance must be .*, got None; 0.0005 is the default"),
        ({"precision": "full"}, "quantize: precision must be .* got 'full'; pass 'highest'"),
        ({"batch_size": 0}, "quantize: batch_size must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "images": np.zeros((2, *SHAPE), np.uint8),
        "targets": np.full((2, 5), 0.2, np.float32),
        **change,
    }
    images, targets = arguments.pop("images"), arguments.pop("targets")
    with pytest.raises(ValueError, match=message):
        og.quantize(reference.perceptron_logits, WEIGHTS, images, targets, **arguments)


def distances_of(kind, apply_fn, images, rows) -> np.ndarray:
    """In the output's own measure, by `predict`."""
    named = ~np.ma.getmaskarray(rows)
    errors = np.abs(og.predict(apply_fn, WEIGHTS, images, output=kind) - np.ma.filled(rows, 0))
    errors = np.where(named, errors, 0)
    if kind == og.outputs.sigmoid():
        return errors.max(1)
    return np.sqrt((errors**2).sum(1) / named.sum(1)) / kind.scale


@pytest.mark.parametrize(
    "kind", [og.outputs.sigmoid(), og.outputs.values(scale=3.0)], ids=["sigmoid", "values"]
)
def test_other_outputs_keep_their_targets_too(kind):
    """With free entries; the correction looks at what the distance compares."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (4, *SHAPE)).astype(np.uint8)
    drawn = (
        rng.uniform(0.05, 0.95, (4, 5)) if kind == og.outputs.sigmoid() else rng.normal(size=(4, 5))
    )
    rows = np.ma.masked_array(drawn, mask=np.eye(4, 5))
    network = reference.perceptron_logits
    exact = og.synthesize(
        network, WEIGHTS, images, rows, output=kind, solver=og.gauss_newton(), tolerance=1e-4
    )
    assert exact.converged.all()
    plain = distances_of(kind, network, og.data.to_uint8(exact.images), rows)
    result = og.quantize(network, WEIGHTS, exact.images, rows, output=kind)
    found = distances_of(kind, network, result, rows)
    assert (found <= plain + 1e-6).all()
    assert np.median(found) < 0.3 * np.median(plain)
    assert found.max() < 2e-3


def test_several_outputs_of_several_views_at_once():
    """A dictionary of a classifier under two views, and of labels."""

    def network(weights, images):
        logits = [reference.perceptron_logits(weights, x) for x in (images, images[:, ::-1])]
        return {"views": jnp.stack(logits, 1), "labels": logits[0][:, :2]}

    kinds = {"views": og.outputs.softmax(), "labels": og.outputs.sigmoid()}
    images = np.random.default_rng(6).integers(1, 255, (3, *SHAPE)).astype(np.uint8)
    rows = og.predict(network, WEIGHTS, images, output=kinds)
    moved = images / 255 + np.random.default_rng(7).uniform(-0.49, 0.49, images.shape) / 255
    found = og.quantize(network, WEIGHTS, moved, rows, output=kinds, rounds=1)
    np.testing.assert_array_equal(found, images)


def test_a_change_below_half_a_grey_level_survives():
    """The nearest image is the source, and all picks together do not make up for it."""
    side = 96
    weights = np.random.default_rng(5).normal(0, 0.1, (side * side, 2)).astype(np.float32)
    source = np.full((1, side, side, 1), 100 / 255, np.float32)

    def apply_fn(weights, images):
        return (images - 100 / 255).reshape(len(images), -1) @ weights

    along = np.sign(weights[:, 0] - weights[:, 1]).reshape(source.shape)
    images = source + np.float32(0.3 / 255) * along
    rows = og.predict(apply_fn, weights, images)
    saved = og.quantize(apply_fn, weights, images, rows)
    nearest = np.rint(255 * images).astype(np.uint8)

    def distance(levels):
        return np.abs(og.predict(apply_fn, weights, levels) - rows).sum() / 2

    assert distance(nearest) > 0.2
    assert distance(quantize.dithered(images)) < 0.1
    assert distance(saved) <= quantize.TOLERANCE


def test_dithering_is_right_on_average_and_keeps_whole_levels():
    images = np.full((2, 64, 64, 3), 100.3 / 255, np.float32)
    images[1] = 0.2  # 51
    found = quantize.dithered(images)
    assert found[0].mean() == pytest.approx(100.3, abs=0.02)
    assert (found[1] == 51).all()
    assert set(np.unique(found[0])) == {100, 101}


@pytest.mark.parametrize("devices", [1, 4])
def test_few_programs_serve_any_number_of_missed_images(monkeypatch, devices):
    sizes, rng = set(), np.random.default_rng(0)

    def corrected(bound, limits, batch, *_):
        images, _, _ = batch
        sizes.add(len(images))
        distance = rng.choice([1e-4, 1e-2], len(images))
        levels = np.zeros(images.shape)
        return Levels(levels, levels, levels, distance, np.ones(len(images), bool))

    monkeypatch.setattr(quantize, "_corrected", corrected)
    images, rows = rng.random((100, 2, 2, 1), np.float32), np.full((100, 1, 5), 0.2, np.float32)
    meaning = Meaning(jax.tree.structure(0), ((5,),), (og.outputs.softmax(),))
    bound = Bound(None, None, meaning, types.SimpleNamespace(size=devices), batch_size=64)
    for _ in range(20):
        counts = [(None if draw < 0.8 else 2,) for draw in rng.random(100)]
        quantize.quantized(bound, images, (rows,), counts=counts)
    assert len(sizes) <= 4


def test_a_dense_map_of_outputs_is_rounded_without_a_jacobian(monkeypatch):
    """A Jacobian of all its 768 coordinates would need much memory, and that of larger ones more than there is."""

    def fails(*_):
        raise AssertionError("a Jacobian")

    def network(weights, images):
        return images[..., :1] * weights

    monkeypatch.setattr(jacobian, "jacobian", fails)
    weights, images = np.float32([-9, 0, 9, 3]), np.full((2, 16, 16, 1), 100.4 / 255, np.float32)
    images[1] = 0.2  # 51
    rows = og.predict(network, weights, images)
    found = og.quantize(network, weights, images, rows)
    np.testing.assert_array_equal(found, np.rint(255 * images))
