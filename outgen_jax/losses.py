"""Losses of the papers, in nats.

Most are for one example: logits and distributions [K] -> []; lift them with `jax.vmap`. `replaced_data` and
`intermediate_constraint` are the terms of a training loss: they take a batch and return its mean.
"""

import jax
import jax.numpy as jnp
import numpy as np


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Eq. A11: L_c(p, q) = −Σ q log p, with p = softmax(logits) and q = target; [K], [K] -> []."""
    return -jnp.sum(target * jax.nn.log_softmax(logits))


def kl_divergence(target: jax.Array, logits: jax.Array) -> jax.Array:
    """Eq. A10 as KL(target ‖ p) = Σ q log(q/p), with p = softmax(logits) and 0·log 0 = 0; [K], [K] -> [].

    Summed as Σ q (e^δ − 1 − δ), δ = log(p/q), plus p where q = 0: the same for distributions, and free of the
    cancellation that would hide a divergence below 1e-7 in float32. `target` must sum to 1.
    """
    log_p = jax.nn.log_softmax(logits)
    wanted = target > 0
    excess = jnp.where(wanted, log_p - jnp.log(jnp.where(wanted, target, 1)), 0)
    return jnp.sum(jnp.where(wanted, target * _beyond_linear(excess), jnp.exp(log_p)))


def _beyond_linear(x: jax.Array) -> jax.Array:
    """e^x − 1 − x, by its series where the difference would cancel."""
    small = jnp.where(jnp.abs(x) < 0.05, x, 0)
    series = small**2 / 2 + small**3 / 6 + small**4 / 24
    return jnp.where(jnp.abs(x) < 0.05, series, jnp.expm1(x) - x)


def printed_kl_divergence(logits: jax.Array, log_target: jax.Array) -> jax.Array:
    """Eq. A10 as printed: D_KL(p, q) = Σ p log(p/q), with p = softmax(logits) and q = exp(log_target); [K], [K] -> [].

    Finite only where the target has no zeros.
    """
    log_p = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_target))


def replaced_data(
    logits: jax.Array,
    labels: jax.Array,
    teacher_logits: jax.Array,
    generated: jax.Array,
    *,
    printed_smoothing: float | None = None,
) -> jax.Array:
    r"""Eq. A9: the loss of training on data of which a part was replaced by generated images.

    .. math:: \frac{1}{2} D_{KL}(target \| p) + \frac{1}{2} L_c(p, t)

    with p = softmax(logits), t the one-hot label, and the target q = softmax(teacher_logits) for a generated image, t
    for an original one. D_KL(t ‖ p) equals L_c(p, t), so an original image costs L_c(p, t), which is Eq. A12.

    Args:
      logits: [B, K] of the network in training.
      labels: int [B] in 0..K-1; for a generated image the label of its original.
      teacher_logits: [B, K] of the frozen network on the same images. No gradient flows to it, and rows of original
        images are not read.
      generated: bool [B].
      printed_smoothing: None, or ε in (0, 1): takes the divergence in the direction of Eq. A10 as printed,
        D_KL(p ‖ target), where the target of an original image is (1 − ε)·t + ε/K, as D_KL(p ‖ t) is infinite.

    Returns:
      [], the mean over the batch.

    Raises:
      ValueError: shapes that disagree, a mask that is not bool, labels outside 0..K-1 (seen outside of a trace only),
        or a smoothing outside (0, 1).
    """
    _check_replaced_data(logits, labels, teacher_logits, generated, printed_smoothing)
    num_classes = logits.shape[1]

    def loss(x: jax.Array, label: jax.Array, teacher: jax.Array, is_new: jax.Array) -> jax.Array:
        t = jax.nn.one_hot(label, num_classes)
        if printed_smoothing is None:
            divergence = kl_divergence(jnp.where(is_new, jax.nn.softmax(teacher), t), x)
        else:
            log_t = jnp.log((1 - printed_smoothing) * t + printed_smoothing / num_classes)
            log_target = jnp.where(is_new, jax.nn.log_softmax(teacher), log_t)
            divergence = printed_kl_divergence(x, log_target)
        return 0.5 * divergence + 0.5 * cross_entropy(x, t)

    teacher_logits = jax.lax.stop_gradient(teacher_logits)
    return jnp.mean(jax.vmap(loss)(logits, labels, teacher_logits, generated))


def intermediate_constraint(
    distorted: jax.Array, undistorted: jax.Array, *, gain: float = 100.0
) -> jax.Array:
    r"""Paper D's loss (the proposed row of Table D1): neurons stay on or off as they were on the clean image.

    .. math:: \frac{1}{N} \sum -u \log d - (1 - u) \log(1 - d)

    with u = 1[undistorted > 0] and d = sigmoid(gain · distorted).

    Args:
      distorted: pre-activations of any shape [...], of the network in training on the distorted images.
      undistorted: [...], the same neurons of the original network on the clean images.
      gain: α, how steeply the sigmoid stands in for the step function.

    Returns:
      [] float32, the mean over all N neurons and images.

    Raises:
      ValueError: the two shapes differ.
    """
    if distorted.shape != undistorted.shape:
        raise ValueError(
            "intermediate_constraint: distorted and undistorted must have one shape; they have "
            f"{list(distorted.shape)} and {list(undistorted.shape)}. Take the same layer of both networks"
        )
    u = undistorted > 0
    logit = gain * distorted.astype(jnp.float32)
    # From the logits: in float32 the sigmoid itself rounds to 1 from 17.4 on, and log(1 − d) to −inf.
    log_d, log_not_d = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
    return jnp.mean(-jnp.where(u, log_d, log_not_d))


def _check_replaced_data(
    logits: jax.Array,
    labels: jax.Array,
    teacher_logits: jax.Array,
    generated: jax.Array,
    printed_smoothing: float | None,
) -> None:
    shapes = [list(x.shape) for x in (logits, teacher_logits, labels, generated)]
    if len(shapes[0]) != 2 or shapes != [shapes[0]] * 2 + [shapes[0][:1]] * 2:
        raise ValueError(
            "replaced_data: expected logits and teacher_logits [B, K], labels and generated [B]; they have "
            f"{', '.join(map(str, shapes))}. Give one row per image, zeros where there is no teacher"
        )
    if generated.dtype != bool:
        raise ValueError(
            f"replaced_data: generated must be bool, one per image; it is {generated.dtype}. "
            "Compare or cast with .astype(bool)"
        )
    if not isinstance(labels, jax.core.Tracer):
        num_classes = logits.shape[1]
        outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if outside.size:
            raise ValueError(
                f"replaced_data: labels must be in 0..{num_classes - 1}; row {outside[0]} has "
                f"{labels[outside[0]]}. Count from 0, in the order of the classifier's outputs"
            )
    if printed_smoothing is not None and not 0 < printed_smoothing < 1:
        raise ValueError(
            f"replaced_data: printed_smoothing must be in (0, 1), got {printed_smoothing}; "
            "None is the other direction, which needs no smoothing"
        )
