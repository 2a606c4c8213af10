"""The default solver: gets there, whatever is asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from sklearn import datasets
from toy_synthesis import linear, linear_weights

import outgen_jax as og
from outgen_jax.models import pretrained
from outgen_jax.solvers.combinators import Rescued, Then
from outgen_jax.solvers.gauss_newton import GaussNewton
from outgen_jax.solvers.gauss_newton_cg import GaussNewtonCG

SHAPE = (8, 8, 3)
WEIGHTS = reference.perceptron(SHAPE, steepness=2.8)
HIDDEN = 64  # of the network of five classes and four images that several tests share: it is compiled once
WIDE = linear_weights(1000, SHAPE)
# So steep that one class can have nearly all of the probability within [0, 1].
STEEP = jax.tree.map(lambda x: 4 * x, WIDE)
POOR = og.gradient_descent(optax.sgd(1e-3), steps=1)
TOLERANCE = 1e-5


def product(weights: jax.Array, images: jax.Array) -> jax.Array:
    """A network of one matrix, for the tests that share its programs."""
    return images.reshape(len(images), -1) @ weights


def sources(count: int) -> np.ndarray:
    """Random 8-bit images with pure black and pure white in them."""
    images = np.random.default_rng(2).integers(0, 256, (count, *SHAPE), np.uint8)
    images[:, :2], images[:, 2:4] = 0, 255
    return images


def judged(apply_fn, variables, result, rows) -> np.ndarray:
    """Total variation of what the network says of the images, in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda w: jnp.asarray(w, jnp.float64), variables)
        logits = np.asarray(apply_fn(wide, jnp.asarray(result.images, jnp.float64)))
    return np.abs(reference.softmax(logits) - rows).sum(-1) / 2


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_full_targets_of_every_kind_from_images_with_black_and_white(classes):
    weights = reference.perceptron(SHAPE, steepness=2.8, hidden=HIDDEN, classes=classes)
    rows = np.random.default_rng(3).dirichlet(np.ones(classes), 4)
    rows[0], rows[1], rows[2] = np.eye(classes)[1], 1 / classes, 0
    rows[2, :2] = 0.9, 0.1
    result = og.synthesize(reference.perceptron_logits, weights, sources(4), rows)
    assert result.converged.all()
    assert (result.distance <= TOLERANCE).all()
    assert (judged(reference.perceptron_logits, weights, result, rows) <= 2 * TOLERANCE).all()
    assert result.images.min() >= 0
    assert result.images.max() <= 1


def test_from_all_black_and_all_white():
    images = np.stack([np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)] * 2)
    rows = np.array([[0.9, 0.1, 0, 0, 0], [0.2] * 5])[[0, 1, 1, 0]]
    weights = reference.perceptron(SHAPE, steepness=2.8, hidden=HIDDEN)
    result = og.synthesize(reference.perceptron_logits, weights, images, rows)
    assert result.converged.all()


def partial(count: int, named: dict[int, float]) -> np.ma.MaskedArray:
    rows = np.ma.masked_all((count, 1000), np.float32)
    for k, q in named.items():
        rows[:, k] = q
    return rows


def test_of_a_thousand_classes_few_are_named():
    """By rows: the named ones, and those in an order, with all others free or wanted with 0."""
    images = np.random.default_rng(4).uniform(0.2, 0.8, (3, *SHAPE)).astype(np.float32)
    ordered = {
        k: q for k, q in zip((7, 300, 999, 2, 41), (0.4, 0.25, 0.15, 0.1, 0.05), strict=True)
    }
    two = np.zeros((3, 1000))
    two[:, 3], two[:, 800] = 0.7, 0.3
    for rows in (partial(3, ordered), partial(3, {5: 0.9}), two):
        result = og.synthesize(linear, STEEP, images, rows)
        assert result.converged.all(), result.distance
        named = ~np.ma.getmaskarray(rows[0])
        np.testing.assert_allclose(result.probs[:, named], rows[:, named], atol=TOLERANCE)
    top = np.argsort(-og.synthesize(linear, STEEP, images, partial(3, ordered)).probs, 1)
    assert (top[:, :5] == list(ordered)).all()


