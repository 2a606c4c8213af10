"""Every program of `generate_dataset` lowers for GPU and TPU, without float64 and without the host."""

from typing import Any

import jax
import lowered
import pytest
from toy_synthesis import APPLY, FAST, WEIGHTS, sources, targets

import outgen_jax as og


class Recorded:
    """A jitted function that writes down what it was traced to."""

    def __init__(self, program: Any, found: dict[tuple[str, str], jax.stages.Traced]) -> None:
        self.program, self.found = program, found

    def __call__(self, *args: Any, **options: Any) -> Any:
        traced = self.program.trace(*args, **options)
        self.found[traced.fun_name, str(traced.jaxpr.in_avals)] = traced
        return self.program(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)


@pytest.fixture
def programs(monkeypatch):
    """By name and shapes: the programs that are made and called meanwhile."""
    found, jit = {}, jax.jit
    monkeypatch.setattr(jax, "jit", lambda f, **options: Recorded(jit(f, **options), found))
    return found


def test_every_program_of_a_set(programs, tmp_path):
    def apply_fn(weights, images):  # of its own: it has no programs yet
        return APPLY(weights, images)

    options = {"solver": FAST, "tolerance": 0.2, "batch_size": 4, "shard_size": 6}
    og.generate_dataset(apply_fn, WEIGHTS, sources(6), targets(6), tmp_path / "set", **options)
    of_slots, of_rounding = {"start", "advance", "leave", "enter"}, {"begun", "next_round"}
    assert {name for name, _ in programs} == of_slots | of_rounding | {"_outputs"}
    in_place = {
        name
        for (name, _), traced in programs.items()
        for text in lowered.texts(traced)
        if lowered.is_in_place(traced, text)
    }
    assert in_place == {"advance", "enter"}
