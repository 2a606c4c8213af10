"""A source of any length, read a block of rows at a time, so that memory follows the block.

Images are [H, W, C], all of one shape and type: uint8 in 0..255 or floating in [0, 1], which is
read as float32; or Pillow's images, of 8 or 16 bits. Labels are int32, -1 where there is none.
"""

import hashlib
import operator
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from outgen_jax import image_checks
from outgen_jax.data import fields
from outgen_jax.data.image_source import ImageSource, check_lengths, eight_bits, id_text


class RandomAccessSource(Protocol):
    """A source that is read row by row: images alone, pairs, or as tfds, Hugging Face and grain give them.

    A row is an image (an array or Pillow's), a pair (image, label) as torchvision's data sets give
    it, a triple (image, label, id), or a mapping with 'image' and, where it has them, 'label' and
    'id'. A label is an integer, None, or a name among the source's `class_names`; an id may be of
    any type. An attribute `class_names` of the source, or `classes`, names the labels; else the `names` of the
    feature 'label', as a split of Hugging Face `datasets` and a tfds data source have them. A grain data source or
    `grain.MapDataset` is such a source, too.
    """

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, row: int, /) -> Any:
        """Row `row`, counted from 0."""


Source = ImageSource | RandomAccessSource


class Spec(NamedTuple):
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

    def digest(self, targets: Sequence[np.ndarray]) -> str:
        """SHA-256 of the block and its targets."""
        found = hashlib.sha256(repr((self.images.shape, self.ids)).encode())
        for array in (self.rows, self.images, self.labels, *targets):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def spec(source: Source, *, caller: str) -> Spec:
    """Looks at the first row of a source.

    Raises:
      ValueError: no rows, class names that repeat or could not be stored, lengths that differ, or a first image that
          could not be stored.
    """
    count = _length(source, caller)
    if count < 1:
        raise ValueError(f"{caller}: the source has no rows, so there are no images; add some")
    names = _class_names(source)
    if names is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{caller}: class_names of the source must differ; {twice!r} names several classes. Rename all but one"
        )
    fields.check_class_names(names or (), caller=f"{caller}: class_names of the source")
    image, _, _ = _entry(source, 0, names, caller)
    where = f"{caller}: row 0 of the source"
    if image.ndim == 4:
        raise ValueError(
            f"{where} has {list(image.shape)}, which are many images; pass them as data.sources.ImageSource, labels "
            "and all"
        )
    image_checks.check_image(image, caller=where, channels=(1, 3))
    image_checks.check_floats_or_uint8(image, caller=where, name="image")
    is_float = image.dtype != np.uint8
    shape = (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
    return Spec(count, shape, "float32" if is_float else "uint8", names)


def read(source: Source, spec: Spec, start: int, stop: int, *, caller: str) -> Block:
    """Rows `start` to `stop` (not included) of a source.

    Raises:
      ValueError: a row that is not of the source's spec, or a label that names no class.
    """
    rows = np.arange(start, stop)
    images = np.empty((len(rows), *spec.shape), spec.dtype)
    labels, ids = np.empty(len(rows), np.int32), []
    for place, row in enumerate(rows):
        where = f"{caller}: row {row} of the source"
        image, label, name = _entry(source, int(row), spec.class_names, caller)
        if image.shape != spec.shape or (image.dtype == np.uint8) != (spec.dtype == "uint8"):
            raise ValueError(
                f"{where} has {image.dtype} {list(image.shape)}, row 0 {spec.dtype} "
                f"{list(spec.shape)}; bring all images to one shape and type"
            )
        if spec.dtype == "float32":
            image_checks.check_range(image, caller=where, name="image")
        if spec.class_names and not -1 <= label < len(spec.class_names):
            raise ValueError(
                f"{where} has label {label}; class_names has {len(spec.class_names)} classes. Give "
                "the names of all, or -1 for an image without a label"
            )
        images[place], labels[place] = image, label
        ids.append(name)
    return Block(rows, images, labels, tuple(ids))


def _length(source: Source, caller: str) -> int:
    if isinstance(source, ImageSource):
        check_lengths(source, caller=caller)
        return len(source.ids)
    if isinstance(source, Mapping) and source and all(map(_has_features, source.values())):
        raise ValueError(
            f"{caller}: the source has the splits {', '.join(map(repr, source))}; pass one of them, such as "
            f"source[{next(iter(source))!r}]"
        )
    is_sized = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    if isinstance(source, Mapping) or not is_sized:
        raise ValueError(
            f"{caller}: the source must have a length and give row i as source[i]; got a "
            f"{type(source).__name__}. Collect what it yields in a list"
        )
    return len(source)


def _has_features(split: Any) -> bool:
    """Whether it is a split of Hugging Face's `datasets`."""
    return hasattr(split, "features")


def _class_names(source: Source) -> tuple[str, ...] | None:
    """What the source calls its classes, as here, in torchvision, or in Hugging Face's and tfds' features."""
    for attribute in ("class_names", "classes"):
        names = getattr(source, attribute, None)
        if names is not None and len(names):
            return tuple(map(str, names))
    of_tfds = getattr(source, "dataset_info", None)
    features = getattr(source, "features", None) or getattr(of_tfds, "features", None) or {}
    names = getattr(features["label"], "names", None) if "label" in features else None
    return tuple(map(str, names)) if names else None


def _entry(
    source: Source, row: int, class_names: Sequence[str] | None, caller: str
) -> tuple[np.ndarray, int, str]:
    """Image, label and id of one row; the id of a row without one is its number."""
    image: Any
    label: Any = None
    name: Any = None
    where = f"{caller}: row {row} of the source"
    if isinstance(source, ImageSource):
        label = None if source.labels is None else source.labels[row]
        image, name = source.images[row], source.ids[row]
    else:
        image = source[row]
        if isinstance(image, Mapping):
            if "image" not in image:
                rename = hasattr(source, "rename_column")  # of Hugging Face's
                how = ", source.rename_column(name, 'image')" if rename else ""
                raise ValueError(
                    f"{where} has no 'image' but {', '.join(map(repr, image))}; rename the entry "
                    f"that holds the image{how}"
                )
            image, label, name = image["image"], image.get("label"), image.get("id")
        elif _is_tuple(image):
            if not 2 <= len(image) <= 3:
                raise ValueError(
                    f"{where} is a tuple of {len(image)}; give (image, label) or (image, label, id)"
                )
            image, label, *rest = image
            name = rest[0] if rest else None
    return _pixels(image, where), _label(label, class_names, where), id_text(name, row)


def _is_tuple(entry: Any) -> bool:
    """Whether a row is (image, label, ...); a list may also be the rows of an image's pixels."""
    if isinstance(entry, list):
        return 2 <= len(entry) <= 3 and (isinstance(entry[1], str) or np.ndim(entry[1]) == 0)
    return isinstance(entry, tuple)


def _pixels(image: Any, where: str) -> np.ndarray:
    """An image as an array; Pillow's as [H, W, 1 or 3] uint8."""
    if isinstance(image, bytes):
        raise ValueError(
            f"{where} is encoded, {len(image)} bytes; decode it, as in "
            "grain.MapDataset.source(source).map(decode)"
        )
    pillow = sys.modules.get("PIL.Image")  # where it is not loaded there can be no image of it
    if pillow is None or not isinstance(image, pillow.Image):
        return np.asarray(image)
    from PIL import ImageOps

    try:
        pixels = np.asarray(eight_bits(ImageOps.exif_transpose(image)))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _label(label: Any, class_names: Sequence[str] | None, where: str) -> int:
    if label is None:
        return -1
    if isinstance(label, str):
        if class_names is None or label not in class_names:
            raise ValueError(
                f"{where} has label {label!r}, which is not among the source's class_names "
                f"({', '.join(class_names or ()) or 'it has none'}); add it there, or give labels "
                "as integers"
            )
        return class_names.index(label)
    try:
        found = operator.index(label)
    except TypeError:
        raise ValueError(
            f"{where} has label {label!r} of type {type(label).__name__}; give the integer of its "
            "class, such as int(numpy.argmax(label)) for a row of probabilities, or None"
        ) from None
    if found < -1 or found > np.iinfo(np.int32).max:
        raise ValueError(
            f"{where} has label {found}; labels are int32, and -1 stands for none. Number the classes from 0"
        )
    return found