def test_rows_or_conjugate_gradients_by_the_number_of_outputs():
    """Few outputs, too many, few classes of many; and the limits that only some of the solvers keep."""

    class Pool:
        def __init__(self):
            self.asked = {}

        def coordinates(self, row):
            return [3, None, 8, None, 1][row]

        def named(self, row):
            return [None, 500, 7, None, 1][row]

        def run(self, solver, rows, tolerance, *, start=None):
            self.asked |= {row: (type(solver), tolerance) for row in rows.tolist()}

    def asked(tolerance, **options):
        pool = Pool()
        og.exact(**options).run(pool, np.arange(5), tolerance)
        aims = [aim for _, aim in pool.asked.values()]
        return [pool.asked[row][0] for row in range(5)], aims

    kinds, aims = asked(1e-6)
    assert kinds == [Rescued, GaussNewtonCG, Then, GaussNewtonCG, Then]
    assert aims == pytest.approx([0.75e-6] * 5)
    kinds, aims = asked(1e-2, lowpass_radius=3.0)
    assert kinds == [Then, GaussNewtonCG, Then, GaussNewtonCG, Then]
    assert aims == pytest.approx([1e-2 - 2.5e-6] * 5)


def test_the_last_pass_starts_from_the_best_image():
    """Passes after momentum start elsewhere: on a target that is hard to meet, they do not come as near."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (64, 48)), rng.normal(0, 1, (48, 10))
    images = rng.random((2, 8, 8, 1), np.float32)

    def network(weights, images):
        first, second = weights
        return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ first) @ second

    seen = og.views(network, [lambda image: image, lambda image: image[:, ::-1]])
    target = np.eye(10)[3] * 0.7 + np.eye(10)[8] * 0.3
    exact = dataclasses.replace(og.exact(), restarts=1)
    whole = exact.by_rows(TOLERANCE)
    assert isinstance(whole, Rescued)
    without = dataclasses.replace(whole, by=whole.by.first)
    arguments = seen, jax.tree.map(np.float32, weights), images, target
    nearer, before = (
        og.synthesize(*arguments, solver=solver, tolerance=TOLERANCE) for solver in (exact, without)
    )
    assert (before.distance > TOLERANCE).all()
    assert (nearer.distance < 0.2 * before.distance).all()


def test_over_all_of_a_thousand_classes_it_comes_near():
    """By conjugate gradients, which the distance says to be less exact."""
    images = np.random.default_rng(5).uniform(0.3, 0.7, (2, *SHAPE)).astype(np.float32)
    rows = np.roll(og.predict(linear, WIDE, images), 1, axis=0)
    result = og.synthesize(linear, WIDE, images, rows, tolerance=1e-3)
    assert result.converged.all()
    assert (result.steps <= 80).all()


@pytest.mark.parametrize(
    "options", [{"mask": np.tri(8)}, {"max_change": 0.25}, {"lowpass_radius": 2.0}], ids=str
)
def test_restrictions_hold_in_every_part(options):
    """One target is out of reach, so that every part has its turn."""
    images = np.random.default_rng(6).uniform(0.3, 0.7, (2, *SHAPE)).astype(np.float32)

    def apply_fn(variables, x):
        logits = reference.perceptron_logits(variables, x)
        return jnp.concatenate([logits, 2 * jnp.tanh(logits[:, :1])], -1)

    rows = np.stack([np.full(6, 1 / 6), np.eye(6)[5]])  # the last class never has 0.9
    result = og.synthesize(apply_fn, WEIGHTS, images, rows, solver=og.exact(**options))
    assert result.converged.tolist() == [True, False]
    # After all parts; the distance lies near that beyond which an image is given up, so either may end it.
    smallest = og.exact(**options).by_rows(TOLERANCE)
    assert result.steps[1] > (smallest.solver.steps if isinstance(smallest, Rescued) else 0)
    change = result.images - images
    assert np.abs(change).max() > 0.01
    if "mask" in options:
        assert not change[:, np.tri(8) == 0].any()
    if "max_change" in options:
        assert np.abs(change).max() <= 0.25 + 1e-6
    if "lowpass_radius" in options:
        fine = [og.pixels.high_frequency_energy(jnp.asarray(c), 3.5) for c in change[:1]]
        free = og.synthesize(apply_fn, WEIGHTS, images[:1], rows[:1]).images - images[:1]
        wide = [og.pixels.high_frequency_energy(jnp.asarray(c), 3.5) for c in free]
        assert fine[0] / (change[0] ** 2).mean() < 0.5 * wide[0] / (free[0] ** 2).mean()


def test_restrictions_are_given_to_all_parts():
    solver = og.exact(mask=np.eye(8), max_change=0.1)
    rescued = solver.by_rows(1e-5)
    passes, last = rescued.by.first, rescued.by.second
    for part in (passes.solver, passes.via, passes.later, last):
        assert part.restriction == solver.restriction
        assert part.floor == pytest.approx(1e-6)
    assert rescued.solver.restriction == solver.restriction
    assert solver.without_rows().restriction == solver.restriction
    assert solver.by_rows(1e-3).by.second.floor == pytest.approx(1e-4)
    smooth = og.exact(lowpass_radius=3.0)
    assert smooth.by_rows(1e-5).second.restriction == smooth.restriction


def test_images_that_converge_slowly_arrive_once_they_start_again():
    """Digits halfway to another class, which 120 Jacobians in one go do not bring within 1e-5."""
    rows = [11, 12, 19, 20, 21, 26, 31, 36, 48, 60]
    digits = np.kron(datasets.load_digits().images[rows], np.ones((3, 3))) * (255 / 16)
    images = np.pad(digits, ((0, 0), (2, 2), (2, 2))).round().astype(np.uint8)[..., None]
    network = og.models.from_nnx(pretrained.load("mnist_lenet").model)
    labels = og.predict(*network, images).argmax(1)
    others = (labels + np.random.default_rng(0).integers(1, 10, 64)[rows]) % 10
    halves = np.eye(10, dtype=np.float32)[np.stack([labels, others], 1)].mean(1)
    alone = og.synthesize(
        *network, images, halves, solver=GaussNewton(steps=120), tolerance=TOLERANCE
    )
    assert alone.converged.sum() <= 3
    assert og.synthesize(*network, images, halves).converged.all()


def test_its_tolerance_is_where_it_stops():
    images, rows = sources(4), np.random.default_rng(7).dirichlet(np.ones(5), 4)
    weights = reference.perceptron(SHAPE, steepness=2.8, hidden=HIDDEN)
    problem = reference.perceptron_logits, weights, images, rows
    loose = og.synthesize(*problem, solver=og.exact(tolerance=0.02))
    assert loose.converged.all()
    assert loose.distance.max() > 1e-4
    overridden = og.synthesize(*problem, solver=og.exact(tolerance=0.02), tolerance=1e-5)
    assert overridden.distance.max() <= 1e-5
    assert (overridden.steps > loose.steps).any()


def test_it_is_a_value_and_bad_settings_are_refused():
    assert og.exact() == og.exact(tolerance=1e-5)
    assert hash(og.exact(mask=np.eye(4))) == hash(og.exact(mask=np.eye(4)))
    assert og.exact(mask=np.eye(4)) != og.exact(mask=1 - np.eye(4))
    with pytest.raises(ValueError, match="exact: tolerance must be positive, got 0; 1e-5 is"):
        og.exact(tolerance=0)
    with pytest.raises(ValueError, match="exact: max_change must be positive"):
        og.exact(max_change=-1)


@pytest.mark.parametrize("combined", ["rescued", "restarted", "restarted twice", "via"])
def test_inside_a_combinator_without_a_tolerance_it_keeps_its_own(combined):
    weights = np.random.default_rng(0).normal(0, 0.3, (192, 5)).astype(np.float32)
    images = np.random.default_rng(1).random((2, 8, 8, 3)).astype(np.float32)
    solver = {
        "rescued": og.rescued(POOR, by=og.exact()),
        "restarted": og.restarted(POOR, times=1, later=og.exact()),
        "restarted twice": og.restarted(POOR, times=2, later=og.exact()),
        "via": og.restarted(POOR, times=1, via=og.exact()),
    }[combined]
    wanted = [0.6, 0.2, 0.1, 0.1, 0]
    found = og.synthesize(product, weights, images, wanted, solver=solver)
    assert found.distance.max() <= 1e-5
    assert found.steps.max() < 100


def test_targets_over_a_moderate_number_of_classes_have_a_row_for_each():
    """33 of 33 classes are not "few of many", which Adam would bring near first."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (192, 33)).astype(np.float32)
    images = rng.random((2, 8, 8, 3)).astype(np.float32)
    wanted = rng.dirichlet(np.full(33, 5.0), 2)
    found = og.synthesize(product, weights, images, wanted)
    assert found.converged.all()
    assert found.steps.max() < 60
