"""Losses of the papers, in nats.

Most are for one example: logits and distributions [K] -> []; lift them with `jax.vmap`. `replaced_data`,
`discriminator`, `generator`, `intermediate_constraint` and `intermediate_mse` are terms of a training loss: they take a
batch and return its mean.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Eq. A11: L_c(p, q) = −Σ q log p, with p = softmax(logits) and q = target; [K], [K] -> [].

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> round(og.losses.cross_entropy(jnp.zeros(4), jnp.array([1.0, 0, 0, 0])).item(), 4)
    1.3863
    """
    # A class of logit −inf and target 0 costs nothing: 0·log 0 = 0.
    log_p = jnp.where(target > 0, jax.nn.log_softmax(logits), 0)
    return -jnp.sum(target * log_p)


def kl_divergence(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Eq. A10 as KL(target ‖ p) = Σ q log(q/p), with p = softmax(logits) and 0·log 0 = 0; [K], [K] -> [].

    The target must sum to 1. The sum is computed as Σ q (e^δ − 1 − δ), δ = log(p/q), plus p where q = 0: the same for
    distributions, without the cancellation that would hide a divergence below 1e-7 in float32.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.losses.kl_divergence(jnp.zeros(2), jnp.array([0.5, 0.5])).item()
    0.0
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

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> round(og.losses.printed_kl_divergence(jnp.zeros(2), jnp.log(jnp.array([0.9, 0.1]))).item(), 4)
    0.5108
    """
    return jnp.sum(_expected_difference(jax.nn.log_softmax(logits), log_target))


def replaced_data(
    logits: jax.Array,
    labels: jax.Array,
    teacher_logits: jax.Array,
    generated: jax.Array,
    *,
    printed_smoothing: float | None = None,
) -> jax.Array:
    r"""Eq. A9: the loss of training on data in which generated images replace a part.

    .. math:: \frac{1}{2} D_{KL}(target \| p) + \frac{1}{2} L_c(p, t)

    with p = softmax(logits), t the one-hot label, and the target q = softmax(teacher_logits) for a generated image, t
    for an original one. D_KL(t ‖ p) equals L_c(p, t), so the loss of an original image is L_c(p, t), which is Eq. A12.
    By default the divergence is D_KL(target ‖ p): in the direction of Eq. A10 as printed, it is infinite for a one-hot
    t.

    Args:
      logits: [B, K] of the network in training.
      labels: int [B] in 0..K-1; for a generated image the label of its original.
      teacher_logits: [B, K] of the frozen network on the same images. No gradient flows to it, and rows of original
        images are not read.
      generated: bool [B].
      printed_smoothing: ε in (0, 1): the divergence is D_KL(p ‖ target), as printed, and the target of an original
        image is (1 − ε)·t + ε/K. None: D_KL(target ‖ p).

    Returns:
      [] float32, the mean over the batch.

    Raises:
      TypeError: not arrays.
      ValueError: shapes that disagree, a mask that is not bool, labels that are no integers or outside 0..K-1 (the
        latter is seen outside of a trace only), or a smoothing outside (0, 1).

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> even, labels, generated = jnp.zeros((2, 4)), jnp.array([0, 1]), jnp.array([True, False])
    >>> round(og.losses.replaced_data(even, labels, even, generated).item(), 4)  # (log 4 / 2 + log 4) / 2
    1.0397
    """
    _check_replaced_data(logits, labels, teacher_logits, generated, printed_smoothing)
    num_classes = logits.shape[1]

    def loss(x: jax.Array, label: jax.Array, teacher: jax.Array, is_new: jax.Array) -> jax.Array:
        t = one_hot(label, num_classes)
        if printed_smoothing is None:
            divergence = kl_divergence(x, jnp.where(is_new, jax.nn.softmax(teacher), t))
        else:
            log_t = jnp.log((1 - printed_smoothing) * t + printed_smoothing / num_classes)
            log_target = jnp.where(is_new, jax.nn.log_softmax(teacher), log_t)
            divergence = printed_kl_divergence(x, log_target)
        return 0.5 * divergence + 0.5 * cross_entropy(x, t)

    x = logits.astype(jnp.float32)
    teacher = jax.lax.stop_gradient(teacher_logits).astype(jnp.float32)
    teacher = jnp.where(generated[:, None], teacher, 0)  # other rows may hold anything, also NaN
    return jnp.mean(jax.vmap(loss)(x, labels, teacher, generated))


def one_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """Labels of any integer type -> float32 [..., K], 1 for the class and 0 for the others.

    `jax.nn.one_hot` counts the classes in the labels' own type: uint8 has no class 256.

    >>> one_hot(jnp.uint8(3), 260).sum().item()
    1.0
    """
    return jax.nn.one_hot(labels.astype(jnp.int32), num_classes, dtype=jnp.float32)


def discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Eq. C9, with its sign turned: −mean log D(x) − mean log(1 − D(G(z))); logits [B], [B] -> [].

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> round(og.losses.discriminator(jnp.zeros(3), jnp.zeros(3)).item(), 4)  # 2 log 2
    1.3863
    """
    return -jnp.mean(jax.nn.log_sigmoid(real)) - jnp.mean(jax.nn.log_sigmoid(-fake))


def generator(fake: jax.Array) -> jax.Array:
    """Eq. C10, with its sign turned: −mean log D(G(z)), the non-saturating loss; logits [B] -> [].

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> round(og.losses.generator(jnp.zeros(3)).item(), 4)  # log 2
    0.6931
    """
    return -jnp.mean(jax.nn.log_sigmoid(fake))


def intermediate_constraint(
    distorted: jax.Array, undistorted: jax.Array, *, gain: ArrayLike = 100.0
) -> jax.Array:
    r"""Paper D's loss (the proposed row of Table D1): penalises neurons whose sign differs from the clean image's.

    .. math:: \frac{1}{N} \sum -u \log d - (1 - u) \log(1 - d)

    with u = 1[undistorted > 0] and d = sigmoid(gain · distorted).

    Args:
      distorted: pre-activations of any shape [...], of the network in training on the distorted images.
      undistorted: [...], the same neurons of the original network on the clean images.
      gain: α, the steepness of the sigmoid, which approximates a step function; may be a traced array.

    Returns:
      [] float32, the mean over all N neurons and images.

    Raises:
      TypeError: not arrays.
      ValueError: the two shapes differ.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> round(og.losses.intermediate_constraint(jnp.array([0.01, -0.01]), jnp.array([1.0, 1.0])).item(), 4)
    0.8133
    """
    _check_same_neurons("intermediate_constraint", distorted, undistorted)
    u = undistorted > 0
    logit = jnp.asarray(gain, jnp.float32) * distorted.astype(jnp.float32)
    # From the logits: in float32 the sigmoid itself rounds to 1 from 17.4 on, and log(1 − d) to −inf.
    log_d, log_not_d = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
    return jnp.mean(-jnp.where(u, log_d, log_not_d))


def intermediate_mse(distorted: jax.Array, undistorted: jax.Array) -> jax.Array:
    """Paper D's baseline (the MSE row of Table D1): the mean squared change of the same pre-activations.

    Args:
      distorted: [...], of the network in training on the distorted images.
      undistorted: [...], of the original network on the clean images.

    Returns:
      [] float32, the mean over all neurons and images.

    Raises:
      TypeError: not arrays.
      ValueError: the two shapes differ.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.losses.intermediate_mse(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])).item()
    2.0
    """
    _check_same_neurons("intermediate_mse", distorted, undistorted)
    return jnp.mean((distorted.astype(jnp.float32) - undistorted.astype(jnp.float32)) ** 2)


def mean_over_layers(
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    distorted: Mapping[str, jax.Array],
    undistorted: Mapping[str, jax.Array],
    *,
    weights: Mapping[str, float] | None = None,
) -> jax.Array:
    r"""The weighted mean of a loss over several layers, Σ w_l L_l / Σ w_l.

    Args:
      loss: the loss of one layer, such as `intermediate_constraint` or `intermediate_mse`.
      distorted: layer name -> pre-activations [B, ...] on the distorted images.
      undistorted: layer name -> pre-activations [B, ...] on the clean images, of the same layers.
      weights: layer name -> w_l; None: the layer's number of neurons, so that every neuron counts the same, which is
        the 1/N Σ of paper D.

    Raises:
      ValueError: no layers, layers that differ between the mappings, or weights that are negative or all 0.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> noisy, clean = ({"conv": jnp.full((1, 3), x), "fc": jnp.full((1, 1), 2 * x)} for x in (1.0, 0.0))
    >>> og.losses.mean_over_layers(og.losses.intermediate_mse, noisy, clean).item()  # (3 · 1 + 1 · 4) / 4
    1.75
    """
    if weights is None:
        weights = {name: math.prod(h.shape[1:]) for name, h in distorted.items()}
    if not distorted or not distorted.keys() == undistorted.keys() == weights.keys():
        raise ValueError(
            "mean_over_layers: distorted, undistorted and weights must name the same layers, one at least; they name "
            f"{', '.join(map(str, (list(distorted), list(undistorted), list(weights))))}"
        )
    total = sum(weights.values())
    if min(weights.values()) < 0 or not total > 0:
        raise ValueError(
            f"mean_over_layers: weights must not be negative, nor all 0; they are {dict(weights)}. "
            "Leave out layers that do not count"
        )
    layers = (weights[name] * loss(distorted[name], undistorted[name]) for name in distorted)
    return jnp.sum(jnp.stack(list(layers))) / total


def jensen_shannon(logits: jax.Array) -> jax.Array:
    r"""Jensen-Shannon divergence of several views of one image: the consistency of AugMix (Hendrycks et al. 2020).

    .. math:: \frac{1}{V} \sum_v D_{KL}(p_v \| m), \quad m = \frac{1}{V} \sum_v p_v

    with p_v = softmax(logits_v); [V, K] -> [], from 0 to log V.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.losses.jensen_shannon(jnp.zeros((3, 4))).item()
    0.0
    """
    log_p = jax.nn.log_softmax(logits)
    # A class that is switched off in all views has no gradient, and does not count below.
    off = jnp.isneginf(log_p).all(0)
    log_sum = jax.nn.logsumexp(jnp.where(off, 0, log_p), axis=0, keepdims=True)
    log_m = log_sum - math.log(len(logits))  # [1, K]
    return jnp.mean(jnp.sum(_expected_difference(log_p, log_m), axis=-1))


def _expected_difference(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """P (log p − log q), which is 0 where p is 0, with gradients that are finite there."""
    present = log_p > -jnp.inf
    difference = jnp.where(present, log_p, 0) - jnp.where(present, log_q, 0)
    return jnp.where(present, jnp.exp(log_p) * difference, 0)


def _check_arrays(caller: str, **arguments: jax.Array) -> None:
    for name, value in arguments.items():
        if not hasattr(value, "shape"):
            raise TypeError(
                f"{caller}: {name} must be an array, got {type(value).__name__}; pass jnp.asarray({name})"
            )


def _check_same_neurons(caller: str, distorted: jax.Array, undistorted: jax.Array) -> None:
    _check_arrays(caller, distorted=distorted, undistorted=undistorted)
    if distorted.shape != undistorted.shape:
        raise ValueError(
            f"{caller}: distorted and undistorted must have one shape; they have "
            f"{list(distorted.shape)} and {list(undistorted.shape)}. Take the same layer of both networks"
        )


def _check_replaced_data(
    logits: jax.Array,
    labels: jax.Array,
    teacher_logits: jax.Array,
    generated: jax.Array,
    printed_smoothing: float | None,
) -> None:
    _check_arrays(
        "replaced_data",
        logits=logits,
        labels=labels,
        teacher_logits=teacher_logits,
        generated=generated,
    )
    shapes = [list(x.shape) for x in (logits, teacher_logits, labels, generated)]
    rows = shapes[0]
    if len(rows) != 2 or shapes != [rows, rows, rows[:1], rows[:1]]:
        raise ValueError(
            "replaced_data: expected logits and teacher_logits [B, K], labels and generated [B]; they have "
            f"{', '.join(map(str, shapes))}. Give one row per image, zeros where there is no teacher"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"replaced_data: labels must be integers, one class per image; they are {labels.dtype}. "
            "Cast whole numbers with .astype(int)"
        )
    if generated.dtype != bool:
        raise ValueError(
            f"replaced_data: generated must be bool, one per image; it is {generated.dtype}. "
            "Compare or cast with .astype(bool)"
        )
    if not isinstance(labels, jax.core.Tracer):
        num_classes = logits.shape[1]
        values = np.asarray(labels)  # by NumPy: within a trace, JAX would trace the comparison
        outside = np.flatnonzero((values < 0) | (values >= num_classes))
        if outside.size:
            raise ValueError(
                f"replaced_data: labels must be in 0..{num_classes - 1}; row {outside[0]} has "
                f"{values[outside[0]]}. Count from 0, in the order of the classifier's outputs"
            )
    if printed_smoothing is not None and not 0 < printed_smoothing < 1:
        raise ValueError(
            f"replaced_data: printed_smoothing must be in (0, 1), got {printed_smoothing}; "
            "None is the other direction, which needs no smoothing"
        )
