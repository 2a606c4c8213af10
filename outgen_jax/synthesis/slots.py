"""A fixed number of slots through which any number of images pass: who is done makes room.

Shapes never change, so one program is compiled: S slots over all devices of a mesh, N waiting
images, K classes. Every turn is one update of all slots; then images that have met the tolerance,
have had all their updates or have failed leave, and the next waiting ones take their slots, in the
order of both. Nothing waits for the host: it hears of a turn while the next one runs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from outgen_jax import targets as target_rows
from outgen_jax.solvers.solver import Network, Solver
from outgen_jax.synthesis import batch, predict
from outgen_jax.synthesis.batch import Progress
from outgen_jax.synthesis.predict import ApplyFn

AXIS = "data"


class Waiting(NamedTuple):
    """The images that are to pass through the slots; on every device."""

    images: jax.Array  # [N, H, W, C] uint8, or float32 in [0, 1]
    targets: jax.Array  # [N, K]
    present: jax.Array  # [] int32: rows from there on only fill up the shape


class Slot(NamedTuple):
    """One image at work; all fields lead with [S], which the devices share."""

    row: jax.Array  # [] int32 among the waiting; N or more: empty
    target: jax.Array  # [K]
    progress: Progress


class Ended(NamedTuple):
    """Where the images ended, by row; see `synthesize.Result`."""

    images: Any  # [N, H, W, C] float32 in [0, 1]
    steps: Any  # [N] int32
    converged: Any  # [N] bool


class _Pass(NamedTuple):
    """All that changes from turn to turn."""

    slots: Slot
    next_row: jax.Array  # [] int32, the first that still waits
    ended: Ended


def local_mesh() -> Mesh:
    """One axis over the devices of this process."""
    return Mesh(np.array(jax.local_devices()), (AXIS,))


def on_all_devices(mesh: Mesh, tree: Any) -> Any:
    """A copy of every array on each device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def stream(
    apply_fn: ApplyFn,
    variables: Any,
    images: np.ndarray,
    targets: ArrayLike,
    *,
    solver: Solver,
    tolerance: float,
    num_slots: int | None = None,
    advance: Callable[[int], object] = lambda images: None,
) -> Ended:
    """Passes images through slots on all devices of this process; what they are is as in `synthesize`.

    The images move as there, but none waits for the slowest of its batch.

    Args:
      apply_fn: as in `synthesize`.
      variables: as there.
      images: as there.
      targets: as there, full or partial.
      solver: as there.
      tolerance: total variation at which an image leaves.
      num_slots: rounded up to a multiple of the devices; None: as many as suit them.
      advance: hears how many images have left since it was last called.

    Raises:
      ValueError: images or targets that `synthesize` refuses too.
    """
    images = predict.validated_images(images, caller="slots.stream")
    num_classes = predict.num_classes(apply_fn, variables, images, caller="slots.stream")
    rows = target_rows.validate(
        targets, num_images=len(images), num_classes=num_classes, caller="slots.stream"
    )
    mesh = local_mesh()
    wanted = min(num_slots or predict.default_batch_size(images), len(images))
    return run(
        apply_fn,
        solver,
        mesh,
        on_all_devices(mesh, variables),
        images,
        rows,
        count=len(images),
        num_slots=mesh.size * -(-wanted // mesh.size),
        tolerance=tolerance,
        advance=advance,
    )


def run(
    apply_fn: ApplyFn,
    solver: Solver,
    mesh: Mesh,
    variables: Any,
    images: np.ndarray,
    targets: np.ndarray,
    *,
    count: int,
    num_slots: int,
    tolerance: float,
    advance: Callable[[int], object],
) -> Ended:
    """Passes the first `count` of N images through the slots.

    Args:
      apply_fn: as in `synthesize`; `variables` lie on all devices of `mesh`.
      solver: what an update is.
      mesh: of one axis, `AXIS`.
      variables: of the network.
      images: [N, H, W, C] uint8, or float32 in [0, 1].
      targets: [N, K].
      count: images that are meant.
      num_slots: S, a multiple of the number of devices.
      tolerance: total variation at which an image leaves.
      advance: hears how many images have left since it was last called.

    Returns:
      The best of every image, in numpy; rows from `count` on mean nothing.
    """
    waiting = Waiting(*on_all_devices(mesh, (images, targets, np.int32(count))))
    threshold = jnp.float32(tolerance)
    state = _start(solver, mesh, num_slots, waiting)
    heard, leaving = 0, np.int32(0)
    while heard < count:
        # Asks after the turn before this one, so that the devices have work meanwhile.
        left, (state, leaving) = (
            leaving,
            _turn(apply_fn, solver, mesh, variables, waiting, threshold, state),
        )
        heard += int(left)
        advance(int(left))
    return jax.tree.map(np.asarray, state.ended)


def probabilities(apply_fn: ApplyFn, mesh: Mesh, variables: Any, images: np.ndarray) -> np.ndarray:
    """What the network says of images [S, H, W, C] uint8 -> [S, K], S shared by the devices."""
    placed = jax.device_put(images, NamedSharding(mesh, P(AXIS)))
    return np.asarray(_probabilities(apply_fn, mesh, variables, placed))


def program_text(
    apply_fn: ApplyFn, solver: Solver, variables: Any, image: np.ndarray, num_classes: int
) -> str:
    """The update of one image as a program, which tells solvers and networks apart."""

    def one(variables: Any, image: jax.Array, target: jax.Array) -> tuple[Slot, jax.Array]:
        slot = Slot(jnp.int32(0), target, batch.start(solver, _as_float(image), target))
        network = predict.one_image(apply_fn, variables)
        return _update(solver, network, jnp.float32(0), slot)

    # Shapes alone: where the variables lie would be part of the program.
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    target = jax.ShapeDtypeStruct((num_classes,), jnp.float32)
    return jax.jit(one).lower(shapes, image, target).as_text()


@functools.partial(jax.jit, static_argnames=("apply_fn", "mesh"))
def _probabilities(apply_fn: ApplyFn, mesh: Mesh, variables: Any, images: jax.Array) -> jax.Array:
    def share(variables: Any, images: jax.Array) -> jax.Array:
        logits = jax.vmap(predict.one_image(apply_fn, variables))(_as_float(images))
        return jax.nn.softmax(logits)

    return _on_each_device(mesh, share)(variables, images)


@functools.partial(jax.jit, static_argnames=("solver", "mesh", "num_slots"))
def _start(solver: Solver, mesh: Mesh, num_slots: int, waiting: Waiting) -> _Pass:
    length = len(waiting.images)
    ended = Ended(
        images=jnp.zeros(waiting.images.shape, jnp.float32),
        steps=jnp.zeros(length, jnp.int32),
        converged=jnp.zeros(length, bool),
    )
    slots = _filled(solver, waiting, jnp.arange(num_slots, dtype=jnp.int32))
    taken = jnp.minimum(num_slots, waiting.present)
    return _placed(mesh, _Pass(slots, taken, ended))


@functools.partial(jax.jit, static_argnames=("apply_fn", "solver", "mesh"), donate_argnames="state")
def _turn(
    apply_fn: ApplyFn,
    solver: Solver,
    mesh: Mesh,
    variables: Any,
    waiting: Waiting,
    threshold: jax.Array,
    state: _Pass,
) -> tuple[_Pass, jax.Array]:
    """One update of all slots; who is done leaves, who waits comes in -> and how many have left."""

    def share(variables: Any, threshold: jax.Array, slots: Slot) -> tuple[Slot, jax.Array]:
        network = predict.one_image(apply_fn, variables)
        return jax.vmap(functools.partial(_update, solver, network, threshold))(slots)

    slots, free = _on_each_device(mesh, share)(variables, threshold, state.slots)
    ended = _store(state.ended, slots, free, len(waiting.images))
    left = (free & (slots.row < waiting.present)).sum(dtype=jnp.int32)

    rows = jnp.where(free, state.next_row + jnp.cumsum(free, dtype=jnp.int32) - 1, slots.row)
    slots = jax.tree.map(
        lambda new, old: jnp.where(free.reshape(-1, *(1,) * (new.ndim - 1)), new, old),
        _filled(solver, waiting, rows),
        slots,
    )
    next_row = jnp.minimum(state.next_row + free.sum(dtype=jnp.int32), waiting.present)
    return _placed(mesh, _Pass(slots, next_row, ended)), left


def _update(
    solver: Solver, network: Network, threshold: jax.Array, slot: Slot
) -> tuple[Slot, jax.Array]:
    """One update of one image -> the slot, and whether its image is done.

    The logits come from before the update: an image that has had them all stays one turn more, in
    which it is only looked at.
    """
    looked_at = slot.progress.steps >= solver.steps
    progress, _ = batch.update(solver, network, threshold, slot.progress, slot.target)
    progress = progress._replace(steps=jnp.minimum(progress.steps, solver.steps))
    return slot._replace(progress=progress), looked_at | ~progress.active


def _filled(solver: Solver, waiting: Waiting, rows: jax.Array) -> Slot:
    """Slots with the waiting images `rows` [S]; those beyond the last are empty, and at rest."""
    length = len(waiting.images)
    images, targets = (x.at[rows].get(mode="clip") for x in (waiting.images, waiting.targets))
    progress = jax.vmap(functools.partial(batch.start, solver))(_as_float(images), targets)
    present = rows < waiting.present
    return Slot(jnp.where(present, rows, length), targets, progress._replace(active=present))


def _store(ended: Ended, slots: Slot, leaving: jax.Array, length: int) -> Ended:
    rows = jnp.where(leaving, slots.row, length)  # beyond the end: dropped
    progress = slots.progress
    found = Ended(
        images=progress.best_image,
        steps=progress.steps,
        converged=progress.finite & ~progress.active,
    )
    return jax.tree.map(lambda all_, some: all_.at[rows].set(some, mode="drop"), ended, found)


def _as_float(images: jax.Array) -> jax.Array:
    scale = 255 if images.dtype == jnp.uint8 else 1
    return images.astype(jnp.float32) / scale


def _on_each_device(mesh: Mesh, share: Callable[..., Any]) -> Callable[..., Any]:
    """`share` on every device's part of its last argument; the arguments before it are whole.

    So each device runs the very program that a single one would run on as many images.
    """

    def lifted(*args: Any) -> Any:
        specs = (*(P() for _ in args[1:]), P(AXIS))
        # Varying axes are not tracked: networks and solvers know nothing of meshes.
        return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)(
            *args
        )

    return lifted


def _placed(mesh: Mesh, state: _Pass) -> _Pass:
    """The slots shared by the devices, all else on each of them."""

    def put(tree: Any, spec: P) -> Any:
        return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, spec))

    return _Pass(put(state.slots, P(AXIS)), put(state.next_row, P()), put(state.ended, P()))
