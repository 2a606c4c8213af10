"""Images that somebody brings: bytes of unknown content, decoded within limits.

The size is read from the header before any pixel is decoded, and only decoders of common formats are tried.
"""

import io
import warnings
from typing import Any, NamedTuple

import numpy as np

from outgen_jax.data.image_source import eight_bits, fit

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000
LEAST_SIDE = 8
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


class UploadError(ValueError):
    """An upload that cannot be used; the message is for the person who chose it."""


class Decoded(NamedTuple):
    """An image of the network's size, and what was done to it that its owner should know."""

    image: np.ndarray  # [size, size, C] uint8
    notes: tuple[str, ...] = ()


def decode(data: bytes, *, size: int, channels: int = 3) -> Decoded:
    """Decodes an image file, turned upright, cut to a centred square and resized.

    Args:
      data: the file's bytes; PNG, JPEG, WebP, GIF or BMP.
      size: side of the result in pixels.
      channels: 3 for RGB, 1 for grey levels.

    Raises:
      UploadError: too large a file, too many or too few pixels, or no image in one of these formats.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (40, 30), "red").save(file, "PNG")
    >>> decode(file.getvalue(), size=8).image[0, 0].tolist()
    [255, 0, 0]
    """
    from PIL import ImageOps

    if len(data) > MOST_BYTES:
        raise UploadError(too_large())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about metadata; its size is checked here
            opened = _opened(data)
            notes = _notes(opened)
            image = eight_bits(ImageOps.exif_transpose(opened))
            image = fit(image.convert("RGB" if channels == 3 else "L"), (size, size))
            return Decoded(np.asarray(image).reshape(size, size, channels), notes)
    except UploadError:
        raise
    except Exception as error:  # a damaged file may make Pillow's decoders raise anything
        raise UploadError(
            "The file is damaged: its pixels cannot be read. Try another copy."
        ) from error


def too_large() -> str:
    """The message for a file of too many bytes."""
    return (
        f"The file is larger than {MOST_BYTES // 2**20} MB. Save the image smaller and try again."
    )


def _opened(data: bytes) -> Any:
    """Pillow's image, its header read and its pixels not yet."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UploadError(
            "This is no image. PNG, JPEG, WebP, GIF and BMP files can be used."
        ) from None
    except Image.DecompressionBombError:
        raise UploadError(_too_many_pixels("more than 100 million pixels")) from None
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UploadError(_too_many_pixels(f"{width:,} × {height:,} pixels"))
    if min(width, height) < LEAST_SIDE:
        raise UploadError(
            f"The image has only {width} × {height} pixels. Choose one of at least "
            f"{LEAST_SIDE} × {LEAST_SIDE}."
        )
    return image


def _too_many_pixels(found: str) -> str:
    return f"The image has {found}; at most {MOST_PIXELS // 10**6} million can be used. Save it smaller."


def _notes(image: Any) -> tuple[str, ...]:
    """What of the file will not be in the result."""
    notes = []
    # A JPEG with further pictures, such as cameras' previews, is MPO to Pillow: it does not move.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        notes.append("The file is animated; its first frame is used.")
    if image.mode == "CMYK":
        notes.append("The CMYK colours were converted to RGB; they may look a little different.")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        notes.append("Transparency was dropped.")
    return tuple(notes)
