"""What `callback` of `synthesize` sees, and how it stops."""

import numpy as np
import pytest
from toy_synthesis import APPLY, FAST, WEIGHTS, sources, targets

import outgen_jax as og

FIELDS = ("images", "outputs", "distance", "divergence", "steps", "converged")


def recorded(kept: list[og.Result], *, stop_after: int | None = None):
    """A callback that keeps copies of what it is told, and stops after so many calls."""

    def callback(result: og.Result) -> bool:
        kept.append(result._replace(**{f: getattr(result, f).copy() for f in FIELDS}))
        return len(kept) == stop_after

    return callback


def solved(count: int = 3, **options):
    options = {"solver": FAST, **options}
    return og.synthesize(APPLY, WEIGHTS, sources(count), targets(count), **options)


def test_every_step_is_told_with_the_best_so_far():
    kept: list[og.Result] = []
    result = solved(callback=recorded(kept), history=True)
    assert len(kept) == FAST.steps + 1  # once more, to look at the last image
    best = np.minimum.accumulate(result.history, 1)
    np.testing.assert_allclose(np.stack([r.kl for r in kept], 1), best, rtol=1e-6)
    steps = [r.steps.tolist() for r in kept]
    assert steps == [[min(n + 1, FAST.steps)] * 3 for n in range(FAST.steps + 1)]
    for now in (kept[0], kept[4]):
        np.testing.assert_allclose(
            now.probs, og.predict(APPLY, WEIGHTS, now.images), rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(kept[-1].images, result.images)


def test_a_callback_does_not_change_the_result():
    told, plain = solved(callback=lambda result: None), solved()
    np.testing.assert_allclose(told.images, plain.images, atol=1e-5)
    np.testing.assert_array_equal(told.steps, plain.steps)


def test_a_true_answer_stops_with_the_best_so_far():
    kept: list[og.Result] = []
    result = solved(callback=recorded(kept, stop_after=4), history=True)
    assert len(kept) == 4
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(result, field), getattr(kept[-1], field))
    assert result.history.shape == (3, FAST.steps + 1)
    np.testing.assert_allclose(result.history.min(1), result.kl, rtol=1e-6)


def test_images_that_have_not_begun_are_their_sources_when_it_stops():
    result = solved(5, batch_size=2, callback=lambda result: True, history=True)
    begun = np.isfinite(result.distance)
    assert begun.sum() == 2
    np.testing.assert_array_equal(result.images[~begun], sources(5)[~begun] / np.float32(255))
    assert np.isnan(result.outputs[~begun]).all()
    assert not result.converged[~begun].any()
    assert np.isinf(result.history[~begun]).all()


@pytest.mark.parametrize("stop_after", [1, 3])
def test_solvers_that_are_made_of_others_stop_too(stop_after):
    kept: list[og.Result] = []
    solver = og.restarted(og.gauss_newton(steps=2), times=3)
    result = solved(
        2, solver=solver, tolerance=1e-7, callback=recorded(kept, stop_after=stop_after)
    )
    assert len(kept) == stop_after
    assert (result.steps <= stop_after).all()


def test_steps_count_on_from_solver_to_solver():
    kept: list[og.Result] = []
    solver = og.then(og.preset("sgd", steps=3), og.preset("adam", steps=2), at=1e-9)
    result = solved(1, solver=solver, tolerance=1e-9, callback=recorded(kept))
    assert [int(r.steps[0]) for r in kept] == [1, 2, 3, 3, 4, 5, 5]
    assert result.steps.tolist() == [5]
    distances = [float(r.kl[0]) for r in kept]
    assert distances == sorted(distances, reverse=True)
