"""The objective of one image: all parts of a network's output, compared with their targets.

Outputs are a tuple of parts, one for each array that the network returns. A part [R, K] has R rows of one kind of
output: 1 for a plain classifier, the number of views with `og.views`. The divergence is the sum over all rows, the
distance the largest of all rows.

Coordinates r [M] are those of all rows, one after another; `og.outputs` says what they are.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from outgen_jax.outputs import Output

Outputs = tuple[jax.Array, ...]  # one [R, K] float32 a part
Goals = tuple[jax.Array, ...]
# Of the coordinates [m] of a row and its goal.
OfRow = Callable[[Output, jax.Array, jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Objective:
    """The targets of one image, and the functions that compare outputs with them.

    Attributes:
      targets: one [R, K] for each part, NaN where an entry is free.
      kinds: one of `og.outputs` for each part.
      counts: for each part, how many classes of a softmax have a coordinate of their own; None: all.
    """

    targets: Outputs
    kinds: tuple[Output, ...] = dataclasses.field(metadata={"static": True})
    counts: tuple[int | None, ...] = dataclasses.field(metadata={"static": True})

    # --- of outputs ---

    def is_finite(self, outputs: Outputs) -> jax.Array:
        """Whether the outputs are valid, as `Output.is_finite` defines it: [] bool."""
        found = self._each(lambda kind, o, t: kind.is_finite(o), outputs)
        return jnp.concatenate(found).all()

    def loss(self, outputs: Outputs) -> jax.Array:
        """What gradient descent minimises, summed over all rows: []."""
        return jnp.concatenate(self._each(lambda kind, o, t: kind.loss(o, t), outputs)).sum()

    def divergence(self, outputs: Outputs) -> jax.Array:
        """The divergence, summed over all rows: [], 0 at the target."""
        return jnp.concatenate(self._each(lambda kind, o, t: kind.divergence(o, t), outputs)).sum()

    def distance(self, outputs: Outputs) -> jax.Array:
        """The distance, the largest of all rows: []."""
        return jnp.concatenate(self._each(lambda kind, o, t: kind.distance(o, t), outputs)).max()

    def gradient(self, outputs: Outputs) -> Outputs:
        """Gradient of the loss in the outputs; in their structure."""
        return jax.grad(self.loss)(outputs)

    def curvature_product(self, outputs: Outputs) -> Callable[[Outputs], Outputs]:
        """The function u -> Hu, H a model of the divergence's curvature in the outputs; u like the outputs."""

        def product(u: Outputs) -> Outputs:
            zipped = zip(self.kinds, outputs, self.targets, u, strict=True)
            return tuple(
                jax.vmap(lambda o, t, x, kind=kind: kind.curvature_product(o, t)(x))(*rows)
                for kind, *rows in zipped
            )

        return product

    # --- coordinates ---

    @property
    def num_rows(self) -> int:
        """Number of rows of all parts."""
        return sum(len(targets) for targets in self.targets)

    @property
    def num_coordinates(self) -> int:
        """M, of all parts."""
        return sum(self._sizes())

    def coordinates(self, outputs: Outputs) -> jax.Array:
        """Coordinates r of the outputs: [M]."""
        found = [self.coordinates_of(part, output) for part, output in enumerate(outputs)]
        return jnp.concatenate([r.ravel() for r in found])

    def coordinates_of(self, part: int, output: jax.Array) -> jax.Array:
        """Coordinates of one part [R, K]: [R, m]."""
        kind, count = self.kinds[part], self.counts[part]
        return jax.vmap(lambda o, t: kind.coordinates(o, t, count))(output, self.targets[part])

    def goals(self, outputs: Outputs) -> Goals:
        """The targets as the following methods take them; free entries follow the outputs."""
        zipped = zip(self.kinds, outputs, self.targets, self.counts, strict=True)
        return tuple(
            jax.vmap(lambda o, t, kind=kind, n=count: kind.goal(o, t, n))(o, t)
            for kind, o, t, count in zipped
        )

    def divergence_at(self, r: jax.Array, goals: Goals) -> jax.Array:
        """The divergence as a function of the coordinates: []."""
        return self.joined(lambda kind, r, goal: kind.divergence_at(r, goal), r, goals).sum()

    def gradient_at(self, r: jax.Array, goals: Goals) -> jax.Array:
        """Gradient of `divergence_at` in the coordinates: [M]."""
        return self.joined(lambda kind, r, goal: kind.gradient_at(r, goal), r, goals)

    def hessian_at(self, r: jax.Array, goals: Goals) -> jax.Array:
        """Hessian of `divergence_at` in the coordinates: [M, M], with a block for every row."""
        return self.blocks(lambda kind, r, goal: kind.hessian_at(r, goal), r, goals)

    def errors(self, r: jax.Array, goals: Goals, floor: float | jax.Array) -> jax.Array:
        """Errors of the coordinates: [M]; see `Output.errors`."""
        return self.joined(lambda kind, r, goal: kind.errors(r, goal, floor), r, goals)

    def one_sided(self, goals: Goals, floor: float | jax.Array) -> jax.Array:
        """Which coordinates may lie anywhere on one side of the target: [M] bool; see `Output.one_sided`."""
        parts = zip(self.kinds, goals, strict=True)
        found = [jax.vmap(lambda g, kind=kind: kind.one_sided(g, floor))(g) for kind, g in parts]
        return jnp.concatenate([x.ravel() for x in found])

    def compared(self, r: jax.Array) -> jax.Array:
        """The quantities that the distance compares, all rows one after another: [N]; see `Output.compared`."""
        parts = zip(self.kinds, self._split(r), strict=True)
        return jnp.concatenate([jax.vmap(kind.compared)(part).ravel() for kind, part in parts])

    def compared_targets(self, goals: Goals) -> jax.Array:
        """Targets of `compared`: [N], NaN where an entry is free."""
        parts = zip(self.kinds, goals, strict=True)
        return jnp.concatenate(
            [jax.vmap(kind.compared_targets)(goal).ravel() for kind, goal in parts]
        )

    def joined(self, function: OfRow, r: jax.Array, goals: Goals) -> jax.Array:
        """What `function` returns for all rows, one after another: one axis."""
        return jnp.concatenate([x.ravel() for x in self._of_rows(function, r, goals)])

    def blocks(self, function: OfRow, r: jax.Array, goals: Goals) -> jax.Array:
        """What `function` returns for all rows [m, m], as blocks on the diagonal: [M, M]."""
        found = [block for part in self._of_rows(function, r, goals) for block in part]
        return found[0] if len(found) == 1 else jax.scipy.linalg.block_diag(*found)

    def _of_rows(self, function: OfRow, r: jax.Array, goals: Goals) -> list[jax.Array]:
        """One array [R, ...] a part."""
        zipped = zip(self.kinds, self._split(r), goals, strict=True)
        return [
            jax.vmap(functools.partial(function, kind))(part, goal) for kind, part, goal in zipped
        ]

    def _each(self, function: Callable[..., jax.Array], outputs: Outputs) -> Outputs:
        """`function(kind, output [K], target [K])` of every row, a part each."""
        return tuple(
            jax.vmap(lambda o, t, kind=kind: function(kind, o, t))(o, t)
            for kind, o, t in zip(self.kinds, outputs, self.targets, strict=True)
        )

    def _sizes(self) -> list[int]:
        """Coordinates of each part."""
        zipped = zip(self.kinds, self.targets, self.counts, strict=True)
        return [len(t) * kind.num_coordinates(t.shape[-1], count) for kind, t, count in zipped]

    def _split(self, r: jax.Array) -> list[jax.Array]:
        """Splits r [M] into [R, m] a part."""
        ends = list(itertools.accumulate(self._sizes()))
        parts = [r[end - size : end] for end, size in zip(ends, self._sizes(), strict=True)]
        return [p.reshape(len(t), -1) for p, t in zip(parts, self.targets, strict=True)]
