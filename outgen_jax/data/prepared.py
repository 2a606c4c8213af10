"""Data sets that tfds has prepared, read without TensorFlow.

Images are uint8 in 0..255, NHWC with 1 or 3 channels. Sizes are (height, width) in pixels.
"""

import difflib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from outgen_jax.data.image_source import ImageSource, PathLike, Size, check_options, fit, store

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

_RECORDS_AT_ONCE = 1024  # encoded records held in memory while decoding


def from_tfds(
    name: PathLike,
    *,
    split: str,
    data_dir: PathLike | None = None,
    size: Size | None = None,
    limit: int | None = None,
) -> ImageSource:
    """Reads a split of a prepared tfds data set (array_record), without TensorFlow.

    Args:
        name: of the data set ('mnist', 'cifar10/3.0.2'), or the directory of one version of it.
        split: a split or a slice of it, as tfds writes them.
        data_dir: where the data sets lie; None: TFDS_DATA_DIR, else ~/tensorflow_datasets.
        size: (height, width) to bring every image to; None: as stored.
        limit: keep the first `limit` images in stored order (which tfds shuffles); None: all.

    Returns:
        The features 'image', 'label' and 'id'; without an 'id', ids are row numbers of this split.

    Raises:
        FileNotFoundError: the data set is not prepared; the message says how to prepare it.
        ValueError: no such split, no uint8 images, images of several sizes, or damaged records.
    """
    import tensorflow_datasets as tfds

    check_options("from_tfds", size, limit)
    builder = tfds.builder_from_directory(_directory(os.fspath(name), data_dir))
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(
            f"from_tfds: expected a uint8 feature 'image'; {builder.name} has "
            f"{', '.join(features)}; export it to .npz instead"
        )
    rows = _split_rows(builder, split)
    count = len(rows) if limit is None else min(limit, len(rows))
    mode = "L" if image.shape[-1] == 1 else "RGB"
    images: np.ndarray | None = None
    ids: list[str] = []
    labels: list[Any] = []
    for row, record in enumerate(_records(rows, count)):
        ids.append(record["id"].decode() if "id" in record else str(row))
        labels.append(record.get("label"))
        pixels = _decode(record["image"], mode, size, where=f"from_tfds: image {ids[row]!r}")
        images = store(images, row, pixels, count, where=f"from_tfds: image {ids[row]!r}")
    assert images is not None  # an empty split does not get past `_split_rows`
    if not isinstance(label, tfds.features.ClassLabel) or max(labels) < 0:
        return ImageSource(images, None, None, tuple(ids))  # tfds writes -1 for withheld labels
    class_names = _class_names(builder.name, tuple(label.names))
    return ImageSource(images, np.array(labels, np.int32), class_names, tuple(ids))


def _directory(name: str, data_dir: PathLike | None) -> Path:
    """The newest version of the data set, unless `name` says which, or is a directory itself."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    folder = root / name.replace(":", "/")
    versions = [path for path in folder.glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    versions.sort(key=lambda path: [int(part) for part in path.name.split(".")], reverse=True)
    for candidate in (Path(name).expanduser(), folder, *versions):
        if (candidate / "dataset_info.json").is_file():
            return candidate
    found = sorted(path.parts[-3] for path in root.glob("*/*/dataset_info.json"))
    near = difflib.get_close_matches(name, found, 1)
    raise FileNotFoundError(
        f"from_tfds: no prepared data set {name!r} in {str(root)!r}"
        + (f"; did you mean {near[0]!r}?" if near else ".")
        + f" There: {', '.join(found) or 'none'}. CIFAR-10 needs its archive only: `python "
        f"experiments/prepare_cifar.py --archive=cifar-10-python.tar.gz --data_dir={root}`; others "
        f"TensorFlow: `tfds build {name} --file_format=array_record --data_dir={root}`"
    )


def _split_rows(builder: Any, split: str) -> Any:
    """The split's records as a sequence of dictionaries, the image still encoded."""
    import tensorflow_datasets as tfds

    try:
        rows = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        len(rows)  # an inverted slice shows only here
    except NotImplementedError as error:
        raise ValueError(
            f"from_tfds: {builder.name} is stored as {builder.info.file_format.value}, which "
            "cannot be read without TensorFlow; convert it with `tfds build "
            f"{builder.name} --file_format=array_record`"
        ) from error
    except ValueError as error:
        near = difflib.get_close_matches(split.split("[")[0], builder.info.splits, 1)
        raise ValueError(
            f"from_tfds: {builder.name} has no split {split!r}"
            + (f"; did you mean {near[0]!r}?" if near and near[0] not in split else ".")
            + f" Splits: {', '.join(builder.info.splits)}, and slices that are not empty, such as "
            "'test[:100]'"
        ) from error
    return rows


def _records(rows: Any, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` records, read in blocks: twice as fast as one by one."""
    for start in range(0, count, _RECORDS_AT_ONCE):
        yield from rows.__getitems__(range(start, min(start + _RECORDS_AT_ONCE, count)))


def _decode(encoded: bytes, mode: str, size: Size | None, *, where: str) -> np.ndarray:
    """One record's PNG or JPEG as [H, W, C] uint8."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            converted = image if image.mode == mode else image.convert(mode)
            pixels = np.asarray(fit(converted, size))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{where} cannot be decoded ({error}); prepare the data set again"
        ) from error
    return pixels[..., None] if mode == "L" else pixels


def _class_names(data_set: str, names: tuple[str, ...]) -> tuple[str, ...]:
    # A directory that lacks its labels file: tfds then calls the classes '0', '1', ...
    if data_set == "cifar10" and names == tuple("0123456789"):
        return CIFAR10_CLASSES
    return names
