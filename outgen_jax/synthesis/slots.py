"""What happens on the devices: a fixed number of slots, each with one image at work.

A solver's functions see one image. They are lifted here with `jax.vmap`, with the rules that hold for any solver: an
image stops at its tolerance or at its first output that is not finite, and the best image so far is kept. Shapes never
change, so one program serves all images of a call; `stream` decides who enters and who leaves.

S slots are shared by the devices of a mesh. Each device runs on its share the program that a single one would run, so
the number of devices does not change what happens to an image.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from outgen_jax.outputs import Output
from outgen_jax.solvers.objective import Objective, Outputs
from outgen_jax.solvers.solver import Problem, Solver
from outgen_jax.synthesis import blocks
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis.programs import Network, per_network

AXIS = "data"
SPLIT = P(AXIS)


class Slot(NamedTuple):
    """One image at work; all fields lead with [S]."""

    state: Any  # the solver's
    source: jax.Array  # [H, W, C]
    objective: Objective
    best_image: jax.Array  # [H, W, C]
    best_outputs: Outputs
    best_divergence: jax.Array  # []
    best_distance: jax.Array  # []
    steps: jax.Array  # [] int32
    active: jax.Array  # [] bool: False once it is done or has failed, or if the slot is empty
    reached: jax.Array  # [] bool: the best is within the tolerance
    finite: jax.Array  # [] bool


class Entry(NamedTuple):
    """An image that enters a slot."""

    source: Any  # [H, W, C] float32 in [0, 1]
    start: Any  # [H, W, C]: where the solver starts
    targets: tuple[Any, ...]  # [R, K] a part


class Exit(NamedTuple):
    """An image that leaves."""

    best_image: jax.Array  # [H, W, C]
    last_image: jax.Array  # [H, W, C]
    outputs: Outputs  # of the best
    divergence: jax.Array  # []
    distance: jax.Array  # []
    steps: jax.Array  # [] int32
    converged: jax.Array  # [] bool
    finite: jax.Array  # [] bool


def local_mesh() -> Mesh:
    """One axis over the devices of this process, or over the one that `jax.default_device` names."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if isinstance(chosen, str):
        chosen = jax.local_devices(backend=chosen)[0]
    return mesh_of(jax.local_devices() if chosen is None else [chosen])


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """One axis over some devices."""
    return Mesh(np.array(devices), (AXIS,))


