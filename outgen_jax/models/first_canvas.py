"""What a generator's canvas of logits begins with: the training images' mean, or a sample of them.

Images [H, W, C] in [0, 1]. Source: paper C (Kataoka, Matsubara and Uehara), Section 3.2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import image_checks

HALF_GREY_LEVEL = 0.5 / 255


def image_logits(
    image: ArrayLike, image_shape: tuple[int, ...], *, clip: float = HALF_GREY_LEVEL
) -> jax.Array:
    """Logits of an image [H, W, C], clipped `clip` from 0 and 1, where they would be infinite.

    >>> import numpy as np
    >>> from outgen_jax.models import draw
    >>> draw.image_logits(np.full((2, 2, 1), 0.5), (2, 2, 1)).ravel().tolist()
    [0.0, 0.0, 0.0, 0.0]

    Raises:
      ValueError: an image of another shape than `image_shape`, or (seen outside of a trace only) outside [0, 1].
    """
    given = jnp.asarray(image, jnp.float32)
    if given.shape != tuple(image_shape):
        raise ValueError(
            f"image_logits: the image must have the shape {tuple(image_shape)}, got {given.shape}; "
            "take a mean over the first axis of the images only"
        )
    if not isinstance(image, jax.core.Tracer):
        values = np.asarray(image)  # by NumPy: within a trace, JAX would trace the comparison
        image_checks.check_range(values, caller="image_logits", name="image")
    return jax.scipy.special.logit(jnp.clip(given, clip, 1 - clip))


def marginal_sample(key: jax.Array, images: ArrayLike) -> jax.Array:
    """One image whose every value is drawn from that place's marginal distribution over the training images.

    Each value is that of a training image of its own, so that neighbours are independent.

    Args:
      key: of the draws.
      images: [N, H, W, C], uint8 or float in [0, 1].

    Returns:
      [H, W, C] float32 in [0, 1].

    >>> import jax, numpy as np
    >>> from outgen_jax.models import draw
    >>> draw.marginal_sample(jax.random.key(0), np.ones((3, 2, 2, 1))).shape
    (2, 2, 1)

    Raises:
      ValueError: images of another rank or type, or none.
    """
    rows = np.asarray(images)
    image_checks.check_batch(rows, caller="marginal_sample", least=1)
    image_checks.check_floats_or_uint8(rows, caller="marginal_sample")
    chosen = np.asarray(jax.random.randint(key, rows.shape[1:], 0, len(rows), jnp.int32))
    sample = np.take_along_axis(rows, chosen[None], 0)[0]
    scale = 255 if rows.dtype == np.uint8 else 1
    return jnp.asarray(sample, jnp.float32) / scale
