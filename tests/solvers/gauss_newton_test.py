"""Gauss-Newton: its equations against closed forms, and the exactness it is there for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from toy_synthesis import linear, linear_weights, problem

import outgen_jax as og
from outgen_jax.solvers import gauss_newton
from outgen_jax.solvers.convex_loss import RatioLoss
from outgen_jax.solvers.gauss_newton import GaussNewton
from outgen_jax.solvers.limits import Limits
from outgen_jax.solvers.objective import Objective

SHAPE = (8, 8, 3)
WEIGHTS = reference.perceptron(SHAPE, steepness=2.8)


def sources(count: int) -> np.ndarray:
    """Random 8-bit images with pure black and pure white in them."""
    images = np.random.default_rng(2).integers(0, 256, (count, *SHAPE), np.uint8)
    images[:, :2], images[:, 2:4] = 0, 255
    return images


def targets(count: int) -> np.ndarray:
    rows = np.random.default_rng(3).dirichlet(np.ones(5), count)
    rows[0] = np.eye(5)[1]
    rows[1] = 0.2
    rows[2] = [0.9, 0, 0, 0.1, 0]
    return rows.astype(np.float32)


# --- the equations ---


def loss_of(target, weight: float) -> RatioLoss:
    """Of one softmax row."""
    target = jnp.asarray(target, jnp.float32)[None]
    return RatioLoss(
        Objective((target,), (og.outputs.softmax(),), (None,)),
        (target,),
        jnp.float32(weight),
        gauss_newton.FLOOR,
    )


def test_far_from_the_target_a_step_goes_a_share_of_polyaks():
    target, ratios = [0.2, 0.3, 0.5], jnp.array([2.0, -1.0])
    size, shortest = 3072, 0.0009 * 3072**0.5

    def reach(gradient_norm, *, weight=0.0, stride=0.25):
        loss = loss_of(target, weight)
        return float(
            GaussNewton(stride=stride)._longest_step(loss, ratios, jnp.float32(gradient_norm), size)
        )

    divergence = loss_of(target, 0.0).divergence(ratios)
    assert reach(0.1) == pytest.approx(float(0.25 * divergence / 0.1), rel=1e-6)
    assert reach(1e3) == pytest.approx(shortest, rel=1e-6)
    assert reach(0.1, weight=0.1) == reach(0.1, stride=None) == np.inf
    assert 0 < reach(0.0) < np.inf  # where nothing depends on the image


def test_a_trial_that_raises_the_loss_or_ends_in_nan_is_not_taken():
    """Rows and radius learn either way."""
    image, rows = jnp.full(4, 0.5), jnp.array([[1.0, 0, 0, 0]])
    box = Limits(jnp.zeros(4), jnp.ones(4), lambda row: row, lambda row: row)
    loss = loss_of([0.5, 0.5], 1.0)
    start = gauss_newton.Trial(image, jnp.ones(1), rows, jnp.float32(1.0))
    for found, moves in ((0.2, True), (5.0, False), (jnp.nan, False)):
        end = GaussNewton()._attempt(
            loss, box, lambda x, r=found: jnp.full(1, r), start, jnp.zeros(4)
        )
        assert bool((end.image != image).any()) == moves
        assert jnp.isfinite(end.jac).all()
        assert (float(end.radius) < 1.0) != moves
        np.testing.assert_allclose(end.r, found if moves else 1.0)


# --- the solver ---


def test_reaches_every_kind_of_target():
    """Random, one-hot, uniform and two-class targets, from images with black and white in them."""
    images, rows = sources(12), targets(12)
    result = og.synthesize(
        reference.perceptron_logits,
        WEIGHTS,
        images,
        rows,
        solver=og.gauss_newton(),
        tolerance=1e-5,
    )
    assert result.converged.all()
    assert result.images.min() >= 0
    assert result.images.max() <= 1


@pytest.mark.parametrize(
    ("stride", "median", "most"), [(None, 3, 10), (gauss_newton.STRIDE, 10, 20)]
)
def test_stops_at_the_tolerance_in_a_few_steps(stride, median, most):
    result = og.synthesize(
        reference.perceptron_logits,
        WEIGHTS,
        sources(12),
        targets(12),
        solver=og.gauss_newton(stride=stride),
        tolerance=1e-4,
    )
    assert result.converged.all()
    assert np.median(result.steps) <= median
    assert result.steps.max() <= most


def test_finds_the_smallest_change_of_a_linear_network():
    """There the answer is known: the projection, J⁺r, where the box does not interfere."""
    rng = np.random.default_rng(4)
    matrix = linear_weights(5, SHAPE)
    images = rng.uniform(0.4, 0.6, (3, *SHAPE)).astype(np.float32)
    rows = rng.dirichlet(np.full(5, 3.0), 3).astype(np.float32)
    result = og.synthesize(linear, matrix, images, rows, solver=og.gauss_newton())
    contrasts = np.asarray(matrix, np.float64)
    contrasts = contrasts - contrasts.mean(1, keepdims=True)
    for image, row, found in zip(images, rows, result.images, strict=True):
        wanted = np.log(row) - np.log(row).mean() - (image.ravel() - 0.5) @ contrasts
        smallest = np.linalg.pinv(contrasts.T) @ wanted
        np.testing.assert_allclose((found - image).ravel(), smallest, atol=1e-4)


def changes(**options) -> tuple[np.ndarray, og.Result]:
    """What the solver did to four images of middling brightness, [4, H, W, C]."""
    images = np.random.default_rng(5).uniform(0.2, 0.8, (4, *SHAPE)).astype(np.float32)
    rows = np.random.default_rng(6).dirichlet(np.full(5, 2.0), 4)
    solver = og.gauss_newton(**options)
    result = og.synthesize(
        reference.perceptron_logits, WEIGHTS, images, rows, solver=solver, tolerance=1e-5
    )
    assert result.converged.all()
    return result.images - images, result


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_mask_leaves_all_else_as_it_was(channels):
    mask = np.zeros((8, 8, *channels))
    mask[2:7, 1:6] = 1
    change, _ = changes(mask=mask)
    assert np.abs(change[:, 2:7, 1:6]).max() > 0.01
    change[:, 2:7, 1:6] = 0
    assert not change.any()


def test_no_pixel_moves_further_than_max_change():
    free, _ = changes()
    limit = 0.7 * np.abs(free).max((1, 2, 3)).min()
    limited, _ = changes(max_change=limit)
    assert np.abs(limited).max() <= limit + 1e-6
    assert (np.abs(limited) > limit - 1e-5).any()


def test_smooth_changes_have_little_fine_detail():
    def detail(change):
        return np.array([og.pixels.high_frequency_energy(jnp.asarray(c), 2.0) for c in change])

    free, _ = changes()
    smooth, _ = changes(lowpass_radius=1.5)
    shares = [detail(change) / (change**2).mean((1, 2, 3)) for change in (free, smooth)]
    assert (shares[1] < shares[0]).all()
    assert shares[1].mean() < 0.6 * shares[0].mean()


def test_shorter_strides_change_less():
    images, rows = sources(24), targets(24)

    def changes(stride):
        solver = og.gauss_newton(stride=stride)
        result = og.synthesize(
            reference.perceptron_logits, WEIGHTS, images, rows, solver=solver, tolerance=1e-4
        )
        assert result.converged.all()
        change = result.images - images / np.float32(255)
        return np.median(np.sqrt((change**2).sum((1, 2, 3)))), result.steps.mean()

    lengths, steps = zip(*(changes(stride) for stride in (None, 2.0, 0.5)), strict=True)
    assert lengths[1] < 0.9 * lengths[0]
    assert lengths[2] < 0.97 * lengths[1]
    assert sorted(steps) == list(steps)


@pytest.mark.parametrize(("stride", "updates"), [(None, 6), (gauss_newton.STRIDE, 40)])
def test_no_step_ever_raises_the_loss(stride, updates):
    solver = og.gauss_newton(trials=2, stride=stride)

    def posed(image, row):
        return problem(reference.perceptron_logits, WEIGHTS, row, image)

    @jax.jit
    @jax.vmap
    def measure(state, row, weight):
        one = posed(state.image, row)
        outputs = one.network(state.image)
        loss = RatioLoss(one.objective, one.objective.goals(outputs), weight, solver.floor)
        return loss.value(one.objective.coordinates(outputs))

    images, rows = jnp.float32(sources(12)) / 255, jnp.asarray(targets(12))
    update = jax.jit(jax.vmap(lambda state, image, row: solver.update(posed(image, row), state)[0]))
    state = jax.vmap(lambda image, row: solver.init(posed(image, row), image))(images, rows)
    first = measure(state, rows, state.weight)
    for _ in range(updates):
        weight, before = state.weight, measure(state, rows, state.weight)
        state = update(state, images, rows)
        last = measure(state, rows, weight)
        assert (last <= before + 1e-7).all()
    assert np.median(last) < 1e-6 * first.min()


def test_a_network_that_ignores_the_image_ends_where_it_began():
    def apply_fn(variables, images):
        return jnp.tile(variables, (len(images), 1)) + 0 * images.sum()

    images = sources(2)
    result = og.synthesize(
        apply_fn, jnp.arange(5.0) - 2, images, targets(5)[3:], solver=og.gauss_newton(steps=2)
    )
    np.testing.assert_allclose(result.images, images / np.float32(255), atol=1e-6)
    assert result.finite.all()
    assert not result.converged.any()


def test_a_jump_to_nan_is_not_taken():
    """Beyond a wall the network answers NaN; the image stays before it."""

    def apply_fn(variables, images):
        flat = images.reshape(len(images), -1)
        logits = flat @ variables
        return jnp.where(flat.mean(-1, keepdims=True) > 0.55, jnp.nan, logits)

    matrix = jnp.zeros((192, 2)).at[:, 1].set(0.1)
    result = og.synthesize(
        apply_fn,
        matrix,
        np.full((1, *SHAPE), 0.5, np.float32),
        np.array([0.0, 1.0]),
        solver=og.gauss_newton(steps=5),
    )
    assert result.finite.all()
    assert 0.5 < result.images.mean() <= 0.55


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"steps": -1},
            "steps must not be negative and trials at least 1, got -1 and 4; the defaults",
        ),
        ({"trials": 0}, "got 40 and 0"),
        ({"max_change": 0}, "max_change must be positive, got 0; None: no limit"),
        ({"lowpass_radius": -2}, "lowpass_radius must be positive, got -2"),
        ({"stride": 0}, "stride must be positive, got 0; None"),
        ({"floor": 0.0}, r"floor must lie in \(0, 0.5\), got 0.0"),
        ({"mask": np.zeros((4, 4))}, r"mask must be .* got 0 such entries in \[4, 4\]; mark"),
        ({"mask": np.ones(4)}, r"mask must be \[H, W\] or \[H, W, C\]"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=f"^gauss_newton: .*{message}"):
        og.gauss_newton(**options)
