"""Losses of the papers, for one example each: logits and distributions [K], results in nats. Lift with `jax.vmap`."""

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Eq. A11: L_c(p, q) = −Σ q log p, with p = softmax(logits) and q = target; [K], [K] -> []."""
    return -jnp.sum(target * jax.nn.log_softmax(logits))


def kl_divergence(target: jax.Array, logits: jax.Array) -> jax.Array:
    """Eq. A10 as KL(target ‖ p) = Σ q log(q/p), with p = softmax(logits) and 0·log 0 = 0; [K], [K] -> []."""
    return jnp.sum(xlogy(target, target) - target * jax.nn.log_softmax(logits))
