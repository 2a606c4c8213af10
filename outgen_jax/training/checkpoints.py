"""Checkpoints of training runs (the only module that imports orbax).

A checkpoint is a directory of arrays without pickles. Each array has the name of its path in the state, such as
`.params['kernel']`, so that arrays of one shape cannot be confused. Orbax writes a checkpoint under a temporary name
and renames it when it is complete; a run that is killed while it saves resumes from the one before.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run: `save` the state after a step, `restore` the newest.

    >>> import pathlib, tempfile
    >>> import jax.numpy as jnp
    >>> from outgen_jax.training.checkpoints import Checkpoints
    >>> checkpoints = Checkpoints(pathlib.Path(tempfile.mkdtemp()))
    >>> checkpoints.save(7, {"weights": jnp.ones(2)}, {"loss": 0.5})
    >>> state, notes = checkpoints.restore({"weights": jnp.zeros(2)})
    >>> print(checkpoints.latest, state["weights"], notes)
    7 [1. 1.] {'loss': 0.5}
    """

    def __init__(self, directory: str | Path, *, keep: int = 2) -> None:
        """Opens or creates `directory`; the newest `keep` checkpoints stay."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        # Without its handlers a manager cannot tell what a checkpoint of an earlier process holds.
        handlers = {"state": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(
            Path(directory).expanduser().absolute(), options=options, item_handlers=handlers
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, notes: Mapping[str, Any]) -> None:
        """Writes `state` (a pytree of arrays) and `notes` (JSON) as the checkpoint of `step`.

        Raises:
          ValueError: a step that is not after the newest, or notes that JSON cannot hold. Nothing is written.
        """
        where = f"Checkpoints.save: step {step} in {self._manager.directory}"
        if self.latest is not None and step <= self.latest:
            raise ValueError(
                f"{where} is not after the newest checkpoint, {self.latest}; restore that one and go on from it, or "
                "use another directory"
            )
        try:
            json.dumps(dict(notes))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{where}: notes must be JSON: {error}. Convert numbers of numpy and JAX with float()"
            ) from error
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_by_path(state)), notes=ocp.args.JsonSave(dict(notes))
            ),
        )

    def restore(self, like: T) -> tuple[T, dict[str, Any]]:
        """The newest state and its notes.

        Args:
          like: a state with the structure, shapes, types and devices that the result gets. The order of its leaves
            may differ from the saved one. Where a leaf was not put on a device explicitly, the result is not either,
            so that programs compiled for `like` serve the restored state.

        Raises:
          FileNotFoundError: no checkpoint.
          ValueError: a checkpoint of another network or optimiser, or of an older format.
        """
        if self.latest is None:
            raise FileNotFoundError(
                f"Checkpoints.restore: no checkpoint in {self._manager.directory}"
            )
        wanted = _by_path(like)
        self._check_layout({path: _layout(leaf) for path, leaf in wanted.items()})
        restored = self._manager.restore(
            self.latest,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(wanted), notes=ocp.args.JsonRestore()
            ),
        )
        leaves = [_placed_as(leaf, restored["state"][path]) for path, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), restored["notes"]

    def _check_layout(self, wanted: dict[str, str]) -> None:
        """Refuses a checkpoint whose arrays are not those wanted."""
        saved = self._manager.item_metadata(self.latest)["state"]
        found = {path: _described(v.shape, v.dtype) for path, v in saved.items()}
        if found == wanted:
            return
        where = f"Checkpoints.restore: checkpoint {self.latest} in {self._manager.directory}"
        if found and all(path.isdecimal() for path in found):
            raise ValueError(
                f"{where} was written by an older version, which numbered its arrays instead of naming them: which "
                "is which cannot be told. Remove the directory and train again, or finish the run with that version"
            )
        path = next(p for p in [*wanted, *found] if wanted.get(p) != found.get(p))
        saved_as, wanted_as = (d.get(path, "missing") for d in (found, wanted))
        raise ValueError(
            f"{where} holds {len(found)} arrays that do not match the {len(wanted)} of this network and optimiser: "
            f"{path} is {saved_as} there and {wanted_as} here. It was written with other settings; use those, or "
            "another directory"
        )


def kept(checkpoints: Checkpoints | None, unit: str) -> str:
    """What an error says of the checkpoint that a training can resume from; `unit` is what numbers it.

    >>> from outgen_jax.training import checkpoints
    >>> checkpoints.kept(None, "epoch")
    'there is no checkpoint'
    """
    latest = None if checkpoints is None else checkpoints.latest
    return (
        "there is no checkpoint" if latest is None else f"the checkpoint of {unit} {latest} is kept"
    )


def run_identity(
    keys: Sequence[jax.Array | None], data: Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What a checkpoint and a run that resumes from it must share, as the notes of a checkpoint return it.

    >>> import jax, numpy as np
    >>> from outgen_jax.training import checkpoints
    >>> checkpoints.run_identity([jax.random.key(7)], np.arange(3, dtype=np.int32), {"batch_size": 4})
    {'keys': [[0, 7]], 'checksum of the data': '1d760e7a', 'batch_size': 4}

    Args:
      keys: random keys of the run.
      data: pytree of arrays, of which a checksum is kept.
      settings: numbers, strings, None, and sequences and dictionaries of them, by name.
    """
    checksum = 0
    for leaf in jax.tree.leaves(data):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, checksum)
    fields = {
        "keys": [None if k is None else np.asarray(jax.random.key_data(k)).tolist() for k in keys],
        "checksum of the data": f"{checksum:08x}",
        **settings,
    }
    found: dict[str, Any] = json.loads(json.dumps(fields, default=float))
    return found


def check_run(
    checkpoints: Checkpoints,
    notes: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    most: int,
    caller: str,
) -> None:
    """Refuses, in the name of `caller`, to resume from the checkpoint of another run.

    Args:
      checkpoints: where the newest checkpoint has been restored from.
      notes: of that checkpoint, `run` among them. Earlier versions did not write it: then it is not compared.
      run: from `run_identity`.
      most: the step that this run ends with.
      caller: the function that resumes.

    Raises:
      ValueError: the first field in which the runs differ, or a checkpoint after the end of this run.
    """
    found = notes.get("run", run)
    differing = [name for name in [*run, *found] if run.get(name) != found.get(name)]
    if not differing and (checkpoints.latest or 0) <= most:
        return
    if not differing:
        raise ValueError(
            f"{caller}: the run was trained up to {checkpoints.latest} before, and this call ends with {most}. Ask for "
            f"at least {checkpoints.latest}, or use another directory"
        )
    name = differing[0]
    what = f"{name} is {found.get(name)} there and {run.get(name)} here"
    raise ValueError(
        f"{caller}: checkpoint {checkpoints.latest} is of another run: {what}. Use the settings of that run, or "
        "another directory"
    )


def _by_path(state: Any) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path) or "state": leaf for path, leaf in leaves}


def _placed_as(like: jax.Array, restored: jax.Array) -> jax.Array:
    """The restored array, which orbax commits to its device, uncommitted where `like` is."""
    if getattr(like, "committed", True):
        return restored
    if jax.numpy.issubdtype(restored.dtype, jax.dtypes.prng_key):
        data = jax.numpy.asarray(np.asarray(jax.random.key_data(restored)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(restored))
    return jax.numpy.asarray(np.asarray(restored))


def _layout(leaf: jax.Array) -> str:
    """Type and shape on disk, where random keys are the integers they consist of."""
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return _described(leaf.shape, leaf.dtype)


def _described(shape: Sequence[int], dtype: Any) -> str:
    return f"{jax.numpy.dtype(dtype)} {list(shape)}"
