"""Fine-tuning on distorted images (paper D): plainly, or held to the network it started from.

One update takes a batch of clean images, crops and mirrors them, distorts each at a level of its
own, and trains the network on what comes out. Four penalties, times λ, may join its cross-entropy:

    none         plain fine-tuning, the first row of Table D1
    mse          the pre-activations of named layers stay near those of the frozen original on the
                 clean image (`losses.intermediate_mse`)
    constraint   they keep their signs, neurons stay on or off (`losses.intermediate_constraint`)
    consistency  no frozen network: the cross-entropy is of the clean image, and the outputs on it
                 and on two distortions of it agree (`losses.jensen_shannon`; AugMix, Hendrycks et
                 al. 2020, with these distortions for its own)

Images are uint8 NHWC. They stay on the device, or, too many for that, are read batch by batch while
the device works. Everything random is a function of the key and the update's number, so that a
resumed run is the uninterrupted one, bit for bit on CPU.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax import loops
from outgen_jax.training import finetuning_step as step
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.classifier import epoch_rows
from outgen_jax.training.finetuning_checks import validate
from outgen_jax.training.finetuning_step import Penalty as Penalty
from outgen_jax.training.finetuning_step import Recipe as Recipe


class Images(Protocol):
    """What a numpy array of images is, and a reader of files can be: [N, H, W, C] uint8."""

    def __len__(self) -> int:
        """Number of images N."""

    def __getitem__(self, rows: np.ndarray, /) -> Any:
        """The images of these rows, [B, H, W, C]."""


class Finetuned(NamedTuple):
    """The network in inference mode, and the means of `Metrics` up to each checkpoint."""

    model: nnx.Module
    history: list[dict[str, float]]


def finetune(
    model: nnx.Module,
    images: Images,
    labels: np.ndarray,
    recipe: Recipe,
    penalty: Penalty = Penalty(),  # noqa: B008 (immutable)
    *,
    distort: step.Distort,
    key: jax.Array,
    teacher: nnx.Module | None = None,
    checkpoints: Checkpoints | None = None,
    checkpoint_every: int = 2000,
    on_updates: Callable[[int], None] = lambda count: None,
) -> Finetuned:
    """Fine-tunes a copy of `model`.

    Args:
      model: has `activations(images) -> (logits [B, K], {layer name: pre-activation})`; left as it is.
      images: [N, H, W, C] uint8; a numpy or JAX array goes to the device as a whole. There may be
        more channels than the network takes, for `distort` to read.
      labels: int [N] in 0..K-1.
      recipe: duration, batch and rate.
      penalty: the arm.
      distort: (key, batch [B, H, W, C] float32 in [0, 1], after crop and flip) -> distorted
        [B, H, W, 3], or however many channels the network takes; the first so many of the batch are
        the clean image. Its identity is that of the compiled program: define it once.
      key: of everything random; each seed its own.
      teacher: the frozen original, of the same architecture; None: `model`.
      checkpoints: where the run is kept and resumed from; None: nowhere.
      checkpoint_every: updates between two of them; each epoch's end is one, too.
      on_updates: told how many updates were done since the last call.

    Raises:
      ValueError: unknown layers or penalty, numbers out of range, labels that are no classes of the
        network, a teacher of another architecture, or checkpoints of another run.
      FloatingPointError: the loss is not finite; the last checkpoint stays.
    """
    validate(model, images, labels, recipe, penalty, distort, teacher)
    images = jnp.asarray(images) if isinstance(images, np.ndarray) else images
    graphdef, state = _start(model, recipe, key)
    frozen_graphdef, frozen = _freeze(model if teacher is None else teacher)
    advance = _compiled(graphdef, frozen_graphdef, recipe, _without_numbers(penalty), distort)
    coefficients = step.coefficients(penalty)
    history: list[dict[str, float]] = []
    if checkpoints is not None and checkpoints.latest is not None:
        state, notes = checkpoints.restore(state)
        history = notes["history"]
        on_updates(int(state.step))
    labels = np.asarray(labels, np.int32)
    while (done := int(state.step)) < recipe.updates:
        rows = _next_rows(key, done, len(labels), recipe, checkpoint_every)
        found = []
        most = 1
        if isinstance(images, jax.Array):
            first = images, labels, rows[:1]
            most = loops.updates_per_call(advance, state, frozen, coefficients, *first)
        for arrays in _batches(images, labels, rows, most):
            state, metrics = advance(state, frozen, coefficients, *arrays)
            found.append(metrics)
            on_updates(metrics.loss.size)
        history.append(_means(found, done, len(rows)))
        if checkpoints is not None:
            checkpoints.save(done + len(rows), state, {"history": history})
    tuned = nnx.merge(graphdef, state.params, state.variables, copy=True)
    tuned.eval()
    return Finetuned(tuned, history)


Advance = Callable[..., tuple[step.State, step.Metrics]]


@functools.lru_cache(maxsize=32)
def _compiled(
    graphdef: nnx.GraphDef,
    frozen_graphdef: nnx.GraphDef,
    recipe: Recipe,
    penalty: Penalty,
    distort: step.Distort,
) -> Advance:
    """The jitted update over a chunk of batches, `rows` [updates, B] of images [N, ...] and labels [N].

    Cached, so that seeds and the values of a grid share one program.
    """
    update = step.make_update(
        graphdef, frozen_graphdef, step.make_optimizer(recipe), recipe, penalty, distort
    )

    def chunk(
        state: step.State,
        frozen: nnx.State,
        coefficients: step.Coefficients,
        images: jax.Array,
        labels: jax.Array,
        rows: jax.Array,
    ) -> tuple[step.State, step.Metrics]:
        def one(state: step.State, r: jax.Array) -> tuple[step.State, step.Metrics]:
            return update(state, frozen, coefficients, images[r], labels[r])

        if len(rows) == 1:
            state, metrics = one(state, rows[0])
            return state, jax.tree.map(lambda m: m[None], metrics)
        return jax.lax.scan(one, state, rows)

    return jax.jit(chunk, donate_argnums=0)


def _without_numbers(penalty: Penalty) -> Penalty:
    """What the compiled program depends on."""
    return Penalty(penalty.kind, layers=penalty.layers, layer_weights=penalty.layer_weights)


def _start(model: nnx.Module, recipe: Recipe, key: jax.Array) -> tuple[nnx.GraphDef, step.State]:
    """The student's definition, in training mode, and its first state, which shares no buffer with `model`."""
    key, dropout_key = jax.random.split(key)
    student = nnx.clone(model)
    student.train()
    keys = nnx.state(student, nnx.RngKey)
    leaves, structure = jax.tree.flatten(keys)
    fresh = [jax.random.fold_in(dropout_key, i) for i in range(len(leaves))]
    nnx.update(student, jax.tree.unflatten(structure, fresh))
    graphdef, *states = nnx.split(student, nnx.Param, ...)
    # Copies: the compiled update takes over the state's buffers.
    params, variables = jax.tree.map(jnp.copy, states)
    opt_state = step.make_optimizer(recipe).init(params)
    zero = jnp.zeros((), jnp.int32)
    return graphdef, step.State(params, variables, opt_state, jnp.zeros(()), key, zero)


