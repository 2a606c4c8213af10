"""The base class of solvers: what a solver must have, and its defaults."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

import outgen_jax as og


class Still(og.Solver):
    """Leaves every image as it is."""

    steps = 1

    def init(self, problem, image):
        return image

    def update(self, problem, state):
        return state, problem.network(state)

    def image(self, state):
        return state


def test_what_a_solver_leaves_out_has_a_default():
    solver = Still()
    assert solver.tolerance is None
    assert not solver.by_coordinates
    assert solver.passes(7) == 1
    assert bool(solver.is_done(None))


@pytest.mark.parametrize("missing", ["init", "update", "image"])
def test_a_solver_has_its_three_functions(missing):
    incomplete = type("Incomplete", (Still,), {missing: getattr(og.Solver, missing)})
    with pytest.raises(TypeError, match=missing):
        incomplete()


def test_fields_take_the_place_of_the_defaults():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Options(Still):
        steps: int
        tolerance: float = 0.1

    assert (Options(4).steps, Options(4).tolerance) == (4, 0.1)
    assert jax.tree.leaves(Options(4)) == [4, 0.1]
    assert og.restarted(Options(4), times=2).tolerance == 0.1


def run(solver):
    images = np.full((2, 1, 1, 3), 0.5, np.float32)
    return og.synthesize(
        lambda _, x: 3 * x.reshape(len(x), -1) - 5, {}, images, [1, 0, 0], solver=solver
    )


def test_a_solver_that_is_not_registered_is_named():
    with pytest.raises(ValueError, match="Still is not registered; decorate the class"):
        run(Still())
    with pytest.raises(ValueError, match="Still is not registered"):
        og.restarted(Still(), times=1)
    registered = jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(Still))
    assert run(registered()).steps.tolist() == [1, 1]


class Pair(NamedTuple):
    """A state of two arrays."""

    image: jax.Array
    other: jax.Array


@pytest.mark.parametrize(
    "returned",
    [
        lambda state, outputs: state,
        lambda state, outputs: (state.image, outputs),
        lambda state, outputs: (state, outputs, outputs),
    ],
    ids=["no outputs", "another state", "three things"],
)
def test_what_update_returns_is_checked(returned):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Wrong(Still):
        def init(self, problem, image):
            return Pair(image, image)

        def update(self, problem, state):
            return returned(state, problem.network(state.image))

        def image(self, state):
            return state.image

    with pytest.raises(TypeError, match=r"Wrong.update must return \(state, outputs\)"):
        run(Wrong())
