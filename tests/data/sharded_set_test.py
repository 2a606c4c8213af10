"""Shards, their notes and the manifest, without anything that makes images."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from outgen_jax.data import records, sharded_set

FIELDS = {"id": records.text(), "x": records.tensor((2,), "float32")}


def a_set(directory, **made_from):
    return sharded_set.ShardedSet(directory / "set", FIELDS, 2, {"seed": 0} | made_from)


def examples(index):
    return [{"id": f"{index}.{i}", "x": np.float32([index, i])} for i in range(3)]


def card(manifest, notes):
    return f"{manifest['counts']['examples']} images, {[note.within for note in notes]}"


def write_all(of):
    with sharded_set.opened(of, overwrite=False):
        for index in range(2):
            noted = {"inputs": f"in{index}", "converged": index + 1, "within": [index, 2]}
            sharded_set.write(of, index, examples(index), **noted)
        sharded_set.complete(of, {"versions": {}}, card, description="two shards")


def open_and_close(of, *, overwrite=False):
    with sharded_set.opened(of, overwrite=overwrite):
        pass


def files(directory):
    return {p.name: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_what_is_written_is_noted_and_read_by_tfds(tmp_path):
    import tensorflow_datasets as tfds

    of = a_set(tmp_path)
    sharded_set.check(of, overwrite=False)
    assert sharded_set.finished(of, 0) is None if of.directory.exists() else True
    write_all(of)
    notes = sharded_set.notes(of)
    assert [sharded_set.finished(of, index) for index in range(2)] == notes
    assert [(n.inputs, n.examples, n.converged) for n in notes] == [("in0", 3, 1), ("in1", 3, 2)]
    manifest = json.loads((of.directory / "manifest.json").read_text())
    assert manifest["counts"] == {"examples": 6, "converged": 3}
    assert (of.directory / "README.md").read_text() == "6 images, [[0, 2], [1, 2]]"
    assert manifest["sha256"] == {n.file: n.sha256 for n in notes}
    stored = tfds.builder_from_directory(of.directory).as_data_source(split="train")
    assert [e["id"] for e in stored] == [b"0.0", b"0.1", b"0.2", b"1.0", b"1.1", b"1.2"]


def test_every_process_writes_the_same_bytes(tmp_path):
    """Dictionaries inside a record keep no order of their own: it differed from run to run."""
    write_all(a_set(tmp_path))
    code = (
        "import sys, pathlib, numpy as np; sys.path.insert(0, sys.argv[1]);"
        "import sharded_set_test as t; t.write_all(t.a_set(pathlib.Path(sys.argv[2])))"
    )
    for seed in ("1", "2"):
        other = tmp_path / seed
        other.mkdir()
        command = [sys.executable, "-c", code, os.path.dirname(__file__), str(other)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
        assert files(other / "set") == files(tmp_path / "set")


@pytest.mark.parametrize("what", ["shard", "note"])
@pytest.mark.parametrize("damage", ["altered", "cut", "removed", "emptied", "swapped"])
def test_a_damaged_shard_is_not_finished(tmp_path, what, damage):
    of = a_set(tmp_path)
    write_all(of)
    paths = {
        "shard": [of.directory / note.file for note in sharded_set.notes(of)],
        "note": sorted((of.directory / "shards").iterdir()),
    }[what]
    data = paths[1].read_bytes()
    match damage:
        case "altered" if what == "note":
            paths[1].write_bytes(data.replace(b'"sha256": "', b'"sha256": "0'))
        case "altered":
            paths[1].write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
        case "cut":
            paths[1].write_bytes(data[: len(data) // 2])
        case "removed":
            paths[1].unlink()
        case "emptied":
            paths[1].write_bytes(b"")
        case "swapped":
            paths[1].write_bytes(paths[0].read_bytes())
    assert sharded_set.finished(of, 1) is None
    assert sharded_set.finished(of, 0) is not None
    sharded_set.write(of, 1, examples(1), inputs="in1", converged=2, within=[1, 2])
    assert paths[1].read_bytes() == data


def test_temporary_files_of_a_killed_run_go(tmp_path):
    of = a_set(tmp_path)
    write_all(of)
    whole = files(of.directory)
    for folder in (of.directory, of.directory / "shards"):
        (folder / ".0123456789abcdef.tmp").write_bytes(b"half")
    sharded_set.check(of, overwrite=False)
    open_and_close(of)
    assert files(of.directory) == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_run_is_refused_and_spoils_nothing(tmp_path, overwrite):
    of = a_set(tmp_path)

    def started_again():
        with (
            pytest.raises(BlockingIOError, match=r"another run is writing in '.*set'; wait"),
            sharded_set.opened(of, overwrite=overwrite),
        ):
            pass

    def while_written():
        yield from examples(0)
        assert any(name.endswith(".tmp") for name in files(of.directory))
        started_again()

    with sharded_set.opened(of, overwrite=False):
        sharded_set.write(of, 0, while_written(), inputs="in0", converged=1, within=[0, 2])
        assert sharded_set.finished(of, 0) is not None
        with sharded_set.joined(of):  # another process of this run
            started_again()
    open_and_close(of, overwrite=overwrite)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
def test_errors_of_the_disk_are_explained_and_leave_nothing(tmp_path, monkeypatch, error):
    of = a_set(tmp_path)
    open_and_close(of)
    before = files(of.directory)

    def fails(descriptor):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fails)
    message = rf"cannot write '.*set': {os.strerror(error)}. Finished shards are kept"
    with pytest.raises(OSError, match=message):
        sharded_set.write(of, 0, examples(0), inputs="in0", converged=1, within=[0, 2])
    assert files(of.directory) == before


def test_a_full_disk_is_an_error_of_the_operating_system(tmp_path):
    """A process whose files may not grow beyond a little: the writer itself fails."""
    code = (
        "import sys, pathlib, resource, signal; sys.path.insert(0, sys.argv[1]);"
        "import sharded_set_test as t; of = t.a_set(pathlib.Path(sys.argv[2]));"
        "t.open_and_close(of);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "t.sharded_set.write(of, 0, t.examples(0), inputs='', converged=0, within=[])"
    )
    command = [sys.executable, "-c", code, os.path.dirname(__file__), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "OSError: generate_dataset: cannot write" in done.stderr.splitlines()[-1]
    assert "File too large" in done.stderr.splitlines()[-1]
    assert set(files(tmp_path / "set")) == {"manifest.json"}


def test_another_data_set_is_refused_and_can_be_replaced(tmp_path):
    write_all(a_set(tmp_path))
    before = files(tmp_path / "set")
    other = a_set(tmp_path, seed=1, solver="sgd")
    with pytest.raises(FileExistsError, match=r"seed 0, now 1; solver None, now 'sgd'"):
        sharded_set.check(other, overwrite=False)
    assert files(tmp_path / "set") == before
    sharded_set.check(other, overwrite=True)
    open_and_close(other, overwrite=True)
    assert set(files(tmp_path / "set")) == {"manifest.json"}


@pytest.mark.parametrize("manifest", [None, "not JSON", "[1]"])
def test_other_files_are_never_touched(tmp_path, manifest):
    of = a_set(tmp_path)
    of.directory.mkdir()
    name = "letter.txt" if manifest is None else "manifest.json"
    (of.directory / name).write_text(manifest or "dear")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="choose"):
            sharded_set.check(of, overwrite=overwrite)
    assert set(files(of.directory)) == {name}
