"""How far a model is trusted after a step, by the agreement of the actual with the predicted reduction.

A variant of the rule of Nocedal and Wright ("Numerical optimization", 2006, algorithm 4.1). It sets the radius of a
trust region, or the damping ν of a Levenberg-Marquardt step, which falls where the trust grows.
"""

import dataclasses

import jax
import jax.numpy as jnp

# L2 norm of a first step, over the square root of the number of values of an image: 0.2 for 32×32×3.
_FIRST_RADIUS = 0.0036
_MIN_RADIUS = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrustRule:
    """Factors of the trust after a step, by the ratio ρ of the actual to the predicted reduction.

    Attributes:
      good: with ρ above this the trust grows.
      poor: with ρ below this it is halved; after a step that is refused it is quartered.
      growth: the factor by which it grows.
    """

    good: float = 0.75
    poor: float = 0.25
    growth: float = 3.0

    def factor(self, ratio: jax.Array, reduces: jax.Array) -> jax.Array:
        """The trust after a step over the one before: []."""
        one = jnp.ones(
            (), ratio.dtype
        )  # two Python numbers alone would be float64 where that is on
        shrunk = jnp.where(reduces, one / 2, one / 4)
        kept = jnp.where(ratio > self.good, self.growth * one, one)
        return jnp.where(reduces & (ratio > self.poor), kept, shrunk)


def first_radius(image: jax.Array) -> jax.Array:
    """The largest L2 norm of the first step of an image: []."""
    return jnp.float32(_FIRST_RADIUS * image.size**0.5)


def next_radius(
    radius: jax.Array, length: jax.Array, ratio: jax.Array, rule: TrustRule
) -> jax.Array:
    """The radius after a step of L2 norm `length` with the ratio ρ; a poor step shrinks it from that length."""
    taken = jnp.fmin(radius, length)  # a step that is not finite says nothing of its length
    base = jnp.where(ratio > rule.poor, radius, taken)
    return jnp.clip(base * rule.factor(ratio, ratio > 0), _MIN_RADIUS, 1 / _MIN_RADIUS)
