"""A data set written shard by shard: a killed run leaves whole files, and a later run continues.

    manifest.json                                      what the set is made from; at last its counts
    generated-train.array_record-00000-of-00007, ...   the shards
    shards/00000.json, ...                             checksum and counts of every finished shard
    features.json, dataset_info.json, ...              tfds' own, once all shards are there
    README.md                                          the data card, likewise

A shard counts as finished when its file has the checksum that was noted after writing it. Every
file appears whole or not at all, under a hidden name until then.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from outgen_jax import files
from outgen_jax.data import directory_lock, records
from outgen_jax.data.image_source import PathLike

NAME, VERSION, SPLIT = "generated", "1.0.0", "train"

_CALLER = "generate_dataset"  # whom the error messages name
# Differences from another data set that a message lists, and signs of a value in it.
_LISTED, _BRIEF = 4, 60
_MANIFEST = "manifest.json"
_OWN = (
    f"{NAME}-{SPLIT}.array_record-*",
    "shards",
    "features.json",
    "dataset_info.json",
    "*.labels.txt",
    "README.md",
)


class ShardedSet(NamedTuple):
    """A data set in the making."""

    directory: Path
    fields: Mapping[str, records.Field]
    num_shards: int
    made_from: Mapping[str, Any]  # JSON values that determine the data set


class Finished(NamedTuple):
    """What is noted of a finished shard, in `shards/`."""

    file: str
    sha256: str
    inputs: str  # digest of the rows and targets that it was made from
    examples: int
    num_bytes: int  # as in `records.ShardSize`
    converged: int
    within: list[int]  # number of images within each distance of the data card


def check(dataset: ShardedSet, *, overwrite: bool) -> None:
    """Refuses a directory that holds something else; changes nothing.

    Raises:
      FileExistsError: it holds files but no manifest, or, unless `overwrite`, another data set.
      OSError: it cannot be read.
    """
    with _explained(dataset.directory):
        found = read_manifest(dataset.directory)
        strangers = [] if found is not None else _entries(dataset.directory)
    where = f"{_CALLER}: {str(dataset.directory)!r} holds"
    if strangers:
        raise FileExistsError(
            f"{where} {strangers[0]!r} and no data set of this kind; choose an empty directory"
        )
    if found is None or overwrite:
        return
    before, now = found["made_from"], dataset.made_from
    differences = list(_differences("", before, json.loads(json.dumps(now))))
    if differences:
        listed = "; ".join(differences[:_LISTED])
        if len(differences) > _LISTED:
            listed += f"; and {len(differences) - _LISTED} more"
        raise FileExistsError(
            f"{where} a data set made otherwise ({listed}); choose another directory, or overwrite"
        )


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    """Where two JSON values differ, each as "name before, now after"."""
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}, key=_plain_first(before, now)):
            inner = f"{name}.{key}" if name else key
            yield from _differences(inner, before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{name}[{index}]", *pair)
    else:
        yield f"{name} {_brief(before)}, now {_brief(now)}"


def _plain_first(before: Mapping[str, Any], now: Mapping[str, Any]) -> Callable[[str], Any]:
    """Sorts keys by name, those of mappings and lists last: what they hold is longer to read."""
    return lambda key: (isinstance(now.get(key, before.get(key)), dict | list), key)


def _brief(value: Any) -> str:
    """A value for a message; a hash by its first digits."""
    text = repr(value)
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}..."


@contextmanager
def opened(dataset: ShardedSet, *, overwrite: bool) -> Iterator[None]:
    """Makes the directory ready, rid of what a killed run left half-written, and keeps other runs out.

    Raises:
      BlockingIOError: another run is writing there.
      OSError: it cannot be written.
    """
    directory = dataset.directory
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with directory_lock.opened(directory, caller=_CALLER) as lock:
        lock(alone=True)  # before anything that another run may be writing is removed
        with _explained(directory):
            if overwrite:
                _remove(directory, _OWN)
            (directory / "shards").mkdir(exist_ok=True)
            _remove(directory, (".*.tmp", "shards/.*.tmp"))
            if read_manifest(directory) is None or overwrite:
                _write_json(directory / _MANIFEST, {"made_from": dataset.made_from})
        lock(alone=False)
        yield


@contextmanager
def joined(dataset: ShardedSet) -> Iterator[None]:
    """Keeps other runs out of the directory in a further process of the run that has opened it.

    Raises:
      BlockingIOError: another run is opening it.
    """
    with directory_lock.opened(dataset.directory, caller=_CALLER) as lock:
        lock(alone=False)
        yield


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest in a directory; None if there is none of a data set of this kind."""
    try:
        found = json.loads((directory / _MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and "made_from" in found else None


def rows(directory: Path) -> Any:
    """The examples of a whole set, as tfds reads them, but for their images, which stay encoded."""
    import tensorflow_datasets as tfds

    encoded = {"image": tfds.decode.SkipDecoding()}
    return tfds.builder_from_directory(directory).as_data_source(SPLIT, decoders=encoded)


def finished(dataset: ShardedSet, index: int) -> Finished | None:
    """What is noted of shard `index`, if its file is as it was when that was written."""
    try:
        noted = _read_note(_note(dataset, index))
        with open(dataset.directory / noted.file, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # absent or altered
        return None
    return noted if noted.sha256 == found and noted.file == _file(dataset, index) else None


def write(
    dataset: ShardedSet,
    index: int,
    examples: Iterable[records.Example],
    *,
    inputs: str,
    converged: int,
    within: list[int],
) -> None:
    """Writes shard `index`, then its note, which holds the last three.

    Raises:
      ValueError: an example that does not match the fields.
      OSError: the disk is full, or the directory cannot be written.
    """
    path = dataset.directory / _file(dataset, index)
    with _explained(dataset.directory):
        shard = records.write_shard(path, fields=dataset.fields, examples=examples)
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        note = Finished(
            path.name, sha256, inputs, shard.examples, shard.num_bytes, converged, within
        )
        _write_json(_note(dataset, index), note._asdict() | {"checksum": _checksum(note)})


def notes(dataset: ShardedSet) -> list[Finished]:
    """The notes of all shards, which must all have been written."""
    with _explained(dataset.directory):
        return [_read_note(_note(dataset, index)) for index in range(dataset.num_shards)]


def complete(
    dataset: ShardedSet,
    about: Mapping[str, Any],
    card: Callable[[Mapping[str, Any], list[Finished]], str],
    **tfds_info: Any,
) -> None:
    """Makes the finished shards a data set that tfds reads, completes the manifest, and writes the card.

    Args:
      dataset: of which all shards are written.
      about: more for the manifest, such as versions.
      card: the README's text, of the manifest and the notes.
      **tfds_info: as `records.write_metadata` takes it.

    Raises:
      OSError: the disk is full, or the directory cannot be written.
    """
    written = notes(dataset)
    rows = [records.ShardSize(note.examples, note.num_bytes) for note in written]
    with _explained(dataset.directory):
        records.write_metadata(
            dataset.directory,
            name=NAME,
            version=VERSION,
            fields=dataset.fields,
            shards={SPLIT: rows},
            **tfds_info,
        )
        totals = {key: sum(getattr(n, key) for n in written) for key in ("examples", "converged")}
        sums = {note.file: note.sha256 for note in written}
        whole = {"made_from": dataset.made_from, **about, "counts": totals, "sha256": sums}
        _write_json(dataset.directory / _MANIFEST, whole)
        files.write_atomic(dataset.directory / "README.md", card(whole, written))


def _file(dataset: ShardedSet, index: int) -> str:
    return records.shard_name(NAME, SPLIT, index, dataset.num_shards)


def _note(dataset: ShardedSet, index: int) -> Path:
    return dataset.directory / "shards" / f"{index:05d}.json"


def _read_note(path: Path) -> Finished:
    """A note; raises ValueError, TypeError or KeyError where it is not as it was written."""
    content = json.loads(path.read_text())
    checksum = content.pop("checksum")
    note = Finished(**content)
    if checksum != _checksum(note):
        raise ValueError(f"the note {path.name!r} is altered")
    return note


def _checksum(note: Finished) -> str:
    return hashlib.sha256(json.dumps(note).encode()).hexdigest()


def _entries(directory: PathLike) -> list[str]:
    """Names in a directory, which need not exist; not those that a run killed at its start leaves."""
    folder = Path(directory)
    if not folder.exists():
        return []
    names = sorted(path.name for path in folder.iterdir())
    return [n for n in names if not (n.startswith(".") and n.endswith(".tmp")) and n != "shards"]


def _remove(directory: Path, patterns: Iterable[str]) -> None:
    for path in (path for pattern in patterns for path in directory.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    files.write_atomic(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Says what an error of the operating system means for the data set."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error).removeprefix("write_shard: ")
        raise OSError(
            f"{_CALLER}: cannot write {str(directory)!r}: {why}. Finished shards are kept: "
            "make room, or make it writable, and the same call goes on"
        ) from error
