r"""Differentiable augmentation of real and generated images before a discriminator.

Images float [B, H, W, C] in [0, 1] in; changed colours may leave that range a little, as in the source. Every function
but the batch's is of one image, [H, W, C].

Sources: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, whose images lie in [−1, 1]:
its black rim is the middle grey here. Karras et al., "Training Generative Adversarial Networks with Limited Data",
2020, for the probability p of each change and how it adapts.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from outgen_jax import image_checks

BRIGHTNESS = 0.25  # largest shift, of 1
SHIFT = 1 / 8  # of a side, the farthest translation
CUT = 1 / 2  # of a side, the square that is cut out
FILL = 0.5  # where nothing of the image is left
_DRAWS = 3  # for each change: whether, and two for how much

Draws = Sequence[jax.Array]  # in [0, 1), [] each


def brightness(image: jax.Array, shift: jax.Array) -> jax.Array:
    """Adds `shift` to every value, x + shift."""
    return image + shift


def saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Stretches each pixel about its mean over the channels, m + factor·(x − m); a grey image stays."""
    mean = image.mean(-1, keepdims=True)
    return mean + factor * (image - mean)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Stretches the image about its mean over pixels and channels, m + factor·(x − m).

    Unlike `augment.contrast`, which has a mean for each channel and clips.
    """
    mean = image.mean()
    return mean + factor * (image - mean)


def translate(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Moves the image down by `rows` and right by `columns` pixels, SHIFT of a side at most; FILL comes in."""
    height, width, channels = image.shape
    limits = _reach(height), _reach(width)
    padded = jnp.pad(
        image, ((limits[0],) * 2, (limits[1],) * 2, (0, 0)), constant_values=image.dtype.type(FILL)
    )
    corner = [jnp.asarray(start, jnp.int32) for start in (limits[0] - rows, limits[1] - columns, 0)]
    return jax.lax.dynamic_slice(padded, corner, (height, width, channels))


def cut_out(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """Fills a rectangle of CUT of both sides, its middle at (row, column), with FILL; what lies outside is lost."""
    height, width, _ = image.shape
    inside = _window(height, row)[:, None] & _window(width, column)[None]  # [H, W]
    return jnp.where(inside[..., None], FILL, image)


def augment_image(
    draws: jax.Array, image: jax.Array, probability: ArrayLike, policy: Sequence[str]
) -> jax.Array:
    """One image, each change of the policy made with the probability; `draws` [5, 3], uniform in [0, 1)."""
    for (coin, *amounts), (group, change) in zip(draws, _CHANGES, strict=True):
        if group in policy:
            image = jnp.where(coin < probability, change(amounts, image), image)
    return image


def differentiable_augment(
    key: jax.Array,
    images: jax.Array,
    probability: ArrayLike = 1.0,
    *,
    policy: Sequence[str] = ("color", "translation", "cutout"),
) -> jax.Array:
    """Changes each image at random: "DiffAugment" at probability 1, the identity at 0.

    Args:
      key: of the batch; each image has its own share of it.
      images: float [B, H, W, C] in [0, 1].
      probability: of each change, p in [0, 1]; may be traced.
      policy: of POLICY: "color" (brightness, saturation, contrast), "translation", "cutout".

    Raises:
      ValueError: images that are not floats of rank 4, or an unknown policy.
    """
    image_checks.check_batch(images, caller="differentiable_augment")
    image_checks.check_floats(images, caller="differentiable_augment")
    if unknown := [name for name in policy if name not in POLICY]:
        raise ValueError(
            f"differentiable_augment: no policy {unknown[0]!r}; use some of {', '.join(POLICY)}"
        )
    # All at once: a call for each change of each image would take most of the time to compile.
    draws = jax.random.uniform(key, (len(images), len(_CHANGES), _DRAWS), images.dtype)
    return jax.vmap(lambda u, x: augment_image(u, x, probability, policy))(draws, images)


def adapt(
    probability: jax.Array, real_logits: jax.Array, *, target: float = 0.6, images: int = 500_000
) -> jax.Array:
    r"""The next probability: up where the discriminator is too sure of real images, down where it is not.

    .. math:: p \leftarrow p + \mathrm{sign}(r_t - target) \cdot B / images, \quad r_t = mean(sign(D(x)))

    clipped to [0, 1]. (Karras et al. 2020, Eq. 1, r_t; there once in four batches, over all four.)

    Args:
      probability: p, [].
      real_logits: [B], of the (augmented) real images.
      target: of r_t, which is 1 where the discriminator knows every real image, 0 where it guesses.
      images: number of real images in which p can go from 0 to 1.
    """
    overfitting = jnp.mean(jnp.sign(real_logits))
    step = jnp.sign(overfitting - target) * len(real_logits) / images
    return jnp.clip(probability + step, 0, 1)


def _random_brightness(draws: Draws, image: jax.Array) -> jax.Array:
    return brightness(image, BRIGHTNESS * (2 * draws[0] - 1))


def _random_saturation(draws: Draws, image: jax.Array) -> jax.Array:
    return saturation(image, 2 * draws[0])


def _random_contrast(draws: Draws, image: jax.Array) -> jax.Array:
    return contrast(image, 0.5 + draws[0])


def _random_translation(draws: Draws, image: jax.Array) -> jax.Array:
    limits = [_reach(side) for side in image.shape[:2]]
    return translate(image, *(_whole(u, 2 * n + 1) - n for u, n in zip(draws, limits, strict=True)))


def _random_cut_out(draws: Draws, image: jax.Array) -> jax.Array:
    # Of an even side, half may be lost at either edge.
    ends = [side + 1 - _cut(side) % 2 for side in image.shape[:2]]
    return cut_out(image, *(_whole(u, end) for u, end in zip(draws, ends, strict=True)))


def _whole(draw: jax.Array, number: int) -> jax.Array:
    """0, ..., number − 1, each as likely, from a draw in [0, 1)."""
    return jnp.floor(draw * number).astype(jnp.int32)


def _window(side: int, middle: jax.Array) -> jax.Array:
    first = middle - _cut(side) // 2
    places = jnp.arange(side, dtype=jnp.int32)
    return (places >= first) & (places < first + _cut(side))


def _reach(side: int) -> int:
    return int(side * SHIFT + 0.5)


def _cut(side: int) -> int:
    return int(side * CUT + 0.5)


_CHANGES: tuple[tuple[str, Callable[[Draws, jax.Array], jax.Array]], ...] = (
    ("color", _random_brightness),
    ("color", _random_saturation),
    ("color", _random_contrast),
    ("translation", _random_translation),
    ("cutout", _random_cut_out),
)
POLICY = ("color", "translation", "cutout")
