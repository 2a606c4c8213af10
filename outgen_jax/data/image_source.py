"""Images in memory, and what every reader of them shares: options checked, sizes made equal.

Images are uint8 in 0..255, NHWC with 1 or 3 channels. Sizes are (height, width) in pixels.
"""

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

PathLike = str | os.PathLike[str]
Size = tuple[int, int]


_LUMA = np.array([0.299, 0.587, 0.114])


class ImageSource(NamedTuple):
    """Images in memory, with their labels and ids."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray | None  # [N] int32; None where the source has none
    class_names: tuple[str, ...] | None
    ids: tuple[str, ...]  # [N] one stable name per image: tfds id, file name or row number
    skipped: tuple[str, ...] = ()  # files that could not be read, as "name: why"

    def take(self, rows: ArrayLike) -> "ImageSource":
        """The source with some of the images; `rows` is an index of an array, such as int [n] or bool [N].

        >>> images = np.zeros((3, 4, 4, 3), np.uint8)
        >>> source = ImageSource(images, np.array([0, 1, 0]), ("cat", "dog"), ("a", "b", "c"))
        >>> source.take([2, 1]).ids
        ('c', 'b')
        """
        index = np.asarray(rows)
        chosen = np.arange(len(self.ids))[index if index.size else index.astype(int)]
        return self._replace(
            images=self.images[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            ids=tuple(self.ids[row] for row in chosen),
        )

    def with_channels(self, channels: int) -> "ImageSource":
        """The source in 1 or 3 channels: colours become their luma (ITU-R BT.601), grey is repeated.

        >>> red = np.zeros((1, 2, 2, 3), np.uint8)
        >>> red[..., 0] = 200
        >>> ImageSource(red, None, None, ("a",)).with_channels(1).images.max()
        np.uint8(60)

        Raises:
          ValueError: another number of channels.
        """
        if channels not in (1, 3):
            raise ValueError(f"with_channels: channels must be 1 or 3, got {channels}")
        present = self.images.shape[-1]
        if present == channels:
            return self
        if present == 1:
            return self._replace(images=np.repeat(self.images, channels, -1))
        grey = np.empty((*self.images.shape[:-1], 1), np.uint8)
        # One at a time: as floats, all images would take eight times their memory.
        for row, image in enumerate(self.images):
            grey[row, ..., 0] = np.rint(image @ _LUMA)
        return self._replace(images=grey)


def check_lengths(source: ImageSource, *, caller: str) -> None:
    """Refuses a source whose images, labels and ids are not equally many.

    Raises:
      ValueError: their numbers.
    """
    images, ids = len(source.images), len(source.ids)
    labels = images if source.labels is None else len(source.labels)
    if not images == labels == ids:
        has = "no" if source.labels is None else f"{labels:,}"
        raise ValueError(
            f"{caller}: the source has {images:,} images, {has} labels and {ids:,} ids; give every image a label and "
            "an id, or pass labels=None"
        )


def check_options(caller: str, size: Size | None, limit: int | None) -> None:
    """Raises ValueError, in the name of `caller`, for the options that every reader has."""
    if limit is not None and limit < 1:
        raise ValueError(f"{caller}: limit must be at least 1, or None for all; got {limit}")
    if size is not None and (np.shape(size) != (2,) or min(size) < 1):
        raise ValueError(f"{caller}: size must be (height, width) in pixels, each >= 1; got {size}")


def id_text(name: Any, row: int) -> str:
    """An id as text, whatever its type; that of an image without one is its row number."""
    if name is None:
        return str(row)
    if isinstance(name, bytes):
        return name.decode("utf-8", "surrogateescape")
    return str(name)


def eight_bits(image: Any) -> Any:
    """Pillow's image in mode L or RGB: palettes looked up, transparency dropped.

    16 bits of grey are rounded to 8; those of colour are cut to 8 by Pillow when it opens the file.

    Raises:
      ValueError: the pixels have no fixed range.
    """
    from PIL import Image

    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} have no fixed range; save as 8 bits")
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if "transparency" in image.info:  # a palette's warns unless it goes through RGBA
        image = image.convert("RGBA")
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


def fit(image: Any, size: Size | None) -> Any:
    """The largest centred window of the aspect of `size`, resampled once (antialiased bicubic).

    `image` is Pillow's; without a `size` it comes back as it is.
    """
    from PIL import Image, ImageOps

    if size is None:
        return image
    return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)


def fit_all(images: np.ndarray, size: Size | None) -> np.ndarray:
    """`fit` for arrays: [N, H, W, C] uint8 to [N, *size, C]."""
    from PIL import Image

    if size is None or images.shape[1:3] == tuple(size):
        return images
    fitted = np.empty((len(images), *size, images.shape[-1]), np.uint8)
    for row, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        fitted[row] = np.asarray(fit(image, size)).reshape(fitted.shape[1:])
    return fitted


def store(
    images: np.ndarray | None, row: int, pixels: np.ndarray, count: int, *, where: str
) -> np.ndarray:
    """Puts `pixels` [H, W, C] into `images`, which the first of `count` images allocates.

    Raises:
      ValueError: they differ in size from those before; `where` names reader and image.
    """
    if images is None:
        images = np.empty((count, *pixels.shape), np.uint8)
    if pixels.shape != images.shape[1:]:
        raise ValueError(
            f"{where} is {pixels.shape[0]}x{pixels.shape[1]}, those before it "
            f"{images.shape[1]}x{images.shape[2]} (height x width); pass size=(height, width) to "
            "bring them to one size"
        )
    images[row] = pixels
    return images