def on_all_devices(mesh: Mesh, tree: Any) -> Any:
    """A copy of every array on each device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shared(mesh: Mesh, tree: Any) -> Any:
    """Every array split over the devices along its first axis."""
    return jax.device_put(tree, NamedSharding(mesh, P(AXIS)))


@per_network(static_argnames=("kinds", "counts", "mesh"))
def start(
    network: Network,
    solver: Solver,
    variables: Any,
    threshold: jax.Array,
    entries: Entry,
    present: jax.Array,
    *,
    kinds: tuple[Output, ...],
    counts: tuple[int | None, ...],
    mesh: Mesh,
) -> Slot:
    """Slots with `entries` [S]; those that are not `present` [S] are empty."""

    def one(entry: Entry, present: jax.Array) -> Slot:
        objective = Objective(entry.targets, kinds, counts)
        steered = networks.of_one_image(network, kinds, variables)
        problem = Problem(steered, objective, entry.source, threshold)
        return Slot(
            state=solver.init(problem, entry.start),
            source=entry.source,
            objective=objective,
            best_image=entry.start,
            best_outputs=jax.tree.map(lambda t: jnp.full_like(t, jnp.nan), entry.targets),
            best_divergence=jnp.float32(jnp.inf),
            best_distance=jnp.float32(jnp.inf),
            steps=jnp.int32(0),
            active=present,
            reached=jnp.bool_(False),
            finite=jnp.bool_(True),
        )

    return _placed(mesh, jax.vmap(one)(entries, present))


@per_network(static_argnames=("updates", "at_once", "mesh"), donate_argnames="slots")
def advance(
    network: Network,
    solver: Solver,
    variables: Any,
    threshold: jax.Array,
    quota: jax.Array,
    slots: Slot,
    *,
    updates: int,
    mesh: Mesh,
    at_once: int | None = None,
) -> tuple[Slot, jax.Array]:
    """At most `updates` updates of all slots -> slots, and the divergence before each [updates, S], NaN where none.

    A device ends early once `quota` of its slots are done. Of these, `at_once` or a few more are updated at the same
    time, the others after them; None: all are.
    """

    def share(solver: Solver, variables: Any, threshold: Any, quota: Any, slots: Slot) -> Any:
        one = functools.partial(_update, network, solver, variables, threshold)
        curve = jnp.full((updates, len(slots.steps)), jnp.nan, jnp.float32)
        if updates == 1:  # no loop, in which convolutions of XLA are slow on CPU
            slots, divergence = jax.vmap(one)(slots)
            return slots, divergence[None]

        def goes_on(carry: Any) -> jax.Array:
            count, slots, _ = carry
            done = ~slots.active | (slots.steps >= solver.steps)
            # The first update is always made: an image that has had all its steps is still looked at.
            is_early = done.sum(dtype=jnp.int32) >= quota
            return (count == 0) | ((count < updates) & ~is_early)

        size = len(slots.steps)
        block = size if at_once is None else blocks.even_block(size, at_once)

        def step(carry: Any) -> Any:
            count, slots, curve = carry
            if block == size:
                slots, divergence = jax.vmap(one)(slots)
            else:
                slots, divergence = jax.lax.map(one, slots, batch_size=block)
            return count + 1, slots, curve.at[count].set(divergence)

        _, slots, curve = jax.lax.while_loop(goes_on, step, (jnp.int32(0), slots, curve))
        return slots, curve

    return on_each_device(mesh, share, (P(AXIS), P(None, AXIS)))(
        solver, variables, threshold, quota, slots
    )


@per_network(static_argnames="mesh")
def leave(network: Network, solver: Solver, slots: Slot, places: jax.Array, *, mesh: Mesh) -> Exit:
    """What the images in `places` [P] have come to, on every device."""
    del network

    def one(slot: Slot) -> Exit:
        return Exit(
            best_image=slot.best_image,
            last_image=solver.image(slot.state),
            outputs=slot.best_outputs,
            divergence=slot.best_divergence,
            distance=slot.best_distance,
            steps=slot.steps,
            converged=slot.finite & slot.reached,
            finite=slot.finite,
        )

    chosen = jax.tree.map(lambda x: x.at[places].get(mode="clip"), slots)
    return _whole(mesh, jax.vmap(one)(chosen))


@per_network(static_argnames="mesh", donate_argnames="slots")
def enter(network: Network, slots: Slot, places: jax.Array, new: Slot, *, mesh: Mesh) -> Slot:
    """Slots with `new` [P] in `places` [P]; places from S on are dropped."""
    del network
    return _placed(
        mesh, jax.tree.map(lambda old, x: old.at[places].set(x, mode="drop"), slots, new)
    )


@per_network(static_argnames="mesh")
def fewer(network: Network, slots: Slot, places: jax.Array, *, mesh: Mesh) -> Slot:
    """The slots in `places` [P] alone."""
    del network
    return _placed(mesh, jax.tree.map(lambda x: x.at[places].get(mode="clip"), slots))


@per_network()
def gradient(network: Network, variables: Any, images: jax.Array) -> jax.Array:
    """A gradient in one image [1, H, W, C]; its program shows which convolutions a network is made of."""

    def total(image: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(networks.raw_outputs(network, variables, image))
        return sum((leaf.astype(jnp.float32).sum() for leaf in leaves), jnp.float32(0))

    return jax.grad(total)(images[0])


def _update(
    network: Network, solver: Solver, variables: Any, threshold: jax.Array, slot: Slot
) -> tuple[Slot, jax.Array]:
    """One update of one image -> slot, and the divergence before it; one that has stopped stays.

    An image that has had all its steps is only looked at.
    """
    steered = networks.of_one_image(network, slot.objective.kinds, variables)
    problem = Problem(steered, slot.objective, slot.source, threshold)
    state, outputs = _checked(solver.update(problem, slot.state), slot.state, solver)
    is_done = solver.is_done(slot.state)
    slot, divergence = _record(slot, solver.image(slot.state), outputs, threshold, is_done)
    moves = slot.active & (slot.steps < solver.steps)
    state = jax.tree.map(lambda new, old: jnp.where(moves, new, old), state, slot.state)
    return slot._replace(state=state, steps=slot.steps + moves), divergence


def _checked(updated: Any, state: Any, solver: Solver) -> tuple[Any, Outputs]:
    """What a solver's `update` returned, if it is a pair of a state like the one before and outputs."""
    expected: Any = jax.tree.structure(state)
    is_pair = isinstance(updated, tuple) and len(updated) == 2
    if is_pair and jax.tree.structure(updated[0]) == expected:
        return updated
    raise TypeError(
        f"{type(solver).__name__}.update must return (state, outputs), the state of the structure that init returns, "
        f"{expected}; got {jax.tree.structure(updated)}"
    )


def _record(
    slot: Slot, image: jax.Array, outputs: Outputs, threshold: jax.Array, is_done: jax.Array
) -> tuple[Slot, jax.Array]:
    """Keeps `image` if it is the best so far; stops at the tolerance, or if the outputs are not finite.

    A solver that goes on from the tolerance stops where it is done.
    """
    divergence, distance = slot.objective.divergence(outputs), slot.objective.distance(outputs)
    finite = slot.objective.is_finite(outputs)
    reached = distance <= threshold
    # An image on the way may be nearer by divergence, yet beyond the tolerance.
    nearer = ~slot.reached & (divergence < slot.best_divergence)
    better = slot.active & finite & (reached | nearer)

    def best(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

    slot = slot._replace(
        best_image=best(image, slot.best_image),
        best_outputs=best(outputs, slot.best_outputs),
        best_divergence=best(divergence, slot.best_divergence),
        best_distance=best(distance, slot.best_distance),
        active=slot.active & finite & ~(reached & is_done),
        reached=slot.reached | (slot.active & reached & finite),
        finite=slot.finite & (finite | ~slot.active),
    )
    return slot, divergence


def on_each_device(mesh: Mesh, share: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:
    """`share` on every device's part of its last argument; the arguments before it are whole."""
    if mesh.size == 1:
        return share

    def lifted(*args: Any) -> Any:
        specs = (P(),) * (len(args) - 1) + (P(AXIS),)
        # Varying axes are not tracked: networks and solvers know nothing of meshes.
        return jax.shard_map(
            share, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False
        )(*args)

    return lifted


def _placed(mesh: Mesh, slots: Slot) -> Slot:
    """Slots shared by the devices."""
    return jax.lax.with_sharding_constraint(slots, NamedSharding(mesh, P(AXIS)))


def _whole(mesh: Mesh, tree: Any) -> Any:
    """A copy on every device."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, P()))
