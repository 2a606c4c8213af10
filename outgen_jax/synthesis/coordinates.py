"""How many coordinates targets have, and which images one program can serve."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from outgen_jax.outputs import Output
from outgen_jax.outputs.distribution import MOST_CLASSES

# Rows of a Jacobian at most.
MOST_ROWS = 512

# Rows by how many classes of each part have a coordinate each.
Groups = dict[tuple[int | None, ...], np.ndarray]


def grouped(counts: Sequence[tuple[int | None, ...]], rows: np.ndarray) -> Groups:
    """The `rows` by how many classes have a coordinate each, `MOST_CLASSES` at most; one program serves a group."""
    groups: defaultdict[Any, list[int]] = defaultdict(list)
    for row in rows:
        capped = tuple(None if count is None else min(count, MOST_CLASSES) for count in counts[row])
        groups[capped].append(int(row))
    return {counted: np.array(group) for counted, group in groups.items()}


def num_coordinates(
    kinds: tuple[Output, ...], targets: tuple[np.ndarray, ...], counts: tuple[int | None, ...]
) -> int:
    """M of targets [N, R, K], one a part."""
    parts = zip(kinds, targets, counts, strict=True)
    return sum(t.shape[1] * kind.num_coordinates(t.shape[2], count) for kind, t, count in parts)
