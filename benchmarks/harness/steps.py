"""A solver at work on one batch that stays in its slots: what a step costs, without images that enter and leave."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

import outgen_jax as og
from outgen_jax.networks import ApplyFn
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import slots
from outgen_jax.synthesis.programs import Network, relaxed

_KINDS = (og.outputs.softmax(),)
_MANY = 10**9  # steps: no image ever has had all of them


class Steps:
    """`updates` steps of all images in one call, as the engine makes them.

    Attributes:
      traced: the program before it is lowered, to be compiled here or for other platforms.
    """

    def __init__(
        self,
        network: tuple[ApplyFn, Any],
        solver: Solver,
        images: np.ndarray,
        targets: np.ndarray,
        *,
        precision: str | None = "highest",
        updates: int = 1,
    ) -> None:
        """Traces the program.

        Args:
          network: `apply_fn, variables`.
          solver: how an image is changed; its number of steps does not matter.
          images: [B, H, W, C] float32; B is a multiple of the number of devices.
          targets: [B, K] of one softmax.
          precision: as `og.synthesize` takes it.
          updates: steps in a call.
        """
        apply_fn, variables = network
        self._apply_fn = apply_fn  # programs do not keep their network alive
        self._network, self._mesh = Network(apply_fn, precision), slots.local_mesh()
        self._updates, self._images, self._targets = updates, images, targets
        self._leading = (
            dataclasses.replace(solver, steps=_MANY),
            slots.on_all_devices(self._mesh, variables),
            np.float32(-1),  # no tolerance: no image is ever finished
            np.int32(len(images)),
        )
        state = jax.eval_shape(self._start)
        with relaxed():
            self.traced = slots.advance.program_of(self._network).trace(
                *self._leading, state, updates=updates, mesh=self._mesh
            )

    def compile(self) -> jax.stages.Compiled:
        """The compiled program; its memory analysis is XLA's own."""
        with relaxed():
            return self.traced.lower().compile()

    def seconds(
        self, compiled: jax.stages.Compiled, *, most: int = 5, enough: float = 3.0
    ) -> list[float]:
        """Seconds of a step in each of several calls, after one that is not counted.

        Args:
          compiled: what `compile` returned.
          most: calls at most.
          enough: seconds after which no further call begins.
        """
        state = jax.block_until_ready(self._start())
        state, _ = jax.block_until_ready(compiled(*self._leading, state))
        found: list[float] = []
        while len(found) < most and sum(found) * self._updates < enough:
            start = time.perf_counter()
            state, _ = jax.block_until_ready(compiled(*self._leading, state))
            found.append((time.perf_counter() - start) / self._updates)
        return found

    def _start(self) -> slots.Slot:
        entries = slots.Entry(self._images, self._images, (self._targets[:, None],))
        placed = slots.shared(self._mesh, (entries, np.ones(len(self._images), bool)))
        return slots.start(
            self._network,
            *self._leading[:3],
            *placed,
            kinds=_KINDS,
            counts=(None,),
            mesh=self._mesh,
        )
