"""What every network of the package asks of the images that it is called with."""

import jax
import jax.numpy as jnp


def check_floats(images: jax.Array, *, caller: str) -> None:
    """Refuses images that are not floats: networks would take grey levels for values in [0, 1].

    Raises:
      ValueError: in the name of `caller`.

    >>> check_floats(jnp.zeros((1, 8, 8, 3)), caller="VGG16")
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"{caller}: images must be float in [0, 1], got {images.dtype}; divide 8-bit images by 255"
        )
