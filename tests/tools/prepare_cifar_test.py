"""The script makes from the published archive the data set that tfds calls cifar10."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from outgen_jax.data import sources

ROOT = Path(__file__).resolve().parents[2]
Split = tuple[np.ndarray, np.ndarray]  # images [N, 32, 32, 3] uint8, labels [N]


def run(archive: Path, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own."""
    script = ROOT / "experiments" / "prepare_cifar.py"
    return subprocess.run(
        [sys.executable, str(script), f"--archive={archive}", f"--data_dir={data_dir}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def make_archive(path: Path, train: Split, test: Split) -> Path:
    """The binary archive, its five train batches as long as they come out."""
    files = {"batches.meta.txt": "\n".join(sources.CIFAR10_CLASSES).encode()}
    rows = np.split(np.arange(len(train[0])), 5)
    parts = {f"data_batch_{i + 1}": (train[0][part], train[1][part]) for i, part in enumerate(rows)}
    for name, (images, labels) in {**parts, "test_batch": test}.items():
        pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        files[f"{name}.bin"] = np.hstack([labels[:, None].astype(np.uint8), pixels]).tobytes()
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def random_splits() -> tuple[Split, Split]:
    """Twenty and four images of noise."""
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (20, 32, 32, 3), np.uint8), rng.integers(0, 10, 20)
    return train, (rng.integers(0, 256, (4, 32, 32, 3), np.uint8), rng.integers(0, 10, 4))


def test_archive_becomes_the_data_set_that_tfds_knows(tmp_path):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.hashing import Hasher

    train, test = random_splits()
    archive = make_archive(tmp_path / "cifar.tar.gz", train, test)
    result = run(archive, tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "data" / "cifar10" / "3.0.2") in result.stdout
    assert "100%" in result.stderr  # the progress bar
    builder = tfds.builder("cifar10", data_dir=tmp_path / "data")  # tfds' own cifar10, by its code
    assert builder.info.features["label"].names == list(sources.CIFAR10_CLASSES)
    for split, (images, labels) in (("train", train), ("test", test)):
        source = sources.from_tfds("cifar10", split=split, data_dir=tmp_path / "data")
        order = sorted(range(len(images)), key=Hasher(split).hash_key)
        assert source.ids == tuple(f"{split}_{row:05d}" for row in order)
        np.testing.assert_array_equal(source.images, images[order])
        np.testing.assert_array_equal(source.labels, labels[order])

    again = run(archive, tmp_path / "data")
    assert again.returncode == 2
    assert "exists; remove it" in again.stderr


@pytest.mark.parametrize("damage", ["absent", "torn"])
def test_user_errors_are_one_line_and_leave_nothing(tmp_path, damage):
    archive = tmp_path / "cifar.tar.gz"
    if damage == "torn":
        whole = make_archive(archive, *random_splits()).read_bytes()
        archive.write_bytes(whole[: len(whole) // 2])
    result = run(archive, tmp_path / "data")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("prepare_cifar.py: cifar_archive: ")
    assert result.stderr.count("\n") == 1
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in result.stderr
    assert not (tmp_path / "data").exists()


def test_real_images_come_back_as_from_the_official_directory(tmp_path):
    data_dir = os.environ.get("OUTGEN_DATA_DIR")
    if not data_dir:
        pytest.skip("needs OUTGEN_DATA_DIR, a directory of prepared tfds data sets")
    import tensorflow_datasets as tfds

    official = {
        split: sources.from_tfds("cifar10", split=split, data_dir=data_dir, limit=50)
        for split in ("train", "test")
    }
    splits = {split: (source.images, source.labels) for split, source in official.items()}
    archive = make_archive(tmp_path / "cifar.tar.gz", splits["train"], splits["test"])
    assert run(archive, tmp_path).returncode == 0
    for split, (images, labels) in splits.items():
        stored = tfds.data_source("cifar10", split=split, data_dir=tmp_path)
        assert len(stored) == 50
        for entries in stored:
            row = int(entries["id"].decode().removeprefix(f"{split}_"))
            np.testing.assert_array_equal(entries["image"], images[row])
            assert entries["label"] == labels[row]
    made, given = tmp_path / "cifar10" / "3.0.2", Path(data_dir) / "cifar10" / "3.0.2"
    assert json.loads((made / "features.json").read_text()) == json.loads(
        (given / "features.json").read_text()
    )
    infos = [json.loads((path / "dataset_info.json").read_text()) for path in (made, given)]
    for key in ("name", "version", "description", "citation", "location", "supervisedKeys"):
        assert infos[0][key] == infos[1][key]
    assert [split["name"] for split in infos[0]["splits"]] == ["train", "test"]
