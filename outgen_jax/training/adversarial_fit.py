"""Epochs of adversarial training: order of the images, checkpoints and resume, and what stops it."""

import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import loops
from outgen_jax.training.adversarial import GameState, Metrics, Update
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.classifier import epoch_rows


class Epoch(NamedTuple):
    """Where `train` stands after an epoch."""

    state: GameState
    history: list[dict[str, float]]  # a row for each epoch so far


def train(
    update: Update,
    state: GameState,
    images: Any,
    *,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    checkpoints: Checkpoints | None = None,
    save_every: int = 1,
    num_images: int | None = None,
    steps_per_epoch: int | None = None,
) -> Iterator[Epoch]:
    """Trains for `epochs` passes over the images, or on from the latest checkpoint; yields after each.

    The incomplete last batch of a pass is left out. A state that was yielded is gone (donated) with the next. If
    there is nothing left to train, what the checkpoint holds is yielded once.

    Args:
      update: what `make_update` makes.
      state: before the first update; also says what a checkpoint must look like.
      images: uint8 [N, H, W, C], or what else the update's `take` reads.
      key: of the order of the images.
      epochs: in all, those of the checkpoint included.
      batch_size: images an update.
      checkpoints: where to resume from and save to, by epoch; None: nowhere.
      save_every: epochs between checkpoints; the last epoch is always saved.
      num_images: number of rows to draw from, where `images` is not the array itself.
      steps_per_epoch: updates between what is yielded, whatever the number of images: for data sets of different sizes
        at equal cost. None: those of a pass.

    Raises:
      ValueError: images of another type, fewer images than a batch, or a checkpoint of other networks or images.
      FloatingPointError: losses that are not finite; says since which update, and which checkpoint is kept.
    """
    if num_images is None:
        if getattr(images, "dtype", None) != np.uint8 or images.ndim != 4:
            layout = jax.tree.map(lambda leaf: f"{leaf.dtype} {list(leaf.shape)}", images)
            raise ValueError(
                f"adversarial_fit.train: images must be uint8 [N, H, W, C], got {layout}; what else `take` reads "
                "needs num_images"
            )
        num_images = len(images)
    epoch_rows(key, 0, num_images, batch_size)  # refuses a batch that is too large
    steps = steps_per_epoch or num_images // batch_size
    history: list[dict[str, float]] = []
    if checkpoints is not None and checkpoints.latest is not None:
        state, history = restore(checkpoints, state, images)
    if len(history) >= epochs:
        yield Epoch(state, history)
    call, on_device = compile_update(update), jax.tree.map(jnp.asarray, images)
    for epoch in range(len(history), epochs):
        start = time.perf_counter()
        rows = consecutive_rows(key, epoch * steps, steps, num_images, batch_size)
        found = []
        most = loops.updates_per_call(call, state, on_device, rows[:1])
        for part in loops.split(rows, most):
            state, metrics = call(state, on_device, jnp.asarray(part))
            found.append(metrics)
        values = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        _check_finite(values, epoch, checkpoints)
        means = {name: float(value.mean()) for name, value in values._asdict().items()}
        history = [
            *history,
            {"epoch": epoch + 1, **means, "seconds": time.perf_counter() - start},
        ]
        if checkpoints is not None and ((epoch + 1) % save_every == 0 or epoch + 1 == epochs):
            checkpoints.save(epoch + 1, state, {"history": history})
        yield Epoch(state, history)


def consecutive_rows(
    key: jax.Array, first: int, steps: int, num_images: int, batch_size: int
) -> np.ndarray:
    """Batches number `first` to `first + steps` of endless passes over the images, [steps, batch_size] int32."""
    a_pass = num_images // batch_size
    passes = range(first // a_pass, (first + steps - 1) // a_pass + 1)
    rows = np.concatenate([epoch_rows(key, number, num_images, batch_size) for number in passes])
    return rows[first % a_pass :][:steps]


@functools.lru_cache(maxsize=4)
def compile_update(update: Update) -> Update:
    """`update` over a chunk of batches, `rows` [steps, B]; metrics [steps] each, the state donated.

    One update is compiled once, however many trainings share it.
    """

    def chunk(state: GameState, images: Any, rows: jax.Array) -> tuple[GameState, Metrics]:
        if len(rows) == 1:
            state, metrics = update(state, images, rows[0])
            return state, jax.tree.map(lambda m: m[None], metrics)
        return jax.lax.scan(lambda state, r: update(state, images, r), state, rows)

    return jax.jit(chunk, donate_argnums=0)


def restore(
    checkpoints: Checkpoints, state: GameState, images: Any
) -> tuple[GameState, list[dict[str, float]]]:
    """State and history of the latest checkpoint; `state` and `images` as in `train`.

    Raises:
      ValueError: a checkpoint of other networks or images.
    """
    try:
        state, notes = checkpoints.restore(state)
    except ValueError as error:
        shape = list(jax.tree.leaves(images)[0].shape[1:])
        raise ValueError(
            f"adversarial_fit.train: the checkpoint is not one of these networks for images {shape}: "
            f"{error}. Train on the data set of the checkpoint, or elsewhere"
        ) from error
    return state, notes["history"]


def _check_finite(metrics: Metrics, epoch: int, checkpoints: Checkpoints | None) -> None:
    losses = np.stack([metrics.discriminator_loss, metrics.generator_loss])
    bad = np.flatnonzero(~np.isfinite(losses).all(0))
    if not bad.size:
        return
    kept = None if checkpoints is None else checkpoints.latest
    raise FloatingPointError(
        f"adversarial_fit.train: the losses are not finite from update {bad[0] + 1} of epoch {epoch + 1} on; "
        f"{'no checkpoint was saved before' if kept is None else f'the checkpoint of epoch {kept} is kept'}. "
        "Use a lower learning rate"
    )
