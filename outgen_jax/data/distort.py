"""Gaussian noise and blur (paper D, Table D1), and the levels of them that the literature uses.

Images [B, H, W, C], float32 in [0, 1]; results are clipped to that range. A level is one
number for all images or [B], one per image; level 0 leaves an image untouched. Levels may be traced.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import image_checks

Border = Literal["reflect", "symmetric", "edge", "wrap", "constant"]  # named as in `numpy.pad`
_ROUNDING = 1e-3  # beyond [0, 1], of images that were computed
KINDS = ("noise", "blur")


class Levels(NamedTuple):
    """A scale of severity for both distortions, mild to severe, and the blur's kernel and border.

    Attributes:
      noise: sigmas on the 0-255 scale.
      blur: sigmas in pixels.
      truncate: the kernel's half width in sigmas; None: by paper D's rule, see `gaussian_blur`.
      border: what lies beyond the border.
    """

    noise: tuple[float, ...]
    blur: tuple[float, ...]
    truncate: float | None
    border: Border


# Paper D, for images of 224×224. It is silent about the border.
PAPER = Levels((20, 40, 60, 80, 100), (2, 4, 6, 8, 10), truncate=None, border="reflect")
# The same view of a 32×32 image: blur shrinks with the side, by 32/224; noise, per pixel, does not.
PAPER_32 = PAPER._replace(blur=tuple(sigma * 32 / 224 for sigma in PAPER.blur))
# Hendrycks and Dietterich 2019, severities 1 to 5: the constants c of `gaussian_noise` and `gaussian_blur` in
# make_imagenet_c.py and make_cifar_c.py (github.com/hendrycks/robustness, ImageNet-C/create_c). They blur by
# scikit-image's `gaussian`, whose kernel and border these are. The published files were then also cut (not
# rounded) to 8 bits, those of ImageNet-C saved as JPEG.
IMAGENET_C = Levels(
    noise=tuple(255 * c for c in (0.08, 0.12, 0.18, 0.26, 0.38)),
    blur=(1, 2, 3, 4, 6),
    truncate=4.0,
    border="edge",
)
CIFAR10_C = Levels(
    noise=tuple(255 * c for c in (0.04, 0.06, 0.08, 0.09, 0.10)),
    blur=(0.4, 0.6, 0.7, 0.8, 1.0),
    truncate=4.0,
    border="edge",
)


def random_levels(
    key: jax.Array, count: int, levels: Levels, *, kinds: Sequence[str] = KINDS
) -> tuple[jax.Array, jax.Array]:
    """One level for each of `count` images: (noise sigmas [count], blur sigmas [count]).

    Uniform over the untouched image and all levels of the kinds asked for, so that an image is
    noisy, or blurred, or clean; its other sigma is 0. (Paper D names the levels, not their mixture.)

    Raises:
      ValueError: no kinds, unknown ones, or levels that are negative or not finite.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(
            f"random_levels: kinds must be some of {', '.join(KINDS)}; got {list(kinds)}"
        )
    noise = levels.noise if "noise" in kinds else ()
    blur = levels.blur if "blur" in kinds else ()
    for sigma in (*noise, *blur):  # within a trace, nobody else can see them
        if not 0 <= sigma < math.inf:
            raise ValueError(
                f"random_levels: levels must be finite and not negative, got {sigma}; 0 changes nothing"
            )
    chosen = jax.random.randint(key, (count,), 0, 1 + len(noise) + len(blur), jnp.int32)
    noise_sigmas = jnp.array([0, *noise, *(0 for _ in blur)], jnp.float32)
    blur_sigmas = jnp.array([0, *(0 for _ in noise), *blur], jnp.float32)
    return noise_sigmas[chosen], blur_sigmas[chosen]


def random_distortion(
    key: jax.Array, images: jax.Array, levels: Levels, *, kinds: Sequence[str] = KINDS
) -> jax.Array:
    """Each image [B, H, W, C] at a level of its own, drawn by `random_levels`, with its own noise.

    Raises:
      ValueError: as `random_levels` and `gaussian_noise`.
    """
    level_key, noise_key = jax.random.split(key)
    noise, blur = random_levels(level_key, len(images), levels, kinds=kinds)
    if "blur" in kinds:
        images = gaussian_blur(images, blur, truncate=levels.truncate, border=levels.border)
    return gaussian_noise(noise_key, images, noise) if "noise" in kinds else images