def _freeze(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State]:
    frozen = nnx.clone(model)
    frozen.eval()
    graphdef, variables = nnx.split(frozen)
    return graphdef, variables


def _next_rows(key: jax.Array, done: int, count: int, recipe: Recipe, most: int) -> np.ndarray:
    """Rows [updates, B] up to the next checkpoint: at most `most`, within one epoch."""
    steps = count // recipe.batch_size
    epoch, start = divmod(done, steps)
    rows = epoch_rows(jax.random.fold_in(key, 1), epoch, count, recipe.batch_size)
    return rows[start : start + min(most, recipe.updates - done)]


def _batches(
    images: Any, labels: np.ndarray, rows: np.ndarray, most: int
) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """What each call of the compiled update takes: images, labels, and rows [updates, B] of both.

    `most` updates at most where the images are on the device.
    """
    if not isinstance(images, jax.Array):
        return _read(images, labels, rows)
    on_device = jnp.asarray(labels)
    return ((images, on_device, jnp.asarray(part)) for part in loops.split(rows, most))


def _read(
    images: Images, labels: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[jax.Array, jax.Array, jax.Array]]:
    """Batch by batch; the next one is read while the device works on this one."""
    in_order = jnp.arange(rows.shape[1])[None]
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(images.__getitem__, rows[0])
        for i, r in enumerate(rows):
            batch = ahead.result()
            if i + 1 < len(rows):
                ahead = reader.submit(images.__getitem__, rows[i + 1])
            yield jnp.asarray(batch), jnp.asarray(labels[r]), in_order


def _means(found: list[step.Metrics], done: int, count: int) -> dict[str, float]:
    """Means of the metrics over the `count` updates after `done`; stops where they are no numbers."""
    columns = zip(*found, strict=True)
    means = {
        name: float(np.concatenate(column).mean())
        for name, column in zip(step.Metrics._fields, columns, strict=True)
    }
    if not np.isfinite(means["loss"]):
        raise FloatingPointError(
            f"finetune: the loss diverged between updates {done} and {done + count}; the checkpoint of "
            f"update {done} is kept. Use a lower learning rate, λ or α"
        )
    return {"updates": done + count, **means}
