"""All updates of one batch of images, compiled once.

A solver's functions see one image; here they are lifted with `jax.vmap`, with the rules that hold
for any solver: an image stops at its tolerance or at its first output that is not finite, and the
best image so far is kept.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import loops, losses
from outgen_jax.metrics import classification
from outgen_jax.solvers.solver import Network, Solver
from outgen_jax.synthesis import predict
from outgen_jax.synthesis.predict import ApplyFn
from outgen_jax.targets import partial


class Progress(NamedTuple):
    """One image on its way."""

    state: Any  # the solver's
    best_image: jax.Array  # [H, W, C]
    best_logits: jax.Array  # [K]
    best_kl: jax.Array  # []
    steps: jax.Array  # [] int32
    active: jax.Array  # [] bool
    finite: jax.Array  # [] bool


def run(
    apply_fn: ApplyFn,
    solver: Solver,
    variables: Any,
    images: jax.Array,
    targets: jax.Array,
    tolerance: float | None,
    advance: Callable[[int], object],
) -> tuple[Progress, np.ndarray]:
    """All updates of one batch -> where every image ended, and KL by update [steps + 1, B]."""
    progress = _start(solver, images, targets)
    threshold = jnp.float32(-1 if tolerance is None else tolerance)
    curves = []
    for updates in _chunks(apply_fn, solver, tolerance, variables, targets, threshold, progress):
        progress, kl = _advance(apply_fn, solver, updates, variables, targets, threshold, progress)
        curves.append(np.asarray(kl))  # waits, so that the bar tells the truth
        advance(updates)
        if tolerance is not None and not progress.active.any():
            break
    progress, kl = _finish(apply_fn, solver, variables, targets, threshold, progress)
    curve = np.concatenate([*curves, np.asarray(kl)[None]])
    # Images that have all stopped early keep their last value.
    missing = solver.steps + 1 - len(curve)
    return progress, np.concatenate([curve, np.repeat(curve[-1:], missing, 0)])


def _chunks(apply_fn: ApplyFn, solver: Solver, tolerance: float | None, *arrays: Any) -> list[int]:
    """Updates by call of `_advance` with `arrays`."""
    # On CPU it takes longer to go on after all images have stopped than to ask whether they have.
    if solver.steps == 0 or (tolerance is not None and jax.default_backend() == "cpu"):
        return [1] * solver.steps
    most = loops.updates_per_call(_advance, apply_fn, solver, 1, *arrays)
    return loops.lengths(solver.steps, most)


@functools.partial(jax.jit, static_argnames="solver")
def _start(solver: Solver, images: jax.Array, targets: jax.Array) -> Progress:
    return jax.vmap(functools.partial(start, solver))(images, targets)


def start(solver: Solver, image: jax.Array, target: jax.Array) -> Progress:
    """One image [H, W, C] in [0, 1] with its target [K], before the first update."""
    return Progress(
        state=solver.init(image, target),
        best_image=image,
        best_logits=jnp.full_like(target, jnp.nan),
        best_kl=jnp.float32(jnp.inf),
        steps=jnp.int32(0),
        active=jnp.bool_(True),
        finite=jnp.bool_(True),
    )


@functools.partial(
    jax.jit, static_argnames=("apply_fn", "solver", "updates"), donate_argnames="progress"
)
def _advance(
    apply_fn: ApplyFn,
    solver: Solver,
    updates: int,
    variables: Any,
    targets: jax.Array,
    threshold: jax.Array,
    progress: Progress,
) -> tuple[Progress, jax.Array]:
    """`updates` updates of a batch -> progress, and the KL before each [updates, B]."""
    one_update = functools.partial(
        update, solver, predict.one_image(apply_fn, variables), threshold
    )

    def step(progress: Progress, _: None) -> tuple[Progress, jax.Array]:
        return jax.vmap(one_update)(progress, targets)

    if updates == 1:  # no loop: see `loops`
        progress, kl = step(progress, None)
        return progress, kl[None]
    return jax.lax.scan(step, progress, length=updates)


@functools.partial(jax.jit, static_argnames=("apply_fn", "solver"), donate_argnames="progress")
def _finish(
    apply_fn: ApplyFn,
    solver: Solver,
    variables: Any,
    targets: jax.Array,
    threshold: jax.Array,
    progress: Progress,
) -> tuple[Progress, jax.Array]:
    """Looks at the images after their last update -> progress, and their KL [B]."""
    network = predict.one_image(apply_fn, variables)

    def one(progress: Progress, target: jax.Array) -> tuple[Progress, jax.Array]:
        image = solver.image(progress.state)
        return _record(progress, image, network(image), target, threshold)

    return jax.vmap(one)(progress, targets)


def update(
    solver: Solver, network: Network, threshold: jax.Array, progress: Progress, target: jax.Array
) -> tuple[Progress, jax.Array]:
    """One update of one image -> progress, and the KL before it; one that has stopped stays."""
    state, logits = solver.update(network, progress.state, target)
    progress, kl = _record(progress, solver.image(progress.state), logits, target, threshold)
    active = progress.active
    state = jax.tree.map(lambda new, old: jnp.where(active, new, old), state, progress.state)
    return progress._replace(state=state, steps=progress.steps + active), kl


def _record(
    progress: Progress,
    image: jax.Array,
    logits: jax.Array,
    target: jax.Array,
    threshold: jax.Array,
) -> tuple[Progress, jax.Array]:
    """Keeps `image` if it is the best so far; stops at the tolerance, or if `logits` are not finite."""
    target = partial.complete(target, logits)
    kl = losses.kl_divergence(target, logits)
    finite = jnp.isfinite(logits).all()
    reached = classification.total_variation(jax.nn.softmax(logits), target) <= threshold
    # An image on the way may be nearer by KL, yet beyond the tolerance.
    better = finite & (reached | (kl < progress.best_kl))
    progress = progress._replace(
        best_image=jnp.where(better, image, progress.best_image),
        best_logits=jnp.where(better, logits, progress.best_logits),
        best_kl=jnp.where(better, kl, progress.best_kl),
        active=progress.active & finite & ~reached,
        finite=progress.finite & finite,
    )
    return progress, kl
