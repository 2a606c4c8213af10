"""What a classifier says of images, a batch at a time; and the images of any caller as it takes them.

Images [B, H, W, C], uint8 or float32 in [0, 1]; `apply_fn(variables, images float32) -> logits [B, K]`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax.solvers.solver import Network

ApplyFn = Callable[[Any, jax.Array], jax.Array]

# Pixels of a batch (height × width × images) where no size is given: 128 images of 32×32 on CPU,
# 2,048 elsewhere.
_CPU_BATCH_PIXELS = 2**17
_ACCELERATOR_BATCH_PIXELS = 2**21
_MIN_BATCH = 8


def predict(
    apply_fn: ApplyFn, variables: Any, images: ArrayLike, *, batch_size: int | None = None
) -> np.ndarray:
    """The classifier's probabilities of `images` [B, H, W, C], uint8 or float in [0, 1] -> [B, K].

    Raises:
      ValueError: images that are not of rank 4 or outside their range.
    """
    array = validated_images(images, caller="predict")
    size = min(batch_size or default_batch_size(array), len(array))
    rows = []
    for start in range(0, len(array), size):
        # The last batch is filled up with copies, so that one shape is compiled for all.
        chosen = np.minimum(np.arange(start, start + size), len(array) - 1)
        logits = logits_of(apply_fn, variables, as_float(array[chosen]))
        rows.append(np.asarray(jax.nn.softmax(logits)))
    return np.concatenate(rows)[: len(array)]


def one_image(apply_fn: ApplyFn, variables: Any) -> Network:
    """The network of one image [H, W, C] -> logits [K] float32, to be lifted with `jax.vmap`."""
    return lambda image: apply_fn(variables, image[None])[0].astype(jnp.float32)


@functools.partial(jax.jit, static_argnames="apply_fn")
def logits_of(apply_fn: ApplyFn, variables: Any, images: jax.Array) -> jax.Array:
    """Images [B, H, W, C] float32 -> logits [B, K], compiled, image by image under `jax.vmap`."""
    return jax.vmap(one_image(apply_fn, variables))(images)


def num_classes(apply_fn: ApplyFn, variables: Any, images: np.ndarray, *, caller: str) -> int:
    """K of a network's logits, without running it.

    Raises:
      ValueError: it fails on images [B, H, W, C] like these, or does not return [B, K].
    """
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    try:
        out = jax.eval_shape(apply_fn, variables, one)
    except Exception as error:
        raise ValueError(
            f"{caller}: apply_fn(variables, images) fails on images of shape {list(images.shape)}: {error}. "
            "Check the image size and the number of channels that the network takes"
        ) from error
    shape = getattr(out, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 1 or shape[1] < 2:
        found = type(out).__name__ if shape is None else list(shape)
        raise ValueError(
            f"{caller}: apply_fn must return logits [B, K]; for one image it returns {found}. Wrap it so that it does"
        )
    return int(shape[1])


def check_logits(apply_fn: ApplyFn, variables: Any, images: np.ndarray, *, caller: str) -> None:
    """Refuses a network that ends in a softmax, whose outputs would never reach a target as logits."""
    logits = np.asarray(logits_of(apply_fn, variables, as_float(images)))
    rows = logits[np.isfinite(logits).all(-1)]
    if len(rows) and rows.min() >= 0 and np.allclose(rows.sum(-1), 1, atol=1e-4):
        raise ValueError(
            f"{caller}: apply_fn must return logits, but its rows are non-negative and sum to 1, as probabilities "
            "do; leave the softmax out, or return jnp.log(probabilities)"
        )


def validated_images(images: ArrayLike, *, caller: str) -> np.ndarray:
    """The images as a host array; see `predict` for what is refused."""
    array = np.asarray(images)
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(
            f"{caller}: images must have shape [B, H, W, C], got {list(array.shape)}; "
            "one image is images[None]"
        )
    if array.dtype == np.uint8:
        return array
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"{caller}: images must be uint8, or float in [0, 1], got {array.dtype}; "
            "convert them first"
        )
    low, high = array.min(), array.max()  # either is NaN where any pixel is
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{caller}: float images must lie in [0, 1], got values from {low:.4g} to {high:.4g}; "
            "divide by 255, or pass uint8"
        )
    return array


def as_float(images: np.ndarray) -> jax.Array:
    """Validated images on the device, float32 in [0, 1]."""
    scale = 255 if images.dtype == np.uint8 else 1
    return jnp.asarray(images, jnp.float32) / scale


def default_batch_size(images: np.ndarray) -> int:
    """Images at a time for this backend and image size."""
    on_cpu = jax.default_backend() == "cpu"
    pixels = _CPU_BATCH_PIXELS if on_cpu else _ACCELERATOR_BATCH_PIXELS
    return max(_MIN_BATCH, pixels // (images.shape[1] * images.shape[2]))
