"""Losses against scipy in float64, their limits and their gradients."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from outgen_jax import losses

logits_and_targets = hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, 5, elements=st.floats(-30, 30, width=32)),
    hypothesis.extra.numpy.arrays(np.float64, 5, elements=st.sampled_from([0, 0.25, 1, 3])).filter(
        np.any
    ),
)
few = hypothesis.settings(max_examples=40, deadline=None)

# Compiled, since every operation of an eager gradient would be a program of its own.
VALUE_AND_SLOPE = {
    loss: jax.jit(jax.value_and_grad(loss))
    for loss in (
        losses.cross_entropy,
        losses.kl_divergence,
        losses.intermediate_constraint,
        losses.intermediate_mse,
        losses.jensen_shannon,
    )
}
jensen_shannon = VALUE_AND_SLOPE[losses.jensen_shannon]
replaced_data = jax.jit(losses.replaced_data, static_argnames="printed_smoothing")


def normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


@few
@logits_and_targets
def test_cross_entropy_equals_scipy(logits, weights):
    target = normalised(weights)
    expected = -(target * scipy.special.log_softmax(logits.astype(np.float64))).sum()
    np.testing.assert_allclose(
        losses.cross_entropy(logits, jnp.float32(target)), expected, rtol=1e-5, atol=1e-5
    )


@few
@logits_and_targets
def test_kl_divergence_equals_scipy(logits, weights):
    target = normalised(weights)
    expected = scipy.stats.entropy(target, scipy.special.softmax(logits.astype(np.float64)))
    value = losses.kl_divergence(logits, jnp.float32(target))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@few
@logits_and_targets
def test_gradients_are_softmax_minus_target(logits, weights):
    target = normalised(weights).astype(np.float32)
    expected = scipy.special.softmax(logits.astype(np.float64)) - target
    for loss in (losses.cross_entropy, losses.kl_divergence):
        _, slope = VALUE_AND_SLOPE[loss](logits, target)
        np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_kl_divergence_vanishes_at_the_target_alone():
    target = jnp.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(losses.kl_divergence(jnp.log(target) + 3, target), 0, atol=1e-6)
    assert losses.kl_divergence(jnp.log(target[::-1]), target) > 0.5


def test_kl_divergence_is_from_target_to_output():
    target, logits = jnp.array([1.0, 0]), jnp.array([0.0, 0])
    np.testing.assert_allclose(losses.kl_divergence(logits, target), np.log(2), rtol=1e-6)


def test_the_logits_come_first_in_all_losses():
    """Swapped arguments have the same shapes, and other values: here those of distributions, too."""
    p, q = np.array([0.7, 0.2, 0.1], np.float32), np.array([0.1, 0.3, 0.6], np.float32)
    x, log_q = np.log(p) + 2, np.log(q)
    expected = {
        losses.cross_entropy: ((x, q), -(q * np.log(p)).sum()),
        losses.kl_divergence: ((x, q), scipy.stats.entropy(q, p)),
        losses.printed_kl_divergence: ((x, log_q), scipy.stats.entropy(p, q)),
    }
    for loss, (arguments, value) in expected.items():
        np.testing.assert_allclose(loss(*arguments), value, rtol=1e-5)
        assert abs(loss(*arguments[::-1]) - value) > 0.1, loss.__name__


@pytest.mark.parametrize("target", [[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 1, 0]])
def test_extreme_logits_stay_finite(target):
    logits, q = jnp.array([1e4, 0, -1e4]), jnp.array(target, jnp.float32)
    expected = float(q[1] * 1e4 + q[2] * 2e4)  # log softmax is 0, −1e4, −2e4 here
    np.testing.assert_allclose(losses.cross_entropy(logits, q), expected, rtol=1e-6)
    entropy = scipy.stats.entropy(target)
    np.testing.assert_allclose(losses.kl_divergence(logits, q), expected - entropy, rtol=1e-4)
    for loss in (losses.cross_entropy, losses.kl_divergence):
        _, slope = VALUE_AND_SLOPE[loss](logits, q)
        np.testing.assert_array_equal(slope, jnp.array([1, 0, 0]) - q)


def test_losses_under_jit_and_vmap_equal_the_loop():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (6, 4)).astype(np.float32)
    targets = rng.dirichlet(np.ones(4), 6).astype(np.float32)
    for loss in (losses.cross_entropy, losses.kl_divergence):
        mapped = jax.jit(jax.vmap(loss))(logits, targets)
        loop = [loss(x, q) for x, q in zip(logits, targets, strict=True)]
        np.testing.assert_allclose(mapped, loop, rtol=1e-5, atol=1e-6)


# --- training on replaced data ---


def batch(n: int = 6, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`logits, labels, teacher_logits, generated`, both kinds of row in it."""
    rng = np.random.default_rng(1)
    logits, teacher = rng.normal(0, 2, (2, n, classes)).astype(np.float32)
    return logits, rng.integers(0, classes, n), teacher, np.arange(n) % 3 == 0


