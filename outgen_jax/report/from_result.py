"""The run that a report shows, from what `og.synthesize`, `og.quantize` and `og.predict` return."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from outgen_jax.data.grey_levels import to_uint8
from outgen_jax.report.parts import Part
from outgen_jax.report.run import SynthesisRun, check_run, distance_reached
from outgen_jax.synthesis import request
from outgen_jax.synthesis.request import Meaning
from outgen_jax.synthesis.synthesize import Result

CALLER = "synthesis_run"


def synthesis_run(
    result: Result,
    source: ArrayLike,
    saved: np.ndarray,
    targets: Any,
    *,
    before: Any,
    reached: Any,
    names: Any = None,
    views: Sequence[str] = (),
    ids: Sequence[str] | None = None,
    within: float = 1e-3,
) -> SynthesisRun:
    """What a report shows of a result and the images saved of it, for outputs of every kind.

    Args:
      result: what `og.synthesize` returned for B images.
      source: [B, H, W, C], the images it was given, uint8 or float in [0, 1].
      saved: uint8 [B, H, W, C], the images as saved, such as `og.quantize` returns.
      targets: as given to `og.synthesize`.
      before: what `og.predict` says of the source.
      reached: what it says of the saved images.
      names: of the classes, labels or numbers: K names for every output of the network, or a tree like its outputs of
        such; None: they are numbered.
      views: names of the views, in their order; left out: they are numbered.
      ids: B names of the images; None: they are numbered.
      within: the distance up to which a saved image is said to reach its target.

    Raises:
      ValueError: something that does not fit the result.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> from outgen_jax import report
    >>> network = lambda weights, images: images.reshape(len(images), -1) @ weights
    >>> weights, images = jnp.linspace(-0.3, 0.3, 96).reshape(48, 2), np.full((1, 4, 4, 3), 0.5, np.float32)
    >>> result = og.synthesize(network, weights, images, [0.45, 0.55])
    >>> saved = og.quantize(network, weights, result.images, [0.45, 0.55])
    >>> before, reached = (og.predict(network, weights, x) for x in (images, saved))
    >>> names = ("cat", "dog")
    >>> run = report.synthesis_run(result, images, saved, [0.45, 0.55], before=before, reached=reached, names=names)
    >>> run.parts[0].entries, run.converged.tolist()
    (('cat', 'dog'), [True])
    """
    meaning = result.meaning
    images = request.checked_images(source, caller=CALLER)
    number = len(result.images)
    wanted = request.checked_targets(meaning, targets, number, caller=CALLER)
    answers = {
        "before": _leaves(meaning, before, number, "before"),
        "reached": _leaves(meaning, reached, number, "reached"),
    }
    parts: list[Part] = []
    for index, (network, shape, entries) in enumerate(
        zip(_networks(meaning), meaning.shapes, _names(meaning, names), strict=True)
    ):
        for row, view in enumerate(_views(shape, views)):
            parts.append(
                Part(
                    entries=entries,
                    wanted=wanted[index][:, row],
                    before=answers["before"][index][:, row],
                    reached=answers["reached"][index][:, row],
                    kind=meaning.kinds[index],
                    network=network,
                    view=view,
                )
            )
    run = SynthesisRun(
        source=images if images.dtype == np.uint8 else to_uint8(images),
        generated=np.asarray(saved),
        parts=tuple(parts),
        ids=tuple(map(str, range(number) if ids is None else ids)),
        steps=np.asarray(result.steps),
        distance=np.zeros(number),
        converged=np.zeros(number, bool),
    )
    distance = distance_reached(run)
    run = run._replace(distance=distance, converged=result.finite & (distance <= within))
    check_run(run, caller=CALLER)
    return run


def _leaves(meaning: Meaning, tree: Any, number: int, field: str) -> list[np.ndarray]:
    """Answers [B, R, K], one a part."""
    leaves = request.leaves_like(
        meaning.structure, tree, expected=f"{field} must be", caller=CALLER
    )
    found = []
    for leaf, shape in zip(leaves, meaning.shapes, strict=True):
        if np.shape(leaf) != (number, *shape):
            raise ValueError(
                f"{CALLER}: {field} must have shape {[number, *shape]}, as og.predict returns it for the images of "
                f"the result; it has {list(np.shape(leaf))}"
            )
        found.append(np.asarray(leaf).reshape(number, -1, shape[-1]))
    return found


def _networks(meaning: Meaning) -> list[str]:
    """What the outputs are called in the tree that the network returns: "" for a single one."""
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in meaning.paths]
    return [f"output {name}" if name.isdigit() else name for name in names]


def _names(meaning: Meaning, names: Any) -> list[tuple[str, ...]]:
    """The names of the entries of each part."""
    sizes = [shape[-1] for shape in meaning.shapes]
    if names is None:
        return [tuple(map(str, range(size))) for size in sizes]
    if not isinstance(names, dict) and all(isinstance(name, str) for name in names):
        found = [names] * len(sizes)
    else:
        expected = "names must be a sequence of texts, or a tree of such"
        found = request.leaves_like(meaning.structure, names, expected=expected, caller=CALLER)
    for given, size in zip(found, sizes, strict=True):
        if len(given) != size:
            raise ValueError(
                f"{CALLER}: names must name all {size} entries of an output; there are {len(given)}. "
                "Give one for each, in the order of the network's outputs"
            )
    return [tuple(given) for given in found]


def _views(shape: tuple[int, ...], names: Sequence[str]) -> list[str]:
    """The names of the views of an output with [..., K] for an image."""
    axes = shape[:-1]
    count = int(np.prod(axes, dtype=int))
    if names and axes and len(names) != count:
        raise ValueError(
            f"{CALLER}: views must name all {count} views; there are {len(names)}. Give one for each, in their order"
        )
    if not axes or names:
        return list(names) if axes else [""]
    indices = itertools.product(*(range(axis) for axis in axes))
    return [f"view {', '.join(map(str, index))}" for index in indices]
