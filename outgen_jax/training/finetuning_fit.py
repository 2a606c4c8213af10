"""Fine-tuning on distorted images (paper D): batches, checkpoints and resume around the update of `finetuning`.

Images are uint8 NHWC. They stay on the device; if there are too many for that, they are read batch by batch while the
device works. Everything random is a function of the key and the number of the update, so that a resumed run equals
the uninterrupted one, bit for bit on CPU.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax.training import finetuning, finetuning_recipe, updates
from outgen_jax.training.checkpoints import Checkpoints, check_run, kept, run_identity
from outgen_jax.training.finetuning_checks import validate
from outgen_jax.training.finetuning_recipe import Coefficients, Distort, FinetuningRecipe, Penalty

_NO_PENALTY = Penalty()


class Images(Protocol):
    """Images [N, H, W, C] uint8: a numpy array, or a reader of files with these two methods."""

    def __len__(self) -> int:
        """Number of images N."""

    def __getitem__(self, rows: np.ndarray, /) -> Any:
        """The images of these rows, [B, H, W, C]."""


class Finetuned(NamedTuple):
    """The fine-tuned network, in inference mode, and a row of means of the metrics for each checkpoint."""

    model: nnx.Module
    history: list[dict[str, float]]


def finetune(
    model: nnx.Module,
    images: Images,
    labels: np.ndarray,
    recipe: FinetuningRecipe,
    penalty: Penalty = _NO_PENALTY,
    *,
    distort: Distort,
    key: jax.Array,
    teacher: nnx.Module | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 2000,
    on_updates: Callable[[int], None] = lambda count: None,
) -> Finetuned:
    """Fine-tunes a copy of `model`, from the newest checkpoint on if there is one.

    Args:
      model: has `activations(images) -> (logits [B, K], {layer name: pre-activation})`. It is left as it is.
      images: [N, H, W, C] uint8. A numpy or JAX array goes to the device as a whole. There may be more channels than
        the network takes, for `distort` to read.
      labels: int [N] in 0..K-1.
      recipe: duration, batch and learning rate.
      penalty: what is added to the cross-entropy. By default nothing.
      distort: (key, batch [B, H, W, C] float32 in [0, 1], after crop and flip) -> distorted [B, H, W, 3], or however
        many channels the network takes. The first so many channels of the batch are the clean image. Define it once:
        another function object compiles another program.
      key: of everything random. Give each seed its own.
      teacher: the frozen network, of the same architecture. None: `model`.
      checkpoints: where the training is kept and resumed from, numbered by updates. A checkpoint of another recipe,
        penalty or key, or of other images or labels is refused; networks, `distort` and images that are read from files
        are not compared.
        A longer run may resume from a shorter one, unless the number of updates decides the learning rate or α. None:
        nowhere.
      checkpoint_every: the largest number of updates between two checkpoints; there is one at the end of each epoch.
      on_updates: called with the number of updates since its last call.

    Raises:
      ValueError: unknown layers or penalty, numbers out of range, labels that are not classes of the network, a teacher
        of another architecture, or checkpoints of another run or of an older format.
      FloatingPointError: the loss or the weights are not finite. The last checkpoint is kept.
    """
    images = np.asarray(images) if isinstance(images, list | tuple) else images
    validate(model, images, labels, recipe, penalty, distort, teacher, checkpoint_every)
    images = jnp.asarray(images) if isinstance(images, np.ndarray) else images
    labels = np.asarray(labels, np.int32)
    graphdef, state = finetuning.create(model, recipe, key)
    frozen_graphdef, frozen = finetuning.freeze(model if teacher is None else teacher)
    advance = compile_update(graphdef, frozen_graphdef, recipe, penalty.without_numbers(), distort)
    constant = frozen, finetuning_recipe.coefficients(penalty)
    history: list[dict[str, float]] = []
    run = _identity(recipe, penalty, key, images, labels)
    if checkpoints is not None and checkpoints.latest is not None:
        state, notes = checkpoints.restore(state)
        check_run(checkpoints, notes, run, most=recipe.updates, caller="finetune")
        history = notes["history"]
        on_updates(int(state.step))
    while (done := int(state.step)) < recipe.updates:
        rows = _next_rows(key, done, len(labels), recipe, checkpoint_every)
        found = []
        calls = _run(advance, state, constant, images, labels, rows)
        for state, metrics in calls:  # noqa: B007 (the last state goes on)
            found.append(metrics)
            on_updates(metrics.loss.size)
        history.append(_means(found, state, done, len(rows), checkpoints))
        if checkpoints is not None:
            checkpoints.save(done + len(rows), state, {"history": history, "run": run})
    tuned = nnx.merge(graphdef, state.params, state.variables, copy=True)
    tuned.eval()
    return Finetuned(tuned, history)


@functools.lru_cache(maxsize=16)
def compile_update(
    graphdef: nnx.GraphDef,
    frozen_graphdef: nnx.GraphDef,
    recipe: FinetuningRecipe,
    penalty: Penalty,
    distort: Distort,
) -> updates.Update:
    """The compiled update, see `finetuning.make_update` and `updates.compile_updates`.

    The last 16 are kept, so that seeds and the values of a grid share one program: give the penalty
    `without_numbers`. `compile_update.cache_clear()` frees them.
    """
    optimizer = finetuning_recipe.make_optimizer(recipe)
    return updates.compile_updates(
        finetuning.make_update(graphdef, frozen_graphdef, optimizer, recipe, penalty, distort)
    )


def _identity(
    recipe: FinetuningRecipe, penalty: Penalty, key: jax.Array, images: Any, labels: np.ndarray
) -> dict[str, Any]:
    """What a checkpoint must share with the run, see `finetune`."""
    settings = dataclasses.asdict(recipe)
    if recipe.schedule == "constant" and penalty.gain_end is None:
        del settings["updates"]
    settings |= {f"penalty's {name}": value for name, value in dataclasses.asdict(penalty).items()}
    data = (
        (images, labels) if isinstance(images, jax.Array) else labels
    )  # not what is read from files
    return run_identity([key], data, {**settings, "num_images": len(labels)})


def _next_rows(
    key: jax.Array, done: int, count: int, recipe: FinetuningRecipe, most: int
) -> np.ndarray:
    """Rows [updates, B] up to the next checkpoint: at most `most`, within one epoch."""
    steps = count // recipe.batch_size
    epoch, start = divmod(done, steps)
    rows = updates.epoch_rows(updates.order_key(key), epoch, count, recipe.batch_size)
    return rows[start : start + min(most, recipe.updates - done)]


def _run(
    advance: updates.Update,
    state: finetuning.State,
    constant: tuple[nnx.State, Coefficients],
    images: Any,
    labels: np.ndarray,
    rows: np.ndarray,
) -> Iterator[tuple[finetuning.State, finetuning.Metrics]]:
    """The updates of the batches `rows`; as `updates.run` where the images are on the device, else one by one."""
    if isinstance(images, jax.Array):
        yield from updates.run(advance, state, *constant, images, jnp.asarray(labels), rows=rows)
        return
    in_order = jnp.arange(rows.shape[1])[None]
    for r, batch in zip(rows, _read_ahead(images, rows), strict=True):
        arrays = jnp.asarray(batch), jnp.asarray(labels[r]), in_order
        state, metrics = advance(state, *constant, *arrays)
        yield state, metrics


def _read_ahead(images: Images, rows: np.ndarray) -> Iterator[Any]:
    """The images of each batch; the next one is read while the device works on this one."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(images.__getitem__, rows[0])
        for following in [*rows[1:], None]:
            batch = ahead.result()
            if following is not None:
                ahead = reader.submit(images.__getitem__, following)
            yield batch


def _means(
    found: list[finetuning.Metrics],
    state: finetuning.State,
    done: int,
    count: int,
    checkpoints: Checkpoints | None,
) -> dict[str, float]:
    """Means of the metrics over the `count` updates after `done`, which led to `state`.

    Raises:
      FloatingPointError: the loss, or a weight of the state, is not finite.
    """
    means = {name: float(v.mean()) for name, v in updates.joined(found)._asdict().items()}
    loss_is_finite = np.isfinite(means["loss"])
    if not loss_is_finite or not updates.all_finite((state.params, state.log_gain)):
        raise FloatingPointError(
            f"finetune: the {'weights' if loss_is_finite else 'loss'} diverged between updates {done} and "
            f"{done + count}; {kept(checkpoints, 'update')}. Use a lower learning rate, λ or α"
        )
    return {"updates": done + count, **means}
