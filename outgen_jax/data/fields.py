"""The entries of the examples of a data set, and their encoding as records.

Images are uint8 in 0..255, [H, W, C] with 1 or 3 channels, stored as PNG.
"""

import operator
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from outgen_jax import files

Example = Mapping[str, Any]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">8x8xIIBB")  # width, height, bits of a value, and what the values are
_PNG_VALUES = {
    0: (1, "grey"),
    2: (3, "RGB"),
    3: (1, "palette"),
    4: (2, "grey + alpha"),
    6: (4, "RGBA"),
}


class Field(NamedTuple):
    """The type of an entry; made by `text`, `image`, `label` and `tensor`."""

    kind: Literal["text", "image", "label", "tensor"]
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    class_names: tuple[str, ...] = ()


def text() -> Field:
    """A string."""
    return Field("text")


def image(shape: tuple[int, int, int]) -> Field:
    """A uint8 image of `shape` (height, width, channels): an array, or the bytes of such a PNG file, grey or RGB."""
    return Field("image", tuple(shape))


def label(class_names: Iterable[str]) -> Field:
    """A class: its index, or its name.

    Raises:
      ValueError: a name that would come back as another one, or as none.
    """
    names = tuple(class_names)
    check_class_names(names, caller="label")
    return Field("label", class_names=names)


def check_class_names(names: Iterable[str], *, caller: str) -> None:
    """Refuses names that change when they are stored, one a line.

    Raises:
      ValueError: an empty name, one with a line break, or with blanks at an end.
    """
    for number, name in enumerate(names):
        if [name.strip()] != name.splitlines():
            raise ValueError(
                f"{caller}: class names are stored one a line, so they must not be empty, contain line breaks, or "
                f"begin or end with blanks; class {number} is {name!r}. Rename it"
            )


def tensor(shape: tuple[int, ...], dtype: str) -> Field:
    """Numbers of one `shape`, () for a single one, and numpy `dtype`."""
    return Field("tensor", tuple(shape), dtype)


def tfds_features(fields: Mapping[str, Field]) -> Any:
    """The fields as a `tfds.features.FeaturesDict`."""
    import tensorflow_datasets as tfds

    def feature(field: Field) -> Any:
        match field.kind:
            case "text":
                return tfds.features.Text()
            case "image":
                return tfds.features.Image(shape=field.shape)
            case "label":
                return tfds.features.ClassLabel(names=list(field.class_names))
            case "tensor":
                return tfds.features.Tensor(shape=field.shape, dtype=np.dtype(field.dtype))

    return tfds.features.FeaturesDict({key: feature(field) for key, field in fields.items()})


def import_writers() -> None:
    """Imports what writing records needs, for callers that write in threads.

    While tfds is imported, it exchanges Python's `__import__` for all threads, and another thread that imports a part
    of JAX then fails.
    """
    import tensorflow_datasets  # noqa: F401
    from array_record.python import array_record_module  # noqa: F401
    from tensorflow_datasets.core.example_serializer import ExampleSerializer  # noqa: F401


def serialized(features: Any, fields: Mapping[str, Field], example: Example) -> bytes:
    """An example as a record's bytes, ever the same; `features` are the fields' `tfds_features`.

    Raises:
      ValueError: the example does not match its fields.
    """
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    if set(example) != set(fields):
        raise ValueError(
            f"must have {', '.join(sorted(fields))}; it has "
            f"{', '.join(sorted(example)) or 'nothing'}"
        )
    try:
        entries = {key: _entry(key, field, example[key]) for key, field in fields.items()}
        encoded = features.encode_example(entries)
        message = ExampleSerializer(features.get_serialized_info()).get_tf_example(encoded)
        # `features.serialize_example` orders the entries differently in every process.
        return message.SerializeToString(deterministic=True)
    except Exception as error:  # tfds raises whatever a wrong value trips over
        why = " ".join(str(error).split())
        raise ValueError(f"is not as its fields say: {why}") from error


def _entry(key: str, field: Field, value: Any) -> Any:
    """A value as tfds encodes it without TensorFlow; it would itself cut 3.5 to an int32 3, and a label 1.7 to 1."""
    if field.kind == "text":
        # Names of files may hold bytes that are not UTF-8, which Python keeps as surrogates.
        is_text = isinstance(value, str)
        return value.encode("utf-8", "backslashreplace").decode() if is_text else value
    if field.kind == "label":
        return value if isinstance(value, str | bytes) else _class_index(key, value)
    if field.kind == "image" and isinstance(value, bytes):
        _check_png(key, field, value)
        return value
    array = np.asarray(value)
    if array.shape != field.shape:
        raise ValueError(f"{key!r} must have shape {list(field.shape)}; got {list(array.shape)}")
    return files.png_bytes(array) if field.kind == "image" else _as_type(key, field, array)


def _class_index(key: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(
            f"{key!r} must be a class's index, an integer, or its name; got {value!r}"
        ) from None


def _check_png(key: str, field: Field, data: bytes) -> None:
    if not data.startswith(_PNG_SIGNATURE) or len(data) < _PNG_HEADER.size:
        raise ValueError(f"the bytes of {key!r} must be those of a PNG file")
    width, height, bits, values = _PNG_HEADER.unpack_from(data)
    channels, meaning = _PNG_VALUES.get(values, (0, "unknown"))
    if (height, width, channels) != field.shape or bits != 8 or meaning not in ("grey", "RGB"):
        raise ValueError(
            f"{key!r} must be an image [H, W, C] of shape {list(field.shape)}, 8-bit grey or RGB; the PNG is "
            f"{[height, width, channels]}, {bits}-bit {meaning}. Decode it, and give an array of that shape"
        )


def _as_type(key: str, field: Field, array: np.ndarray) -> np.ndarray:
    """The array in the field's type; floats may be rounded, but no value may leave the type's range."""
    with np.errstate(over="ignore"):
        cast = array.astype(field.dtype, casting="same_kind")
    whole = np.issubdtype(cast.dtype, np.integer)
    lost = cast != array if whole else np.isfinite(array) & ~np.isfinite(cast)
    if lost.any():
        raise ValueError(
            f"{key!r} must be of type {field.dtype}, which cannot hold {array[lost][0]}; give the field a wider type"
        )
    return cast
