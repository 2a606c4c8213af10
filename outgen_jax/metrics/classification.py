"""Measures of class distributions and of their agreement with labels.

Probabilities lie on the last axis: float [B, K], rows summing to 1. Labels are int [B] in 0..K-1. Everything may be
jitted and vmapped; shapes are checked always, values only outside of a trace, where they are known.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# Rows of float32 softmax and decimals typed by hand pass, logits and percentages do not.
_SUM_TOLERANCE = 1e-3


def total_variation(p: ArrayLike, q: ArrayLike) -> jax.Array:
    """Total variation distance ½ Σ |p − q|, in [0, 1]: [..., K], [..., K] -> [...].

    Axes but the last may be left out on one side, or have length 1.

    Raises:
      ValueError: another number of classes.

    >>> import outgen_jax as og
    >>> og.metrics.total_variation([0.5, 0.5], [0.75, 0.25]).item()
    0.25
    """
    a, b = as_float(p, q)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-1]:
        raise ValueError(
            f"total_variation: p and q must be over the same classes, got {list(a.shape)} and {list(b.shape)}"
        )
    return jnp.abs(a - b).sum(-1) / 2


def negative_log_likelihood(probs: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Mean of −log p(label), in nats: [B, K], [B] -> [].

    It is infinite if a label has probability 0. For logits, where nothing underflows, use `losses.cross_entropy`.

    Raises:
      ValueError: shapes that do not match, no examples, labels that are not integers in 0..K-1, or rows that are not
        distributions.

    >>> import outgen_jax as og
    >>> round(og.metrics.negative_log_likelihood([[0.5, 0.5], [0.5, 0.5]], [0, 1]).item(), 4)
    0.6931
    """
    p, y = _labelled(probs, labels, caller="negative_log_likelihood")
    return -jnp.log(jnp.take_along_axis(p, y[:, None], axis=1)).mean()


def expected_calibration_error(probs: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> jax.Array:
    r"""Gap between confidence and accuracy, averaged over bins of confidence (Guo et al. 2017, Eq. 3).

    .. math:: \sum_m \frac{|B_m|}{B} \, |\mathrm{accuracy}(B_m) - \mathrm{confidence}(B_m)|

    where bin m holds the examples whose largest probability lies in ((m − 1)/bins, m/bins].

    Args:
      probs: [B, K].
      labels: int [B].
      bins: of equal width. The error of few examples in many bins is biased upwards.

    Returns:
      [], in [0, 1].

    Raises:
      ValueError: shapes that do not match, no examples, labels that are not integers in 0..K-1, rows that are no
        distributions, or fewer than one bin.

    >>> import outgen_jax as og
    >>> og.metrics.expected_calibration_error([[0.75, 0.25], [0.75, 0.25]], [0, 1]).item()
    0.25
    """
    p, y = _labelled(probs, labels, caller="expected_calibration_error")
    if bins < 1:
        raise ValueError(
            f"expected_calibration_error: bins must be at least 1, got {bins}; 15 is usual"
        )
    return _calibration_error(p, y, bins)


def ordered_top_k(probs: ArrayLike, classes: ArrayLike) -> jax.Array:
    """Whether `classes` are each row's k most probable, in exactly this order: [B, K], [B, k] -> [B] bool.

    Equal probabilities have no order: a tie among the k, or between the last of them and another class, is False. So
    is a row with NaN.

    Args:
      probs: [B, K]; or logits, as only their order counts.
      classes: int [B, k], most probable first.

    Raises:
      ValueError: shapes that do not match, k beyond K, or classes that are not integers in 0..K-1.

    >>> import outgen_jax as og
    >>> og.metrics.ordered_top_k([[0.5, 0.3, 0.2]], [[0, 1]]).item()
    True
    """
    p, wanted = jnp.asarray(probs), jnp.asarray(classes)
    if p.ndim != 2 or wanted.ndim != 2 or len(p) != len(wanted):
        raise ValueError(
            f"ordered_top_k: probs and classes must have shapes [B, K] and [B, k], got {list(p.shape)} and "
            f"{list(wanted.shape)}; one row is probs[None], and one list of classes for all is repeated B times"
        )
    if not 1 <= wanted.shape[1] <= p.shape[1]:
        raise ValueError(
            f"ordered_top_k: k must be from 1 to the number of classes, {p.shape[1]}; "
            f"classes name {wanted.shape[1]} a row. Name fewer"
        )
    _check_indices(wanted, p.shape[1], caller="ordered_top_k", name="classes")
    return _are_ordered_top(p, wanted)


def validated_probs(probs: ArrayLike, *, caller: str) -> jax.Array:
    """Distributions as float32 (or float64) [B, K]; values are checked where they are known.

    Raises:
      ValueError: not of rank 2, empty, or, outside of a trace, rows that are not distributions.
    """
    (p,) = as_float(probs)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(
            f"{caller}: probs must have shape [B, K] with at least one row, got {list(p.shape)}; "
            "one row is probs[None]"
        )
    if isinstance(p, jax.core.Tracer):
        return p
    rows = np.asarray(p)
    bad = np.argwhere(~(rows >= 0))  # NaN too
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{caller}: probs must not be negative or NaN; row {row} has {rows[row, column]:g} for class {column}. "
            "Give probabilities, not logits: jax.nn.softmax(logits)"
        )
    sums = rows.sum(-1, dtype=np.float64)
    off = np.flatnonzero(~(np.abs(sums - 1) <= _SUM_TOLERANCE))
    if len(off):
        raise ValueError(
            f"{caller}: probs must sum to 1 per row; row {off[0]} sums to {sums[off[0]]:.6g}. "
            "Give jax.nn.softmax(logits) in float32, over all classes"
        )
    return p


