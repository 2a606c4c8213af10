"""The entries of the examples of a data set, and their encoding as records.

Images are uint8 in 0..255, [H, W, C] with 1 or 3 channels, stored as PNG.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from outgen_jax import files

Example = Mapping[str, Any]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
    """A uint8 image of `shape` (height, width, channels): an array, or PNG bytes of that shape."""
    return Field("image", tuple(shape))


def label(class_names: Iterable[str]) -> Field:
    """A class: its index, or its name."""
    return Field("label", class_names=tuple(class_names))


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
    """A value as tfds encodes it without TensorFlow; it would itself cut 3.5 to an int32 3."""
    if field.kind == "image" and isinstance(value, bytes):
        if not value.startswith(_PNG_SIGNATURE):
            raise ValueError(f"the bytes of {key!r} must be those of a PNG file")
        return value
    if field.kind not in ("image", "tensor"):
        return value
    array = np.asarray(value)
    if array.shape != field.shape:
        raise ValueError(f"{key!r} must have shape {list(field.shape)}; got {list(array.shape)}")
    if field.kind == "image":
        return files.png_bytes(array)
    return array.astype(field.dtype, casting="same_kind")
