"""Checkpoints come back to the bit, in another process too, and never half-written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).resolve().parents[2]


def state(value: float = 1.5) -> dict:
    """Every kind of array that a training state holds."""
    return {
        "kernel": jnp.full((2, 3), value),
        "low": jnp.asarray([value, -value], jnp.bfloat16),
        "step": jnp.asarray(7, jnp.int32),
        "dropout": (jax.random.key(3), jnp.asarray(4, jnp.uint32)),
    }


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


def test_no_pickles(tmp_path):
    Checkpoints(tmp_path).save(1, state(), {})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".msgpack")]


def test_restore_without_a_checkpoint_names_the_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no checkpoint in {tmp_path}"):
        Checkpoints(tmp_path).restore(zeros())


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": jnp.zeros((3, 2))},
        {"kernel": jnp.zeros((2, 3), jnp.bfloat16)},
        {"more": jnp.zeros(2)},
        {"step": ()},
    ],
    ids=["shape", "type", "one more", "one fewer"],
)
def test_restore_refuses_another_network(tmp_path, change):
    Checkpoints(tmp_path).save(1, state(), {})
    with pytest.raises(ValueError, match=r"holds 5 arrays that do not match the [456] of this"):
        Checkpoints(tmp_path).restore(zeros() | change)


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
