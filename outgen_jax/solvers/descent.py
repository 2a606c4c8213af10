"""Gradient descent on the image: paper A's solver (Eq. A6–A8), over any optax optimiser."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from outgen_jax import pixels as pixel_maps
from outgen_jax.solvers.objective import Outputs
from outgen_jax.solvers.solver import Problem, Solver
from outgen_jax.whole_numbers import check_integers

# Paper A, Sections 2.2 and 3.1.
LEARNING_RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LOWPASS_RADIUS = 10
STEPS = 100


class DescentState(NamedTuple):
    """The image-weight layer's weights [H, W, C], and the optimiser's state for them."""

    weights: jax.Array
    opt_state: optax.OptState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientDescent(Solver):
    """The solver that `gradient_descent` returns."""

    optimizer: optax.GradientTransformation = dataclasses.field(metadata={"static": True})
    weight_decay: float = dataclasses.field(default=WEIGHT_DECAY, metadata={"static": True})
    steps: int = STEPS
    pixels: pixel_maps.PixelMap = dataclasses.field(
        default_factory=pixel_maps.arctan, metadata={"static": True}
    )
    lowpass_radius: float | None = dataclasses.field(default=None, metadata={"static": True})

    def init(self, problem: Problem, image: jax.Array) -> DescentState:
        """The weights of an image [H, W, C]."""
        del problem
        weights = self.pixels.to_weights(image)
        return DescentState(weights, self.optimizer.init(weights))

    def update(self, problem: Problem, state: DescentState) -> tuple[DescentState, Outputs]:
        """One step of the optimiser; also the outputs of the image before it."""

        def loss(weights: jax.Array) -> tuple[jax.Array, Outputs]:
            outputs = problem.network(self._to_image(weights))
            decay = self.weight_decay / 2 * (weights**2).sum()
            return problem.objective.loss(outputs) + decay, outputs

        (value, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights)
        updates, opt_state = optax.with_extra_args_support(self.optimizer).update(
            gradient,
            state.opt_state,
            state.weights,
            value=value,
            grad=gradient,
            value_fn=lambda weights: loss(weights)[0],
        )
        return DescentState(optax.apply_updates(state.weights, updates), opt_state), outputs

    def image(self, state: DescentState) -> jax.Array:
        """The image [H, W, C] that the network sees."""
        return self._to_image(state.weights)

    def _to_image(self, weights: jax.Array) -> jax.Array:
        image = self.pixels.to_pixels(weights)
        if self.lowpass_radius is None:
            return image
        # The filter overshoots at edges; clipped here, the network sees exactly what is returned.
        smooth = pixel_maps.lowpass(image, self.lowpass_radius)
        return jnp.clip(smooth, 0, 1)


def gradient_descent(
    optimizer: optax.GradientTransformation,
    *,
    weight_decay: float = WEIGHT_DECAY,
    steps: int = STEPS,
    pixels: pixel_maps.PixelMap | None = None,
    lowpass_radius: float | None = None,
) -> GradientDescent:
    r"""Minimises the loss between output and target by gradient descent in the weights of the image.

    .. math:: W \leftarrow W - \gamma (\nabla L(W) + \lambda W)

    for plain SGD (Eq. A6); any other optimiser takes ∇L + λW for its gradient (Eq. A7–A8 for momentum). For
    `og.outputs.softmax()` L is the cross-entropy (Eq. A11).

    Args:
      optimizer: an optimiser of optax, for example `optax.sgd(0.05)`. Optimisers that need the loss, such as
        `optax.lbfgs()`, get the sum of L and λ/2 ‖W‖². Optax's optimisers are functions, so solvers are equal only if
        they hold the same optimiser object: keep it in a variable.
      weight_decay: λ.
      steps: the number of updates.
      pixels: map between pixels and weights; None: `og.pixels.arctan()`, the paper's.
      lowpass_radius: the image is low-pass filtered at this radius, in cycles per image side, before the network gets
        it. The filtered image is the result; see `og.pixels.lowpass`. None: no filter.

    Raises:
      ValueError: an optimiser that is not optax's, or `pixels` that is no map; a negative number of steps or weight
        decay; a radius that is not positive.

    >>> import optax
    >>> import outgen_jax as og
    >>> og.gradient_descent(optax.adam(0.005), weight_decay=0.0, steps=250).steps
    250
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        remedy = "call it with its settings" if callable(optimizer) else "pass one"
        raise ValueError(
            f"gradient_descent: optimizer must be an optimiser of optax, got {optimizer!r:.60}; {remedy}, as in "
            "optax.sgd(0.05)"
        )
    if pixels is not None and not isinstance(pixels, pixel_maps.PixelMap):
        raise ValueError(
            f"gradient_descent: pixels must be a PixelMap, got {pixels!r:.60}; pass one such as og.pixels.tanh()"
        )
    check_integers(caller="gradient_descent", steps=steps)
    if steps < 0 or not weight_decay >= 0:
        raise ValueError(
            "gradient_descent: steps and weight_decay must not be negative, got "
            f"{steps} and {weight_decay}; use 0 for none"
        )
    pixel_maps.check_lowpass_radius(lowpass_radius, caller="gradient_descent")
    # Python's numbers: those of numpy have a type, which would widen arrays under jax_enable_x64.
    return GradientDescent(
        optimizer=optimizer,
        weight_decay=float(weight_decay),
        steps=int(steps),
        pixels=pixel_maps.arctan() if pixels is None else pixels,
        lowpass_radius=None if lowpass_radius is None else float(lowpass_radius),
    )
