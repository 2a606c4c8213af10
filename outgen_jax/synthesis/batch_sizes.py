"""How many images are at work at a time."""

import jax
import numpy as np
from jax.sharding import Mesh

from outgen_jax.synthesis import slot_sizes
from outgen_jax.synthesis.bound import Bound

# Pixels of a batch (height × width × images × passes) where no size is given: 128 images of 32×32 for gradient descent
# on CPU, 2,048 on a device that does not say how much memory it has.
_CPU_BATCH_PIXELS = 2**17
_ACCELERATOR_BATCH_PIXELS = 2**21
# Memory for each pixel, of a device that does. By an estimate (docs/scale.md), VGG16 takes less than half of it.
_BYTES_A_PIXEL = 2**13
_MIN_BATCH = 8


def largest(bound: Bound, images: np.ndarray, *, passes: int = 1) -> int:
    """Of these images, how many at a time on all devices; the caller's batch size, or else the default one, decides."""
    share = bound.batch_size or default_batch_size(images, bound.mesh, passes=passes)
    return batch_for(len(images), share, bound.mesh)


def default_batch_size(images: np.ndarray, mesh: Mesh, *, passes: int = 1) -> int:
    """Images at a time for each device, by its platform, the size of the images and how many passes run at once."""
    pixels = _batch_pixels(mesh.devices.flat[0])
    least = max(1, _MIN_BATCH // passes)
    return max(least, pixels // (images.shape[1] * images.shape[2] * passes))


def _batch_pixels(device: jax.Device) -> int:
    """Pixels of a batch for a device: a power of two, so that a little less memory makes no other programs."""
    if device.platform == "cpu":
        return _CPU_BATCH_PIXELS
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    pixels = memory // _BYTES_A_PIXEL
    return 1 << (pixels.bit_length() - 1) if pixels > 0 else _ACCELERATOR_BATCH_PIXELS


def batch_for(count: int, share: int, mesh: Mesh) -> int:
    """Images at a time on all devices, of `count` in all and `share` on each device at most.

    There may be room for more than `count`: calls with about as many images run the same programs.
    """
    return mesh.size * min(share, slot_sizes.rounded(-(-count // mesh.size)))
