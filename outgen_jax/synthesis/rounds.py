"""Rounds that correct images of 8 bits on the devices; `quantize` decides on how many.

A round picks pixels by a linear model of the outputs (`picks`). It measures the outputs after all of its picks, and
after the first half, quarter and eighth, since the linear model holds for small changes only; the best of these is
kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from outgen_jax.outputs import Output
from outgen_jax.solvers import jacobian
from outgen_jax.solvers.limits import Restriction
from outgen_jax.solvers.objective import Objective, Outputs
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis import slots
from outgen_jax.synthesis.picks import greedy_picks
from outgen_jax.synthesis.programs import Network, per_network

_PARTS = (1, 2, 4, 8)  # of the picks of a round: all, the first half, and so on


class Levels(NamedTuple):
    """One image."""

    levels: jax.Array  # [H, W, C] float32, whole numbers 0 to 255
    low: jax.Array  # [H, W, C], levels at least
    high: jax.Array  # [H, W, C], levels at most
    distance: jax.Array  # [], of their output to the target
    is_done: jax.Array  # [] bool: it meets the tolerance, or the last round did not help


def level_range(limits: Restriction, source: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The least and largest levels [H, W, C] that the limits on the change of a source [H, W, C] in [0, 1] allow.

    Where they allow no whole level, both are the nearest one.
    """
    low, high, *_ = limits.limits(source)
    nearest = jnp.round(127.5 * (low + high))
    # A whole level may be 1e-5 off by rounding.
    least, most = jnp.ceil(255 * low - 1e-3), jnp.floor(255 * high + 1e-3)
    is_empty = least > most
    least, most = jnp.where(is_empty, nearest, least), jnp.where(is_empty, nearest, most)
    return least.reshape(source.shape), most.reshape(source.shape)


@per_network(static_argnames=("kinds", "counts", "mesh"))
def begun(
    network: Network,
    variables: Any,
    tolerance: jax.Array,
    limits: Restriction,
    images: jax.Array,
    sources: jax.Array,
    targets: Outputs,
    *,
    kinds: tuple[Output, ...],
    counts: tuple[int | None, ...],
    mesh: Mesh,
) -> Levels:
    """8-bit images within their limits, and how far their outputs are from the targets."""

    def share(
        variables: Any,
        tolerance: jax.Array,
        limits: Restriction,
        batch: tuple[jax.Array, jax.Array, Outputs],
    ) -> Levels:
        seen = networks.of_one_image(network, kinds, variables)

        def one(image: jax.Array, source: jax.Array, targets: Outputs) -> Levels:
            low, high = level_range(limits, source)
            levels = jnp.clip(image.astype(jnp.float32), low, high)
            distance = Objective(targets, kinds, counts).distance(seen(levels / 255))
            return Levels(levels, low, high, distance, distance <= tolerance)

        images, sources, targets = batch
        if sources.dtype == jnp.uint8:
            sources = sources.astype(jnp.float32) / 255
        return jax.vmap(one)(images, sources, targets)

    lifted = slots.on_each_device(mesh, share, slots.SPLIT)
    return lifted(variables, tolerance, limits, (images, sources, targets))


@per_network(static_argnames=("kinds", "counts", "mesh"))
def next_round(
    network: Network,
    variables: Any,
    tolerance: jax.Array,
    targets: Outputs,
    state: Levels,
    *,
    kinds: tuple[Output, ...],
    counts: tuple[int | None, ...],
    mesh: Mesh,
) -> Levels:
    """One more round for all images that are not done."""

    def share(variables: Any, tolerance: jax.Array, batch: tuple[Levels, Outputs]) -> Levels:
        seen = networks.of_one_image(network, kinds, variables)

        def one(state: Levels, targets: Outputs) -> Levels:
            return _round_of_one(seen, Objective(targets, kinds, counts), tolerance, state)

        return jax.vmap(one)(*batch)

    return slots.on_each_device(mesh, share, slots.SPLIT)(variables, tolerance, (state, targets))


def _round_of_one(
    seen: Callable[[jax.Array], Outputs],
    objective: Objective,
    tolerance: jax.Array,
    state: Levels,
) -> Levels:
    """One round: the best of one image, and of what parts of its picks make of it."""
    effects, error = _linear_model(seen, objective, state.levels)
    low, high = state.low.ravel(), state.high.ravel()
    change, order = greedy_picks(state.levels.ravel(), effects, error, low=low, high=high)
    count = (change != 0).sum(dtype=jnp.int32)
    parts = (jnp.where(order < count // part, change, 0) for part in _PARTS)
    tried = jnp.stack([state.levels + part.reshape(state.levels.shape) for part in parts])
    distances = jax.vmap(lambda levels: objective.distance(seen(levels / 255)))(tried)
    best = jnp.where(jnp.isnan(distances), jnp.inf, distances).argmin()
    better = ~state.is_done & (distances[best] < state.distance)
    distance = jnp.where(better, distances[best], state.distance)
    return state._replace(
        levels=jnp.where(better, tried[best], state.levels),
        distance=distance,
        is_done=state.is_done | ~better | (distance <= tolerance),
    )


def _linear_model(
    seen: Callable[[jax.Array], Outputs], objective: Objective, levels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How the judged outputs change per grey level of each pixel [N, D], and what they lack [N]; 0 where free."""
    outputs, r, rows = jacobian.jacobian(seen, objective, levels / 255)
    _, compared = jax.linearize(objective.compared, r)
    effects = jax.vmap(compared, in_axes=1, out_axes=1)(rows) / 255
    error = objective.compared_targets(objective.goals(outputs)) - objective.compared(r)
    free = jnp.isnan(error)
    return jnp.where(free[:, None], 0, effects), jnp.where(free, 0, error)
