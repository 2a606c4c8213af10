"""The base class of solvers: what a solver must have, and its defaults."""

import dataclasses

import jax
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
