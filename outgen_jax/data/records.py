"""Data sets on disk: tfds directories of array_record files, written without TensorFlow.

Examples are dictionaries as `fields` describes them. A file, and a data set, appears under its name
only when it is whole.
"""

import contextlib
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from outgen_jax.data.fields import Example as Example
from outgen_jax.data.fields import Field as Field
from outgen_jax.data.fields import image as image
from outgen_jax.data.fields import label as label
from outgen_jax.data.fields import serialized, tfds_features
from outgen_jax.data.fields import tensor as tensor
from outgen_jax.data.fields import text as text
from outgen_jax.data.image_source import PathLike


class ShardSize(NamedTuple):
    """What the metadata must know of a written shard."""

    examples: int
    num_bytes: int  # of the serialized examples, without the file's framing


def write_dataset(
    directory: PathLike,
    *,
    name: str,
    version: str,
    fields: Mapping[str, Field],
    splits: Mapping[str, Iterable[Example]],
    examples_per_shard: int = 65536,
    **about: Any,
) -> Path:
    """Writes a data set that tfds reads, whole or not at all; examples are streamed.

    It is written beside `directory` under a hidden name and renamed when complete. To resume an
    interrupted writing instead, call `write_shard` for what is missing and `write_metadata` last.

    Args:
      directory: the directory of the data set. `tfds.builder_from_directory` reads it anywhere,
          `tfds.data_source(name, data_dir=...)` if it is <data_dir>/<name>/<version>.
      name: of the data set, in lower_snake_case.
      version: 'major.minor.patch'.
      fields: the entries of an example; made by the functions of `data.fields`.
      splits: the examples of each split, in the order in which they are stored.
      examples_per_shard: the largest number of examples in one file.
      **about: more for `tfds.core.DatasetInfo`: description, citation, homepage, supervised_keys.

    Returns:
      `directory`, which now exists.

    Raises:
      FileExistsError: `directory` exists.
      ValueError: bad name or version, an empty split, or an example that does not match `fields`.
    """
    target = Path(directory).expanduser()
    _check_names(name, version, splits, caller="write_dataset")
    if examples_per_shard < 1:
        raise ValueError(
            f"write_dataset: examples_per_shard must be at least 1; got {examples_per_shard}"
        )
    if os.path.lexists(target):
        raise FileExistsError(
            f"write_dataset: {str(target)!r} exists; remove it or write somewhere else"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with _appearing(target) as folder:
        folder.mkdir()
        shards = {
            split: _write_split(folder, name, split, fields, examples, examples_per_shard)
            for split, examples in splits.items()
        }
        write_metadata(folder, name=name, version=version, fields=fields, shards=shards, **about)
    return target


def shard_name(name: str, split: str, index: int, count: int) -> str:
    """The file name under which tfds looks for shard `index` of `count`."""
    return f"{name}-{split}.array_record-{index:05d}-of-{count:05d}"


def write_shard(
    path: PathLike, *, fields: Mapping[str, Field], examples: Iterable[Example]
) -> ShardSize:
    """Writes one array_record file, whole or not at all; equal examples make equal files.

    Raises:
      ValueError: no examples, or one that does not match `fields`.
      OSError: the disk is full, or the directory cannot be written.
    """
    features = tfds_features(fields)
    target = Path(path)
    count = num_bytes = 0
    with _appearing(target) as temporary:
        with _writer(temporary) as write:
            for example in examples:
                try:
                    record = serialized(features, fields, example)
                except ValueError as error:
                    raise ValueError(f"write_shard: example {count} {error}") from error
                write(record)
                count, num_bytes = count + 1, num_bytes + len(record)
        if count == 0:
            raise ValueError(f"write_shard: no examples for {target.name!r}; leave the split out")
    return ShardSize(count, num_bytes)


def write_metadata(
    directory: PathLike,
    *,
    name: str,
    version: str,
    fields: Mapping[str, Field],
    shards: Mapping[str, Iterable[ShardSize]],
    **about: Any,
) -> None:
    """Makes a directory of shards, named by `shard_name`, a data set that tfds reads.

    Args:
      directory: holds the shards.
      name: of the data set.
      version: 'major.minor.patch'.
      fields: those the shards were written with.
      shards: what `write_shard` returned, by split and in order.
      **about: as in `write_dataset`.

    Raises:
      ValueError: bad name or version.
    """
    import tensorflow_datasets as tfds

    _check_names(name, version, shards, caller="write_metadata")
    template = tfds.core.ShardedFileTemplate(
        data_dir=os.fspath(directory), dataset_name=name, filetype_suffix="array_record"
    )
    infos = []
    for split, written in shards.items():
        rows = list(written)
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[shard.examples for shard in rows],
                num_bytes=sum(shard.num_bytes for shard in rows),
                filename_template=template.replace(split=split),
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=os.fspath(directory),
        features=tfds_features(fields),
        split_infos=infos,
        version=version,
        check_data=False,  # the check would need TensorFlow
        **about,
    )


def _check_names(name: str, version: str, splits: Iterable[str], *, caller: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"{caller}: name must be lower_snake_case; got {name!r}")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"{caller}: version must look like '1.0.0'; got {version!r}")
    names = list(splits)
    wrong = [split for split in names if not re.fullmatch(r"[A-Za-z]\w*", split) or split == "all"]
    if wrong or not names:
        raise ValueError(
            f"{caller}: splits need names of letters, digits and '_', other than 'all'; got "
            f"{wrong or 'no split'}"
        )


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Writes records to an array_record file, which is on the disk at the end."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with _operating_system_errors():
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1")  # what random access wants

    def write(record: bytes) -> None:
        with _operating_system_errors():
            writer.write(record)

    try:
        yield write
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    with _operating_system_errors():
        writer.close()
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _operating_system_errors() -> Iterator[None]:
    """The writer calls a full disk a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"write_shard: {error}") from error


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A hidden sibling of a file or folder that takes its name at the end, or disappears."""
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def _write_split(
    folder: Path,
    name: str,
    split: str,
    fields: Mapping[str, Field],
    examples: Iterable[Example],
    examples_per_shard: int,
) -> list[ShardSize]:
    """Writes shards until the examples end; only then their names, which hold their number."""
    shards: list[ShardSize] = []
    for index, part in enumerate(_parts(examples, examples_per_shard)):
        try:
            shards.append(write_shard(folder / f"{split}-{index}", fields=fields, examples=part))
        except ValueError as error:
            raise ValueError(f"write_dataset: split {split!r}, shard {index}: {error}") from error
    if not shards:
        raise ValueError(f"write_dataset: split {split!r} has no examples; leave it out")
    for index in range(len(shards)):
        (folder / f"{split}-{index}").rename(folder / shard_name(name, split, index, len(shards)))
    return shards


def _parts(examples: Iterable[Example], length: int) -> Iterator[Iterator[Example]]:
    """`examples` in consecutive iterators of at most `length`; each must be used up in turn."""
    rest = iter(examples)
    for first in rest:
        yield itertools.chain([first], itertools.islice(rest, length - 1))
