"""Checkpoints of training runs (the only module that imports orbax).

A checkpoint is a directory of arrays without pickles; orbax writes it under a temporary name and
renames it when it is complete, so that a run killed in the middle finds the one before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run: `save` the state after a step, `restore` the latest."""

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
                state=ocp.args.StandardSave(_numbered(state)), notes=ocp.args.JsonSave(dict(notes))
            ),
        )

    def restore(self, like: T) -> tuple[T, dict[str, Any]]:
        """The newest state, with the structure, shapes, types and devices of `like`, and its notes.

        Raises:
          FileNotFoundError: no checkpoint.
          ValueError: a checkpoint of another network or optimiser.
        """
        if self.latest is None:
            raise FileNotFoundError(
                f"Checkpoints.restore: no checkpoint in {self._manager.directory}"
            )
        wanted = _numbered(like)
        saved = self._manager.item_metadata(self.latest)["state"]
        found = {k: (tuple(v.shape), jax.numpy.dtype(v.dtype)) for k, v in saved.items()}
        if found != {k: _layout(leaf) for k, leaf in wanted.items()}:
            raise ValueError(
                f"Checkpoints.restore: {self._manager.directory} holds {len(found)} arrays that do "
                f"not match the {len(wanted)} of this network and optimiser; it was written with "
                "other settings"
            )
        restored = self._manager.restore(
            self.latest,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(wanted), notes=ocp.args.JsonRestore()
            ),
        )
        leaves = [restored["state"][key] for key in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), restored["notes"]


def _numbered(state: Any) -> dict[str, jax.Array]:
    return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(state))}


def _layout(leaf: jax.Array) -> tuple[tuple[int, ...], Any]:
    """Shape and type on disk, where random keys are the integers they consist of."""
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return leaf.shape, leaf.dtype
