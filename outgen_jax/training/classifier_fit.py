"""The training of a classifier: `train` in one call, and `fit`, its epochs, for an update of one's own.

Both keep checkpoints, and stop when the loss or a weight is not finite.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax import image_checks
from outgen_jax.training import classifier, classifier_recipe, updates
from outgen_jax.training.checkpoints import Checkpoints, check_run, kept, run_identity
from outgen_jax.training.classifier import TrainState, Update
from outgen_jax.training.classifier_recipe import ClassifierRecipe
from outgen_jax.training.objectives import Labels, Objective, Supervision
from outgen_jax.whole_numbers import check_integers

CHECKPOINT_SECONDS = 30.0  # the shortest time of training between two checkpoints


class Epoch(NamedTuple):
    """One row of the history."""

    epoch: int  # from 1
    loss: float  # mean over its updates, in nats
    train_accuracy: float  # top-1 on the augmented images
    seconds: float
    measured: dict[str, float] | None = None  # what `on_epoch` returned


class Trained(NamedTuple):
    """What `train` returns."""

    model: nnx.Module  # in inference mode
    history: list[Epoch]


def train(
    model: nnx.Module,
    images: np.ndarray | jax.Array,
    labels: Labels,
    recipe: ClassifierRecipe,
    *,
    key: jax.Array,
    objective: Objective | None = None,
    precision: str | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    checkpoints: Checkpoints | None = None,
    title: str | None = None,
    on_epoch: Callable[[Epoch], object] | None = None,
) -> Trained:
    """Trains a copy of a network, from the newest checkpoint on if there is one.

    >>> import jax, numpy as np
    >>> from flax import nnx
    >>> from outgen_jax.training import classifier_fit, classifier_recipe
    >>> class Linear(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.head = nnx.Linear(16, 2, rngs=rngs)
    ...     def __call__(self, images):
    ...         return self.head(images.reshape(len(images), -1))
    >>> labels = np.arange(40) % 2
    >>> images = np.broadcast_to(np.uint8(200 * labels)[:, None, None, None], (40, 4, 4, 1))
    >>> recipe = classifier_recipe.ClassifierRecipe(epochs=3, batch_size=10, crop_padding=0)
    >>> trained = classifier_fit.train(Linear(nnx.Rngs(0)), images, labels, recipe, key=jax.random.key(0))
    >>> len(trained.history), trained.history[-1].train_accuracy
    (3, 1.0)

    Args:
      model: a `flax.nnx` module of images [B, H, W, C] float32 in [0, 1]; its logits [B, K]. It stays as it is.
      images: [N, H, W, C] uint8.
      labels: int [N] in 0..K-1, or a `Supervision`. Other arrays with N rows where the objective takes them.
      recipe: options of the training.
      key: of the order of the images and of everything else that is random.
      objective: what is learned from a batch. None: that of the recipe, see `classifier_recipe.make_objective`.
      precision: of matrix products and convolutions, see `updates.with_precision`.
      test: uint8 images and their labels. The history has the accuracy on them after each epoch, as
        `measured["test_accuracy"]`.
      checkpoints: where the training is kept and resumed from, as in `fit`. One of another recipe is refused, too.
      title: of a progress bar. None: there is none.
      on_epoch: called with each row of the history.

    Raises:
      FloatingPointError, ValueError: as `fit`, `classifier_recipe.make_optimizer` and `make_objective`.
    """
    optimizer = classifier_recipe.make_optimizer(recipe, len(images) // recipe.batch_size)
    graphdef, state = classifier.create(model, optimizer, key=key)
    apply = jax.jit(classifier.make_apply(graphdef))
    if objective is None:
        # The running statistics lag behind a fast training; an attack with them would not be one of this network.
        attacked = classifier.make_apply(graphdef, batch_statistics=True)
        objective = classifier_recipe.make_objective(recipe, attacked)
    update = classifier.make_update(
        graphdef,
        optimizer,
        key=key,
        objective=objective,
        crop_padding=recipe.crop_padding,
        flip=recipe.flip,
    )

    def after(row: Epoch, state: TrainState) -> dict[str, float] | None:
        measured = None
        if test is not None:
            measured = {"test_accuracy": classifier.accuracy(apply, state, *test)}
        if on_epoch is not None:
            on_epoch(row._replace(measured=measured))
        return measured

    state, history = fit(
        updates.compile_updates(updates.with_precision(update, precision)),
        state,
        images,
        labels,
        key=key,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        checkpoints=checkpoints,
        settings=dataclasses.asdict(recipe),
        title=title,
        on_epoch=after,
    )
    trained = nnx.merge(graphdef, state.params, state.variables, copy=True)
    trained.eval()
    return Trained(trained, history)


def fit(
    update: Update,
    state: TrainState,
    images: np.ndarray | jax.Array,
    labels: Labels,
    *,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    checkpoints: Checkpoints | None = None,
    settings: Mapping[str, Any] | None = None,
    title: str | None = None,
    on_epoch: Callable[[Epoch, TrainState], Mapping[str, SupportsFloat] | None] | None = None,
) -> tuple[TrainState, list[Epoch]]:
    """Trains for some epochs, from the newest checkpoint on if there is one.

    On CPU an interrupted training that is called again ends with the same bits as an uninterrupted one; only the
    seconds in the history differ. `state` is donated: it cannot be used afterwards.

    Args:
      update: from `classifier.make_update`, compiled by `updates.compile_updates`.
      state: before the first update, from `classifier.create`.
      images: [N, H, W, C] uint8. They go to the device as a whole, and so do the labels.
      labels: int32 [N] in 0..K-1, or a `Supervision`. Other arrays with N rows where the objective takes them.
      key: of the order of the images, see `updates.order_key`; it may be the key of the update, too.
      epochs: in all, those before the checkpoint included.
      batch_size: images of an update.
      checkpoints: where the training is kept and resumed from. One is written after the last epoch, and at the end of
        an epoch if the last one is `CHECKPOINT_SECONDS` old. A checkpoint of other keys, `settings`, batch size,
        images or labels is refused. None: nowhere.
      settings: what else a checkpoint must share with this run, such as `dataclasses.asdict` of the recipe; the update
        does not tell. As JSON.
      title: of a progress bar. None: there is none.
      on_epoch: called after every epoch that is run here; the history keeps the numbers that it returns, if any.

    Returns:
      The state after the last epoch, and the history, a row for each epoch.

    Raises:
      FloatingPointError: the loss or the weights are not finite. The last checkpoint is kept.
      ValueError: an update that is not compiled, a key that is none, negative epochs; images that are not uint8 NHWC
        or that the network fails on, labels that are not one for each or not classes of the network, a batch larger
        than the data set; a state that was donated before; a checkpoint of another network or run or of an older
        format.
    """
    _check_call(update, key, epochs)
    if not isinstance(labels, Supervision | jax.Array):
        labels = jax.tree.map(np.asarray, labels, is_leaf=lambda x: isinstance(x, list))
    supervision = labels if isinstance(labels, Supervision) else Supervision(labels)
    _check_data(update, state, images, supervision)
    history: list[Epoch] = []
    num_images = len(images)
    own = {"num_images": num_images, "batch_size": batch_size}
    data = images, *supervision[:3]  # what there is for each image
    run = run_identity([key, supervision.key], data, {**(settings or {}), **own})
    if checkpoints is not None and checkpoints.latest is not None:
        state, notes = checkpoints.restore(state)
        check_run(checkpoints, notes, run, most=epochs, caller="fit")
        history = [Epoch(**row) for row in notes["history"]]
    images, labels = jax.tree.map(jnp.asarray, (images, labels))
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
        measured = None if on_epoch is None else on_epoch(row, state)
        if measured is not None:
            row = row._replace(measured={name: float(value) for name, value in measured.items()})
        history.append(row)
        last = epoch + 1 == epochs
        if checkpoints is not None and (last or time.perf_counter() - saved >= CHECKPOINT_SECONDS):
            notes = {"history": [row._asdict() for row in history], "run": run}
            checkpoints.save(epoch + 1, state, notes)
            saved = time.perf_counter()
    return state, history


def _check_call(update: Update, key: Any, epochs: int) -> None:
    """Refuses an update that is not compiled, what is no key, and epochs below 0."""
    updates.check_compiled(update, caller="fit")
    if not isinstance(key, jax.Array):
        raise ValueError(f"fit: key must be a random key, got {key!r}; pass jax.random.key(0)")
    check_integers(caller="fit", epochs=epochs)
    if epochs < 0:
        raise ValueError(f"fit: epochs must not be negative, got {epochs}; 20 is usual")


def _check_data(update: Update, state: TrainState, images: Any, supervision: Supervision) -> None:
    """Refuses images of another type, fewer rows than images, and what the update's own check refuses."""
    image_checks.check_uint8(images, caller="fit")
    for name, rows in zip(("labels", "teacher_logits", "generated"), supervision, strict=False):
        for leaf in jax.tree.leaves(rows):
            if np.shape(leaf)[:1] != (len(images),):
                raise ValueError(
                    f"fit: {name} must have a row for each of the {len(images)} images, got shape "
                    f"{list(np.shape(leaf))}"
                )
    remedy = "make another by classifier.create, or go on from the state that fit returned"
    updates.check_kept(state, caller="fit", remedy=remedy)
    check = getattr(update, "check", None)
    if check is not None:  # an update of `classifier.make_update`
        check(state, images, supervision)


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
