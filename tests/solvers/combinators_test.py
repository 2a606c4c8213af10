"""Handing over and restarting: who runs what, from where, until when."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax
import pytest
from toy_synthesis import APPLY, FAST, WEIGHTS, sources, targets

import outgen_jax as og
from outgen_jax.solvers import combinators
from outgen_jax.solvers.momentum import Momentum


class Call(NamedTuple):
    """One run of a primitive solver."""

    solver: Any
    rows: list[int]
    tolerance: float
    start: Callable[[int], np.ndarray] | None


class Scripted:
    """A pool in which row n needs n runs to converge; images say how they came about.

    `distances` are those after every run, if given: [runs, rows].
    """

    def __init__(self, count: int, distances: np.ndarray | None = None) -> None:
        self.distances, self.given_up = distances, []
        self.calls: list[Call] = []
        self.runs = np.zeros(count, int)
        levels = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 1))
        self.sources = levels / np.float32(255)

    def reached(self, rows, tolerance):
        return rows[rows <= self.runs[rows]]

    def run(self, solver, rows, tolerance, *, start=None):
        if hasattr(solver, "parts"):
            solver.run(self, rows, tolerance, start=start)
            return
        self.calls.append(Call(solver, rows.tolist(), tolerance, start))
        self.runs[rows] += 1

    def unfinished(self, rows, tolerance):
        return rows[rows > self.runs[rows]]

    def nearest(self, rows):
        if self.distances is None:
            return np.ones(len(rows))
        return self.distances[self.runs[rows] - 1, rows]

    def give_up(self, rows):
        self.given_up += rows.tolist()

    def source(self, row):
        return self.sources[row]

    def best(self, row):
        return np.full((2, 2, 1), row, np.float32)

    def last(self, row):
        return np.full((2, 2, 1), -row, np.float32)


A, B, VIA = og.gauss_newton(steps=3), og.gauss_newton(steps=5), Momentum(steps=7)


# --- what is run ---


def test_then_hands_over_at_its_distance_and_at_the_best_image():
    pool = Scripted(4)
    og.then(A, B, at=0.02).run(pool, np.arange(4), 1e-5)
    first, second = pool.calls
    assert (first.solver, first.rows, first.tolerance, first.start) == (A, [0, 1, 2, 3], 0.02, None)
    assert (second.solver, second.rows, second.tolerance) == (B, [2, 3], 1e-5)
    np.testing.assert_array_equal(second.start(3), pool.best(3))
    wide = Scripted(4)
    og.then(A, B, at=0.02).run(wide, np.arange(4), 0.1)
    assert wide.calls[0].tolerance == 0.1  # nobody goes on beyond the tolerance


def test_only_unfinished_images_start_again_where_they_are():
    pool = Scripted(5)
    og.restarted(A, times=2, later=B).run(pool, np.arange(5), 1e-3)
    assert [(c.solver, c.rows) for c in pool.calls] == [
        (A, [0, 1, 2, 3, 4]),
        (B, [2, 3, 4]),
        (B, [3, 4]),
    ]
    assert pool.calls[0].start is None
    np.testing.assert_array_equal(pool.calls[1].start(2), pool.last(2))
    done = Scripted(2)
    og.restarted(A, times=9).run(done, np.arange(2), 1e-3)
    assert len(done.calls) == 1


def test_a_restart_may_go_via_another_solver():
    pool = Scripted(4)
    og.restarted(A, times=1, via=VIA).run(pool, np.arange(4), 1e-3)
    assert [(c.solver, c.rows) for c in pool.calls] == [
        (A, [0, 1, 2, 3]),
        (VIA, [2, 3]),
        (A, [3]),  # the third has converged on the way
    ]
    np.testing.assert_array_equal(pool.calls[2].start(3), pool.last(3))


def test_new_starts_are_sources_with_noise_below_half_a_grey_level():
    pool = Scripted(5)
    pool.sources[4] = 1
    og.restarted(A, times=3, from_source=True).run(pool, np.arange(5), 1e-3)
    starts = [np.stack([call.start(row) for row in (3, 4)]) for call in pool.calls[1:3]]
    for start in starts:
        noise = start - pool.sources[3:]
        assert 0.3 / 255 < np.abs(noise).max() < 0.5 / 255
        np.testing.assert_array_equal(np.round(start * 255), np.round(pool.sources[3:] * 255))
        assert start.max() <= 1
        assert start.dtype == np.float32
    assert (starts[0] != starts[1]).any()
    # A row's noise does not depend on who else starts again.
    alone = Scripted(5)
    alone.sources = pool.sources
    og.restarted(A, times=3, from_source=True).run(alone, np.array([4]), 1e-3)
    np.testing.assert_array_equal(alone.calls[1].start(4), starts[0][1])


def test_an_image_without_progress_is_given_up():
    """Row 10 stands still, row 11 halves its distance each time, row 12 every other time."""
    halving = 0.5 ** np.arange(1, 9)
    distances = np.ones((8, 13))
    distances[:, 11], distances[:, 12] = 0.9 * halving, 0.9 * np.repeat(halving[::2], 2)
    rows = np.arange(10, 13)

    def run_of(patience, **options):
        pool = Scripted(13, distances)
        og.restarted(A, times=5, patience=patience, **options).run(pool, rows, 1e-3)
        return pool.runs[rows].tolist(), pool.given_up

    assert run_of(None) == ([6, 6, 6], [])
    assert run_of(2) == ([3, 6, 6], [10])
    assert run_of(1) == ([2, 6, 2], [10, 12])
    assert run_of(1, beyond=0.5) == ([2, 6, 6], [10])


def test_what_is_given_up_is_left_to_others():
    """It stays unfinished, so that a rescue takes it over."""
    pool = Scripted(11)
    solver = og.rescued(og.restarted(A, times=8, patience=1), by=B)
    solver.run(pool, np.array([10]), 1e-3)
    assert [c.solver for c in pool.calls if len(c.rows)] == [A, A, B]
    assert pool.given_up == [10]


def test_they_nest():
    inner = og.restarted(B, times=1)
    pool = Scripted(4)
    og.restarted(og.then(A, inner, at=0.1), times=1).run(pool, np.arange(4), 1e-3)
    assert [(c.solver, c.rows) for c in pool.calls] == [
        (A, [0, 1, 2, 3]),
        (B, [2, 3]),
        (B, [3]),
    ]


def test_steps_parts_and_tolerances_are_those_of_the_parts():
    handed = og.then(A, B, at=0.02)
    assert (handed.steps, handed.parts, handed.tolerance) == (8, (A, B), None)
    again = og.restarted(A, times=4, via=VIA, later=B)
    assert (again.steps, again.parts) == (3 + 4 * (7 + 5), (A, VIA, B))
    assert og.restarted(A, times=2).steps == 9
    exact = og.exact(tolerance=1e-4)
    assert og.then(A, exact, at=0.02).tolerance == og.restarted(exact, times=1).tolerance == 1e-4


def test_they_are_values():
    build = lambda: og.restarted(og.then(og.gauss_newton(), og.exact(), at=0.1), times=2, via=VIA)  # noqa: E731
    assert build() == build()
    assert hash(build()) == hash(build())
    assert og.then(A, B, at=0.1) != og.then(A, B, at=0.2)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="then: at must be a positive distance, got 0; 3e-4 is"):
        og.then(A, B, at=0)
    with pytest.raises(ValueError, match="restarted: times must not be negative, got -1; 0 means"):
        og.restarted(A, times=-1)
    with pytest.raises(ValueError, match="restarted: patience must be at least 1, got 0; None"):
        og.restarted(A, times=1, patience=0)
    for beyond in (-0.1, np.nan):
        with pytest.raises(ValueError, match=r"restarted: beyond must be .* at least 0, got"):
            og.restarted(A, times=1, patience=1, beyond=beyond)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: og.then(x, A, at=0.1), "then: first"),
        (lambda x: og.then(A, x, at=0.1), "then: second"),
        (lambda x: og.restarted(x, times=1), "restarted: solver"),
        (lambda x: og.restarted(A, times=1, via=x), "restarted: via"),
        (lambda x: og.restarted(A, times=1, later=x), "restarted: later"),
        (lambda x: og.rescued(x, by=A), "rescued: solver"),
        (lambda x: og.rescued(A, by=x), "rescued: by"),
    ],
)
def test_a_part_that_is_no_solver_is_named(build, message):
    with pytest.raises(
        ValueError, match=rf"^{message} must be a solver, got 'adam'; pass og\.preset\('adam'\)"
    ):
        build("adam")
    with pytest.raises(ValueError, match=rf"^{message} must be .*; call it, as in og\.exact\(\)"):
        build(og.exact)
    with pytest.raises(ValueError, match=rf"^{message} must be .*; pass og\.gradient_descent"):
        build(optax.sgd(0.1))
    build(og.preset("adam"))


# --- in the engine ---


def test_an_image_handed_over_goes_on_where_it_was():
    """As if the second solver had been called with the first one's result."""
    images, rows = sources(5), targets(5)
    first = og.synthesize(APPLY, WEIGHTS, images, rows, solver=FAST, tolerance=0.2)
    newton = og.gauss_newton(stride=None)
    second = og.synthesize(APPLY, WEIGHTS, first.images, rows, solver=newton, tolerance=1e-4)
    both = og.then(FAST, newton, at=0.2)
    found = og.synthesize(APPLY, WEIGHTS, images, rows, solver=both, tolerance=1e-4, history=True)
    assert found.converged.all()
    np.testing.assert_array_equal(found.steps, first.steps + second.steps)
    # The limits of the box are the same; the source only counts in the way back, which is off.
    np.testing.assert_allclose(found.images, second.images, atol=1e-5)
    # The curve holds both parts: a value before every update, and one at each end.
    for curve, a, b in zip(found.history, first.steps, second.steps, strict=True):
        assert np.isfinite(curve).all()
        np.testing.assert_allclose(curve[a + b + 1 :], curve[-1])
    np.testing.assert_allclose(found.history[:, -1], found.divergence, rtol=1e-5, atol=1e-9)


