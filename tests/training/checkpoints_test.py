"""Checkpoints come back to the bit, in another process too, and never half-written."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from outgen_jax.training.checkpoints import Checkpoints, check_run, run_identity

ROOT = Path(__file__).resolve().parents[2]


def state(value: float = 1.5) -> dict:
    """Every kind of array that a training state holds."""
    return {
        "kernel": jnp.full((2, 3), value, jnp.float32),
        "low": jnp.asarray([value, -value], jnp.bfloat16),
        "step": jnp.asarray(7, jnp.int32),
        "dropout": (jax.random.key(3), jnp.asarray(4, jnp.uint32)),
    }


class Moments(NamedTuple):
    mu: jax.Array
    nu: jax.Array


class Reordered(NamedTuple):
    """The same arrays as `Moments` under the same names, in another order."""

    nu: jax.Array
    mu: jax.Array


def zeros() -> dict:
    like = jax.tree.map(jnp.zeros_like, state(0) | {"dropout": jnp.zeros((), jnp.uint32)})
    return like | {"dropout": (jax.random.key(0), jnp.zeros((), jnp.uint32))}


def assert_same(got: dict, expected: dict) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_the_newest_state_and_its_notes_come_back(tmp_path):
    notes = {"history": [{"epoch": 1, "loss": 0.25}], "name": "é"}
    checkpoints = Checkpoints(tmp_path / "new" / "run")
    assert checkpoints.latest is None
    checkpoints.save(1, state(1), {"old": True})
    checkpoints.save(12, state(2), notes)
    for reader in (checkpoints, Checkpoints(tmp_path / "new" / "run")):
        assert reader.latest == 12
        restored, found = reader.restore(zeros())
        assert_same(restored, state(2))
        assert found == notes


def test_keeps_as_many_as_asked_for(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


@pytest.mark.parametrize("step", [1, 2])
def test_a_step_that_is_not_after_the_newest_is_refused(tmp_path, step):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state(2), {"of": 2})
    with pytest.raises(ValueError, match=f"step {step} in .* is not after the newest .*, 2; rest"):
        checkpoints.save(step, state(step), {"of": step})
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
    assert checkpoints.restore(zeros())[1] == {"of": 2}


def test_notes_that_are_no_json_are_refused_before_anything_is_written(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(ValueError, match=r"step 1 in .*notes must be JSON: .*float32.*float\(\)"):
        checkpoints.save(1, state(), {"accuracy": np.float32(0.5)})
    assert not list(tmp_path.iterdir())
    checkpoints.save(1, state(), {"accuracy": 0.5})
    assert Checkpoints(tmp_path).restore(zeros())[1] == {"accuracy": 0.5}


def test_what_a_run_shares_with_its_checkpoint_survives_json(tmp_path):
    settings = {"rate": np.float32(0.5), "layers": ("a", "b"), "none": None}
    keys, data = [jax.random.key(3), None], {"labels": np.arange(4)}
    run = run_identity(keys, data, settings)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state(), {"run": run})
    _, notes = checkpoints.restore(zeros())
    assert notes["run"] == run
    check_run(checkpoints, notes, run, most=2, caller="example")
    check_run(checkpoints, {}, run, most=2, caller="example")  # an earlier version kept none
    for name, other in {
        "keys": run_identity([jax.random.key(4), None], data, settings),
        "checksum of the data": run_identity(keys, {"labels": np.arange(4)[::-1]}, settings),
        "rate": run_identity(keys, data, settings | {"rate": 0.25}),
        "more": run_identity(keys, data, settings | {"more": 1}),
    }.items():
        with pytest.raises(ValueError, match=f"example: checkpoint 2 is of another run: {name} is"):
            check_run(checkpoints, notes, other, most=2, caller="example")
    with pytest.raises(ValueError, match="example: the run was trained up to 2 before"):
        check_run(checkpoints, notes, run, most=1, caller="example")


def test_no_pickles(tmp_path):
    Checkpoints(tmp_path).save(1, state(), {})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".msgpack")]


def test_restore_without_a_checkpoint_names_the_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint in {tmp_path}"):
        Checkpoints(tmp_path).restore(zeros())


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            {"kernel": jnp.zeros((3, 2))},
            r"\['kernel'\] is float32 \[2, 3\] there and float32 \[3, 2\] here",
        ),
        (
            {"kernel": jnp.zeros((2, 3), jnp.bfloat16)},
            r"\['kernel'\] is float32 .* there and bfloat16 .* here",
        ),
        ({"more": jnp.zeros(2)}, r"\['more'\] is missing there and float32 \[2\] here"),
        ({"step": ()}, r"\['step'\] is int32 \[\] there and missing here"),
    ],
    ids=["shape", "type", "one more", "one fewer"],
)
def test_restore_refuses_another_network(tmp_path, change, difference):
    Checkpoints(tmp_path).save(1, state(), {})
    message = (
        rf"holds 5 arrays that do not match the [456] of this .*: {difference}\. .*use those, or"
    )
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path).restore(zeros() | change)


def test_arrays_of_one_shape_keep_their_names_in_another_order(tmp_path):
    saved = {"moments": Moments(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))}
    Checkpoints(tmp_path).save(1, saved, {})
    like = {"moments": Reordered(jnp.zeros(2), jnp.zeros(2))}
    restored, _ = Checkpoints(tmp_path).restore(like)
    np.testing.assert_array_equal(restored["moments"].mu, [1, 2])
    np.testing.assert_array_equal(restored["moments"].nu, [3, 4])


def test_no_two_arrays_of_a_state_share_a_name(tmp_path):
    """Not where one key holds a dot, or looks like a number, or is the path of the other."""
    names = ("a.b", "a/b", "['a']", "0")
    saved = {name: jnp.full(2, i) for i, name in enumerate(names)}
    saved |= {"a": {"b": jnp.full(2, 8), "['b']": jnp.full(2, 9)}, "list": [jnp.full(2, 10)]}
    Checkpoints(tmp_path).save(1, saved, {})
    restored, _ = Checkpoints(tmp_path).restore(jax.tree.map(jnp.zeros_like, saved))
    assert_same(restored, saved)


def test_a_single_array_is_a_state(tmp_path):
    Checkpoints(tmp_path).save(1, jnp.arange(3), {})
    np.testing.assert_array_equal(
        Checkpoints(tmp_path).restore(jnp.zeros(3, jnp.int32))[0], [0, 1, 2]
    )


def test_arrays_come_back_where_they_were(tmp_path):
    """A compiled program serves the state before and after, as all of it is placed as before."""
    cpu = jax.devices("cpu")[0]
    Checkpoints(tmp_path).save(1, state(), {})
    like = zeros() | {"step": jax.device_put(jnp.asarray(0, jnp.int32), cpu)}
    restored, _ = Checkpoints(tmp_path).restore(like)
    program = jax.jit(lambda state: state["kernel"] + state["step"])
    program(like)
    program(restored)
    assert program._cache_size() == 1
    assert restored["step"].committed
    assert not restored["kernel"].committed
    assert not restored["dropout"][0].committed


def test_adams_moments_come_back_as_they_were(tmp_path):
    params = {"kernel": jnp.ones((2, 3))}
    adam = optax.adam(0.1)
    _, opt_state = adam.update({"kernel": jnp.full((2, 3), 2.0)}, adam.init(params))
    Checkpoints(tmp_path).save(1, opt_state, {})
    (restored, _), _ = Checkpoints(tmp_path).restore(adam.init(params))
    np.testing.assert_allclose(restored.mu["kernel"], 0.2, rtol=1e-6)
    np.testing.assert_allclose(restored.nu["kernel"], 0.004, rtol=1e-6)


def test_a_checkpoint_of_the_format_with_numbers_is_refused(tmp_path):
    """As it was before arrays had names; the advice is followed to the end."""
    numbered = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(state()))}
    old = ocp.CheckpointManager(tmp_path / "run")
    arguments = {"state": ocp.args.StandardSave(numbered), "notes": ocp.args.JsonSave({})}
    old.save(3, args=ocp.args.Composite(**arguments))
    old.close()
    with pytest.raises(
        ValueError, match=r"checkpoint 3 in .*run was written by an older version, .*Remove"
    ):
        Checkpoints(tmp_path / "run").restore(zeros())
    shutil.rmtree(tmp_path / "run")
    Checkpoints(tmp_path / "run").save(1, state(), {})
    assert_same(Checkpoints(tmp_path / "run").restore(zeros())[0], state())


# Saves a first checkpoint, then dies without a word just before the second gets its name.
_KILLED = """
import os, signal, sys
from pathlib import Path
import jax.numpy as jnp
from outgen_jax.training.checkpoints import Checkpoints

checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {"kernel": jnp.full((2, 3), 1.5)}, {"epoch": 1})
os.rename = os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save(2, {"kernel": jnp.zeros((2, 3))}, {"epoch": 2})
"""


def test_a_kill_while_saving_leaves_the_one_before(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert "1" in names
    assert "2" not in names
    assert len(names) == 2  # the torn one, under its temporary name
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest == 1
    like = {"kernel": jnp.ones((2, 3))}
    restored, notes = checkpoints.restore(like)
    np.testing.assert_array_equal(restored["kernel"], np.full((2, 3), 1.5))
    assert notes == {"epoch": 1}
    checkpoints.save(2, like, {"epoch": 2})
    assert Checkpoints(tmp_path).latest == 2
