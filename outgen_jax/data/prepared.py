"""Data sets that tfds has prepared, read without TensorFlow.

Images are uint8 in 0..255, NHWC with 1 or 3 channels. Sizes are (height, width) in pixels.
"""

import difflib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outgen_jax.data.image_source import (
    ImageSource,
    PathLike,
    Size,
    check_options,
    fit,
    id_text,
    store,
)

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
      name: of the data set ('mnist', 'cifar10/3.0.2'), or its directory, or that of one version of it.
      split: a split or a slice of it, as tfds writes them.
      data_dir: directory of the data sets; None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
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
    builder = _builder(_directory(os.fspath(name), data_dir))
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(
            f"from_tfds: expected a uint8 feature 'image'; {builder.name} has "
            f"{', '.join(features)}; export it to .npz instead"
        )
    rows = _split_rows(builder, split)
    count = len(rows) if limit is None else min(limit, len(rows))
    files = builder.info.splits[split].file_instructions
    _check_files(files, count)
    mode = "L" if image.shape[-1] == 1 else "RGB"
    images: np.ndarray | None = None
    ids: list[str] = []
    labels: list[Any] = []
    for row, record in enumerate(_records(rows, count, files)):
        ids.append(id_text(record.get("id"), row))
        labels.append(record.get("label"))
        pixels = _decode(record["image"], mode, size, where=f"from_tfds: image {ids[row]!r}")
        images = store(images, row, pixels, count, where=f"from_tfds: image {ids[row]!r}")
    assert images is not None  # an empty split does not get past `_split_rows`
    if not isinstance(label, tfds.features.ClassLabel) or max(labels) < 0:
        return ImageSource(images, None, None, tuple(ids))  # tfds writes -1 for withheld labels
    class_names = _class_names(builder.name, tuple(label.names))
    if max(labels) >= len(class_names):
        row = int(np.argmax(labels))
        raise ValueError(
            f"from_tfds: image {ids[row]!r} of {builder.name} has label {labels[row]}, but there "
            f"are {len(class_names)} classes: features.json is another version's; prepare the data "
            "set again"
        )
    return ImageSource(images, np.array(labels, np.int32), class_names, tuple(ids))


def split_names(name: PathLike, *, data_dir: PathLike | None = None) -> tuple[str, ...]:
    """The splits of a prepared tfds data set, such as ('train', 'test'); arguments as `from_tfds` has them.

    Raises:
      FileNotFoundError: the data set is not prepared.
      ValueError: its description is damaged.
    """
    return tuple(_builder(_directory(os.fspath(name), data_dir)).info.splits)


def _directory(name: str, data_dir: PathLike | None) -> Path:
    """The newest version of the data set, unless `name` says which, or is a directory itself."""
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    itself, below = Path(name).expanduser(), root / name.replace(":", "/")
    for candidate in (itself, below, *_versions(below), *_versions(itself)):
        if (candidate / "dataset_info.json").is_file():
            return candidate
    found = sorted({path.parts[-3] for path in root.glob("*/*/dataset_info.json")})
    near = difflib.get_close_matches(name, found, 1)
    raise FileNotFoundError(
        f"from_tfds: no prepared data set {name!r} in {str(root)!r}"
        + (f"; did you mean {near[0]!r}?" if near else ".")
        + f" There: {', '.join(found) or 'none'}. CIFAR-10 needs its archive only: `python "
        f"experiments/prepare_cifar.py --archive=cifar-10-python.tar.gz --data_dir={root}`; others "
        f"TensorFlow: `tfds build {name} --file_format=array_record --data_dir={root}`"
    )


def _versions(folder: Path) -> list[Path]:
    """The directories of a data set's versions, newest first."""
    versions = [path for path in folder.glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    numbers = {path: [int(part) for part in path.name.split(".")] for path in versions}
    return sorted(versions, key=numbers.__getitem__, reverse=True)


def is_prepared(path: Path) -> bool:
    """Whether tfds reads a directory: one version of a data set, or the folder of all versions."""
    return any((place / "dataset_info.json").is_file() for place in (path, *_versions(path)))


def _builder(directory: Path) -> Any:
    """A directory as tfds sees it."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # protobuf, json and tfds raise different ones
        raise ValueError(
            f"from_tfds: dataset_info.json or features.json in {str(directory)!r} cannot be read "
            f"({' '.join(str(error).split())}); copy both again from where the data set was "
            "prepared, or remove the directory and prepare the data set again"
        ) from error


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


def _check_files(files: Sequence[Any], count: int) -> None:
    """Compares the files that the first `count` records are in with the data set's description.

    Raises:
      ValueError: one is missing, is not a complete array_record file, or holds another number of records.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    before = 0
    for file in files:
        if before >= count:
            return
        before += file.take
        wanted, path = file.examples_in_shard, Path(file.filename)
        if not path.is_file():
            raise ValueError(_damaged(path, "it is missing"))
        try:
            reader = ArrayRecordReader(os.fspath(path))
            found = reader.num_records() if reader.ok() else 0
        except RuntimeError as error:
            raise ValueError(_damaged(path, str(error))) from error
        if found != wanted:
            raise ValueError(
                _damaged(path, f"{found} records can be read, dataset_info.json says {wanted}")
            )


def _damaged(path: Path, why: str) -> str:
    """The message for a file of a data set that cannot be read."""
    text = (
        f"from_tfds: {path.name!r} cannot be read ({' '.join(why.split())}); copy it to "
        f"{str(path.parent)!r} again, or remove that directory and prepare the data set again"
    )
    if path.is_file():
        with open(path, "rb") as opened:
            if opened.read(64).startswith(b"version https://git-lfs"):
                text += ". It is a pointer of Git LFS: `git lfs pull` fetches the file itself"
    return text


def _records(rows: Any, count: int, files: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The first `count` records, read in blocks: twice as fast as one by one."""
    for start in range(0, count, _RECORDS_AT_ONCE):
        block = range(start, min(start + _RECORDS_AT_ONCE, count))
        try:
            found = rows.__getitems__(block)
        except Exception as error:  # array_record and protobuf raise different ones
            row, why = _first_unreadable(rows, block, error)
            raise ValueError(_damaged(_file_of(row, files), f"record {row}: {why}")) from error
        yield from found


def _first_unreadable(rows: Any, block: range, error: Exception) -> tuple[int, Exception]:
    """The row of a block that cannot be read by itself, and why."""
    for row in block:
        try:
            rows.__getitems__([row])
        except Exception as own:  # as in `_records`
            return row, own
    return block[0], error


def _file_of(row: int, files: Sequence[Any]) -> Path:
    """The file that holds a row of the split."""
    for file in files:
        if row < file.take:
            return Path(file.filename)
        row -= file.take
    raise AssertionError("a row beyond the split")


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
