"""The loop around a classifier's updates: epochs, checkpoints, and what to do when the loss diverges."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.training import classifier
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.classifier import TrainState, Update
from outgen_jax.training.objectives import Labels

CHECKPOINT_SECONDS = 30.0  # of training between two checkpoints, at the least


class Epoch(NamedTuple):
    """What is kept of an epoch."""

    epoch: int  # from 1
    loss: float  # mean over its updates, in nats
    train_accuracy: float  # top-1 on the augmented images
    seconds: float
    measured: dict[str, float] | None = None  # by `on_epoch`


def fit(
    update: Update,
    state: TrainState,
    images: jax.Array,
    labels: Labels,
    *,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    checkpoints: Checkpoints | None = None,
    title: str | None = None,
    on_epoch: Callable[[Epoch, TrainState], dict[str, float]] | None = None,
) -> tuple[TrainState, list[Epoch]]:
    """Trains for some epochs, going on from the newest checkpoint if there is one.

    On CPU an interrupted training that is called again ends with the bits of an uninterrupted one;
    only the seconds differ. `state` is gone (donated) afterwards.

    Args:
      update: compiled, from `classifier.compile_update`.
      state: at the start, from `classifier.create`.
      images: [N, H, W, C] uint8.
      labels: int32 [N], or a `Supervision`.
      key: of the order of the images.
      epochs: in all, those before the checkpoint included.
      batch_size: images of an update.
      checkpoints: where to; one is written at the end of an epoch, `CHECKPOINT_SECONDS` after the one
        before, and after the last epoch.
      title: shows a progress bar of that name.
      on_epoch: called after every epoch that is run here; what it returns is kept in the history.

    Raises:
      FloatingPointError: loss or weights are no longer finite. The last checkpoint is kept.
      ValueError: the checkpoint is another network's, or the batch exceeds the data set.
    """
    history: list[Epoch] = []
    if checkpoints is not None and checkpoints.latest is not None:
        state, notes = checkpoints.restore(state)
        history = [Epoch(**row) for row in notes["history"]]
    num_images = len(images)
    saved = time.perf_counter()
    for epoch in range(len(history), epochs):
        start, found = time.perf_counter(), []
        rows = classifier.epoch_rows(key, epoch, num_images, batch_size)
        with _bar(title and f"{title}, epoch {epoch + 1}/{epochs}", len(rows)) as advance:
            chunks = classifier.run_epoch(update, state, images, labels, rows)
            for state, metrics in chunks:  # noqa: B007 (the last state is the epoch's)
                found.append(metrics)
                advance(len(metrics.loss))
        losses, accuracies = (np.concatenate(m) for m in zip(*found, strict=True))
        _check_finite(losses, state, epoch, checkpoints)
        seconds = time.perf_counter() - start
        row = Epoch(epoch + 1, float(losses.mean()), float(accuracies.mean()), seconds)
        history.append(row if on_epoch is None else row._replace(measured=on_epoch(row, state)))
        last = epoch + 1 == epochs
        if checkpoints is not None and (last or time.perf_counter() - saved >= CHECKPOINT_SECONDS):
            checkpoints.save(epoch + 1, state, {"history": [row._asdict() for row in history]})
            saved = time.perf_counter()
    return state, history


def _check_finite(
    losses: np.ndarray, state: TrainState, epoch: int, checkpoints: Checkpoints | None
) -> None:
    """Raises FloatingPointError if an epoch ended in numbers that are none, before they are saved."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        what, step = "loss", epoch * len(losses) + int(wrong[0]) + 1
    elif not _all_finite(state.params):
        what, step = "weights", (epoch + 1) * len(losses)
    else:
        return
    latest = None if checkpoints is None else checkpoints.latest
    kept = (
        "there is no checkpoint" if latest is None else f"the checkpoint of epoch {latest} is kept"
    )
    raise FloatingPointError(
        f"fit: the {what} diverged at update {step}, in epoch {epoch + 1}; {kept}. "
        "Use a lower learning rate"
    )


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(p).all() for p in jax.tree.leaves(params)]).all()


@contextmanager
def _bar(title: str | None, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar over updates, if it has a title."""
    if title is None:
        yield lambda updates: None
        return
    import tqdm

    with tqdm.tqdm(desc=title, total=total, mininterval=1, leave=False) as bar:
        yield bar.update
