"""The epochs of a GAN training, with checkpoints; stops when a loss or a weight is not finite."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import image_checks
from outgen_jax.data.augmented_set import AugmentedSet
from outgen_jax.data.image_source import ImageSource
from outgen_jax.training import gan_checks, updates
from outgen_jax.training.checkpoints import Checkpoints, check_run, kept, run_identity
from outgen_jax.training.gan import GameState, Metrics, Update
from outgen_jax.whole_numbers import check_integers


class Progress(NamedTuple):
    """What `train` yields after an epoch.

    Attributes:
      state: after the epoch; it is donated once the next epoch is asked for.
      history: a row for each epoch so far: `epoch`, from 1, the means of `gan.Metrics` over its updates by name, and
        `seconds`.
    """

    state: GameState
    history: list[dict[str, float]]


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
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Trains for some epochs, from the newest checkpoint on if there is one; yields after each epoch.

    The images that do not fill the last batch of a pass are left out. States are donated: `state` and each state that
    was yielded cannot be used once the next is asked for. If nothing is left to train, the state of the checkpoint is
    yielded once.

    Args:
      update: from `gan.make_update`, compiled by `updates.compile_updates`.
      state: before the first update. A checkpoint must have its structure.
      images: uint8 [N, H, W, C], or what else the `take` of the update reads.
      key: of the order of the images.
      epochs: in all, those before the checkpoint included.
      batch_size: images of an update.
      checkpoints: where the training is kept and resumed from, numbered by epoch. A checkpoint of other keys, images,
        `settings`, batch size or steps per epoch is refused. None: nowhere.
      save_every: epochs between two checkpoints. The last epoch is always saved.
      num_images: the number of rows to draw from, needed where `images` is not one array.
      steps_per_epoch: updates of an epoch, whatever the number of images, so that data sets of different sizes train
        equally long. None: those of one pass.
      settings: what else a checkpoint must share with this run, such as learning rates; the update does not tell. As
        JSON.

    Raises:
      ValueError: an update that is not compiled, a key that is none; a state that was donated before; images of another
        type, fewer images than a batch, numbers below 1; what `gan.make_update` says of networks; a checkpoint of other
        networks, of another run or of an older format.
      FloatingPointError: losses or weights that are not finite. The message says since which update, and which
        checkpoint is kept.
    """
    _check_call(update, state, key, checkpoints)
    check_integers(
        caller="gan_fit.train", epochs=epochs, batch_size=batch_size, save_every=save_every
    )
    num_images = _num_images(images, num_images)
    updates.check_batch_size(num_images, batch_size, caller="gan_fit.train")
    steps = num_images // batch_size if steps_per_epoch is None else steps_per_epoch
    if steps < 1 or save_every < 1:
        raise ValueError(
            f"gan_fit.train: steps_per_epoch and save_every must be at least 1, got {steps_per_epoch} and "
            f"{save_every}; without steps_per_epoch an epoch is one pass over the images"
        )
    history: list[dict[str, float]] = []
    own = {"num_images": num_images, "batch_size": batch_size, "steps_per_epoch": steps}
    run = run_identity([key, state.key], images, {**(settings or {}), **own})
    if checkpoints is not None and checkpoints.latest is not None:
        state, notes = _restored(checkpoints, state, images, caller="gan_fit.train")
        check_run(checkpoints, notes, run, most=epochs, caller="gan_fit.train")
        history = notes["history"]
    if len(history) >= epochs:
        yield Progress(state, history)
    on_device = jax.tree.map(jnp.asarray, images)
    for epoch in range(len(history), epochs):
        start, found = time.perf_counter(), []
        rows = updates.consecutive_rows(key, epoch * steps, steps, num_images, batch_size)
        calls = updates.run(update, state, on_device, rows=rows)
        for state, metrics in calls:  # noqa: B007 (the last state is the epoch's)
            found.append(metrics)
        values = updates.joined(found)
        _check_finite(values, state, epoch, checkpoints)
        means = {name: float(value.mean()) for name, value in values._asdict().items()}
        row = {"epoch": epoch + 1, **means, "seconds": time.perf_counter() - start}
        history = [*history, row]
        if checkpoints is not None and ((epoch + 1) % save_every == 0 or epoch + 1 == epochs):
            checkpoints.save(epoch + 1, state, {"history": history, "run": run})
        yield Progress(state, history)


