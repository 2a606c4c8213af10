"""Gradient descent on the image: paper A's solver (Eq. A6–A8), over any optax optimiser."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from outgen_jax import losses
from outgen_jax import pixels as pixel_maps
from outgen_jax.solvers.solver import Network, Solver
from outgen_jax.targets import partial

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


def gradient_descent(
    optimizer: optax.GradientTransformation,
    *,
    weight_decay: float = WEIGHT_DECAY,
    steps: int = STEPS,
    pixels: pixel_maps.PixelMap | None = None,
    lowpass_radius: float | None = None,
    lowpass_rolloff: str = "ideal",
) -> Solver:
    r"""Descends the cross-entropy between the network's output and the target, in the weights of the image.

    .. math:: W \leftarrow W - \gamma (\nabla L(W) + \lambda W)

    for plain SGD (Eq. A6); any other optimiser takes ∇L + λW for its gradient (Eq. A7–A8 for momentum).

    Args:
      optimizer: for example `optax.sgd(0.05)`. Keep the solver: one built anew compiles anew.
      weight_decay: λ.
      steps: updates.
      pixels: map between pixels and weights; None: `pixels.arctan()`, the paper's.
      lowpass_radius: low-pass filter between the weights and the network, and on the image that comes out; None: none.
      lowpass_rolloff: "ideal" or "gaussian".

    Raises:
      ValueError: a negative number of steps or weight decay, or a low-pass filter that cannot be.
    """
    if steps < 0 or weight_decay < 0:
        raise ValueError(
            f"gradient_descent: steps and weight_decay must not be negative, got {steps} and {weight_decay}"
        )
    if lowpass_radius is not None:  # says now what would otherwise come from inside a trace
        pixel_maps.lowpass(jnp.zeros((2, 2, 1)), lowpass_radius, rolloff=lowpass_rolloff)
    pixels = pixel_maps.arctan() if pixels is None else pixels
    decayed = optax.chain(optax.add_decayed_weights(weight_decay), optimizer)

    def to_image(weights: jax.Array) -> jax.Array:
        image = pixels.to_pixels(weights)
        if lowpass_radius is None:
            return image
        # The filter overshoots at edges; clipped here, the network sees exactly what is returned.
        return jnp.clip(pixel_maps.lowpass(image, lowpass_radius, rolloff=lowpass_rolloff), 0, 1)

    def init(image: jax.Array, target: jax.Array) -> DescentState:
        del target
        weights = pixels.to_weights(image)
        return DescentState(weights, decayed.init(weights))

    def update(
        network: Network, state: DescentState, target: jax.Array
    ) -> tuple[DescentState, jax.Array]:
        def loss(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = network(to_image(weights))
            wanted = partial.complete(target, jax.lax.stop_gradient(logits))
            return losses.cross_entropy(logits, wanted), logits

        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights)
        updates, opt_state = decayed.update(gradient, state.opt_state, state.weights)
        return DescentState(optax.apply_updates(state.weights, updates), opt_state), logits

    return Solver(init, update, lambda state: to_image(state.weights), steps)
