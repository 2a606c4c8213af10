r"""Gauss-Newton without a Jacobian: for targets of so many outputs that a row for each would be too expensive.

The divergence of the linearised network is expanded to second order,

.. math:: m(Δ) = g^⊤ J Δ + \frac{1}{2} Δ^⊤ J^⊤ H J Δ

with g the gradient of the divergence in the outputs and H a model of its curvature. It is minimised within a radius by
conjugate gradients, which need only products: JΔ, and Jᵀu by a backward pass (Schraudolph, "Fast curvature
matrix-vector products for second-order gradient descent", 2002). With the curvature at the output itself, steps would
be much too long for classes whose probability is far below the target's. `Output.curvature_product` is a model that has
the same minimum as the divergence.

An iteration costs about three backward passes, whatever the number of outputs. Iterations end once the gradient has
fallen to a share η = min(1/2, √d) of its first norm, d the mean divergence of the rows. So steps are more exact close
to the target (Dembo, Eisenstat and Steihaug, "Inexact Newton methods", 1982). Because the network is not linear,
convergence may be slow: each step begins with a share β of the last one, which is the larger the less that one lowered
the divergence.

Where changes are restricted, conjugate gradients search for z with Δ = S z: S makes Δ smooth, and 0 where no pixel may
change.

Here an image is a vector [D] in [0, 1].
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax.solvers import trust
from outgen_jax.solvers.limits import Limits, Restriction, restriction
from outgen_jax.solvers.objective import Objective, Outputs
from outgen_jax.solvers.solver import Problem, Solver
from outgen_jax.solvers.trust import TrustRule
from outgen_jax.whole_numbers import check_integers

STEPS = 60
ITERATIONS = 30

# Parts of a step that are tried, all at once; the best is taken.
_PARTS = (1.0, 0.5, 0.2, 0.05)
# β at most.
_MOST_MOMENTUM = 0.95
_TRUST = TrustRule()


class CGState(NamedTuple):
    """The iterate, and how far the model is trusted."""

    image: jax.Array  # [H, W, C]
    step: jax.Array  # [H, W, C], the last
    divergence: jax.Array  # [], before it
    radius: jax.Array  # [], L2 norm of a step


class _Search(NamedTuple):
    """The state of conjugate gradients, vectors [D]."""

    step: jax.Array
    residual: jax.Array  # the model's gradient there
    direction: jax.Array
    done: jax.Array  # [] bool
    iterations: jax.Array  # [] int32, so far


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussNewtonCG(Solver):
    """The solver that `gauss_newton_cg` returns."""

    steps: int = STEPS
    iterations: int = dataclasses.field(default=ITERATIONS, metadata={"static": True})
    restriction: Restriction = dataclasses.field(default_factory=Restriction)

    def passes(self, num_coordinates: int) -> int:
        """Forward passes of one image that run at once; sets the default batch size."""
        del num_coordinates
        return 2 * len(_PARTS) - 1

    def init(self, problem: Problem, image: jax.Array) -> CGState:
        """The state at an image [H, W, C]."""
        image = self.restriction.nearest(problem.source, image)
        return CGState(
            image, jnp.zeros_like(image), jnp.float32(jnp.inf), trust.first_radius(image)
        )

    def update(self, problem: Problem, state: CGState) -> tuple[CGState, Outputs]:
        """One expansion of the network and the search in it; also the outputs of the image before."""
        shape, objective = state.image.shape, problem.objective
        limits = self.restriction.limits(problem.source)

        def flat(image: jax.Array) -> Outputs:
            return problem.network(image.reshape(shape))

        image = state.image.ravel()
        outputs, to_image = jax.vjp(flat, image)
        before = objective.divergence(outputs)
        onward = momentum(before, state.divergence) * state.step.ravel()
        base = jnp.clip(image + onward, limits.low, limits.high)
        base_outputs = flat(base)
        share = jnp.minimum(0.5, jnp.sqrt(before / objective.num_rows))
        search = functools.partial(
            truncated_cg, radius=state.radius, share=share, iterations=self.iterations
        )
        # J is still the image's own.
        step, change = _step(limits, base, base_outputs, to_image, objective, search)

        # Along the step from where momentum ended, or along the whole step from the image.
        parts = jnp.array(_PARTS, jnp.float32)[:, None]
        candidates = (base + parts * step, image + parts[1:] * (base + step - image))
        tried = jnp.clip(jnp.concatenate(candidates), limits.low, limits.high)
        actual = jax.vmap(lambda image: objective.divergence(flat(image)))(tried)
        at_base = objective.divergence(base_outputs)
        predicted = at_base - objective.divergence(jax.tree.map(jnp.add, base_outputs, change))
        best = jnp.where(jnp.isnan(actual), jnp.inf, actual).argmin()
        ratio = (at_base - actual[0]) / jnp.maximum(predicted, 1e-30)
        radius = trust.next_radius(state.radius, jnp.linalg.norm(step), ratio, _TRUST)
        moved = jnp.where(actual[best] < before, tried[best], image)
        step = (moved - image).reshape(shape)
        return CGState(moved.reshape(shape), step, before, radius), outputs

    def image(self, state: CGState) -> jax.Array:
        """The image of a state [H, W, C]."""
        return state.image


def gauss_newton_cg(
    *,
    steps: int = STEPS,
    iterations: int = ITERATIONS,
    mask: ArrayLike | None = None,
    max_change: float | None = None,
    lowpass_radius: float | None = None,
) -> GaussNewtonCG:
    """Changes an image for a target of any number of outputs; see `solvers.gauss_newton_cg` for the equations.

    For up to a few dozen classes, and for targets that leave classes free, `gauss_newton` needs less work and is more
    accurate. `gauss_newton_cg` has no tolerance of its own: pass one to `synthesize`.

    Args:
      steps: the largest number of steps, each with one linearisation of the network.
      iterations: the largest number of iterations of conjugate gradients in a step.
      mask: [H, W] or [H, W, C], the same for all images: only pixels whose entry is not 0 change.
      max_change: no pixel changes by more than this (L∞).
      lowpass_radius: the change consists of frequencies up to about this many cycles per image side; None: of all.

    Raises:
      ValueError: a negative number of steps; no iterations; a `max_change` or radius that is not positive; a mask that
        is not of rank 2 or 3, or that lets nothing change.

    >>> import outgen_jax as og
    >>> og.gauss_newton_cg(steps=80).iterations
    30
    """
    check_integers(caller="gauss_newton_cg", steps=steps, iterations=iterations)
    if steps < 0 or iterations < 1:
        raise ValueError(
            f"gauss_newton_cg: steps must not be negative and iterations be at least 1, got {steps} and {iterations}; "
            f"the defaults are {STEPS} and {ITERATIONS}"
        )
    limits = restriction(mask, max_change, lowpass_radius, caller="gauss_newton_cg")
    return GaussNewtonCG(steps=int(steps), iterations=int(iterations), restriction=limits)


def momentum(divergence: ArrayLike, divergence_before: ArrayLike) -> jax.Array:
    """β: the square of what the last step left of the divergence, 0.95 at most; [], [] -> []."""
    left = jnp.asarray(divergence) / jnp.maximum(jnp.asarray(divergence_before), 1e-30)
    return jnp.minimum(left**2, _MOST_MOMENTUM)


def truncated_cg(
    product: Callable[[jax.Array], jax.Array],
    gradient: jax.Array,
    radius: ArrayLike,
    share: ArrayLike,
    iterations: int,
) -> jax.Array:
    """The step that minimises gᵀΔ + ΔᵀBΔ/2 with ‖Δ‖ ≤ radius, by conjugate gradients from 0.

    They end at the radius, where little of the gradient is left, or after `iterations` (Steihaug, "The conjugate
    gradient method and trust regions in large scale optimization", 1983).

    Args:
      product: Δ [D] -> BΔ [D], B positive semidefinite.
      gradient: g [D].
      radius: [], positive.
      share: [], of the gradient's norm that may be left.
      iterations: at most.
    """
    enough = share * jnp.linalg.norm(gradient)

    def iterate(search: _Search) -> _Search:
        step, residual, direction, _, iterations_so_far = search
        product_along = product(direction)
        curvature = direction @ product_along
        squared = residual @ residual
        length = squared / jnp.maximum(curvature, 1e-30)
        to_boundary = _to_boundary(step, direction, jnp.asarray(radius))
        leaves = (curvature <= 0) | (length >= to_boundary)
        new_step = step + jnp.where(leaves, to_boundary, length) * direction
        new_residual = residual + length * product_along
        kept = (new_residual @ new_residual) / jnp.maximum(squared, 1e-30)
        ends = leaves | (jnp.linalg.norm(new_residual) <= enough)
        return _Search(
            new_step, new_residual, kept * direction - new_residual, ends, iterations_so_far + 1
        )

    def continues(search: _Search) -> jax.Array:
        return ~search.done & (search.iterations < iterations)

    start = _Search(jnp.zeros_like(gradient), gradient, -gradient, ~gradient.any(), jnp.int32(0))
    return jax.lax.while_loop(continues, iterate, start).step


def _to_boundary(step: jax.Array, direction: jax.Array, radius: jax.Array) -> jax.Array:
    """The length a ≥ 0 with ‖Δ + a d‖ = radius, for ‖Δ‖ ≤ radius."""
    a, b = direction @ direction, step @ direction
    gap = jnp.maximum(radius**2 - step @ step, 0)
    return gap / jnp.maximum(b + jnp.sqrt(b**2 + a * gap), 1e-30)


def _step(
    limits: Limits,
    image: jax.Array,
    outputs: Outputs,
    to_image: Callable[[Outputs], tuple[jax.Array]],
    objective: Objective,
    search: Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array],
) -> tuple[jax.Array, Outputs]:
    """The change Δ [D] of an image in the box, with its outputs, and JΔ; `search` as `truncated_cg`."""
    # Linear in u, so that its own transpose is J: no forward mode, which a network may lack.
    zeros = jax.tree.map(jnp.zeros_like, outputs)
    to_outputs = jax.vjp(lambda u: to_image(u)[0], zeros)[1]
    gradient = to_image(objective.gradient(outputs))[0]
    curvature = objective.curvature_product(outputs)
    # Pixels that the gradient would push out of the box stay where they are.
    free = jnp.where(gradient > 0, image > limits.low, image < limits.high)

    def allowed(z: jax.Array) -> jax.Array:
        return jnp.where(free, limits.root(jnp.where(free, z, 0)), 0)

    def product(z: jax.Array) -> jax.Array:
        return allowed(to_image(curvature(to_outputs(allowed(z))[0]))[0])

    step = allowed(search(product, allowed(gradient)))
    step = jnp.clip(image + step, limits.low, limits.high) - image
    return step, to_outputs(step)[0]
