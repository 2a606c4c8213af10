"""Kinds of output: each against its definition in float64, its derivatives against differences of that."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from toy_synthesis import SHAPE, linear, linear_weights

import outgen_jax as og
from outgen_jax.outputs import labels
from outgen_jax.targets import partial

SOFTMAX, SIGMOID, VALUES = og.outputs.softmax(), og.outputs.sigmoid(), og.outputs.values(scale=0.5)
FREE = np.nan
# Kind, and targets of four entries: full, with entries at the edge, and partly free.
CASES = [
    (SOFTMAX, [0.4, 0.3, 0.2, 0.1]),
    (SOFTMAX, [0.7, 0.3, 0.0, 0.0]),
    (SOFTMAX, [0.5, FREE, 0.2, FREE]),
    (SIGMOID, [0.4, 0.9, 0.02, 0.5]),
    (SIGMOID, [0.0, 1.0, 0.3, FREE]),
    (VALUES, [0.3, -2.0, 5.0, 0.0]),
    (VALUES, [FREE, -2.0, FREE, 0.0]),
]
each_case = pytest.mark.parametrize(("kind", "target"), CASES)
OUTPUT = np.array([0.7, -1.2, 0.1, 1.9])


def oracle(kind, output, target) -> float:
    """The divergence in float64."""
    named = ~np.isnan(target)
    if kind == SIGMOID:
        p, q = special.expit(output[named]), target[named]
        return (special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p)).sum()
    if kind == VALUES:
        return (((output - target)[named] / VALUES.scale) ** 2).mean() / 2
    p = special.softmax(output)
    grouped = (special.rel_entr(target[named], p[named])).sum()
    if named.all():
        return grouped
    return grouped + special.rel_entr(1 - target[named].sum(), p[~named].sum())


def differences(function, x: np.ndarray, size: float = 1e-5) -> np.ndarray:
    """Central differences of a function of [N], along its axis."""
    columns = [
        (np.asarray(function(x + e)) - np.asarray(function(x - e))) / (2 * size)
        for e in size * np.eye(len(x))
    ]
    return np.stack(columns, -1)


def compiled(
    method: str, *, slope: bool = False, static: tuple[int, ...] = (0,)
) -> Callable[..., jax.Array]:
    """`function(kind, ...)`: a method, or its gradient, as one program; eagerly, every operation would be one."""

    def function(kind, *arguments):
        of = getattr(kind, method)
        return (jax.grad(of) if slope else of)(*arguments)

    return jax.jit(function, static_argnums=static)


DIVERGENCE, DIVERGENCE_AT = compiled("divergence"), compiled("divergence_at")
GRADIENT_AT, HESSIAN_AT = compiled("gradient_at"), compiled("hessian_at")
SLOPE_OF_DIVERGENCE, SLOPE_OF_LOSS = (
    compiled("divergence", slope=True),
    compiled("loss", slope=True),
)
DISTANCE, ERRORS = compiled("distance"), compiled("errors")
COORDINATES, GOAL = compiled("coordinates", static=(0, 3)), compiled("goal", static=(0, 3))


def f32(x) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


# --- what is far from what ---


@each_case
def test_divergence_and_loss_and_their_gradients(kind, target):
    target = np.array(target)
    expected = oracle(kind, OUTPUT, target)
    np.testing.assert_allclose(DIVERGENCE(kind, f32(OUTPUT), f32(target)), expected, rtol=1e-5)
    gradient = differences(lambda o: oracle(kind, o, target), OUTPUT)
    for slope in (SLOPE_OF_DIVERGENCE, SLOPE_OF_LOSS):  # equal up to a constant
        found = slope(kind, f32(OUTPUT), f32(target))
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)


@each_case
def test_distance(kind, target):
    target = np.array(target)
    named = ~np.isnan(target)
    if kind == SOFTMAX:
        p = special.softmax(OUTPUT)
        rest = abs(p[~named].sum() - (1 - target[named].sum()))  # free classes count as one
        expected = (np.abs(p - target)[named].sum() + rest) / 2
    elif kind == SIGMOID:
        expected = np.abs(special.expit(OUTPUT) - target)[named].max()
    else:
        expected = np.sqrt((((OUTPUT - target)[named] / 0.5) ** 2).mean())
    np.testing.assert_allclose(DISTANCE(kind, f32(OUTPUT), f32(target)), expected, rtol=1e-5)


@each_case
def test_nothing_is_left_at_the_target(kind, target):
    if kind == SOFTMAX:
        p = partial.complete(f32(target), f32(OUTPUT))
        at = jnp.log(jnp.maximum(p, 1e-20))
    elif kind == SIGMOID:
        filled = np.where(np.isnan(target), 0.123, target)
        at = f32(special.logit(np.clip(filled, 1e-12, 1 - 1e-7)))
    else:
        at = f32(np.where(np.isnan(target), 77.0, target))
    assert DISTANCE(kind, at, f32(target)) < 1e-6
    assert 0 <= DIVERGENCE(kind, at, f32(target)) < 1e-6


@each_case
def test_free_entries_pull_at_nothing(kind, target):
    """No gradient in a free label or number; none among the free classes."""
    free = np.isnan(target)
    if not free.any():
        return
    gradient = np.asarray(SLOPE_OF_DIVERGENCE(kind, f32(OUTPUT), f32(target)))[free]
    if kind == SOFTMAX:
        shares = special.softmax(OUTPUT)[free]
        np.testing.assert_allclose(gradient / shares, (gradient / shares)[0], rtol=1e-4)
    else:
        np.testing.assert_array_equal(gradient, 0)
        moved = f32(np.where(free, 50.0, OUTPUT))
        before = DISTANCE(kind, f32(OUTPUT), f32(target))
        assert DISTANCE(kind, moved, f32(target)) == before


# --- coordinates ---


@each_case
@pytest.mark.parametrize("count", [None, 2])
def test_coordinates_hold_the_divergence_with_its_derivatives(kind, target, count):
    if kind == SOFTMAX and count == 2 and target[2] == 0.2 and not np.isnan(target).any():
        return  # two wanted classes in one group: another divergence
    output, wanted = f32(OUTPUT), f32(target)
    r, goal = COORDINATES(kind, output, wanted, count), GOAL(kind, output, wanted, count)
    assert len(r) == kind.num_coordinates(4, count)
    expected = oracle(kind, OUTPUT, np.array(target))
    np.testing.assert_allclose(DIVERGENCE_AT(kind, r, goal), expected, rtol=1e-4)
    with jax.enable_x64(True):
        wide, goal64 = np.asarray(r, np.float64), np.asarray(goal, np.float64)
        gradient = differences(lambda x: DIVERGENCE_AT(kind, x, goal64), wide)
        hessian = differences(lambda x: GRADIENT_AT(kind, x, goal64), wide)
    np.testing.assert_allclose(GRADIENT_AT(kind, r, goal), gradient, atol=1e-5)
    np.testing.assert_allclose(HESSIAN_AT(kind, r, goal), hessian, atol=1e-5)


@each_case
def test_errors_are_0_at_the_goal_and_have_its_sign(kind, target):
    wanted = f32(target)
    r, goal = COORDINATES(kind, f32(OUTPUT), wanted, None), GOAL(kind, f32(OUTPUT), wanted, None)
    errors = ERRORS(kind, r, goal, 1e-6)
    assert not np.isnan(errors).any()
    there = r - errors  # errors are in the coordinates' own units
    np.testing.assert_allclose(ERRORS(kind, there, goal, 1e-6), 0, atol=1e-5)
    above = ERRORS(kind, there + 1, goal, 1e-6)
    pulls = np.asarray(above) != 0
    np.testing.assert_allclose(above[pulls], 1, atol=1e-5)


def test_probabilities_of_0_and_1_are_one_sided():
    target = f32([0.0, 1.0, 0.3])
    assert SIGMOID.one_sided(target, 1e-6).tolist() == [True, True, False]
    far, near, wrong = f32([-30, 30, -30]), f32([-13, 13, 0]), f32([3, -3, 0])
    np.testing.assert_array_equal(SIGMOID.errors(far, target, 1e-6)[:2], 0)
    assert (np.abs(SIGMOID.errors(near, target, 1e-6)[:2]) > 0.5).all()
    assert (SIGMOID.errors(wrong, target, 1e-6) * f32([1, -1, 1]) > 0).all()
    assert SOFTMAX.one_sided(f32([0.7, 0.3, 0.0]), 1e-6).tolist() == [False, True]
    below = SOFTMAX.errors(f32([np.log(3 / 7), -40]), f32([0.7, 0.3, 0.0]), 1e-6)
    np.testing.assert_allclose(below, 0, atol=1e-6)
    assert not VALUES.one_sided(target, 1e-6).any()


# --- the curvature that conjugate gradients see ---


@each_case
def test_the_models_minimum_is_the_target(kind, target):
    """H (o* − o) = −∇D, and H is positive semidefinite."""
    output, wanted = f32(OUTPUT), f32(target)
    filled = np.array(target)
    free = np.isnan(filled)
    if kind == SOFTMAX:
        there = np.log(np.maximum(partial.complete(wanted, output), 1e-12))
    elif kind == SIGMOID:
        there = np.where(free, OUTPUT, labels._logit(f32(filled)))
    else:
        there = np.where(free, OUTPUT, filled)
    at = np.log(special.softmax(OUTPUT)) if kind == SOFTMAX else OUTPUT
    product = kind.curvature_product(output, wanted)
    gradient = SLOPE_OF_DIVERGENCE(kind, output, wanted)
    np.testing.assert_allclose(product(f32(there - at)), -gradient, rtol=1e-3, atol=2e-5)
    matrix = np.stack([product(row) for row in jnp.eye(4)])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    assert np.linalg.eigvalsh(matrix).min() > -1e-6


# --- what is compared, and what is finite ---


@each_case
def test_what_is_compared_is_the_readout(kind, target):
    output, wanted = f32(OUTPUT), f32(target)
    compared = kind.compared(kind.coordinates(output, wanted, None))
    asked = kind.compared_targets(kind.goal(output, wanted, None))
    assert compared.shape == asked.shape
    readout = {SOFTMAX: special.softmax, SIGMOID: special.expit, VALUES: np.array}[kind](OUTPUT)
    np.testing.assert_allclose(kind.readout(output), readout, rtol=1e-5)
    scale = VALUES.scale if kind == VALUES else 1
    np.testing.assert_allclose(np.sort(compared * scale), np.sort(readout), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "values", "finite"),
    [
        (SOFTMAX, [0, 1, -np.inf], True),  # a class that is switched off
        (SOFTMAX, [-np.inf] * 3, False),
        (SOFTMAX, [0, 1, np.inf], False),
        (SOFTMAX, [0, 1, np.nan], False),
        (SIGMOID, [0, np.inf, -np.inf], True),
        (SIGMOID, [0, 1, np.nan], False),
        (VALUES, [0, 1, 2], True),
        (VALUES, [0, 1, -np.inf], False),
        (VALUES, [0, 1, np.nan], False),
    ],
)
def test_what_is_finite_is_cleaned(kind, values, finite):
    assert kind.is_finite(f32(values)) == finite
    if finite:
        cleaned = kind.cleaned(f32(values))
        assert np.isfinite(cleaned).all()
        np.testing.assert_allclose(kind.readout(cleaned), kind.readout(f32(values)), atol=1e-7)
        np.testing.assert_array_equal(
            cleaned[np.isfinite(values)], np.array(values)[np.isfinite(values)]
        )

        @jax.jit
        @jax.grad
        def gradient(output):
            return kind.divergence(kind.cleaned(output), f32([0.4, 0.6, 0.0]))

        assert np.isfinite(gradient(f32(values))).all()


def test_how_many_coordinates_targets_need():
    rows = np.zeros((3, 1, 100))
    rows[:, 0, 7], rows[1, 0, 8], rows[1, 0, 9] = 0.5, 0.3, 0.2
    rows[2, 0, 1:] = FREE
    assert SOFTMAX.counts(rows) == [1, 4, 1]
    assert SOFTMAX.counts(np.concatenate([rows[:1], rows[1:2]], 1)) == [4]  # the most of any row
    assert SOFTMAX.counts(np.full((1, 1, 100), FREE)) == [1]
    assert SOFTMAX.counts(np.full((1, 1, 64), 1 / 64)) == [None]
    assert SOFTMAX.counts(np.full((1, 1, 100), 1 / 100)) == [128]
    assert (
        SOFTMAX.counts(rows[..., :8]) == SIGMOID.counts(rows) == VALUES.counts(rows) == [None] * 3
    )


# --- validation ---


def test_targets_are_validated_in_their_own_terms():
    np.testing.assert_allclose(SIGMOID.validated(np.array([[0.0, 1.0]]), caller="x"), [[0, 1]])
    masked = np.ma.masked_array([[0.2, 3.0]], mask=[[False, True]])
    for kind in (SIGMOID, VALUES):
        found = kind.validated(masked, caller="x")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [[0.2, FREE]])
    with pytest.raises(
        ValueError, match=r"x: targets of a sigmoid .* row 1 has 1.5 for label 0. Give"
    ):
        SIGMOID.validated(np.array([[0.5, 0], [1.5, 0]]), caller="x")
    with pytest.raises(ValueError, match=r"x: targets must be numbers; row 0 has inf in column 1"):
        VALUES.validated(np.array([[0.5, np.inf]]), caller="x")
    with pytest.raises(ValueError, match=r"masked_invalid") as caught:
        SIGMOID.validated(np.array([[0.5, np.nan]]), caller="x")
    assert "numpy.ma.masked_invalid(targets)" in str(caught.value)
    repaired = np.ma.masked_invalid([[0.5, np.nan]])
    np.testing.assert_allclose(SIGMOID.validated(repaired, caller="x"), [[0.5, FREE]])


def test_numbers_beyond_float32_are_refused():
    with pytest.raises(ValueError, match=r"row 0 has 1e\+39 in column 1"):
        og.outputs.values().validated(np.array([[1.0, 1e39]]), caller="test")


@pytest.mark.parametrize("scale", [0, -1.0, np.inf, np.nan])
def test_a_scale_that_measures_nothing_is_refused(scale):
    with pytest.raises(
        ValueError,
        match=f"outputs.values: scale must be positive and finite, got {float(scale)}; give",
    ):
        og.outputs.values(scale=scale)


def test_kinds_are_values():
    assert og.outputs.values(scale=2) == og.outputs.values(scale=2.0)
    assert len({SOFTMAX, SIGMOID, VALUES, og.outputs.softmax(), og.outputs.values()}) == 4


# --- a linear network, whose answer is known ---


@pytest.mark.parametrize("free", [(), (1, 3)], ids=["all named", "some free"])
@pytest.mark.parametrize("kind", [SIGMOID, VALUES], ids=["sigmoid", "values"])
def test_the_smallest_change_of_a_linear_network_is_found(kind, free):
    """The projection J⁺ (o* − o) over the named outputs, where the box does not interfere."""
    rng = np.random.default_rng(4)
    weights = linear_weights(5, SHAPE)
    images = rng.uniform(0.45, 0.55, (2, *SHAPE)).astype(np.float32)
    target = rng.uniform(0.3, 0.7, (2, 5))
    masked = np.ma.masked_array(target, mask=np.zeros((2, 5), bool))
    masked[:, list(free)] = np.ma.masked
    result = og.synthesize(
        linear, weights, images, masked, output=kind, solver=og.gauss_newton(), tolerance=1e-6
    )
    assert result.converged.all()
    named = [k for k in range(5) if k not in free]
    matrix = np.asarray(weights, np.float64)[:, named]
    wanted = special.logit(target) if kind == SIGMOID else target
    for image, row, found in zip(images, wanted, result.images, strict=True):
        missing = row[named] - (image.ravel() - 0.5) @ matrix
        smallest = np.linalg.pinv(matrix.T) @ missing
        np.testing.assert_allclose((found - image).ravel(), smallest, atol=2e-4)