def restore(
    checkpoints: Checkpoints, state: GameState, images: Any
) -> tuple[GameState, list[dict[str, float]]]:
    """State and history of the newest checkpoint.

    Args:
      checkpoints: where `train` kept it.
      state: as in `train`.
      images: as there; an error names their shape. They are not compared with those of the checkpoint, as `train` does.

    Raises:
      ValueError: a checkpoint of other networks, or of an older format.
    """
    state, notes = _restored(checkpoints, state, images, caller="gan_fit.restore")
    return state, notes["history"]


def _restored(
    checkpoints: Checkpoints, state: GameState, images: Any, *, caller: str
) -> tuple[GameState, dict[str, Any]]:
    """State and notes of the newest checkpoint."""
    try:
        return checkpoints.restore(state)
    except ValueError as error:
        shape = list(jax.tree.leaves(images)[0].shape[1:])
        raise ValueError(
            f"{caller}: the checkpoint is not one of these networks for images {shape}: "
            f"{error}. Train on the data set of the checkpoint, or elsewhere"
        ) from error


def _check_call(
    update: Update, state: GameState, key: Any, checkpoints: Checkpoints | None
) -> None:
    """Refuses what is no compiled update, state, key or checkpoints, and what the update's own check refuses."""
    updates.check_compiled(update, caller="gan_fit.train")
    remedy = "gan.create(...) returns the first one"
    gan_checks.check_kind(state, GameState, "gan_fit.train: state", remedy)
    if key is None:
        raise ValueError(
            "gan_fit.train: key must be a random key, got None; pass jax.random.key(0), with a seed of your choice"
        )
    gan_checks.check_key(key, caller="gan_fit.train")
    if isinstance(checkpoints, str | Path):
        raise ValueError(
            f"gan_fit.train: checkpoints must be checkpoints.Checkpoints, got {str(checkpoints)!r}; pass "
            f"Checkpoints({str(checkpoints)!r})"
        )
    remedy = "make another by gan.create, or go on from the newest state"
    updates.check_kept(state, caller="gan_fit.train", remedy=remedy)
    check = getattr(update, "check", None)
    if check is not None:  # an update of `gan.make_update`
        check(state)


def _num_images(images: Any, given: int | None) -> int:
    """The number of rows to draw from: of one array all, if no number is `given`."""
    if hasattr(images, "dtype"):
        image_checks.check_uint8(images, caller="gan_fit.train")
        most, whole, remedy = len(images), "images", "leave it out"
    elif isinstance(images, AugmentedSet):
        most = len(images.table.source)
        whole, remedy = "set", "pass len(images.table.source)"
    elif given is None:
        remedy = "pass the number of rows that `take` reads"
        if isinstance(images, ImageSource):
            remedy = "pass source.images, the array of it"
        elif isinstance(images, list):
            remedy = "make one of a list by numpy.stack(images)"
        raise ValueError(
            "gan_fit.train: num_images is needed where images is not one array, got "
            f"{type(images).__name__}; {remedy}"
        )
    else:
        return given
    if given is None:
        return most
    if given > most:
        raise ValueError(
            f"gan_fit.train: num_images must be at most the {most} rows of the {whole}, got {given}; {remedy}"
        )
    return given


def _check_finite(
    metrics: Metrics, state: GameState, epoch: int, checkpoints: Checkpoints | None
) -> None:
    """Raises FloatingPointError if a loss of the epoch, or a weight at its end, is not finite."""
    losses = np.stack([metrics.discriminator_loss, metrics.generator_loss])
    bad = np.flatnonzero(~np.isfinite(losses).all(0))
    if bad.size:
        what = f"losses are not finite from update {bad[0] + 1} of epoch {epoch + 1} on"
    elif not updates.all_finite((state.generator.params, state.discriminator.params)):
        # The last update may break the weights after its losses were computed.
        what = f"weights are not finite after update {len(losses[0])} of epoch {epoch + 1}"
    else:
        return
    raise FloatingPointError(
        f"gan_fit.train: the {what}; {kept(checkpoints, 'epoch')}. Use a lower learning rate"
    )
