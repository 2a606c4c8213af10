"""Solvers by name."""

import functools

import numpy as np
import pytest

import outgen_jax as og
from outgen_jax.solvers import descent, gauss_newton


def test_a_preset_asked_for_twice_is_the_same_solver():
    for name in og.PRESETS:
        assert og.preset(name) == og.preset(name)
        assert hash(og.preset(name)) == hash(og.preset(name))
        if name == "exact":
            continue
        assert og.preset(name) != og.preset(name, steps=3)
        assert og.preset(name, steps=3).steps == 3
    assert og.preset("sgd") == og.preset("sgd", steps=descent.STEPS)
    assert og.preset("gauss_newton") == og.gauss_newton()
    assert og.preset("exact") == og.exact()


def test_presets_differ_and_have_their_numbers_of_steps():
    assert len({og.preset(name) for name in og.PRESETS}) == len(og.PRESETS) == 7
    steps = [og.preset(name).steps for name in og.PRESETS if name != "exact"]
    assert steps == [descent.STEPS] * 5 + [gauss_newton.STEPS]


def test_bad_settings_are_named():
    with pytest.raises(
        ValueError, match=r"preset: no solver 'adamw'; use one of exact, sgd, momentum, .*"
    ):
        og.preset("adamw")
    with pytest.raises(ValueError, match=r"must not be negative, got -1 and 0.0005"):
        og.preset("sgd", steps=-1)
    with pytest.raises(ValueError, match=r"'exact' .* takes no steps, got 3; leave them out"):
        og.preset("exact", steps=3)
    with pytest.raises(
        ValueError, match=r"gradient_descent: steps must be an integer, got 2\.5 of"
    ):
        og.preset("adam", steps=2.5)
    with pytest.raises(ValueError, match=r"gauss_newton: steps must not be negative"):
        og.preset("gauss_newton", steps=-1)


@pytest.mark.parametrize(
    ("solver", "option"),
    [
        (og.gauss_newton, "steps"),
        (og.gauss_newton, "trials"),
        (og.gauss_newton_cg, "steps"),
        (og.gauss_newton_cg, "iterations"),
        (og.smallest_change, "steps"),
        (og.smallest_change, "trials"),
        (functools.partial(og.restarted, og.gauss_newton()), "times"),
    ],
)
def test_counts_are_integers(solver, option):
    with pytest.raises(
        ValueError, match=rf"^\w+: {option} must be an integer, got 2\.5 of type float"
    ):
        solver(**{option: 2.5})
    assert solver(**{option: np.int64(2)}) == solver(**{option: int(2.5)})  # as the message says
