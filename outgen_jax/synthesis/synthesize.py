"""Running a solver over many images: stop each at its tolerance, keep its best, report.

Memory on the device follows `batch_size`; images beyond it wait on the host. What happens to a batch is in `batch.py`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import targets as target_rows
from outgen_jax.metrics import classification
from outgen_jax.solvers import presets
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import batch, predict
from outgen_jax.synthesis.predict import ApplyFn
from outgen_jax.targets import partial

# An image counts as converged below this total variation where no tolerance is given.
CONVERGED_TOTAL_VARIATION = 0.01


class Result(NamedTuple):
    """What `synthesize` returns: numpy arrays, one row per image, of the best image found.

    That is the one that met the tolerance, otherwise the one of lowest KL.
    """

    images: np.ndarray  # [B, H, W, C] float32 in [0, 1]
    probs: np.ndarray  # [B, K] what the classifier says of them
    kl: np.ndarray  # [B] KL(target ‖ probs), nats
    total_variation: np.ndarray  # [B] in [0, 1]
    steps: np.ndarray  # [B] int32, updates used
    converged: np.ndarray  # [B] bool: total variation at most the tolerance, and no NaN on the way
    finite: np.ndarray  # [B] bool: False where the network returned NaN or infinity on the way
    history: np.ndarray | None = None  # [B, steps + 1] KL after each update, where asked for


def synthesize(
    apply_fn: ApplyFn,
    variables: Any,
    images: ArrayLike,
    targets: ArrayLike,
    *,
    solver: Solver | None = None,
    tolerance: float | None = None,
    batch_size: int | None = None,
    history: bool = False,
    progress: bool = False,
) -> Result:
    """Changes images until a frozen classifier returns the wanted output distributions (paper A, Section 2).

    The result of an image does not depend on the images beside it, on its place, or on the batch size (to float32
    rounding). A second call with the same `apply_fn`, `solver` and shapes does not compile again.

    Args:
      apply_fn: (variables, images [B, H, W, C] float32 in [0, 1]) -> logits [B, K]; of any framework, in inference
        mode, mappable with `jax.vmap`.
      variables: any pytree; passed through, never closed over.
      images: [B, H, W, C], float32 in [0, 1] or uint8.
      targets: [B, K], or [K] for all images: probabilities. Masked entries (`numpy.ma`; `rest` in target texts) are
        free: those classes share what the others leave, in whatever proportion.
      solver: how to move an image; None: paper A's SGD, `gradient_descent(optax.sgd(0.05), weight_decay=5e-4,
        steps=100)`. Keep the solver between calls: one built anew compiles anew.
      tolerance: an image stops once its total variation to the target is at most this; None: only
        after the last step.
      batch_size: images worked on at a time; None: chosen by backend and image size.
      history: record the KL divergence after every update.
      progress: show a progress bar.

    Raises:
      ValueError: images outside [0, 1], not finite or not of rank 4; targets that are no distributions over the
        network's classes; an `apply_fn` that fails on such images or does not return logits
        [B, K]; a tolerance or batch size that is not positive. A target that cannot be reached is
        no error: see `converged`.
    """
    images = predict.validated_images(images, caller="synthesize")
    solver = presets.preset("sgd") if solver is None else solver
    if tolerance is not None and not tolerance > 0:
        raise ValueError(
            f"synthesize: tolerance must be positive, got {tolerance}; use None to run all steps"
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"synthesize: batch_size must be at least 1, got {batch_size}; use None for a default"
        )
    num_classes = predict.num_classes(apply_fn, variables, images, caller="synthesize")
    rows = target_rows.validate(
        targets, num_images=len(images), num_classes=num_classes, caller="synthesize"
    )
    size = min(batch_size or predict.default_batch_size(images), len(images))
    predict.check_logits(apply_fn, variables, images[:size], caller="synthesize")

    result = _empty_result(images, num_classes, solver.steps if history else None)
    with _progress_bar(len(images) * solver.steps, progress) as advance:
        for start in range(0, len(images), size):
            # The last batch is filled up with copies of the last image, so that one shape is compiled for all.
            chosen = np.minimum(np.arange(start, start + size), len(images) - 1)
            count = min(size, len(images) - start)
            done, curve = batch.run(
                apply_fn,
                solver,
                variables,
                predict.as_float(images[chosen]),
                jnp.asarray(rows[chosen]),
                tolerance,
                functools.partial(advance, count),
            )
            _store(result, slice(start, start + count), done, rows, tolerance)
            if result.history is not None:
                result.history[start : start + count] = curve[:, :count].T
    return result


def _empty_result(images: np.ndarray, num_classes: int, history_steps: int | None) -> Result:
    count = len(images)
    return Result(
        images=np.empty(images.shape, np.float32),
        probs=np.empty((count, num_classes), np.float32),
        kl=np.empty(count, np.float32),
        total_variation=np.empty(count, np.float32),
        steps=np.empty(count, np.int32),
        converged=np.empty(count, bool),
        finite=np.empty(count, bool),
        history=None if history_steps is None else np.empty((count, history_steps + 1), np.float32),
    )


def _store(
    result: Result, rows: slice, done: batch.Progress, targets: np.ndarray, tolerance: float | None
) -> None:
    count = rows.stop - rows.start
    result.images[rows] = done.best_image[:count]
    result.probs[rows] = jax.nn.softmax(done.best_logits[:count])
    result.kl[rows] = done.best_kl[:count]
    wanted = partial.complete(targets[rows], done.best_logits[:count])
    distance = classification.total_variation(result.probs[rows], wanted)
    result.total_variation[rows] = distance
    result.steps[rows] = done.steps[:count]
    result.finite[rows] = done.finite[:count]
    # Measured again here, a distance may lie beyond the tolerance by rounding.
    reached = distance <= CONVERGED_TOTAL_VARIATION if tolerance is None else ~done.active[:count]
    result.converged[rows] = result.finite[rows] & reached


@contextlib.contextmanager
def _progress_bar(total: int, show: bool) -> Iterator[Callable[[int, int], object]]:
    if not show:
        yield lambda images, updates: None
        return
    import tqdm

    with tqdm.tqdm(total=total, unit="update", unit_scale=True, mininterval=0.5) as bar:
        yield lambda images, updates: bar.update(images * updates)
