"""Gauss–Newton: its equations against closed forms, and the exactness it is there for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from sklearn import datasets

import outgen_jax as og
from outgen_jax.models import pretrained
from outgen_jax.solvers import linearized, newton, newton_step, ratio_loss

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


def test_step_stays_in_the_box_and_no_longer_than_gradient_over_damping():
    rng = np.random.default_rng(2)
    image = jnp.asarray(rng.uniform(0, 1, 40).round(1), jnp.float32)
    box = newton_step.Limits(jnp.zeros(40), jnp.ones(40), lambda row: row)
    rows, offset = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 40), 3))
    target = jnp.array([0.01, 0.97, 0.01, 0.01])
    task = newton_step.Task(target, jnp.float32(0.1), box, None)
    gradient = ratio_loss.slope(target, offset, 0.1) @ rows
    for damping in (1e-3, 0.3, 10.0):
        step = newton_step.bounded_step(
            task, image, offset, rows, jnp.float32(damping), jnp.zeros(40)
        )
        assert (image + step >= -1e-6).all()
        assert (image + step <= 1 + 1e-6).all()
        assert jnp.linalg.norm(step) <= jnp.linalg.norm(gradient) / damping * (1 + 1e-5)
    # The least damped one meets the sides and still reaches the target of the linear model.
    step = newton_step.bounded_step(task, image, offset, rows, jnp.float32(1e-4), jnp.zeros(40))
    moved = image + step
    at_sides = [((x < 1e-6) | (x > 1 - 1e-6)).sum() for x in (image, moved)]
    assert at_sides[1] > at_sides[0]
    reached = jax.nn.softmax(jnp.append(0.0, offset + rows @ step))
    np.testing.assert_allclose(reached, target, atol=0.02)


def test_a_given_step_does_not_cost_the_target():
    """Where the output is right already, Jᵀλ makes up for whatever the given part does to it."""
    rng = np.random.default_rng(8)
    image, given = (
        jnp.asarray(rng.uniform(*side, 40), jnp.float32) for side in ((0.4, 0.6), (-0.1, 0.1))
    )
    box = newton_step.Limits(jnp.zeros(40), jnp.ones(40), lambda row: row)
    rows = jnp.asarray(rng.normal(size=(3, 40)), jnp.float32)
    target = jnp.array([0.4, 0.2, 0.3, 0.1])
    offset = jnp.log(target[1:] / 0.4)
    task = newton_step.Task(target, jnp.float32(0.1), box, None)
    step = newton_step.bounded_step(task, image, offset, rows, jnp.float32(1e-6), given)
    np.testing.assert_allclose(rows @ step, np.zeros(3), atol=1e-4)
    away = (
        rows.T @ np.linalg.lstsq(np.asarray(rows.T), np.asarray(given))[0]
    )  # what lay in their span
    np.testing.assert_allclose(step, given - away, atol=1e-4)


def test_far_from_the_target_a_step_goes_a_share_of_polyaks():
    target, ratios = jnp.array([0.2, 0.3, 0.5]), jnp.array([2.0, -1.0])
    divergence = linearized.divergence(target, ratios)
    size, shortest = 3072, 0.0009 * 3072**0.5

    def reach(steepness, *, weight=0.0, stride=0.25):
        box = newton_step.Limits(jnp.zeros(size), jnp.ones(size), lambda row: row)
        task = newton_step.Task(target, jnp.float32(weight), box, stride)
        return float(newton_step.reach(task, ratios, jnp.float32(steepness), size))

    assert reach(0.1) == pytest.approx(float(0.25 * divergence / 0.1), rel=1e-6)
    assert reach(1e3) == pytest.approx(shortest, rel=1e-6)
    assert reach(0.1, weight=0.1) == reach(0.1, stride=None) == np.inf
    assert 0 < reach(0.0) < np.inf  # where nothing depends on the image


def test_radius_follows_the_agreement():
    radius, length = jnp.float32(0.4), jnp.float32(0.2)
    answers = {0.9: 1.2, 0.5: 0.4, 0.1: 0.1, -0.1: 0.05, np.nan: 0.05}
    for agreement, expected in answers.items():
        np.testing.assert_allclose(newton_step.next_radius(radius, length, agreement), expected)
    lost = newton_step.next_radius(radius, jnp.float32(np.nan), jnp.float32(np.nan))
    np.testing.assert_allclose(lost, 0.1)


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


def test_images_that_creep_arrive_once_they_have_wandered(monkeypatch):
    """Digits halfway to another class, which 48 Jacobians do not bring within 1e-5, nor 120 without a walk."""
    rows = [11, 12, 19, 20, 21, 26, 31, 36, 48, 60]
    digits = np.kron(datasets.load_digits().images[rows], np.ones((3, 3))) * (255 / 16)
    images = np.pad(digits, ((0, 0), (2, 2), (2, 2))).round().astype(np.uint8)[..., None]
    network = og.models.from_nnx(pretrained.load("mnist_lenet").model)
    labels = og.predict(*network, images).argmax(1)
    others = (labels + np.random.default_rng(0).integers(1, 10, 64)[rows]) % 10
    halves = np.eye(10, dtype=np.float32)[np.stack([labels, others], 1)].mean(1)

    def arrived(steps):
        solver = newton._solver(newton._Options(steps, 4, 32, newton.STRIDE, None, None))
        return og.synthesize(*network, images, halves, solver=solver, tolerance=1e-5).converged

    assert arrived(120).sum() >= 8
    monkeypatch.setattr(newton, "_PASS", 1000)
    assert arrived(120).sum() <= 2


def test_steers_the_classes_of_a_large_target_and_the_rest_as_one():
    """Two classes by themselves, 0.9 and 0.1; three others are wanted with 0 and steered together."""
    images, rows = sources(4), np.tile(targets(3)[2], (4, 1))
    result = og.synthesize(
        reference.perceptron_logits,
        WEIGHTS,
        images,
        rows,
        solver=og.gauss_newton(classes=2),
        tolerance=1e-3,
    )
    assert result.converged.all()


@pytest.mark.parametrize(("stride", "median", "most"), [(None, 3, 10), (newton.STRIDE, 10, 20)])
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
    matrix = jnp.asarray(rng.normal(size=(192, 5)) / 4, jnp.float32)

    def apply_fn(variables, images):
        return images.reshape(len(images), -1) @ variables

    images = rng.uniform(0.4, 0.6, (3, *SHAPE)).astype(np.float32)
    rows = rng.dirichlet(np.full(5, 3.0), 3).astype(np.float32)
    result = og.synthesize(apply_fn, matrix, images, rows, solver=og.gauss_newton())
    contrasts = np.asarray(matrix, np.float64)
    contrasts = contrasts - contrasts.mean(1, keepdims=True)
    for image, row, found in zip(images, rows, result.images, strict=True):
        wanted = np.log(row) - np.log(row).mean() - image.ravel() @ contrasts
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


@pytest.mark.parametrize(("stride", "updates"), [(None, 6), (newton.STRIDE, 40)])
def test_no_step_ever_raises_the_loss(stride, updates):
    solver = og.gauss_newton(trials=2, stride=stride)

    def network(image):
        return reference.perceptron_logits(WEIGHTS, image[None])[0]

    def loss(image, target, weight):
        classes = linearized.leading_classes(target, newton.CLASSES)
        ratios = linearized.log_ratios(network(image), classes)
        return ratio_loss.loss(linearized.group(target, classes), ratios, weight)

    images, rows = jnp.float32(sources(12)) / 255, jnp.asarray(targets(12))
    state = jax.vmap(solver.init)(images, rows)
    update = jax.jit(jax.vmap(lambda state, row: solver.update(network, state, row)[0]))
    measure = jax.jit(jax.vmap(loss))
    first = measure(images, rows, state.weight)
    for _ in range(updates):
        weight, before = state.weight, measure(state.image, rows, state.weight)
        state = update(state, rows)
        last = measure(state.image, rows, weight)
        assert (last <= before + 1e-7).all()
    assert np.median(last) < 1e-6 * first.min()


def test_downhill_a_lasting_slope_brings_steps_to_their_length():
    slope = jnp.array([3e-6, 0.0, -4e-6])  # however small
    step = jnp.zeros(3)
    for count in range(1, 60):
        step = newton_step.downhill(slope, step, jnp.float32(0.5))
        np.testing.assert_allclose(
            step, [-0.3 * (1 - 0.9**count), 0, 0.4 * (1 - 0.9**count)], atol=1e-6
        )
    np.testing.assert_allclose(newton_step.downhill(0 * slope, step, jnp.float32(0.5)), 0.9 * step)


def test_wandering_steps_shrink_from_a_share_of_the_change_to_none():
    options = newton._Options(200, 4, 32, 0.5, None, None)
    state = newton._init(options, jnp.zeros(SHAPE), jnp.full(5, 0.2))
    state = state._replace(image=jnp.zeros(SHAPE).at[0, 0].set([0.2, 0.4, 0.4]))  # L2 of 0.6
    lengths = [
        float(newton._wandering_length(state._replace(age=jnp.int32(newton._PASS + k))))
        for k in range(newton._WANDER + 1)
    ]
    np.testing.assert_allclose(
        lengths, np.linspace(0.6 * newton._SHARE, 0, len(lengths)), atol=1e-6
    )


def test_an_image_that_wanders_moves_where_the_loss_rises_too_but_not_to_nan():
    """One step onto a higher loss, wandering and not, and one of wandering onto NaN."""
    image, rows = jnp.full(4, 0.5), jnp.array([[1.0, 0, 0, 0]])
    box = newton_step.Limits(jnp.zeros(4), jnp.ones(4), lambda row: row)
    target = jnp.array([0.5, 0.5])
    start = newton_step.Trial(image, jnp.zeros(1) + 1.0, rows, jnp.float32(1.0), jnp.zeros(4))
    for found, wanders, moves in [(5.0, True, True), (5.0, False, False), (jnp.nan, True, False)]:
        task = newton_step.Task(target, jnp.float32(1), box, None, wanders)
        end = newton_step.attempt(lambda x, r=found: jnp.full(1, r), start, task, jnp.zeros(4))
        assert bool((end.image != image).any()) == moves
        assert jnp.isfinite(end.rows).all()
        assert (float(end.radius) == 1.0) == wanders
    np.testing.assert_allclose(newton_step.downhill(rows[0], jnp.zeros(4), 1.0), [-0.1, 0, 0, 0])


def test_an_image_starts_again_once_it_has_wandered():
    """As at first, but for where it is, where it came from and how soon it wanders again; and not before."""
    options = newton._Options(40, 4, 32, 0.5, None, None)
    rng = np.random.default_rng(0)
    source, image, step = (jnp.asarray(rng.random(SHAPE, np.float32)) for _ in range(3))
    target = jnp.full(5, 0.2)
    first = newton._init(options, source, target)
    age = newton._PASS + newton._WANDER
    numbers = (jnp.float32(1e-4), jnp.float32(1e-4), jnp.int32(age))
    late = newton.NewtonState(image, source, step, jnp.ones_like(first.rows), *numbers)
    again = newton._restarted(options, late, target)
    np.testing.assert_array_equal(again.image, image)
    np.testing.assert_array_equal(again.source, source)
    for name in ("rows", "radius", "weight"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name), err_msg=name)
    assert again.age == newton._PASS - newton._LATER_PASS
    np.testing.assert_array_equal(again.step, jnp.zeros(SHAPE))
    for earlier_age in (1, newton._PASS, age - 1):
        earlier = late._replace(age=jnp.int32(earlier_age))
        for new, old in zip(newton._restarted(options, earlier, target), earlier, strict=True):
            np.testing.assert_array_equal(new, old)


def test_a_network_that_ignores_the_image_ends_where_it_began():
    def apply_fn(variables, images):
        return jnp.tile(variables, (len(images), 1)) + 0 * images.sum()

    images = sources(2)
    result = og.synthesize(
        apply_fn, jnp.arange(5.0), images, targets(5)[3:], solver=og.gauss_newton(steps=2)
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


def test_equal_settings_are_one_solver_and_bad_ones_are_refused():
    assert og.gauss_newton() is og.gauss_newton(steps=newton.STEPS, trials=newton.TRIALS)
    with pytest.raises(ValueError, match="trials and classes at least 1, got -1, 4 and 32"):
        og.gauss_newton(steps=-1)
    with pytest.raises(ValueError, match="got 3, 0 and 32"):
        og.gauss_newton(steps=3, trials=0)
    with pytest.raises(ValueError, match="max_change must be positive, got 0; None: no limit"):
        og.gauss_newton(max_change=0)
    with pytest.raises(ValueError, match="lowpass_radius must be positive, got -2"):
        og.gauss_newton(lowpass_radius=-2)
    with pytest.raises(ValueError, match="stride must be positive, got 0"):
        og.gauss_newton(stride=0)
    with pytest.raises(ValueError, match=r"mask must be .* got 0 such entries in \[4, 4\]"):
        og.gauss_newton(mask=np.zeros((4, 4)))
