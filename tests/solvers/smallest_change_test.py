"""The smallest change for a tolerance: against closed forms, brute force and other solvers."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.optimize
from toy_synthesis import linear, linear_weights, problem

import outgen_jax as og
from outgen_jax.solvers.convex_loss import ExcessLoss

SHAPE = (6, 6, 1)
WEIGHTS = linear_weights(4, SHAPE)
SOURCE = np.random.default_rng(0).uniform(0.3, 0.7, (1, *SHAPE)).astype(np.float32)


def change_of(result: og.Result, sources: np.ndarray = SOURCE) -> np.ndarray:
    return np.linalg.norm((result.images - sources).reshape(len(sources), -1), axis=1)


def smallest_by_scipy(
    weights: np.ndarray, source: np.ndarray, target: np.ndarray, tolerance: float
) -> float:
    """L2 of the smallest change of a linear network's input, by SLSQP in the span of the weights.

    The total variation has kinks, where SLSQP stalls. It is the largest of smooth functions: over all
    sets of classes, the set's probability less what is wanted of it. Each gives a constraint.
    """
    start = (source.ravel() - 0.5) @ weights
    gram = weights.T @ weights
    chosen = np.array(list(itertools.product([0.0, 1.0], repeat=len(target))))[1:-1]

    def slack(multipliers: np.ndarray) -> np.ndarray:
        probs = reference.softmax((start + gram @ multipliers)[None])[0]
        return tolerance - chosen @ (probs - target)

    def slope(multipliers: np.ndarray) -> np.ndarray:
        probs = reference.softmax((start + gram @ multipliers)[None])[0]
        return -chosen @ (np.diag(probs) - np.outer(probs, probs)) @ gram

    exact = np.linalg.lstsq(gram, np.log(np.maximum(target, tolerance / 8)) - start, rcond=None)[0]
    found = scipy.optimize.minimize(
        lambda m: m @ gram @ m / 2,
        exact,
        jac=lambda m: gram @ m,
        constraints={
            "type": "ineq",
            "fun": lambda m: slack(m) / tolerance,
            "jac": lambda m: slope(m) / tolerance,
        },
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    assert found.success, found.message
    assert slack(found.x).min() > -1e-6 * tolerance
    return float(np.sqrt(found.x @ gram @ found.x))


@pytest.mark.parametrize("tolerance", [0.05, 1e-3])
@pytest.mark.parametrize("target", [[0.4, 0.3, 0.2, 0.1], [0.9, 0.1, 0, 0]], ids=str)
def test_of_a_linear_network_it_finds_the_smallest_change(target, tolerance):
    """Errors are weighed by the divergence, not by the distance, which costs a few percent of the change.

    The default patience may end the search earlier. Where depends on rounding, so on the processor.
    """
    sources = np.random.default_rng(3).uniform(0.3, 0.7, (12, *SHAPE)).astype(np.float32)
    least = [
        smallest_by_scipy(np.asarray(WEIGHTS, float), source, np.array(target), tolerance)
        for source in sources.astype(float)
    ]
    patient = dataclasses.replace(og.smallest_change(), patience=30)
    for solver, median, worst in ((patient, 1.08, 1.25), (og.smallest_change(), 1.1, 1.4)):
        result = og.synthesize(linear, WEIGHTS, sources, target, solver=solver, tolerance=tolerance)
        assert result.converged.all()
        ratios = np.asarray(og.metrics.l2_change(result.images, sources)) / least
        assert ratios.min() > 0.999
        assert np.median(ratios) < median
        assert ratios.max() < worst


def test_the_looser_the_tolerance_the_smaller_the_change():
    weights = reference.perceptron(SHAPE, steepness=2.8)
    images = np.random.default_rng(1).uniform(0.2, 0.8, (4, *SHAPE)).astype(np.float32)
    rows = np.tile([0.9, 0.1, 0, 0, 0], (4, 1))
    changes = []
    for tolerance in (1e-5, 1e-3, 1e-1):
        solver = og.smallest_change(tolerance=tolerance)
        result = og.synthesize(reference.perceptron_logits, weights, images, rows, solver=solver)
        assert result.converged.all()
        assert (result.distance <= tolerance).all()
        changes.append(change_of(result, images))
    assert (changes[0] > changes[1]).all()
    assert (changes[1] > changes[2]).all()


def test_it_makes_smaller_changes_than_gauss_newton():
    weights = reference.perceptron(SHAPE, steepness=2.8)
    images = np.random.default_rng(2).uniform(0.2, 0.8, (8, *SHAPE)).astype(np.float32)
    rows = np.tile([0.9, 0.1, 0, 0, 0], (8, 1))
    found = [
        og.synthesize(
            reference.perceptron_logits, weights, images, rows, solver=solver, tolerance=1e-3
        )
        for solver in (og.smallest_change(), og.gauss_newton())
    ]
    assert all(result.converged.all() for result in found)
    small, large = (change_of(result, images) for result in found)
    assert (small <= 1.001 * large).all()
    assert np.median(small) < 0.9 * np.median(large)


def test_a_source_within_the_tolerance_stays():
    """All but: it is what is asked for already."""
    rows = og.predict(linear, WEIGHTS, SOURCE)
    result = og.synthesize(linear, WEIGHTS, SOURCE, rows, solver=og.smallest_change())
    assert result.converged.all()
    np.testing.assert_array_equal(result.images, SOURCE)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (og.outputs.sigmoid(), [0.3, 0.0, 1.0, 0.98]),
        (og.outputs.values(scale=2.0), [0.5, -1.0, 2.0, 0.0]),
    ],
    ids=str,
)
def test_labels_and_numbers(kind, target):
    weights = 4 * WEIGHTS
    result = og.synthesize(
        linear, weights, SOURCE, target, output=kind, solver=og.smallest_change(), tolerance=1e-2
    )
    assert result.converged.all()
    tight = og.synthesize(linear, weights, SOURCE, target, output=kind, tolerance=1e-4)
    assert tight.converged.all()
    assert change_of(result)[0] <= 1.001 * change_of(tight)[0]


def test_pixels_stay_within_the_limits():
    """Limits that bind: some pixels move as far as they may, and the others make up for them."""
    moved = np.random.default_rng(4).uniform(-0.06, 0.06, SHAPE) * np.tri(6)[:, :, None]
    rows = og.predict(linear, 3 * WEIGHTS, (SOURCE + moved).astype(np.float32))
    found = [
        og.synthesize(
            *(linear, 3 * WEIGHTS, SOURCE, rows),
            solver=og.smallest_change(mask=np.tri(6), max_change=limit),
            tolerance=1e-4,
        )
        for limit in (None, 0.0035)
    ]
    assert all(result.converged.all() for result in found)
    free, bounded = (np.abs(result.images - SOURCE) for result in found)
    assert not free[:, np.tri(6) == 0].any()
    assert not bounded[:, np.tri(6) == 0].any()
    assert free.max() > 0.0045
    assert bounded.max() == pytest.approx(0.0035, abs=1e-6)
    assert (free**2).sum() < (bounded**2).sum()


@pytest.mark.parametrize(
    "kind", [og.outputs.softmax(), og.outputs.sigmoid(), og.outputs.values()], ids=str
)
def test_gradient_and_hessian_of_the_loss(kind):
    """Against differences, where zeros press and where they do not."""
    posed = problem(linear, WEIGHTS, [0.7, 0.3, 0, 0], SOURCE[0], kind)

    @jax.jit
    def derivatives(shift):
        outputs = posed.network(posed.source)
        goals = posed.objective.goals(outputs)
        loss = ExcessLoss(posed.objective, goals, jnp.float32(2), jnp.float32(1e-2))
        at = posed.objective.coordinates(outputs) + shift
        found = loss.gradient(at), loss.hessian(at)
        return found, (jax.grad(loss.value)(at), jax.hessian(loss.value)(at))

    for shift in (0.0, -9.0):
        found, expected = derivatives(shift)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
        np.testing.assert_allclose(found[1], expected[1], atol=2e-3)


@pytest.mark.parametrize("kind", [og.outputs.softmax(), og.outputs.sigmoid()], ids=repr)
@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize(
    "target",
    [
        [0.6, 0.4, 0, 0, 0],
        [0.4, 0.3, 0.1, 0.1, 0.1],
        [np.nan, 0, np.nan, 0, np.nan],
        [1, 0, 0, 0, 0],
    ],
    ids=str,
)
def test_derivatives_of_the_excess(kind, count, target):
    """Against JAX's, also where the target names nothing but zeros."""
    logits, target = jnp.array([0.3, -1.0, 0.5, -4.0, 2.0]), jnp.array(target, jnp.float32)
    goal, r = kind.goal(logits, target, count), kind.coordinates(logits, target, count)
    for floor in (1e-3, 1e-5):
        excess = functools.partial(kind.excess, goal=goal, floor=floor)
        weights = jnp.arange(1.0, 1 + len(excess(r)))
        np.testing.assert_allclose(
            kind.excess_gradient(r, goal, floor), jax.jacobian(excess)(r), atol=1e-6
        )
        np.testing.assert_allclose(
            kind.excess_curvature(r, goal, floor, weights),
            jax.hessian(lambda r, e=excess, w=weights: w @ e(r))(r),
            atol=1e-6,
        )


def test_excess_is_the_total_over_the_floor():
    """Softmax: all zeros together, in nats; negative where there is room."""
    kind = og.outputs.softmax()
    target = jnp.array([0.9, 0.1, 0.0, 0.0])
    for total in (1e-1, 1e-4):
        logits = jnp.log(jnp.array([0.9, 0.1, total / 4, 3 * total / 4]))
        r = kind.coordinates(logits, target, None)
        excess = kind.excess(r, kind.goal(logits, target, None), 1e-3)
        np.testing.assert_allclose(excess, [np.log(total / 1e-3)], rtol=1e-4)
    full = jnp.array([0.4, 0.3, 0.2, 0.1])
    r = kind.coordinates(jnp.log(full), full, None)
    assert kind.excess(r, kind.goal(jnp.log(full), full, None), 1e-3) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must not be negative"),
        ({"trials": 0}, "trials at least 1"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"max_change": 0.0}, "max_change must be positive"),
        ({"mask": np.zeros((6, 6))}, "mask must be"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        og.smallest_change(**options)
