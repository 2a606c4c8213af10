"""The main function: changes images until a network's outputs meet their targets."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from outgen_jax.networks import ApplyFn
from outgen_jax.solvers import combinators
from outgen_jax.solvers.combinators import Combinator
from outgen_jax.solvers.exact import exact
from outgen_jax.solvers.presets import PRESETS
from outgen_jax.solvers.solver import Solver
from outgen_jax.synthesis import predict, request
from outgen_jax.synthesis.bound import bind
from outgen_jax.synthesis.engine import Pool
from outgen_jax.synthesis.request import Meaning
from outgen_jax.synthesis.stream import Stopped

# An image counts as converged below this distance where neither the caller nor the solver has a tolerance.
CONVERGED = 0.01


class Result(NamedTuple):
    """What `synthesize` returns: NumPy arrays with a row for each image.

    They describe the best image found: one within the tolerance, otherwise the one of lowest divergence.

    Attributes:
      images: [B, H, W, C] float32 in [0, 1].
      outputs: of the network for these images, in the form in which `apply_fn` returns them.
      distance: [B], between output and target, as `og.outputs` defines it; the largest over parts and views.
      divergence: [B], what solvers minimise; for a softmax KL(target ‖ probs) in nats.
      steps: [B] int32, steps taken; of a combination of solvers, the sum over its parts.
      converged: [B] bool, whether the distance is at most the tolerance, and `finite`.
      finite: [B] bool; False where the network returned NaN or infinity during the search.
      gave_up: [B] bool, whether the solver ended early since it made no progress; then `converged` is False.
      meaning: shapes and kinds of the outputs; used by `probs`.
      history: [B, S], if `history=True`: column 0 is the divergence of the first image, column i that after i steps.
        A row whose image has finished repeats its last value. A combination adds a column at the start of every part.
    """

    images: np.ndarray
    outputs: Any
    distance: np.ndarray
    divergence: np.ndarray
    steps: np.ndarray
    converged: np.ndarray
    finite: np.ndarray
    gave_up: np.ndarray
    meaning: Meaning
    history: np.ndarray | None = None

    @property
    def probs(self) -> np.ndarray:
        """[B, K] probabilities of the classes; only for one softmax output."""
        return predict.readout(self.meaning, self._only("probs"))[0][:, 0]

    @property
    def kl(self) -> np.ndarray:
        """[B] KL(target ‖ probs) in nats; only for one softmax output."""
        self._only("kl")
        return self.divergence

    @property
    def total_variation(self) -> np.ndarray:
        """[B] in [0, 1], the distance; only for one softmax output."""
        self._only("total_variation")
        return self.distance

    def _only(self, name: str) -> tuple[np.ndarray, ...]:
        if not self.meaning.is_one_softmax:
            raise AttributeError(
                f"Result.{name} is for one softmax output; use outputs, distance and divergence for others"
            )
        (logits,) = jax.tree.leaves(self.outputs)
        return (np.asarray(logits)[:, None],)


def synthesize(
    apply_fn: ApplyFn,
    variables: Any,
    images: ArrayLike,
    targets: Any,
    *,
    output: Any = None,
    solver: Solver | Combinator | None = None,
    tolerance: float | None = None,
    batch_size: int | None = None,
    precision: str | None = "highest",
    history: bool = False,
    progress: bool = False,
    callback: Callable[[Result], object] | None = None,
) -> Result:
    """Changes images until a frozen network's outputs meet their targets (paper A, Section 2).

    The result of an image does not depend on the other images, the batch size or the devices, up to float32 rounding.
    A second call with the same `apply_fn`, an equal solver and arrays of the same shapes does not compile again. All
    devices of the process take part.

    A target that cannot be reached raises no error: the result is the best image found, and `converged` is False.
    `og.exact()` gives up on images that make no progress, which `gave_up` says.

    Args:
      apply_fn: (variables, images [B, H, W, C] float32 in [0, 1]) -> outputs: an array [B, ..., K], such as logits
        [B, K], or a pytree of such arrays. In inference mode, and traceable by JAX (`jax.vmap`, `jax.grad`).
      variables: any pytree of arrays, such as the network's parameters; `apply_fn` gets it as it is.
      images: [B, H, W, C], float in [0, 1] or uint8.
      targets: arrays of the structure of the outputs. The axis of images may be left out, and axes between may be left
        out or have length 1: [K] is the target of every image, [B, K] that of every view of each image. Masked entries
        (`numpy.ma`; classes that share `rest` in the texts of `og.targets.parse`) are free.
      output: what the outputs mean: `og.outputs.softmax()`, `og.outputs.sigmoid()`, `og.outputs.values()`, or a pytree
        of them like the outputs. None: `og.outputs.softmax()`.
      solver: how an image is changed; None: `og.exact()`. `og.preset("sgd")` is paper A's.
      tolerance: an image is finished once its distance is at most this. None: the solver's own. `og.exact()` and
        `og.smallest_change()` have 1e-5; `then` has that of its second solver, `restarted` and `rescued` that of their
        first. Other solvers have none and make all their steps; `converged` then means a distance of at most 0.01.
      batch_size: images in work at a time on each device; None: chosen by platform, image size and solver.
      precision: of the network's matrix products and convolutions of float32 on GPU and TPU, a value of
        `jax.default_matmul_precision`. Below "highest", outputs are not exact to 1e-5. "bfloat16" is JAX's name for its
        default: bfloat16 on TPU, but TF32 on a GPU that has it, like "tensorfloat32". For bfloat16 there, the network
        must compute in it: `VGG16(dtype=jnp.bfloat16)`, or a cast in `apply_fn`. None: JAX's current setting. A
        precision that the network itself asks for stays. The solver's own products are always at "highest".
      history: whether to record the divergence after every step.
      progress: whether to show a progress bar.
      callback: a function of the `Result` so far, without history, that is called after every step. If it returns True,
        `synthesize` stops and returns this result. For an image that has not begun, the image is its source, the
        distance infinite and the outputs NaN. The arrays change with the next step: copy what you keep. Calls with a
        callback take longer, and results differ by float32 rounding.

    Raises:
      ValueError: images outside [0, 1], not finite or not of rank 4; targets that do not fit the outputs; an
        `apply_fn` that fails on such images, returns outputs that do not match `output`, or is not finite on a source
        image; a `solver` that is none; a tolerance or batch size that is not positive; an unknown `precision`.

    >>> import jax, jax.numpy as jnp
    >>> import outgen_jax as og
    >>> apply_fn = lambda weights, images: images.reshape(len(images), -1) @ weights
    >>> weights = jax.random.normal(jax.random.key(0), (48, 2))
    >>> result = og.synthesize(apply_fn, weights, jnp.full((1, 4, 4, 3), 0.5), [0.9, 0.1])
    >>> result.converged.tolist(), [f"{p:.4f}" for p in result.probs[0]]
    ([True], ['0.9000', '0.1000'])
    """
    array = request.checked_images(images, caller="synthesize")
    solver = checked_solver(solver, caller="synthesize")
    if tolerance is not None:
        request.check_tolerance(
            tolerance, caller="synthesize", remedy="use None for the solver's own"
        )
    if callback is not None and not callable(callback):
        raise ValueError(
            f"synthesize: callback must be a function of a Result, got {callback!r:.60}; None calls nothing"
        )
    bound = bind(
        apply_fn,
        variables,
        array,
        output=output,
        batch_size=batch_size,
        precision=precision,
        caller="synthesize",
    )
    meaning = bound.meaning
    wanted = request.checked_targets(meaning, targets, len(array), caller="synthesize")
    predict.check_sources(bound, array, caller="synthesize")
    chosen = chosen_tolerance(solver, tolerance)

    def so_far(pool: Pool) -> Result:
        return _result(pool, meaning, chosen.judged)

    told = None if callback is None else lambda pool: callback(so_far(pool))
    with progress_bar(len(array), show=progress) as advance:
        pool = Pool(
            bound,
            array,
            wanted,
            request.counts(meaning, wanted),
            solver.steps,
            tolerance=chosen.stop,
            keeps_history=history,
            advance=advance,
            callback=told,
        )
        with contextlib.suppress(Stopped):
            pool.move(solver)
    return so_far(pool)._replace(history=_history(pool, solver) if history else None)


def _result(pool: Pool, meaning: Meaning, tolerance: float) -> Result:
    """The best of all images so far."""
    return Result(
        images=pool.images,
        outputs=meaning.tree(pool.outputs),
        distance=pool.distance,
        divergence=pool.divergence,
        steps=pool.steps + pool.steps_at_work,
        converged=pool.finite & (pool.distance <= tolerance),
        finite=pool.finite,
        gave_up=pool.gave_up & (pool.distance > tolerance),
        meaning=meaning,
    )


def checked_solver(solver: Any, *, caller: str) -> Solver | Combinator:
    """The solver of a caller; None: `exact`.

    Raises:
      ValueError: something else than a solver, such as the name of one.
    """
    if solver is None:
        return exact()
    if isinstance(solver, str) and solver not in PRESETS:
        raise ValueError(
            f"{caller}: solver must be a solver, got {solver!r:.60}; og.preset takes the names {', '.join(PRESETS)}"
        )
    combinators.check_is_solver(solver, "solver", caller=caller)
    return solver


class Tolerance(NamedTuple):
    """When an image is finished, and when it counts as converged."""

    stop: float  # the distance at which an image is finished; negative: it is after the last step
    judged: float  # the largest distance of an image that has converged


def chosen_tolerance(solver: Solver | Combinator, tolerance: float | None) -> Tolerance:
    """By the caller's tolerance; None: by the solver's own, which may be None, too."""
    own = solver.tolerance if tolerance is None else tolerance
    # Python numbers: a float64 one of numpy would not be what the device compares with.
    return Tolerance(-1.0, CONVERGED) if own is None else Tolerance(float(own), float(own))


@contextlib.contextmanager
def progress_bar(total: int, *, show: bool, done: int = 0) -> Iterator[Callable[[float], object]]:
    """A bar over images, `done` of them at the start, which a solver's steps fill by fractions."""
    if not show:
        yield lambda images: None
        return
    import tqdm

    class Bar(tqdm.tqdm):
        """A bar that estimates no time before an image is done: the first call compiles."""

        @property
        def format_dict(self) -> dict[str, Any]:
            found: dict[str, Any] = super().format_dict
            return found if self.n >= self.initial + 1 else found | {"rate": 0}

    shown = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}]"
    # Without smoothing the estimate is from the mean rate: images finish in bursts.
    options = {"mininterval": 0.5, "smoothing": 0, "bar_format": shown}
    compiling = "compiling" if done < total else None
    with Bar(total=total, initial=done, desc=compiling, **options) as bar:

        def advance(images: float) -> None:
            bar.set_description_str(None, refresh=False)
            # Shares of images add up to the total but for rounding.
            bar.update(min(images, bar.total - bar.n))

        yield advance


def _history(pool: Pool, solver: Solver | Combinator) -> np.ndarray:
    """[B, steps + 1]; images that have stopped keep their last value, those that never began are infinitely far."""
    curves = [np.concatenate(curve or [np.full(1, np.inf, np.float32)]) for curve in pool.history]
    longest = max(len(curve) for curve in curves)
    if not isinstance(solver, Combinator):
        longest = solver.steps + 1
    return np.stack([np.pad(c, (0, longest - len(c)), mode="edge") for c in curves])