def test_a_restart_goes_on_where_gradient_descent_left_an_image():
    """Without momentum or a Jacobian to forget, it is as if nothing had happened."""
    images, rows = np.clip(sources(13), 60, 200), targets(13)
    optimizer = optax.sgd(1.0)
    once, long = (og.gradient_descent(optimizer, steps=steps) for steps in (12, 24))
    expected = og.synthesize(APPLY, WEIGHTS, images, rows, solver=long, tolerance=0.15)
    twice = og.restarted(once, times=1)
    found = og.synthesize(APPLY, WEIGHTS, images, rows, solver=twice, tolerance=0.15)
    assert (expected.steps > 12).any()
    assert (expected.steps < 12).any()
    np.testing.assert_array_equal(found.steps, expected.steps)
    np.testing.assert_allclose(found.images, expected.images, atol=1e-4)
    np.testing.assert_array_equal(found.converged, expected.converged)


@pytest.mark.parametrize("tolerance", [1e-9, None])
def test_a_further_start_never_makes_a_result_worse(tolerance):
    """Not where it hands over at a distance above the tolerance, and farther than an image of before."""
    first = og.gradient_descent(optax.sgd(0.5), steps=30)
    near = og.then(first, og.gradient_descent(optax.sgd(0.5), steps=40), at=0.3)
    far = og.then(first, og.gradient_descent(optax.sgd(0.5), steps=1), at=0.3)
    solvers = (near, og.restarted(near, times=1, from_source=True, later=far))
    once, again = (
        og.synthesize(APPLY, WEIGHTS, sources(6), targets(6), solver=s, tolerance=tolerance)
        for s in solvers
    )
    assert (again.steps > once.steps).all()
    np.testing.assert_array_equal(again.divergence, once.divergence)
    np.testing.assert_array_equal(again.distance, once.distance)
    np.testing.assert_array_equal(again.images, once.images)
    np.testing.assert_array_equal(again.outputs, once.outputs)


def test_a_rescue_goes_back_on_the_line_to_the_source():
    pool = Scripted(4)
    og.rescued(A, by=B).run(pool, np.arange(4), 1e-3)
    *_, rescue, again = pool.calls
    assert (rescue.solver, rescue.rows, rescue.start(3).max()) == (B, [2, 3], -3)
    assert (again.solver, again.rows) == (A, [2])
    np.testing.assert_allclose(again.start(2), 0.3 * pool.source(2) + 0.7 * 2, rtol=1e-6)


def test_a_rescue_sends_back_only_what_has_converged():
    """Not what has failed on the way."""
    ran = []

    class Pool:
        def run(self, solver, rows, tolerance, *, start=None):
            ran.append((solver, list(rows)))

        def unfinished(self, rows, tolerance):
            return rows if len(ran) == 1 else rows[:0]  # afterwards all have failed or converged

        def reached(self, rows, tolerance):
            return rows[rows == 2]

        best = last = None

    combinators.Rescued(solver="a", by="b").run(Pool(), np.arange(4), 0.1)
    assert ran == [("a", [0, 1, 2, 3]), ("b", [0, 1, 2, 3]), ("a", [2])]
