"""Checkpoints of training runs (the only module that imports orbax).

A checkpoint is a directory of arrays without pickles. Each array has the name of its path in the state, such as
`.params['kernel']`, so that arrays of one shape cannot be confused. Orbax writes a checkpoint under a temporary name
and renames it when it is complete; a run that is killed while it saves resumes from the one before.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run: `save` the state after a step, `restore` the newest.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> from outgen_jax.training.checkpoints import Checkpoints
      >>> checkpoints = Checkpoints(pathlib.Path(tempfile.mkdtemp()))
      >>> checkpoints.save(7, {"weights": jnp.ones(2)}, {"loss": 0.5})
      >>> state, notes = checkpoints.restore({"weights": jnp.zeros(2)})
      >>> print(checkpoints.latest, state["weights"], notes)
      7 [1. 1.] {'loss': 0.5}
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        """Opens or creates `directory`; the newest `keep` checkpoints stay."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        # Without its handlers a manager cannot tell what a checkpoint of an earlier process holds.
        handlers = {"state": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(
            directory.absolute(), options=options, item_handlers=handlers
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, notes: Mapping[str, Any]) -> None:
        """Writes `state` (a pytree of arrays) and `notes` (JSON) as the checkpoint of `step`."""
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

    Example:
      >>> from outgen_jax.training import checkpoints
      >>> checkpoints.kept(None, "epoch")
      'there is no checkpoint'
    """
    latest = None if checkpoints is None else checkpoints.latest
    return (
        "there is no checkpoint" if latest is None else f"the checkpoint of {unit} {latest} is kept"
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
