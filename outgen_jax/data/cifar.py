"""The CIFAR archives as published (Krizhevsky, 2009), https://www.cs.toronto.edu/~kriz/cifar.html.

Images are uint8 in 0..255, [N, 32, 32, 3]. Nothing is unpickled but arrays, numbers and strings.
"""

import codecs
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from outgen_jax import restricted_pickle
from outgen_jax.data.image_source import ImageSource, PathLike

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_PIXELS = 3 * 32 * 32
_LARGEST_MEMBER = 2**28  # bytes; the largest real one, CIFAR-100's train, has 155 MB

# All of these are immutable, as `restricted_pickle` wants it.
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
}


class _Layout(NamedTuple):
    """The files of one archive; `*_key` of the Python version, `label_bytes` of the binary one."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_key: str = ""
    names_key: str = ""
    label_bytes: int = 0  # before each image; the last is the (fine) label

    @property
    def files(self) -> set[str]:
        return {*self.train, *self.test, self.names}


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_LAYOUTS = (
    _Layout(_BATCHES, ("test_batch",), "batches.meta", "labels", "label_names"),
    _Layout(
        tuple(f"{name}.bin" for name in _BATCHES),
        ("test_batch.bin",),
        "batches.meta.txt",
        label_bytes=1,
    ),
    _Layout(("train",), ("test",), "meta", "fine_labels", "fine_label_names"),
    _Layout(("train.bin",), ("test.bin",), "fine_label_names.txt", label_bytes=2),
)
_WANTED = set().union(*(layout.files for layout in _LAYOUTS))


def cifar_archive(path: PathLike) -> dict[str, ImageSource]:
    """The splits 'train' and 'test' of CIFAR-10 or CIFAR-100 (fine labels) as published.

    Args:
      path: the Python or the binary archive (.tar.gz), or the folder extracted from it.

    Returns:
      By split: images [N, 32, 32, 3], labels [N], and ids 'train_00000', ... in archive order.

    Raises:
      FileNotFoundError: no such file or folder.
      ValueError: not a CIFAR archive, a damaged one, or one whose pickles want more than arrays.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise FileNotFoundError(f"cifar_archive: no {str(source)!r}; download it from {_PAGE}")
    try:
        files = _folder_files(source) if source.is_dir() else _archive_files(source)
        if not files:
            raise ValueError("no CIFAR files in it")
        layout = max(_LAYOUTS, key=lambda layout: len(layout.files & files.keys()))
        if missing := sorted(layout.files - files.keys()):
            raise ValueError(f"{', '.join(missing)} missing")
        class_names = _class_names(layout, files[layout.names])
        batches = {"train": layout.train, "test": layout.test}
        return {
            split: _split(split, layout, {name: files[name] for name in names}, class_names)
            for split, names in batches.items()
        }
    except ValueError as error:
        raise ValueError(
            f"cifar_archive: {str(source)!r}: {error}. Download it again from {_PAGE}"
        ) from error


def _folder_files(folder: Path) -> dict[str, bytes]:
    """Files of the folder, or of the first folder in it that has any, by name."""
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        files = {path.name: path for path in place.iterdir() if path.is_file()}
        if found := _WANTED & files.keys():
            return {name: files[name].read_bytes() for name in found}
    return {}


def _archive_files(archive: Path) -> dict[str, bytes]:
    """Files of the archive by their last name, read in memory: nothing is extracted to disk."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if name not in _WANTED or not member.isfile():
                    continue
                if member.size > _LARGEST_MEMBER:
                    raise ValueError(f"{name} has {member.size} bytes, more than any CIFAR file")
                opened = tar.extractfile(member)
                assert opened is not None  # it is a regular file
                files[name] = opened.read()
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"not a whole .tar.gz archive ({error})") from error
    return files


def _class_names(layout: _Layout, data: bytes) -> tuple[str, ...]:
    if layout.label_bytes:
        names = [line.strip() for line in data.decode("latin1").splitlines() if line.strip()]
    else:
        found = _unpickled(layout.names, data).get(layout.names_key)
        names = [_string(name) for name in found] if isinstance(found, list) else []
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{layout.names} holds no list of different class names")
    return tuple(names)


def _split(
    split: str, layout: _Layout, batches: Mapping[str, bytes], class_names: tuple[str, ...]
) -> ImageSource:
    read = _binary_batch if layout.label_bytes else _python_batch
    parts = [read(layout, name, data) for name, data in batches.items()]
    counts = [len(labels) for _, labels in parts]
    if len(set(counts)) != 1:
        raise ValueError(f"{', '.join(batches)} should be equally long but hold {counts} images")
    labels = np.concatenate([labels for _, labels in parts])
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ValueError(f"labels of {split} leave 0..{len(class_names) - 1}")
    planes = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)  # [N, C, H, W]
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    ids = tuple(f"{split}_{row:05d}" for row in range(len(images)))
    return ImageSource(images, labels, class_names, ids)


def _binary_batch(layout: _Layout, name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 3072], the planes R, G and B, and labels [N]."""
    length = layout.label_bytes + _PIXELS
    if not data or len(data) % length:
        raise ValueError(f"{name} has {len(data)} bytes, not a multiple of {length}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, length)
    return rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1].astype(np.int32)


def _python_batch(layout: _Layout, name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The same from a pickle."""
    entries = _unpickled(name, data)
    pixels, labels = entries.get("data"), entries.get(layout.label_key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (_PIXELS,)
        or not len(pixels)
    ):
        raise ValueError(f"{name} holds no uint8 'data' of shape [N, {_PIXELS}]")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(isinstance(entry, int) for entry in labels)
    ):
        raise ValueError(f"{name} holds no {layout.label_key!r}: one integer for each image")
    return pixels, np.array(labels, np.int32)


def _unpickled(name: str, data: bytes) -> dict[str, Any]:
    """The dictionary in a pickle of Python 2 or 3, with strings for keys."""
    try:
        entries = restricted_pickle.Unpickler(io.BytesIO(data), _ALLOWED, encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{name} cannot be read: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{name} holds a {type(entries).__name__} where a dictionary should be")
    return {_string(key): entry for key, entry in entries.items()}


def _string(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