def as_float(*arrays: ArrayLike) -> tuple[jax.Array, ...]:
    """The arrays in one type, at least float32: bfloat16 and integers are widened, float64 stays."""
    given = [jnp.asarray(array) for array in arrays]
    with jax.numpy_dtype_promotion("standard"):  # "strict" knows no wider one of two types
        dtype = functools.reduce(jnp.promote_types, [array.dtype for array in given], jnp.float32)
    return tuple(array.astype(dtype) for array in given)


def _labelled(probs: ArrayLike, labels: ArrayLike, *, caller: str) -> tuple[jax.Array, jax.Array]:
    p, y = validated_probs(probs, caller=caller), jnp.asarray(labels)
    if y.shape != p.shape[:1]:
        raise ValueError(
            f"{caller}: labels must have shape [{len(p)}], one per row of probs, got {list(y.shape)}; "
            "one-hot labels are turned by labels.argmax(-1)"
        )
    _check_indices(y, p.shape[1], caller=caller, name="labels")
    return p, y


def _check_indices(indices: jax.Array, num_classes: int, *, caller: str, name: str) -> None:
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"{caller}: {name} must be integers in 0..{num_classes - 1}, got {indices.dtype}; "
            "give the classes' indices"
        )
    if isinstance(indices, jax.core.Tracer):
        return
    values = np.asarray(indices)
    outside = np.argwhere((values < 0) | (values >= num_classes))
    if len(outside):
        raise ValueError(
            f"{caller}: {name} must lie in 0..{num_classes - 1}; row {outside[0][0]} has {values[tuple(outside[0])]}. "
            "Count from 0, in the order of the classifier's outputs"
        )


@functools.partial(jax.jit, static_argnames="bins")
def _calibration_error(p: jax.Array, labels: jax.Array, bins: int) -> jax.Array:
    confidence, predicted = p.max(-1), p.argmax(-1)
    correct = predicted == labels.astype(predicted.dtype)
    bin_of = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    # |B_m| cancels: the sum of a bin's gaps is its size times the gap of its means.
    gaps = jax.ops.segment_sum(correct.astype(p.dtype) - confidence, bin_of, bins)
    return jnp.abs(gaps).sum() / len(p)


def _is_ordered_top(probs: jax.Array, classes: jax.Array) -> jax.Array:
    """One row of `ordered_top_k`: [K], [k] -> [] bool."""
    wanted = probs[classes]  # [k]
    descending = (wanted[:-1] > wanted[1:]).all()
    # Where the k fall strictly, they are k different classes; none other may reach the last.
    return descending & ((~(probs < wanted[-1])).sum() == len(classes))


_are_ordered_top = jax.jit(jax.vmap(_is_ordered_top))
