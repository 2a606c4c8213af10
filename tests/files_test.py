"""Whole files or none, and nothing left beside them; arrays that come back."""

import os
import stat

import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax import files
from outgen_jax.files import write_atomic


def test_writes_bytes_and_utf8_text_over_an_older_file(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"a much longer older content")
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_atomic(str(path), "犬 → 0.9\n")
    assert path.read_bytes() == "犬 → 0.9\n".encode()
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(
    tmp_path, monkeypatch, failing, error
):
    path = tmp_path / "out.txt"
    path.write_text("old")

    def fail(*_):
        raise error("no space")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(error, match="no space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_the_content_is_on_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (calls.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomic(tmp_path / "out", b"x")
    assert calls == ["fsync", "replace"]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "out", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "kept" / "target")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept" / "target").read_text() == "new"


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"write_atomic: no directory .*missing.*create it"):
        write_atomic(tmp_path / "missing" / "out", b"")


@pytest.mark.parametrize(
    ("array", "remedy"), [(jnp.ones(3, jnp.bfloat16), "float32"), (np.array(["a", None]), "str")]
)
def test_arrays_that_would_not_come_back_are_refused(tmp_path, array, remedy):
    path = tmp_path / "arrays.npz"
    with pytest.raises(
        ValueError, match=rf"save_arrays: 'x' has the type .*\.astype\(.*{remedy}\)"
    ):
        files.save_arrays(path, {"x": array})
    assert not path.exists()
    files.save_arrays(path, {"x": np.asarray(array).astype(str if remedy == "str" else np.float32)})
    assert files.load_arrays(path)["x"].shape == np.shape(array)


def test_arrays_come_back_as_they_were_and_nothing_is_unpickled(tmp_path):
    arrays = {"images": np.arange(6, dtype=np.uint8).reshape(2, 3), "seconds": np.float64(1.5)}
    files.save_arrays(tmp_path / "a.npz", arrays)
    found = files.load_arrays(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    np.testing.assert_array_equal(found["images"], arrays["images"])
    assert found["images"].dtype == np.uint8
    np.savez(tmp_path / "b.npz", images=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        files.load_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"frame.{i:04d}" for i in range(2)], ["frame.0000", "frame.0001"]),
        (["a/b.png", "a_b.jpg", "a b"], ["a_b", "a_b~2", "a_b~3"]),
        (["1.png", "1.PNG", "1.jpeg"], ["1", "1~2", "1~3"]),
        (["Cat", "cat", "CAT~2"], ["Cat", "cat~2", "CAT_2"]),
        (["caf\u00e9", "cafe\u0301"], ["caf\u00e9", "caf\u00e9~2"]),
        (["x", "x", "x~2"], ["x", "x~2", "x_2"]),
        ([7, b"7", "7"], ["7", "b_7_", "7~2"]),
        (["", "..", ".hidden", "-rf"], ["_", "_~2", "_.hidden", "_-rf"]),
        (["../../etc/passwd", "/abs", "C:\\x"], ["_.._.._etc_passwd", "_abs", "C__x"]),
        (["con", "NUL.x", "console"], ["_con", "_NUL.x", "console"]),
        (["\udcff\n\0"], ["___"]),
        (["猫", "Ünder", "a."], ["猫", "Ünder", "a"]),
    ],
)
def test_file_names_are_safe_and_different(names, expected):
    assert files.unique_file_names(names, ".png") == tuple(f"{name}.png" for name in expected)


def test_long_names_that_begin_alike_stay_apart(tmp_path):
    names = ["犬" * 200 + str(i) for i in range(12)]
    found = files.unique_file_names(names, ".png")
    assert len(set(found)) == 12
    for name in found:
        (tmp_path / name).write_bytes(b"")  # no file system takes more than 255 bytes


@pytest.mark.parametrize("length", [3, 50])
def test_random_names_give_one_file_each_where_case_does_not_count(length):
    rng = np.random.default_rng(length)
    alphabet = list("aAbB./~_2é猫 :")
    names = ["".join(rng.choice(alphabet, rng.integers(0, length))) for _ in range(500)]
    found = files.unique_file_names(names, ".png")
    assert len({name.casefold() for name in found}) == len(names)


@pytest.mark.parametrize("name", ["arr/0", "a b", "arr_0"])
def test_an_array_may_have_any_name(tmp_path, name):
    arrays = {name: np.arange(3), "x": np.ones((2, 2), np.float32)}
    files.save_arrays(tmp_path / "arrays.npz", arrays)
    found = files.load_arrays(tmp_path / "arrays.npz")
    assert set(found) == {name, "x"}
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


@pytest.mark.parametrize("name", ["a.npy", "file", "allow_pickle"])
def test_a_name_that_an_npz_cannot_hold_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"no array can have the name {name!r}"):
        files.save_arrays(tmp_path / "arrays.npz", {name: np.ones(2)})
    assert not list(tmp_path.iterdir())


def test_many_equal_names_take_no_longer_each():
    names = files.unique_file_names(["same"] * 20_000, ".png")
    assert len(set(names)) == 20_000
    assert names[:3] == ("same.png", "same~2.png", "same~3.png")
    assert names[-1] == "same~20000.png"