def gaussian_noise(key: jax.Array, images: jax.Array, sigma: ArrayLike) -> jax.Array:
    """Adds independent normal noise to every value, then clips to [0, 1] (paper D).

    The noise of an image depends on the key and on its place in the batch.

    Args:
      key: of the noise.
      images: [B, H, W, C] float in [0, 1].
      sigma: standard deviation before clipping, on the 0-255 scale; [] or [B].

    Raises:
      ValueError: images that are not floats of rank 4, a sigma of another shape, or (seen outside
        of a trace only) one that is negative or not finite.

    >>> import jax, jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.distort.gaussian_noise(jax.random.key(0), jnp.full((2, 8, 8, 3), 0.5), 20.0).shape
    (2, 8, 8, 3)
    """
    sigmas = _validated_sigmas("gaussian_noise", images, sigma)

    def add(key: jax.Array, image: jax.Array, sigma: jax.Array) -> jax.Array:
        noise = sigma / 255 * jax.random.normal(key, image.shape, jnp.float32)
        return jnp.clip(image + noise.astype(image.dtype), 0, 1)

    places = jnp.arange(len(images), dtype=jnp.uint32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    return jax.vmap(add, (0, 0, 0 if sigmas.ndim else None))(keys, images, sigmas)


def gaussian_blur(
    images: jax.Array,
    sigma: ArrayLike,
    *,
    truncate: float | None = None,
    border: Border = "reflect",
) -> jax.Array:
    """Blurs rows and columns by a Gaussian kernel that is cut off and sums to 1 (paper D).

    The kernel may be larger than the image: reflecting borders then reflect again, as scipy's do
    (OpenCV refuses). A radius of more than twice the image's side is cut there.

    Args:
      images: [B, H, W, C] float in [0, 1].
      sigma: standard deviation of the kernel, in pixels; [] or [B].
      truncate: None: paper D's kernel of 4σ − 1 pixels; if that is not an odd number, the nearest odd
        one (of two, the larger), and 3 at the least. A number t: a radius of tσ pixels, rounded, as
        `scipy.ndimage.gaussian_filter` has it (t = 4 there and in scikit-image).
      border: what lies left of a line a b c ... z, named as in `numpy.pad`: "reflect" c b | a b c
        (OpenCV's default, scipy's "mirror"), "symmetric" b a | a b c (scipy's "reflect"), "edge"
        a a | a b c (scipy's "nearest"), "wrap" y z | a b c, "constant" 0 0 | a b c.

    Raises:
      ValueError: images that are not floats of rank 4, a sigma of another shape, (seen outside of a
        trace only) one that is negative or not finite, an unknown border, or a truncate that is not
        positive.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> og.data.distort.gaussian_blur(jnp.full((1, 8, 8, 3), 0.5), 2.0).shape
    (1, 8, 8, 3)
    """
    sigmas = _validated_sigmas("gaussian_blur", images, sigma)
    if border not in get_args(Border):
        raise ValueError(
            f"gaussian_blur: unknown border {border!r}; use one of {', '.join(get_args(Border))}"
        )
    if truncate is not None and not truncate > 0:
        raise ValueError(
            f"gaussian_blur: truncate must be positive, got {truncate}; None means paper D's kernel"
        )

    def blur(image: jax.Array, sigma: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        rows = _blur_matrix(sigma, height, truncate, border).astype(image.dtype)
        columns = _blur_matrix(sigma, width, truncate, border).astype(image.dtype)
        # Accelerators would round the factors to fewer bits than an 8-bit image has.
        blurred = jnp.einsum("yi,ijc,xj->yxc", rows, image, columns, precision="highest")
        return jnp.where(sigma == 0, image, jnp.clip(blurred, 0, 1))

    return jax.vmap(blur, (0, 0 if sigmas.ndim else None))(images, sigmas)


def _blur_matrix(sigma: jax.Array, size: int, truncate: float | None, border: Border) -> jax.Array:
    """[size, size]: row y holds what each pixel of a line contributes to pixel y of the blurred line.

    A band on the line continued beyond both its ends, the continuation then folded back onto it: so
    the shapes do not depend on sigma, which may be traced.
    """
    reach = 2 * size
    radius = jnp.minimum(_radius(sigma, truncate), reach)  # else rows would be cut unevenly
    sigma = jnp.where(sigma == 0, 1, sigma)
    pixels = np.arange(size)
    distance = jnp.asarray(np.arange(-reach, size + reach) - pixels[:, None], jnp.float32)
    band = jnp.where(jnp.abs(distance) <= radius, jnp.exp(-((distance / sigma) ** 2) / 2), 0)
    band /= band.sum(axis=1, keepdims=True)  # [size, reach + size + reach]
    source = np.pad(pixels + 1, reach, mode=border) - 1  # the pixel seen there; "constant": -1
    fold = source[:, None] == pixels  # [reach + size + reach, size]
    return jnp.matmul(band, fold.astype(np.float32), precision="highest")


def _radius(sigma: jax.Array, truncate: float | None) -> jax.Array:
    """Whole pixels of the kernel on either side of its centre."""
    if truncate is not None:
        return jnp.floor(truncate * sigma + 0.5)
    return jnp.maximum(jnp.floor(2 * sigma - 1 + 0.5), 1)  # 2r + 1 = 4σ − 1


def _validated_sigmas(caller: str, images: jax.Array, sigma: ArrayLike) -> jax.Array:
    """Sigma as float32, [] or [B]."""
    image_checks.check_batch(images, caller=caller)
    image_checks.check_floats(images, caller=caller)
    image_checks.check_range(images, caller=caller, margin=_ROUNDING)
    sigmas = jnp.asarray(sigma, jnp.float32)
    if sigmas.shape not in ((), images.shape[:1]):
        raise ValueError(
            f"{caller}: sigma must be one number or [{len(images)}], one per image; it has shape "
            f"{list(sigmas.shape)}. Make one call for each level"
        )
    if not isinstance(sigmas, jax.core.Tracer):
        values = np.ravel(sigmas)
        for value in values[~(np.isfinite(values) & (values >= 0))]:
            raise ValueError(
                f"{caller}: sigma must be finite and not negative, got {value}; 0 changes nothing"
            )
    return sigmas
