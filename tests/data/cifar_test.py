"""The CIFAR archives: all published forms read alike, damaged and hostile ones refused."""

import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outgen_jax.data import cifar

CLASSES = {10: [f"class{row}" for row in range(10)], 100: [f"fine{row}" for row in range(100)]}


def cifar_data(classes: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [10, 32, 32, 3] and labels [10] (five batches of two), the same on every call."""
    rng = np.random.default_rng([classes, split == "train"])
    count = 10 if split == "train" else 2
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, classes, count)


def planes(images: np.ndarray) -> np.ndarray:
    """[N, 3072]: all red values of an image row by row, then green, then blue."""
    return np.stack([np.concatenate([image[..., c].ravel() for c in range(3)]) for image in images])


def python2_pickle(entries: dict[str, Any]) -> bytes:
    """Protocol 2 as Python 2 wrote it: byte strings throughout, arrays through numpy.core."""

    def string(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def dump(value: Any) -> bytes:
        match value:
            case str():
                return string(value.encode())
            case int():
                return b"J" + struct.pack("<i", value)
            case list():
                return b"](" + b"".join(map(dump, value)) + b"e"
            case dict():
                return b"}(" + b"".join(dump(k) + dump(v) for k, v in value.items()) + b"u"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + dump(-1) * 2 + b"K\x00tb"
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        shape = b"(" + b"".join(map(dump, value.shape)) + b"t"
        return array + b"(K\x01" + shape + dtype + b"\x89" + string(value.tobytes()) + b"tb"

    return b"\x80\x02" + dump(entries) + b"."


def cifar_files(kind: str, classes: int) -> dict[str, bytes]:
    """The files of an archive; kind 'binary', 'python2' or 'python3' (which pickler wrote it)."""
    dumps = python2_pickle if kind == "python2" else lambda entries: pickle.dumps(entries, 2)
    key = "labels" if classes == 10 else "fine_labels"
    names_key = "label_names" if classes == 10 else "fine_label_names"
    batches = {
        (10, "train"): [f"data_batch_{i}" for i in range(1, 6)],
        (10, "test"): ["test_batch"],
        (100, "train"): ["train"],
        (100, "test"): ["test"],
    }
    files = {}
    for split in ("train", "test"):
        images, labels = cifar_data(classes, split)
        names = batches[classes, split]
        for name, rows in zip(names, np.split(np.arange(len(images)), len(names)), strict=True):
            data = planes(images[rows])
            if kind == "binary":
                fine = labels[rows, None].astype(np.uint8)
                columns = [fine, data] if classes == 10 else [fine * 0 + 7, fine, data]
                files[name + ".bin"] = np.hstack(columns).tobytes()
            else:
                files[name] = dumps({"data": data, key: [int(x) for x in labels[rows]]})
    if kind == "binary":
        meta = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
        files[meta] = ("\n".join(CLASSES[classes]) + "\n\n").encode()
    else:
        files["batches.meta" if classes == 10 else "meta"] = dumps({names_key: CLASSES[classes]})
    return files


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A .tar.gz like the published ones: a folder entry, the files, a readme."""
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo("cifar-batches")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in {**files, "readme.html": b"<p>"}.items():
            member = tarfile.TarInfo(f"cifar-batches/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def unpack(folder: Path, files: dict[str, bytes]) -> Path:
    """The same as a folder."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("kind", ["binary", "python2", "python3"])
def test_archive_or_folder_gives_images_labels_and_names(tmp_path, kind, classes):
    files = cifar_files(kind, classes)
    folder = unpack(tmp_path / "outer" / "cifar-batches", files)
    for path in (pack(tmp_path / "cifar.tar.gz", files), folder, folder.parent):
        splits = cifar.cifar_archive(path)
        assert list(splits) == ["train", "test"]
        for split, source in splits.items():
            images, labels = cifar_data(classes, split)
            np.testing.assert_array_equal(source.images, images)
            np.testing.assert_array_equal(source.labels, labels)
            assert source.images.dtype == np.uint8
            assert source.labels.dtype == np.int32
            assert source.class_names == tuple(CLASSES[classes])
            assert source.ids[1] == f"{split}_00001"


class Attack:
    """Unpickling this would make a directory."""

    def __init__(self, path: Path):
        """Pickle the making of `path`."""
        self.path = str(path)

    def __reduce__(self):
        """What pickle writes: a call."""
        return os.mkdir, (self.path,)


# What is refused is restricted_pickle_test's subject; here, that every file is read so.
@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
def test_pickles_that_want_more_than_arrays_are_refused(tmp_path, name):
    marker = tmp_path / "executed"
    files = cifar_files("python3", 10)
    files[name] = pickle.dumps({"data": Attack(marker)}, 2)
    with pytest.raises(ValueError, match=rf"{name} cannot be read: asks for '\w+\.mkdir', which"):
        cifar.cifar_archive(pack(tmp_path / "cifar.tar.gz", files))
    assert not marker.exists()


def test_pickled_builtins_and_numpy_loaders_are_refused(tmp_path):
    for module, name in (("builtins", "eval"), ("numpy", "load")):
        files = cifar_files("python3", 10)
        files["test_batch"] = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"."
        with pytest.raises(ValueError, match=rf"asks for '{module}\.{name}'"):
            cifar.cifar_archive(unpack(tmp_path / name, files))


def changed(kind: str, name: str, data: bytes | None) -> dict[str, bytes]:
    """CIFAR-10's files with one of them replaced, or taken away."""
    files = cifar_files(kind, 10) | {name: data or b""}
    return {key: value for key, value in files.items() if key != name or data is not None}


def batch(**changes: Any) -> bytes:
    """A pickled batch of two images with some entries other than they should be."""
    entries = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
    return pickle.dumps(entries | changes, 2)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (changed("python3", "data_batch_3", None), "data_batch_3 missing"),
        (changed("binary", "batches.meta.txt", None), r"batches\.meta\.txt missing"),
        ({"other.txt": b"x"}, "no CIFAR files in it"),
        (changed("binary", "data_batch_2.bin", b"x" * 6145), "6145 bytes, not a multiple of 3073"),
        (changed("binary", "data_batch_2.bin", b""), "0 bytes, not a multiple of 3073"),
        (changed("binary", "data_batch_2.bin", bytes(3073)), r"equally long .* \[2, 1, 2, 2, 2\]"),
        (changed("binary", "test_batch.bin", b"\x0a" + bytes(3072)), r"test leave 0\.\.9"),
        (changed("binary", "batches.meta.txt", b"a\na\n"), "no list of different class names"),
        (changed("python3", "batches.meta", batch()), "no list of different class names"),
        (changed("python3", "test_batch", batch(labels=[0])), "one integer for each image"),
        (changed("python3", "test_batch", batch(labels=[0, "1"])), "one integer for each image"),
        (changed("python3", "test_batch", batch(labels=[0, -1])), r"test leave 0\.\.9"),
        (changed("python3", "test_batch", batch(data=[1, 2])), "no uint8 'data'"),
        (changed("python3", "test_batch", batch(data=np.zeros((2, 3072)))), "no uint8 'data'"),
        (changed("python3", "test_batch", batch()[:-40]), "test_batch cannot be read"),
        (changed("python3", "test_batch", pickle.dumps([1], 2)), "list where a dictionary"),
    ],
)
def test_damaged_files_are_refused_with_the_remedy(tmp_path, files, message):
    with pytest.raises(ValueError, match=message) as caught:
        cifar.cifar_archive(unpack(tmp_path / "folder", files))
    assert "cifar_archive: " in str(caught.value)
    assert "Download it again from https://www.cs.toronto.edu" in str(caught.value)


def test_truncated_or_foreign_archives_are_refused(tmp_path):
    whole = pack(tmp_path / "cifar.tar.gz", cifar_files("python2", 10)).read_bytes()
    torn = tmp_path / "torn.tar.gz"
    for content in (whole[: len(whole) // 2], whole[:30], b"not an archive", b""):
        torn.write_bytes(content)
        with pytest.raises(ValueError, match=r"not a whole .tar.gz|missing|no CIFAR files"):
            cifar.cifar_archive(torn)
    with pytest.raises(FileNotFoundError, match="download it from https"):
        cifar.cifar_archive(tmp_path / "absent.tar.gz")


def test_oversized_members_are_not_read(tmp_path, monkeypatch):
    archive = pack(tmp_path / "cifar.tar.gz", cifar_files("binary", 10))
    monkeypatch.setattr(cifar, "_LARGEST_MEMBER", 6000)
    with pytest.raises(ValueError, match="6146 bytes, more than any CIFAR file"):
        cifar.cifar_archive(archive)
