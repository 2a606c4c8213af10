"""The epochs of a classifier's training, with checkpoints; stops when the loss or a weight is not finite."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

from outgen_jax.training import updates
from outgen_jax.training.checkpoints import Checkpoints, kept
from outgen_jax.training.classifier import TrainState, Update
from outgen_jax.training.objectives import Labels

CHECKPOINT_SECONDS = 30.0  # the shortest time of training between two checkpoints


class Epoch(NamedTuple):
    """One row of the history."""

    epoch: int  # from 1
    loss: float  # mean over its updates, in nats
    train_accuracy: float  # top-1 on the augmented images
    seconds: float
    measured: dict[str, float] | None = None  # what `on_epoch` returned


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
    """Trains for some epochs, from the newest checkpoint on if there is one.

    On CPU an interrupted training that is called again ends with the same bits as an uninterrupted one; only the
    seconds in the history differ. `state` is donated: it cannot be used afterwards.

    Args:
      update: from `classifier.make_update`, compiled by `updates.compile_updates`.
      state: before the first update, from `classifier.create`.
      images: [N, H, W, C] uint8.
      labels: int32 [N], or a `Supervision`.
      key: of the order of the images, see `updates.order_key`; it may be the key of the update, too.
      epochs: in all, those before the checkpoint included.
      batch_size: images of an update.
      checkpoints: where the training is kept and resumed from. One is written after the last epoch, and at the end of
        an epoch if the last one is `CHECKPOINT_SECONDS` old. None: nowhere.
      title: of a progress bar. None: there is none.
      on_epoch: called after every epoch that is run here; the history keeps what it returns.

    Returns:
      The state after the last epoch, and the history, a row for each epoch.

    Raises:
      FloatingPointError: the loss or the weights are not finite. The last checkpoint is kept.
      ValueError: a checkpoint of another network or of an older format, or a batch larger than the data set.
    """
    history: list[Epoch] = []
    if checkpoints is not None and checkpoints.latest is not None:
        state, notes = checkpoints.restore(state)
        history = [Epoch(**row) for row in notes["history"]]
    num_images = len(images)
    saved = time.perf_counter()
    for epoch in range(len(history), epochs):
        start, found = time.perf_counter(), []
        rows = updates.epoch_rows(updates.order_key(key), epoch, num_images, batch_size)
        with _bar(title and f"{title}, epoch {epoch + 1}/{epochs}", len(rows)) as advance:
            calls = updates.run(update, state, images, labels, rows=rows)
            for state, metrics in calls:  # noqa: B007 (the last state is the epoch's)
                found.append(metrics)
                advance(len(metrics.loss))
        metrics = updates.joined(found)
        _check_finite(metrics.loss, state, epoch, checkpoints)
        seconds = time.perf_counter() - start
        row = Epoch(epoch + 1, float(metrics.loss.mean()), float(metrics.accuracy.mean()), seconds)
        history.append(row if on_epoch is None else row._replace(measured=on_epoch(row, state)))
        last = epoch + 1 == epochs
        if checkpoints is not None and (last or time.perf_counter() - saved >= CHECKPOINT_SECONDS):
            checkpoints.save(epoch + 1, state, {"history": [row._asdict() for row in history]})
            saved = time.perf_counter()
    return state, history


def _check_finite(
    losses: np.ndarray, state: TrainState, epoch: int, checkpoints: Checkpoints | None
) -> None:
    """Raises FloatingPointError if a loss or a weight of the epoch is not finite."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        what, step = "loss", epoch * len(losses) + int(wrong[0]) + 1
    elif not updates.all_finite(state.params):
        what, step = "weights", (epoch + 1) * len(losses)
    else:
        return
    raise FloatingPointError(
        f"fit: the {what} diverged at update {step}, in epoch {epoch + 1}; {kept(checkpoints, 'epoch')}. "
        "Use a lower learning rate"
    )


@contextmanager
def _bar(title: str | None, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar over updates, if it has a title."""
    if title is None:
        yield lambda updates: None
        return
    import tqdm

    with tqdm.tqdm(desc=title, total=total, mininterval=1, leave=False) as bar:
        yield bar.update
