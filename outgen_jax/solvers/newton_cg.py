r"""Gauss–Newton without a Jacobian: full targets over so many classes that a row for each would be too dear.

The KL divergence of the linearised network is expanded to second order,

.. math:: m(Δ) = g^⊤ J Δ + \frac{1}{2} Δ^⊤ J^⊤ H J Δ,  g = p - q,  H = diag(w) - w w^⊤ / (1^⊤ w)

with p the output and q the target, and minimised within a radius by conjugate gradients, which ask
only for products: JΔ, and Jᵀu by a backward pass (Schraudolph, "Fast curvature matrix-vector
products for second-order gradient descent", 2002). With w = p, H would be the curvature of the loss
here. With w the logarithmic mean of p and q the model has its minimum over all logits where the
loss has it, at log q; with w = p it asks far too much of classes whose p is far below q.

An iteration costs about three backward passes, whatever the number of classes. Far from the target
few of them will do, and near it they are worth their price: they end where the gradient has fallen
to a share η = min(1/2, √KL) of what it was (Dembo, Eisenstat and Steihaug, "Inexact Newton
methods", 1982). The network bends within less than a step, and the loss may creep: the less the
last step lowered it, the further the image first moves on as it did, by β of that step.

An image is a vector [D] in [0, 1] here, K is the number of classes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax import losses
from outgen_jax.solvers import newton_step
from outgen_jax.solvers.solver import Network, Solver
from outgen_jax.targets import partial

STEPS = 60
ITERATIONS = 30

# Parts of a step that are tried, all at once; the best is taken.
_PARTS = (1.0, 0.5, 0.2, 0.05)
# β at most.
_MOST_MOMENTUM = 0.95


class CGState(NamedTuple):
    """Where an image is, and how far the model is trusted."""

    image: jax.Array  # [H, W, C]
    step: jax.Array  # [H, W, C], the last
    divergence: jax.Array  # [], KL before it
    radius: jax.Array  # [], L2 norm of a step


class _Search(NamedTuple):
    """Conjugate gradients on their way, vectors [D]."""

    step: jax.Array
    residual: jax.Array  # the model's gradient there
    direction: jax.Array
    done: jax.Array  # [] bool
    iterations: jax.Array  # [] int32, so far


@functools.cache
def gauss_newton_cg(*, steps: int = STEPS, iterations: int = ITERATIONS) -> Solver:
    """Moves an image onto a target over any number of classes; see the module for the equations.

    For up to a few dozen classes, and for partial targets, `gauss_newton` needs less work and comes nearer. Outputs
    of other images are met to a total variation of about 0.002 in 80 steps on ImageNet's classes
    (`experiments/full_targets.py`).

    Args:
      steps: expansions of the network at most.
      iterations: of conjugate gradients in each, at most.

    Raises:
      ValueError: a negative number of steps, or no iterations.
    """
    if steps < 0 or iterations < 1:
        raise ValueError(
            "gauss_newton_cg: steps must not be negative and iterations be at least 1, got "
            f"{steps} and {iterations}"
        )

    def init(image: jax.Array, target: jax.Array) -> CGState:
        del target
        step, divergence = jnp.zeros_like(image), jnp.float32(jnp.inf)
        return CGState(image, step, divergence, newton_step.first_radius(image))

    def update(network: Network, state: CGState, target: jax.Array) -> tuple[CGState, jax.Array]:
        def flat(image: jax.Array) -> jax.Array:
            return network(image.reshape(state.image.shape))

        image = state.image.ravel()
        logits, to_image = jax.vjp(flat, image)
        wanted = partial.complete(target, logits)
        before = losses.kl_divergence(wanted, logits)
        moved_on = momentum(before, state.divergence) * state.step.ravel()
        base = jnp.clip(image + moved_on, 0, 1)
        base_logits = flat(base)
        share = jnp.minimum(0.5, jnp.sqrt(before))
        search = functools.partial(
            truncated_cg, radius=state.radius, share=share, iterations=iterations
        )
        # J is still the image's own.
        step, change = _step(base, base_logits, to_image, wanted, search)

        # From where momentum took the image, or along the whole way there.
        parts = jnp.array(_PARTS)[:, None]
        ways = (base + parts * step, image + parts[1:] * (base + step - image))
        tried = jnp.clip(jnp.concatenate(ways), 0, 1)
        found = jax.vmap(lambda image: losses.kl_divergence(wanted, flat(image)))(tried)
        at_base = losses.kl_divergence(wanted, base_logits)
        foretold = at_base - losses.kl_divergence(wanted, base_logits + change)
        best = jnp.where(jnp.isnan(found), jnp.inf, found).argmin()
        agreement = (at_base - found[0]) / jnp.maximum(foretold, 1e-30)
        radius = newton_step.next_radius(state.radius, jnp.linalg.norm(step), agreement)
        moved = jnp.where(found[best] < before, tried[best], image)
        shape = state.image.shape
        return CGState(moved.reshape(shape), (moved - image).reshape(shape), before, radius), logits

    return Solver(init, update, lambda state: state.image, steps)


def momentum(divergence: ArrayLike, divergence_before: ArrayLike) -> jax.Array:
    """β: the square of what the last step left of the KL divergence, 0.95 at most; [], [] -> []."""
    left = jnp.asarray(divergence) / jnp.maximum(jnp.asarray(divergence_before), 1e-30)
    return jnp.minimum(left**2, _MOST_MOMENTUM)


def curvature_weights(probs: jax.Array, wanted: jax.Array) -> jax.Array:
    """w: the logarithmic mean (q - p) / log(q/p) of output p and target q, p where they are alike; [K], [K] -> [K]."""
    ratios = jnp.log(jnp.maximum(wanted, 1e-12)) - jnp.log(jnp.maximum(probs, 1e-30))
    alike = ratios == 0
    return probs * jnp.where(alike, 1, jnp.expm1(ratios) / jnp.where(alike, 1, ratios))


def truncated_cg(
    product: Callable[[jax.Array], jax.Array],
    gradient: jax.Array,
    radius: ArrayLike,
    share: ArrayLike,
    iterations: int,
) -> jax.Array:
    """The step that minimises gᵀΔ + ΔᵀBΔ/2 with ‖Δ‖ ≤ radius, by conjugate gradients from 0.

    They end at the radius, where little of the gradient is left, or after `iterations` (Steihaug,
    "The conjugate gradient method and trust regions in large scale optimization", 1983).

    Args:
      product: Δ [D] -> BΔ [D], B positive semidefinite.
      gradient: g [D].
      radius: [], positive.
      share: [], of the gradient's norm that may be left.
      iterations: at most.
    """
    enough = share * jnp.linalg.norm(gradient)

    def iterate(search: _Search) -> _Search:
        step, residual, direction, _, done_so_far = search
        bent = product(direction)
        curvature = direction @ bent
        squared = residual @ residual
        length = squared / jnp.maximum(curvature, 1e-30)
        reach = _to_boundary(step, direction, jnp.asarray(radius))
        leaves = (curvature <= 0) | (length >= reach)
        new_step = step + jnp.where(leaves, reach, length) * direction
        new_residual = residual + length * bent
        kept = (new_residual @ new_residual) / jnp.maximum(squared, 1e-30)
        ends = leaves | (jnp.linalg.norm(new_residual) <= enough)
        return _Search(
            new_step, new_residual, kept * direction - new_residual, ends, done_so_far + 1
        )

    def goes_on(search: _Search) -> jax.Array:
        return ~search.done & (search.iterations < iterations)

    start = _Search(jnp.zeros_like(gradient), gradient, -gradient, ~gradient.any(), jnp.int32(0))
    return jax.lax.while_loop(goes_on, iterate, start).step


def _to_boundary(step: jax.Array, direction: jax.Array, radius: jax.Array) -> jax.Array:
    """The length a ≥ 0 with ‖Δ + a d‖ = radius, for ‖Δ‖ ≤ radius."""
    a, b = direction @ direction, step @ direction
    gap = jnp.maximum(radius**2 - step @ step, 0)
    return gap / jnp.maximum(b + jnp.sqrt(b**2 + a * gap), 1e-30)


def _step(
    image: jax.Array,
    logits: jax.Array,
    to_image: Callable[[jax.Array], tuple[jax.Array]],
    wanted: jax.Array,
    search: Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The change Δ [D] of an image in the box, of output `logits`, and JΔ [K]; `search` as `truncated_cg`."""
    probs = jax.nn.softmax(logits)
    weights = curvature_weights(probs, wanted)
    # Linear in u, so that its own transpose is J: no forward mode, which a network may lack.
    to_logits = jax.vjp(lambda u: to_image(u)[0], jnp.zeros_like(logits))[1]
    gradient = to_image(probs - wanted)[0]
    # Pixels that the gradient would push out of the box stay where they are.
    free = jnp.where(gradient > 0, image > 0, image < 1)

    def product(step: jax.Array) -> jax.Array:
        change = to_logits(step)[0]
        curved = weights * (change - weights @ change / weights.sum())
        return jnp.where(free, to_image(curved)[0], 0)

    step = search(product, jnp.where(free, gradient, 0))
    step = jnp.clip(image + step, 0, 1) - image
    return step, to_logits(step)[0]
