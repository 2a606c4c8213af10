"""What one image is asked for: all parts of a network's output, measured against their targets.

A network's output is a tuple of parts; a part is rows of one kind of output, [R, K] here: one row for a plain
classifier, one a view where an image is shown several ways. The divergence is the sum over all rows, the distance the
largest of all.

Coordinates r [M] are those of all rows, one after another; `outputs` says what they are.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from outgen_jax.outputs import Output

Outputs = tuple[jax.Array, ...]  # one [R, K] float32 a part
Goals = tuple[jax.Array, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Objective:
    """The targets of one image, with the kinds of output that they are for.

    Attributes:
      targets: one [R, K] a part, NaN where an entry is free.
      kinds: one a part.
      counts: of a softmax part, how many classes have a coordinate each; None: all.
    """

    targets: Outputs
    kinds: tuple[Output, ...] = dataclasses.field(metadata={"static": True})
    counts: tuple[int | None, ...] = dataclasses.field(metadata={"static": True})

    # --- of outputs ---

    def cleaned(self, outputs: Outputs) -> Outputs:
        """Outputs as the other methods take them."""
        return self._each(lambda kind, o, t: kind.cleaned(o), outputs)

    def is_finite(self, outputs: Outputs) -> jax.Array:
        """Whether every row means something: [] bool."""
        found = self._each(lambda kind, o, t: kind.is_finite(o), outputs)
        return jnp.concatenate(found).all()

    def loss(self, outputs: Outputs) -> jax.Array:
        """What gradient descent minimises, the sum over all rows: []."""
        return jnp.concatenate(self._each(lambda kind, o, t: kind.loss(o, t), outputs)).sum()

    def divergence(self, outputs: Outputs) -> jax.Array:
        """The sum over all rows: [], 0 at the target."""
        return jnp.concatenate(self._each(lambda kind, o, t: kind.divergence(o, t), outputs)).sum()

    def distance(self, outputs: Outputs) -> jax.Array:
        """The largest of all rows: []."""
        return jnp.concatenate(self._each(lambda kind, o, t: kind.distance(o, t), outputs)).max()

    def gradient(self, outputs: Outputs) -> Outputs:
        """Of the loss in the outputs."""
        return jax.grad(self.loss)(outputs)

    def curvature_product(self, outputs: Outputs) -> Callable[[Outputs], Outputs]:
        """U -> Hu, with a model of the divergence's curvature in the outputs."""

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
        """Rows of all parts."""
        return sum(len(targets) for targets in self.targets)

    @property
    def num_coordinates(self) -> int:
        """M."""
        return sum(self._sizes())

    def coordinates(self, outputs: Outputs) -> jax.Array:
        """R [M]."""
        zipped = zip(self.kinds, outputs, self.targets, self.counts, strict=True)
        found = [
            jax.vmap(lambda o, t, kind=kind, n=count: kind.coordinates(o, t, n))(o, t)
            for kind, o, t, count in zipped
        ]
        return jnp.concatenate([r.ravel() for r in found])

    def goals(self, outputs: Outputs) -> Goals:
        """The targets as the following methods take them, free entries as the outputs have them."""
        zipped = zip(self.kinds, outputs, self.targets, self.counts, strict=True)
        return tuple(
            jax.vmap(lambda o, t, kind=kind, n=count: kind.goal(o, t, n))(o, t)
            for kind, o, t, count in zipped
        )

    def divergence_at(self, r: jax.Array, goals: Goals) -> jax.Array:
        """[]."""
        return self._in_coordinates("divergence_at", r, goals).sum()

    def slope(self, r: jax.Array, goals: Goals) -> jax.Array:
        """Of the divergence [M]."""
        return self._in_coordinates("slope", r, goals)

    def curvature(self, r: jax.Array, goals: Goals) -> jax.Array:
        """Of the divergence [M, M], a block for every row."""
        blocks = []
        for kind, part, goal in zip(self.kinds, self._split(r), goals, strict=True):
            blocks += list(jax.vmap(kind.curvature)(part, goal))
        return blocks[0] if len(blocks) == 1 else jax.scipy.linalg.block_diag(*blocks)

    def errors(self, r: jax.Array, goals: Goals, floor: float | jax.Array) -> jax.Array:
        """How far each coordinate is off [M]; see `Output.errors`."""
        return self._in_coordinates("errors", r, goals, floor)

    def one_sided(self, goals: Goals, floor: float | jax.Array) -> jax.Array:
        """Which coordinates may lie anywhere on one side: [M] bool."""
        parts = zip(self.kinds, goals, strict=True)
        found = [jax.vmap(lambda g, kind=kind: kind.one_sided(g, floor))(g) for kind, g in parts]
        return jnp.concatenate([x.ravel() for x in found])

    def excess(self, r: jax.Array, goals: Goals, floor: jax.Array) -> jax.Array:
        """How far what should be 0 or 1 is from it, all rows one after another: [E]; see `Output.excess`."""
        return self._in_coordinates("excess", r, goals, floor)

    def judged(self, r: jax.Array) -> jax.Array:
        """What the distance compares, all rows one after another: [N]."""
        parts = zip(self.kinds, self._split(r), strict=True)
        return jnp.concatenate([jax.vmap(kind.judged)(part).ravel() for kind, part in parts])

    def wanted(self, goals: Goals) -> jax.Array:
        """What `judged` should be: [N], NaN where anything will do."""
        parts = zip(self.kinds, goals, strict=True)
        return jnp.concatenate([jax.vmap(kind.wanted)(goal).ravel() for kind, goal in parts])

    def _each(self, function: Callable[..., jax.Array], outputs: Outputs) -> Outputs:
        """`function(kind, output [K], target [K])` of every row, a part each."""
        return tuple(
            jax.vmap(lambda o, t, kind=kind: function(kind, o, t))(o, t)
            for kind, o, t in zip(self.kinds, outputs, self.targets, strict=True)
        )

    def _in_coordinates(self, name: str, r: jax.Array, goals: Goals, *options: Any) -> jax.Array:
        found = []
        for kind, part, goal in zip(self.kinds, self._split(r), goals, strict=True):
            method = getattr(kind, name)
            found.append(jax.vmap(lambda a, b, method=method: method(a, b, *options))(part, goal))
        return jnp.concatenate([x.ravel() for x in found])

    def _sizes(self) -> list[int]:
        """Coordinates of each part."""
        zipped = zip(self.kinds, self.targets, self.counts, strict=True)
        return [len(t) * kind.num_coordinates(t.shape[-1], count) for kind, t, count in zipped]

    def _split(self, r: jax.Array) -> list[jax.Array]:
        """R [M] -> [R, m] a part."""
        ends = list(itertools.accumulate(self._sizes()))
        parts = [r[end - size : end] for end, size in zip(ends, self._sizes(), strict=True)]
        return [p.reshape(len(t), -1) for p, t in zip(parts, self.targets, strict=True)]
