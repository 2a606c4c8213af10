"""Measures of generated images by themselves: sharpness, greyness, and the frequencies of classes.

Images [B, H, W, C] float in [0, 1] or uint8; a value each, [B], to compare with the real images' own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import image_checks
from outgen_jax.metrics import changes


def laplacian_variance(images: ArrayLike) -> jax.Array:
    """Variance of the discrete Laplacian over an image's inner pixels, all channels: high where edges are sharp.

    (Pech-Pacheco et al. 2000, "variance of Laplacian"; kernel 0 1 0, 1 −4 1, 0 1 0.) Noise raises it too, so a
    larger value than that of real images is not better: compare it together with `greyness`.

    Returns:
      [B], 0 for a plain image.

    Raises:
      ValueError: not images [B, H, W, C] of at least 3×3 pixels.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.metrics.laplacian_variance(jnp.full((1, 4, 4, 1), 0.5)).tolist()
    [0.0]
    """
    x = _images(images, "laplacian_variance", smallest=3)
    inner = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return jnp.var(around - 4 * inner, axis=(1, 2, 3))


def greyness(images: ArrayLike) -> jax.Array:
    """Mean of 4 x (1 − x) over an image's values: 0 for pure black and white, 1 for a middle grey.

    Sharp strokes are grey only at their edges; blurred ones have more grey.

    Returns:
      [B] in [0, 1].

    Raises:
      ValueError: not images [B, H, W, C].

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.metrics.greyness(jnp.full((1, 2, 2, 1), 0.5)).tolist()
    [1.0]
    """
    x = _images(images, "greyness", smallest=1)
    return jnp.mean(4 * x * (1 - x), axis=(1, 2, 3))


def kl_to_uniform(labels: ArrayLike, num_classes: int) -> float:
    """Divergence of the labels' histogram p from evenness, KL(p ‖ uniform) = Σ p log(K p), in nats.

    0 if all classes are equally frequent, log K if there is only one. Biased upwards by about (K − 1)/(2 n).

    Args:
      labels: int [n], in 0..K − 1.
      num_classes: K.

    Raises:
      ValueError: no labels, not integers of rank 1, or outside of 0..K − 1.

    >>> import outgen_jax as og
    >>> og.metrics.kl_to_uniform([0, 1, 0, 1], 2)
    0.0
    """
    values = np.asarray(labels)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or not len(values):
        raise ValueError(
            f"kl_to_uniform: labels must be integers [n], at least one, got {values.dtype} {list(values.shape)}; take "
            "probs.argmax(-1)"
        )
    outside = values[(values < 0) | (values >= num_classes)]
    if len(outside):
        raise ValueError(
            f"kl_to_uniform: labels must lie in 0..{num_classes - 1}, got {outside[0]}; num_classes is the number of "
            "classes that the labels were drawn from"
        )
    p = np.bincount(values, minlength=num_classes) / len(values)
    present = p[p > 0]
    return float(np.sum(present * np.log(num_classes * present)))


def _images(images: ArrayLike, caller: str, *, smallest: int) -> jax.Array:
    x = changes.from_0_to_1(jnp.asarray(images), caller=caller)
    image_checks.check_batch(x, caller=caller, least=1, smallest=smallest)
    return x
