r"""Attacks of the literature, to compare `og.synthesize` with: first-order descent, Carlini-Wagner, and JMA.

Every attack works on a batch of images [B, H, W, C] in [0, 1] and stops after so many seconds; compilation does not
count. A network is `apply_fn(variables, images) -> outputs [B, K]`. In attacks on labels, `signs` [B, L] are 1 where
the logit of a label shall be positive and −1 where it shall be negative.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from outgen_jax import pixels
from outgen_jax.networks import ApplyFn

# (outputs [K], target [K]) -> what is descended: []
Loss = Callable[[jax.Array, jax.Array], jax.Array]


class Ended(NamedTuple):
    """What an attack found."""

    images: np.ndarray  # [B, H, W, C] float32, the best of each
    found: np.ndarray  # [B] bool: an image that satisfies the attack's aim was seen
    steps: int
    seconds: float


class _Best(NamedTuple):
    """The best images so far, and how good they are: lower is better."""

    images: jax.Array  # [B, H, W, C]
    score: jax.Array  # [B]

    def updated(self, images: jax.Array, score: jax.Array) -> "_Best":
        """With `images` in place of those that they surpass."""
        better = score < self.score
        return _Best(
            jnp.where(better[:, None, None, None], images, self.images),
            jnp.where(better, score, self.score),
        )


# --- first order: a loss alone ---


class Descent(NamedTuple):
    """A way to descend: how gradients become steps, over which map of the pixels, at which largest rate."""

    scale: optax.GradientTransformation
    map: pixels.PixelMap
    rate: float


def normalized() -> optax.GradientTransformation:
    """Every image's gradient [B, H, W, C] divided by its L2 norm, as in PGD's L2 form (Madry et al. 2018)."""

    def update(g: jax.Array, state: Any, params: Any = None) -> tuple[jax.Array, Any]:
        norm = jnp.sqrt((g**2).sum((1, 2, 3), keepdims=True))
        return g / jnp.maximum(norm, 1e-12), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


# The rates were chosen on training images.
DESCENTS = {
    "Carlini-Wagner's map, Adam": Descent(optax.scale_by_adam(), pixels.tanh(), 0.1),
    "PGD": Descent(normalized(), pixels.identity(), 0.3),
}


def descend(
    apply_fn: ApplyFn,
    variables: Any,
    images: np.ndarray,
    targets: np.ndarray,
    loss: Loss,
    descent: Descent,
    *,
    seconds: float,
) -> Ended:
    """Descends `loss` alone for so many seconds; the rate falls to 0 along a cosine of the time.

    Carlini and Wagner's change of variables (2017) without their term for the size of the change, or projected
    gradient descent. Returns for every image the one of lowest loss.
    """
    sources, wanted = jnp.asarray(images, jnp.float32), jnp.asarray(targets, jnp.float32)

    @jax.jit
    def step(variables: Any, weights: jax.Array, state: Any, best: _Best, rate: jax.Array) -> Any:
        def total(weights: jax.Array) -> tuple[jax.Array, Any]:
            shown = descent.map.to_pixels(weights)
            each = jax.vmap(loss)(apply_fn(variables, shown), wanted)
            return each.sum(), (shown, each)

        gradient, (shown, each) = jax.grad(total, has_aux=True)(weights)
        update, state = descent.scale.update(gradient, state, weights)
        weights = weights - rate * update
        if descent.map == pixels.identity():  # the projection
            weights = jnp.clip(weights, 0, 1)
        return weights, state, best.updated(shown, each)

    weights = descent.map.to_weights(sources)
    best = _Best(sources, jnp.full(len(sources), jnp.inf))
    carried = (weights, descent.scale.init(weights), best)
    jax.block_until_ready(step(variables, *carried, jnp.float32(0)))  # compiles
    start, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        rate = descent.rate * (1 + np.cos(np.pi * elapsed / seconds)) / 2
        carried = jax.block_until_ready(step(variables, *carried, jnp.float32(rate)))
        steps += 1
    best = carried[2]
    return Ended(np.asarray(best.images), np.ones(len(sources), bool), steps, elapsed)


# --- Carlini-Wagner on labels ---

_ROUNDS = 6  # of the search for c
_FIRST_C = 1.0
_CW_RATE = 0.02


def carlini_wagner(
    apply_fn: ApplyFn, variables: Any, images: np.ndarray, signs: np.ndarray, *, seconds: float
) -> Ended:
    r"""Carlini and Wagner's L2 attack (2017), with a hinge for every label.

    .. math:: \min_w \|x(w) - x_0\|^2 + c \sum_i \max(0, -s_i z_i(x(w))), \quad x(w) = (\tanh w + 1)/2

    Each image has its own c, which is ten times larger after a round without success until the first success, and
    bisected from then on. The rounds share the time. Returns the smallest change of all that had every sign right.
    """
    sources, wanted = jnp.asarray(images, jnp.float32), jnp.asarray(signs, jnp.float32)
    pixel_map, adam = pixels.tanh(), optax.adam(_CW_RATE)

    @jax.jit
    def step(variables: Any, weights: jax.Array, state: Any, best: _Best, c: jax.Array) -> Any:
        def total(weights: jax.Array) -> tuple[jax.Array, Any]:
            shown = pixel_map.to_pixels(weights)
            margins = wanted * apply_fn(variables, shown)  # [B, L]
            change = ((shown - sources) ** 2).sum((1, 2, 3))
            objective = change + c * jax.nn.relu(-margins).sum(-1)
            return objective.sum(), (shown, jnp.where((margins > 0).all(-1), change, jnp.inf))

        gradient, (shown, score) = jax.grad(total, has_aux=True)(weights)
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(weights, updates), state, best.updated(shown, score), score

    start_weights = pixel_map.to_weights(sources)
    best = _Best(sources, jnp.full(len(sources), jnp.inf))
    c, low, high = (np.full(len(sources), x) for x in (_FIRST_C, 0.0, np.inf))
    carried = (start_weights, adam.init(start_weights), best)
    jax.block_until_ready(step(variables, *carried, jnp.asarray(c, jnp.float32)))  # compiles
    start, steps = time.perf_counter(), 0
    for round_ in range(_ROUNDS):
        carried = (start_weights, adam.init(start_weights), carried[2])
        succeeded = np.zeros(len(sources), bool)
        while time.perf_counter() - start < seconds * (round_ + 1) / _ROUNDS:
            *carried, score = step(variables, *carried, jnp.asarray(c, jnp.float32))
            succeeded |= np.isfinite(score)
            steps += 1
        low, high = np.where(succeeded, low, c), np.where(succeeded, c, high)
        c = np.where(np.isinf(high), 10 * c, (low + np.minimum(high, 1e10)) / 2)
    best = carried[2]
    elapsed = time.perf_counter() - start
    return Ended(np.asarray(best.images), np.isfinite(best.score), steps, elapsed)


# --- JMA ---

_SWEEPS = 500
MARGIN = 1e-2  # that a step aims at, in logits
_SHORTER = (1.0, 0.5, 0.25, 0.125)
_AT_ONCE = 16  # images whose Jacobians are held at a time
_MOST_STEPS = 200


def nonnegative_least_squares(a: jax.Array, b: jax.Array) -> jax.Array:
    """Argmin of ‖a λ − b‖ over λ ≥ 0: [N, M], [N] -> [M], by cyclic coordinate descent."""
    gram, right = a.T @ a, a.T @ b

    def one(index: jax.Array, x: jax.Array) -> jax.Array:
        i = index % len(right)
        new = x[i] + (right[i] - gram[i] @ x) / jnp.maximum(gram[i, i], 1e-20)
        return x.at[i].set(jnp.maximum(new, 0))

    return jax.lax.fori_loop(0, _SWEEPS * len(right), one, jnp.zeros_like(right))


def jma_step(jacobian: jax.Array, logits: jax.Array, signs: jax.Array) -> jax.Array:
    r"""One step of JMA for several labels: the smallest change that, to first order, gives every label its sign.

    .. math:: \min_\delta \|\delta\|^2 \quad \text{such that} \quad s_i (z_i + (J\delta)_i) \ge m \text{ for all } i

    In outputs e = Jδ the objective is the Mahalanobis distance eᵀ(JJᵀ)⁻¹e. With G = diag(s) J, c = m − s z and
    GGᵀ = LLᵀ, Wolfe's dual is the non-negative least-squares problem min ‖Lᵀλ − L⁻¹c‖ over λ ≥ 0, and δ = Gᵀλ.

    Args:
      jacobian: [L, D].
      logits: [L].
      signs: [L].

    Returns:
      δ [D].
    """
    g = signs[:, None] * jacobian
    needed = MARGIN - signs * logits
    gram = g @ g.T
    # Labels whose gradients are parallel or 0 would leave no Cholesky factor.
    gram += 1e-6 * jnp.maximum(jnp.trace(gram) / len(gram), 1e-12) * jnp.eye(len(gram))
    lower = jnp.linalg.cholesky(gram)
    right = jax.scipy.linalg.solve_triangular(lower, needed, lower=True)
    return nonnegative_least_squares(lower.T, right) @ g


def jma(
    apply_fn: ApplyFn, variables: Any, images: np.ndarray, signs: np.ndarray, *, seconds: float
) -> Ended:
    """The JMA attack (Tondi, Guo, Niu and Barni 2024, arXiv 2401.01199) on several labels.

    The step is the paper's, written down from its equations; see `jma_step`. Three details are this study's: the step
    is taken from the current image, not from the source; it is halved until it lowers the sum of what the margins
    lack, up to three times; and pixels are clipped to [0, 1] after it, which the step does not foresee. An image stops
    once every label has its sign. The attack ends when all have stopped, after `seconds`, or after 200 steps.
    """
    wanted = jnp.asarray(signs, jnp.float32)
    one = functools.partial(_jma_update, apply_fn, variables)

    @jax.jit
    def step(images: jax.Array, wanted: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(one)(images, wanted)

    current = jnp.asarray(images, jnp.float32)
    right = np.zeros(len(images), bool)
    first = (
        jnp.resize(current, (_AT_ONCE, *current.shape[1:])),
        jnp.resize(wanted, (_AT_ONCE, wanted.shape[1])),
    )
    jax.block_until_ready(step(*first))  # compiles
    start, steps = time.perf_counter(), 0
    while steps < _MOST_STEPS and not right.all() and time.perf_counter() - start < seconds:
        rows = np.flatnonzero(~right)
        for part in np.array_split(rows, -(-len(rows) // _AT_ONCE)):
            filled = np.resize(part, _AT_ONCE)  # one shape for all calls
            moved, is_right = step(current[filled], wanted[filled])
            current = current.at[part].set(moved[: len(part)])
            right[part] = is_right[: len(part)]
        steps += 1
    return Ended(np.asarray(current), right, steps, time.perf_counter() - start)


def _jma_update(
    apply_fn: ApplyFn, variables: Any, image: jax.Array, signs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One image [H, W, C] after a step, and whether all its labels have their signs."""

    def logits(flat: jax.Array) -> jax.Array:
        return apply_fn(variables, flat.reshape(1, *image.shape))[0]

    x = image.ravel()
    z, pull = jax.vjp(logits, x)
    rows = jax.vmap(lambda cotangent: pull(cotangent)[0])(jnp.eye(len(z)))
    change = jma_step(rows, z, signs)
    tried = jnp.clip(x + jnp.array(_SHORTER)[:, None] * change, 0, 1)  # [T, D]
    margins = signs * jax.vmap(logits)(tried)  # [T, L]
    lacking = jax.nn.relu(MARGIN - margins).sum(-1)
    lowers = lacking < jax.nn.relu(MARGIN - signs * z).sum()
    # The longest step that lowers it; the shortest where none does.
    chosen = jnp.where(lowers.any(), lowers.argmax(), len(_SHORTER) - 1)
    return tried[chosen].reshape(image.shape), (margins[chosen] > 0).all()
