"""A network near one image: the log-ratios of its output and their Jacobian.

Only what the target speaks of is kept: the classes of largest target each by itself, the others,
where there are more, as one. An image is a vector [D]; of N groups of classes M = N - 1 log-ratios
to the first say everything.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from outgen_jax import losses

CLASSES = 32  # by themselves, where nothing else is asked for


def leading_classes(target: jax.Array, count: int) -> jax.Array:
    """The `count` classes of largest target, or all there are, largest first: [K] -> [N] int.

    Free classes, whose targets are NaN, come last.
    """
    named_first = jnp.where(jnp.isnan(target), -1, target)
    return jax.lax.top_k(named_first, min(count, len(target)))[1]


def num_ratios(num_classes: int, count: int) -> int:
    """M, of `count` leading classes among all."""
    return num_classes - 1 if count >= num_classes else count


def group(probs: jax.Array, classes: jax.Array) -> jax.Array:
    """Probabilities of `classes` [N], then of all others together if there are any: [N] or [N + 1]."""
    leading = probs[classes]
    if len(classes) == len(probs):
        return leading
    return jnp.append(leading, jnp.delete(probs, classes, assume_unique_indices=True).sum())


def log_ratios(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """log(p/p₀) in the order of `group`, p₀ the first of `classes`: [K] -> [M], M one less than there."""
    ratios = logits[classes[1:]] - logits[classes[0]]
    if len(classes) == len(logits):
        return ratios
    others = jnp.delete(logits, classes, assume_unique_indices=True)
    return jnp.append(ratios, jax.nn.logsumexp(others) - logits[classes[0]])


def jacobian(
    network: Callable[[jax.Array], jax.Array], image: jax.Array, classes: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits [K] of an image [D], their `log_ratios` [M] and the Jacobian of these [M, D]."""
    logits, to_image = jax.vjp(network, image)
    ratios, to_logits = jax.vjp(lambda logits: log_ratios(logits, classes), logits)
    rows = jax.vmap(lambda cotangent: to_image(*to_logits(cotangent))[0])(jnp.eye(len(ratios)))
    return logits, ratios, rows


def divergence(wanted: jax.Array, ratios: jax.Array) -> jax.Array:
    """KL(q ‖ p) of a target as `group` gives it [M + 1] and an output as `log_ratios` gives it [M]."""
    return losses.kl_divergence(wanted, jnp.insert(ratios, 0, 0.0))


def probabilities(ratios: jax.Array) -> jax.Array:
    """Of every group, from the log-ratios: [M] -> [N]."""
    return jax.nn.softmax(jnp.insert(ratios, 0, 0.0))


def probability_rows(probs: jax.Array, rows: jax.Array) -> jax.Array:
    """The Jacobian of `probabilities` [N, D], from these [N] and that of the log-ratios [M, D]."""
    others = probs[1:]
    mean = others @ rows  # [D]
    return jnp.concatenate([-probs[:1, None] * mean, others[:, None] * (rows - mean)])


def broyden(rows: jax.Array, step: jax.Array, surprise: jax.Array) -> jax.Array:
    r"""J + (y - JΔ) Δᵀ / ΔᵀΔ: the Jacobian nearest to `rows` that would have predicted y.

    `rows` [M, D], `step` Δ [D], `surprise` y - JΔ [M].
    """
    squared = step @ step
    return rows + jnp.outer(surprise, step) / jnp.where(squared > 0, squared, 1)


def null_part(rows: jax.Array, ways: jax.Array, change: jax.Array) -> jax.Array:
    """(I - W (J W)⁻¹ J) Δ: what of a `change` [D] the log-ratios do not feel, by the Jacobian `rows` J [M, D].

    What they feel is taken out along the `ways` Wᵀ [M, D]; along the rows themselves it is the smallest in L2. J W gets
    1e-6 of its mean eigenvalue on the diagonal, as rows may be alike.
    """
    gram = rows @ ways.T
    least = jnp.maximum(1e-6 * jnp.trace(gram) / len(rows), 1e-20)
    return change - jnp.linalg.solve(gram + least * jnp.eye(len(rows)), rows @ change) @ ways