def replaced_data_float64(logits, labels, teacher, generated, smoothing=None) -> float:
    """Eq. A9 case by case."""
    total = 0.0
    for z, y, q, is_new in zip(logits, labels, teacher, generated, strict=True):
        p, t = scipy.special.softmax(np.float64(z)), np.eye(len(z))[y]
        target = scipy.special.softmax(np.float64(q)) if is_new else t
        if smoothing is None:
            divergence = scipy.stats.entropy(target, p)
        else:
            target = target if is_new else (1 - smoothing) * t + smoothing / len(t)
            divergence = scipy.stats.entropy(p, target)
        total += 0.5 * divergence - 0.5 * np.log(p[y])
    return total / len(logits)


def central_differences(f, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Gradient of `f`, a float64 function of one array."""
    x = np.float64(x)
    gradient = np.empty_like(x)
    for place in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[place] = step
        gradient[place] = (f(x + shift) - f(x - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("smoothing", [None, 0.1, 1e-4])
def test_replaced_data_and_its_gradient_equal_float64(smoothing):
    logits, *rest = batch()

    def loss(z):
        return losses.replaced_data(z, *rest, printed_smoothing=smoothing)

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    expected = replaced_data_float64(logits, *rest, smoothing)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    differences = central_differences(lambda z: replaced_data_float64(z, *rest, smoothing), logits)
    np.testing.assert_allclose(gradient, differences, atol=1e-5)


def test_labels_of_few_bits_name_one_class():
    """uint8 cannot count to 259, which 3 would name as well."""
    logits = np.random.default_rng(2).normal(size=(2, 600)).astype(np.float32)
    labels, none = np.array([3, 200], np.uint8), np.zeros(2, bool)
    found = replaced_data(logits, labels, logits, none)
    np.testing.assert_allclose(found, replaced_data(logits, np.int32(labels), logits, none))
    np.testing.assert_array_equal(losses.one_hot(labels, 600).argmax(-1), labels)
    np.testing.assert_array_equal(losses.one_hot(labels, 600).sum(-1), 1)


def test_replaced_data_takes_labels_that_a_compiled_function_closes_over():
    logits, *rest = batch()
    given = [jnp.asarray(x) for x in rest]
    found = jax.jit(lambda z: losses.replaced_data(z, *given))(logits)
    np.testing.assert_allclose(found, replaced_data_float64(logits, *rest), rtol=1e-5)


def test_replaced_data_by_hand():
    even, label = jnp.zeros((1, 2)), jnp.array([0])
    teacher = jnp.log(jnp.array([[0.9, 0.1]]))
    divergence = np.log(2) + 0.9 * np.log(0.9) + 0.1 * np.log(0.1)
    expected = 0.5 * divergence + 0.5 * np.log(2)
    value = replaced_data(even, label, teacher, jnp.array([True]))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    printed = 0.5 * (0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)) + 0.5 * np.log(2)
    value = replaced_data(even, label, teacher, jnp.array([True]), printed_smoothing=0.2)
    np.testing.assert_allclose(value, printed, rtol=1e-6)
    # Smoothed by 0.2, the label's own target is 0.9 and 0.1 too.
    value = replaced_data(even, label, teacher, jnp.array([False]), printed_smoothing=0.2)
    np.testing.assert_allclose(value, printed, rtol=1e-6)


def test_original_images_alone_cost_the_cross_entropy():
    logits, labels, teacher, generated = batch()
    expected = -scipy.special.log_softmax(np.float64(logits), -1)[np.arange(6), labels].mean()
    value = losses.replaced_data(logits, labels, teacher, np.zeros_like(generated))
    np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_replaced_data_does_not_read_the_teacher_of_original_images(smoothing):
    logits, labels, teacher, generated = batch()
    without = np.where(generated[:, None], teacher, np.nan)

    def loss(z, q):
        return losses.replaced_data(z, labels, q, generated, printed_smoothing=smoothing)

    of_both = jax.jit(jax.value_and_grad(loss, (0, 1)))
    expected, slope = jax.jit(jax.value_and_grad(loss))(logits, teacher)
    for given in (teacher, without):
        value, gradients = of_both(logits, given)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(gradients[0], slope, rtol=1e-6)
        np.testing.assert_array_equal(gradients[1], 0)  # the teacher is frozen


@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_replaced_data_stays_finite_at_extreme_logits(smoothing):
    logits = jnp.array([[1e4, 0, -1e4]] * 2)
    labels, generated = jnp.array([2, 2]), jnp.array([True, False])

    def loss(z):
        return losses.replaced_data(z, labels, -logits, generated, printed_smoothing=smoothing)

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    # D_KL, both rows: either direction from a certain teacher; the printed one from the smoothed label.
    original = 2e4 if smoothing is None else -np.log(0.1 / 3)
    np.testing.assert_allclose(value, (0.5 * (2e4 + original) + 2e4) / 2, rtol=1e-6)
    assert np.isfinite(gradient).all()


BAD_BATCHES = {
    "shapes": (lambda z, y, q, g: (z, y, q[:, :3], g), r"they have \[6, 4\], \[6, 3\], \[6\]"),
    "one-hot labels": (lambda z, y, q, g: (z, np.eye(4)[y], q, g), r"labels and generated \[B\]"),
    "a single example": (lambda z, y, q, g: (z[0], y[0], q[0], g[0]), "one row per image"),
    "rows of images": (lambda z, y, q, g: (z, y, q, np.arange(6)), "generated must be bool"),
    "label of K": (lambda z, y, q, g: (z, y * 0 + 4, q, g), r"in 0\.\.3; row 0 has 4"),
    "negative label": (lambda z, y, q, g: (z, y - y[1] - 1, q, g), r"has -"),
    "half a label": (lambda z, y, q, g: (z, y + 0.5, q, g), r"labels must be integers.*float"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_replaced_data_rejects(case):
    change, message = BAD_BATCHES[case]
    with pytest.raises(ValueError, match=rf"replaced_data: .*{message}"):
        losses.replaced_data(*change(*batch()))


@pytest.mark.parametrize("place", range(4))
def test_replaced_data_rejects_what_is_no_array(place):
    arguments = list(batch())
    arguments[place] = arguments[place].tolist()
    name = ("logits", "labels", "teacher_logits", "generated")[place]
    with pytest.raises(TypeError, match=f"replaced_data: {name} must be an array, got list; pass"):
        losses.replaced_data(*arguments)


def test_replaced_data_of_short_floats_is_computed_in_float32():
    logits, labels, teacher, generated = batch()
    short, short_teacher = (jnp.asarray(x, jnp.bfloat16) for x in (logits, teacher))
    value = replaced_data(short, labels, short_teacher, generated)
    wide = (x.astype(jnp.float32) for x in (short, short_teacher))
    expected = replaced_data(next(wide), labels, next(wide), generated)
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("smoothing", [0, 1, -0.1, float("nan")])
def test_replaced_data_rejects_smoothing(smoothing):
    with pytest.raises(ValueError, match=r"printed_smoothing must be in \(0, 1\)"):
        losses.replaced_data(*batch(), printed_smoothing=smoothing)


# --- the intermediate constraint ---


def constraint_float64(distorted, undistorted, gain) -> float:
    z = gain * np.float64(distorted)
    return np.logaddexp(0, np.where(undistorted > 0, -z, z)).mean()


@few
@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, (2, 3), elements=st.floats(-3, 3, width=32)),
    hypothesis.extra.numpy.arrays(np.float32, (2, 3), elements=st.sampled_from([-2, -1e-9, 0, 5])),
    st.sampled_from([0.5, 1.0, 100.0]),
)
def test_intermediate_constraint_equals_float64(distorted, undistorted, gain):
    value = losses.intermediate_constraint(distorted, undistorted, gain=gain)
    expected = constraint_float64(distorted, undistorted, gain)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-12)


def test_intermediate_constraint_by_hand():
    distorted, undistorted = jnp.array([0.02, -0.03, 0.0]), jnp.array([1.0, 2.0, -1.0])
    d = 1 / (1 + np.exp(-100 * np.array([0.02, -0.03, 0.0])))
    expected = -(np.log(d[0]) + np.log(d[1]) + np.log(1 - d[2])) / 3
    value = losses.intermediate_constraint(distorted, undistorted)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    # A neuron at 0 counts as off.
    off = losses.intermediate_constraint(jnp.array([-1.0]), jnp.array([0.0]))
    np.testing.assert_allclose(off, 0, atol=1e-30)


@pytest.mark.parametrize("gain", [2.0, 100.0])
def test_gradient_of_the_intermediate_constraint(gain):
    rng = np.random.default_rng(2)
    undistorted = rng.normal(size=(3, 4))
    distorted = rng.normal(0, 3 / gain, (3, 4)).astype(np.float32)

    def loss(h):
        return losses.intermediate_constraint(h, undistorted, gain=gain)

    gradient = jax.jit(jax.grad(loss))(distorted)
    differences = central_differences(
        lambda h: constraint_float64(h, undistorted, gain), distorted, step=1e-4 / gain
    )
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-6 * gain)
    closed = gain * (scipy.special.expit(gain * np.float64(distorted)) - (undistorted > 0)) / 12
    np.testing.assert_allclose(gradient, closed, rtol=1e-4, atol=1e-7 * gain)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_intermediate_constraint_holds_at_a_million(dtype):
    distorted = jnp.array([1e4, -1e4, 1e4, -1e4], dtype)
    undistorted = jnp.array([1, -1, -1, 1], dtype)
    exact = 100 * np.abs(np.asarray(distorted, np.float64)).mean() / 2  # half are on the wrong side
    value, gradient = VALUE_AND_SLOPE[losses.intermediate_constraint](distorted, undistorted)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    np.testing.assert_array_equal(gradient, jnp.array([0, 0, 25, -25], dtype))


def test_gain_may_be_traced_and_learned():
    rng = np.random.default_rng(3)
    undistorted, distorted = rng.normal(size=(2, 3, 4))

    def of_gain(gain):
        return losses.intermediate_constraint(distorted.astype(np.float32), undistorted, gain=gain)

    value, slope = jax.jit(jax.value_and_grad(of_gain))(2.0)
    expected = constraint_float64(distorted, undistorted, 2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    above, below = (constraint_float64(distorted, undistorted, 2 + s) for s in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-4)


@few
@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32)),
    hypothesis.extra.numpy.arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32)),
)
def test_intermediate_mse_equals_float64(distorted, undistorted):
    difference = np.float64(distorted) - np.float64(undistorted)
    value, gradient = VALUE_AND_SLOPE[losses.intermediate_mse](distorted, undistorted)
    np.testing.assert_allclose(value, (difference**2).mean(), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(gradient, difference / 3, rtol=1e-5, atol=1e-6)  # 2/N with N = 6


def test_intermediate_mse_computes_in_float32():
    value = losses.intermediate_mse(
        jnp.array([300.0], jnp.float16), jnp.array([-300.0], jnp.float16)
    )
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 360_000)  # beyond float16


LAYERS = {"fc1": np.float32([[0.1, -0.2, 0.3]]), "fc2": np.float32([[-0.4]])}
ORIGINALS = {"fc2": np.float32([[1.0]]), "fc1": np.float32([[1.0, 1.0, -1.0]])}


@pytest.mark.parametrize("loss", [losses.intermediate_constraint, losses.intermediate_mse])
def test_every_neuron_counts_the_same_over_layers(loss):
    together = [np.concatenate([h["fc1"], h["fc2"]], axis=1) for h in (LAYERS, ORIGINALS)]
    value = losses.mean_over_layers(loss, LAYERS, ORIGINALS)
    np.testing.assert_allclose(value, loss(*together), rtol=1e-6)


def test_layers_count_by_their_weights():
    each = [losses.intermediate_mse(LAYERS[name], ORIGINALS[name]) for name in ("fc1", "fc2")]
    for weights in ({"fc1": 1, "fc2": 3}, {"fc1": 0.25, "fc2": 0.75}):
        value = losses.mean_over_layers(losses.intermediate_mse, LAYERS, ORIGINALS, weights=weights)
        np.testing.assert_allclose(value, (each[0] + 3 * each[1]) / 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("ours", "weights", "message"),
    [
        ({}, {}, "the same layers, one at least"),
        ({"fc1": LAYERS["fc1"]}, None, r"the same layers.*\['fc1'\], \['fc2', 'fc1'\]"),
        (LAYERS, {"fc1": 1.0}, "the same layers"),
        (LAYERS, {"fc1": 1.0, "fc2": -1.0}, "must not be negative, nor all 0"),
        (LAYERS, {"fc1": 0.0, "fc2": 0.0}, "must not be negative, nor all 0"),
    ],
)
def test_mean_over_layers_rejects(ours, weights, message):
    with pytest.raises(ValueError, match=f"mean_over_layers: .*{message}"):
        losses.mean_over_layers(losses.intermediate_mse, ours, ORIGINALS, weights=weights)


@pytest.mark.parametrize("loss", [losses.intermediate_mse, losses.intermediate_constraint])
def test_constraints_reject_other_neurons(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: .*one shape; they have \[4, 3\]"):
        loss(jnp.zeros((4, 3)), jnp.zeros(3))


@pytest.mark.parametrize("loss", [losses.intermediate_mse, losses.intermediate_constraint])
def test_constraints_name_what_is_no_array(loss):
    with pytest.raises(
        TypeError, match=r"undistorted must be an array, got list; pass jnp.asarray"
    ):
        loss(jnp.zeros(2), [0.0, 1.0])


# --- the consistency of views ---


@few
@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float32, (3, 4), elements=st.floats(-30, 30, width=32))
)
def test_jensen_shannon_equals_float64(logits):
    p = scipy.special.softmax(np.float64(logits), axis=1)
    expected = scipy.stats.entropy(p.mean(0)) - scipy.stats.entropy(p, axis=1).mean()
    value, _ = jensen_shannon(logits)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=2e-6)
    assert -1e-6 < value < np.log(3) + 1e-5


def test_jensen_shannon_of_a_class_that_is_switched_off_in_all_views():
    views = np.array([[0.0, 1, -np.inf], [1, 0, -np.inf]], np.float32)
    value, gradient = jensen_shannon(views)
    expected, slope = jensen_shannon(views[:, :2])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, 2], 0)
    np.testing.assert_allclose(gradient[:, :2], slope, atol=1e-6)


def test_jensen_shannon_at_its_limits():
    value, gradient = jensen_shannon(1e4 * np.eye(3, dtype=np.float32))  # each view is certain
    np.testing.assert_allclose(value, np.log(3), rtol=1e-6)
    assert np.isfinite(gradient).all()
    equal = np.array([[1, 2, 3]] * 3, np.float32)
    value, gradient = jensen_shannon(equal)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    np.testing.assert_allclose(jensen_shannon(equal + 5)[0], 0, atol=1e-6)


def test_divergence_is_resolved_below_float32_noise():
    """What tells the better of two nearly exact images apart."""
    target = np.array([0.5, 0.25, 0.25], np.float32)  # sums to 1 without rounding
    logits = np.log(target) + np.array([1e-5, -2e-5, 0], np.float32)
    log_probs = np.float64(logits) - np.log(np.exp(np.float64(logits)).sum())
    exact = np.float64(target) @ (np.log(np.float64(target)) - log_probs)
    assert exact < 1e-9
    np.testing.assert_allclose(losses.kl_divergence(logits, target), exact, rtol=0.02)


def test_probabilities_of_zero_cost_nothing_and_leave_gradients_finite():
    views = np.array([[0.0, -np.inf], [0.0, 0.0]], np.float32)
    p, m = np.array([[1, 0], [0.5, 0.5]]), np.array([0.75, 0.25])
    by_hand = scipy.special.rel_entr(p, m).sum(-1).mean()
    value, gradient = jensen_shannon(views)
    assert value == pytest.approx(by_hand, rel=1e-5)
    assert np.isfinite(gradient).all()
    printed = losses.printed_kl_divergence(views[0], np.log(np.float32([0.5, 0.5])))
    assert printed == pytest.approx(np.log(2), rel=1e-5)
