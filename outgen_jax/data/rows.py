"""Rows of a source of any length, read a block at a time, so that memory follows the block.

Images are [H, W, C], all of one shape and type: uint8 in 0..255 or floating in [0, 1], which is
read as float32. Labels are int32, -1 where there is none.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from outgen_jax.data.image_source import ImageSource


class Rows(Protocol):
    """A source that is read row by row: images alone, (image, label, id), or as tfds gives them.

    A row is an image, a tuple (image, label or None, id), or a mapping with 'image' and, where it
    has them, 'label' and 'id'. An attribute `class_names` of the source names the labels.
    """

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, row: int, /) -> Any:
        """Row `row`, counted from 0."""


Source = ImageSource | Rows


class Kind(NamedTuple):
    """What all rows of a source have in common."""

    num_rows: int
    shape: tuple[int, int, int]  # of an image
    dtype: str  # 'uint8' or 'float32'
    class_names: tuple[str, ...] | None


class Block(NamedTuple):
    """Consecutive rows in memory."""

    rows: np.ndarray  # [n] int64
    images: np.ndarray  # [n, H, W, C] uint8, or float32 in [0, 1]
    labels: np.ndarray  # [n] int32
    ids: tuple[str, ...]  # [n]

    def digest(self, targets: np.ndarray) -> str:
        """SHA-256 of the block and of what its images are to reach."""
        found = hashlib.sha256(repr((self.images.shape, self.ids)).encode())
        for array in (self.rows, self.images, self.labels, targets):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def kind(source: Source, *, caller: str) -> Kind:
    """Looks at the first row of a source.

    Raises:
        ValueError: no rows, or a first image that could not be stored.
    """
    count = len(source.ids) if isinstance(source, ImageSource) else len(source)
    if count < 1:
        raise ValueError(f"{caller}: the source has no rows; nothing to do")
    image, _, _ = _entry(source, 0)
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"{caller}: images must have shape [H, W, C] with C 1 or 3, to be stored as PNG; row 0 "
            f"of the source has {list(image.shape)}"
        )
    is_float = np.issubdtype(image.dtype, np.floating)
    if image.dtype != np.uint8 and not is_float:
        raise ValueError(
            f"{caller}: images must be uint8, or float in [0, 1]; row 0 of the source has "
            f"{image.dtype}; convert it first"
        )
    names = getattr(source, "class_names", None)
    shape = (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
    return Kind(count, shape, "float32" if is_float else "uint8", tuple(names) if names else None)


def read(source: Source, kind: Kind, start: int, stop: int, *, caller: str) -> Block:
    """Rows `start` to `stop` (not included) of a source.

    Raises:
        ValueError: a row that is not of the source's kind, or a label that names no class.
    """
    rows = np.arange(start, stop)
    images = np.empty((len(rows), *kind.shape), kind.dtype)
    labels, ids = np.empty(len(rows), np.int32), []
    for place, row in enumerate(rows):
        where = f"{caller}: row {row} of the source"
        image, label, name = _entry(source, int(row))
        if image.shape != kind.shape or (image.dtype == np.uint8) != (kind.dtype == "uint8"):
            raise ValueError(
                f"{where} has {image.dtype} {list(image.shape)}, row 0 {kind.dtype} "
                f"{list(kind.shape)}; all images must be of one shape and type"
            )
        # Written so that NaN fails.
        if kind.dtype == "float32" and not (image.min() >= 0 and image.max() <= 1):
            raise ValueError(
                f"{where}: float images must lie in [0, 1], got values from {image.min():.4g} to "
                f"{image.max():.4g}; divide by 255, or pass uint8"
            )
        if kind.class_names and not -1 <= label < len(kind.class_names):
            raise ValueError(
                f"{where} has label {label}; class_names has {len(kind.class_names)} classes"
            )
        images[place], labels[place] = image, label
        ids.append(name)
    return Block(rows, images, labels, tuple(ids))


def _entry(source: Source, row: int) -> tuple[np.ndarray, int, str]:
    """Image, label and id of one row; the id of a row without one is its number."""
    label: Any
    name: Any
    if isinstance(source, ImageSource):
        label = None if source.labels is None else source.labels[row]
        image, name = source.images[row], source.ids[row]
    else:
        entry = source[row]
        if isinstance(entry, Mapping):
            image, label, name = entry["image"], entry.get("label"), entry.get("id")
        elif isinstance(entry, tuple):
            image, label, name = entry
        else:
            image, label, name = entry, None, None
    name = row if name is None else name
    text = name.decode() if isinstance(name, bytes) else str(name)
    return np.asarray(image), -1 if label is None else int(label), text
