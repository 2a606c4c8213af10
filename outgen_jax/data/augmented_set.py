"""Training sets of originals and changed copies, as a table of rows over one bank of images (paper B).

The bank holds every image once: uint8 [N, H, W, C], the originals, then those that a GAN generated. A row of the set
says which image of the bank it is and how that is changed, so that all sets share the bank, on the device, and sets
padded to one length share a compiled program. Changed images are rounded to 8 bits like stored ones.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.data import augment

_CHANGES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "original": lambda images: images,
    "contrast": augment.contrast,
    "invert": augment.invert,
    "flip_left_right": augment.flip_left_right,
    "flip_up_down": augment.flip_up_down,
    "generated": lambda images: images,
}
KINDS = tuple(_CHANGES)  # a table's `kind` is an index into these
ADDED = KINDS[1:]  # what originals may be joined by
_GENERATED = KINDS.index("generated")
_AT_ONCE = 256  # images changed in one call, where all are


class Table(NamedTuple):
    """Which image each row of a set is; int32 [n] each.

    Attributes:
      source: row of the bank.
      kind: index into KINDS.
    """

    source: Any
    kind: Any


class AugmentedSet(NamedTuple):
    """A bank of images and the rows over it, a pytree of arrays for a compiled step.

    Attributes:
      bank: [N, H, W, C] uint8.
      table: its rows.
    """

    bank: Any
    table: Table


class Origin(NamedTuple):
    """Where an image of a set comes from.

    Attributes:
      source: id of the original, or 'generated_' and a number.
      kind: one of KINDS.
      checkpoint: hash of the generator that made it; None for others.
    """

    source: str
    kind: str
    checkpoint: str | None


def build(
    key: jax.Array,
    *,
    originals: int,
    available: int,
    kinds: Sequence[str] = (),
    added: int | None = None,
    generated: int = 0,
) -> Table:
    """The rows of a set: originals, and `added` images, as many of each of `kinds` (paper B, sets 1 to 6).

    The first `originals` images of the bank are used as they are. The changed ones are those same originals in random
    order, again and again, the first part of them for the first kind: a mixture of two kinds changes each original
    once, in one way or the other; twice as many, in both ways. Generated images keep their order.

    Args:
      key: of the order.
      originals: number of original images in the set.
      available: number of original images in the bank, which generated ones follow.
      kinds: of ADDED; none: the originals alone.
      added: images of all kinds together; None: as many as originals. Where they do not divide evenly, the first kinds
        have one more.
      generated: number of generated images in the bank.

    Raises:
      ValueError: an unknown kind or one named twice, more originals than there are, fewer added images than kinds, or
        more generated ones than there are.
    """
    total = (originals if kinds else 0) if added is None else added
    sizes = [total // len(kinds) + (i < total % len(kinds)) for i in range(len(kinds))]
    _check(originals, available, list(kinds), total, generated, sizes)
    order = np.asarray(jax.random.permutation(key, originals))
    changed = np.resize(order, total)  # again and again
    kind = np.repeat([KINDS.index(name) for name in kinds], sizes).astype(np.int32)
    ours = kind == _GENERATED
    changed[ours] = available + np.arange(ours.sum())
    source = np.concatenate([np.arange(originals), changed]).astype(np.int32)
    return Table(source, np.concatenate([np.zeros(originals, np.int32), kind]))


def pad(table: Table, length: int) -> Table:
    """The table, followed by copies of its first row that do not belong to the set: [length].

    Raises:
      ValueError: a table that is longer.
    """
    rows = len(table.source)
    if rows > length:
        raise ValueError(
            f"augmented_set.pad: the table has {rows} rows, more than length={length}; pad to the longest table"
        )
    return Table(*(np.concatenate([a, np.repeat(a[:1], length - rows)]) for a in table))


def change(image: jax.Array, kind: jax.Array) -> jax.Array:
    """One image [H, W, C] uint8, changed as KINDS[kind] says, rounded to uint8."""
    x = image[None].astype(jnp.float32) / 255
    changed = jax.lax.switch(kind, list(_CHANGES.values()), x)[0]
    return jnp.rint(255 * changed).astype(jnp.uint8)


def take(augmented: AugmentedSet, rows: jax.Array) -> jax.Array:
    """Rows [B] of the set as images, [B, H, W, C] uint8; pure, for use inside a compiled step."""
    source, kind = (column[rows] for column in augmented.table)
    return jax.vmap(change)(augmented.bank[source], kind)


def materialise(augmented: AugmentedSet) -> np.ndarray:
    """All images of the set on the host, [n, H, W, C] uint8: the very ones that `take` gives."""
    on_device = jax.tree.map(jnp.asarray, augmented)
    number = len(augmented.table.source)
    parts = [
        np.asarray(_take(on_device, jnp.arange(first, first + _AT_ONCE) % number))
        for first in range(0, number, _AT_ONCE)
    ]
    return np.concatenate(parts)[:number]


_take = jax.jit(take)


def provenance(table: Table, ids: Sequence[str], checkpoint: str | None = None) -> list[Origin]:
    """Where every row of the set comes from.

    Args:
      table: what `build` made, not padded.
      ids: of the originals in the bank, all of them.
      checkpoint: hash of the generator that made the images behind them.

    Raises:
      ValueError: generated rows and no checkpoint.
    """
    if checkpoint is None and np.any(table.kind == _GENERATED):
        raise ValueError(
            "augmented_set.provenance: the table has generated rows; name the checkpoint of their generator"
        )
    return [
        Origin(f"generated_{source - len(ids)}", KINDS[kind], checkpoint)
        if kind == _GENERATED
        else Origin(ids[source], KINDS[kind], None)
        for source, kind in zip(table.source.tolist(), table.kind.tolist(), strict=True)
    ]


def check_kinds(kinds: Sequence[str], *, caller: str) -> None:
    """Raises ValueError, in the name of `caller`, for kinds that are unknown or named twice."""
    unknown = [kind for kind in kinds if kind not in ADDED]
    if unknown or len(set(kinds)) < len(kinds):
        wrong = f"no kind {unknown[0]!r}" if unknown else f"a kind named twice in {list(kinds)}"
        raise ValueError(f"{caller}: {wrong}; use some of {', '.join(ADDED)}, each once")


def _check(
    originals: int, available: int, kinds: list[str], added: int, generated: int, sizes: list[int]
) -> None:
    caller = "augmented_set.build"
    check_kinds(kinds, caller=caller)
    if not 1 <= originals <= available:
        raise ValueError(
            f"{caller}: originals={originals}, but the bank has {available} original images; ask for 1 to {available}"
        )
    if added < len(kinds) or (added and not kinds):
        raise ValueError(
            f"{caller}: added={added} images of {len(kinds)} kinds; give at least one of each kind, and none without "
            "kinds"
        )
    wanted = dict(zip(kinds, sizes, strict=True)).get("generated", 0)
    if wanted > generated:
        raise ValueError(
            f"{caller}: the set needs {wanted} generated images, the bank has {generated}; train a generator on the "
            "originals first and put its images behind them"
        )
