"""Checks of what a caller gives: images, a network, kinds of outputs, and targets."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import image_checks
from outgen_jax import outputs as output_kinds
from outgen_jax.outputs import Output
from outgen_jax.synthesis import network_checks
from outgen_jax.synthesis.programs import Network
from outgen_jax.synthesis.views import TransformError
from outgen_jax.targets.partial import as_masked
from outgen_jax.whole_numbers import check_integers


class Meaning(NamedTuple):
    """Structure, shapes and kinds of a network's outputs: an array or a pytree of arrays, each [B, ..., K]."""

    structure: Any  # of the pytree of outputs, as `jax.tree.structure` returns it
    shapes: tuple[tuple[int, ...], ...]  # [..., K] of each part, for one image
    kinds: tuple[Output, ...]  # one for each part

    def tree(self, parts: tuple[Any, ...]) -> Any:
        """Parts [n, R, K] as the network returns them [n, ..., K]."""
        shaped = [
            part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return jax.tree.unflatten(self.structure, shaped)

    @property
    def paths(self) -> list[jax.tree_util.KeyPath]:
        """Where each part is in the network's output; one empty path for a plain array."""
        indices = jax.tree.unflatten(self.structure, range(self.structure.num_leaves))
        return [path for path, _ in jax.tree.leaves_with_path(indices)]

    @property
    def is_one_softmax(self) -> bool:
        """Whether the network is a plain classifier."""
        return (
            len(self.kinds) == 1
            and len(self.shapes[0]) == 1
            and isinstance(self.kinds[0], output_kinds.Softmax)
        )


def checked_images(images: ArrayLike, *, caller: str) -> np.ndarray:
    """Images [B, H, W, C] as a host array, uint8 or float32.

    Raises:
      ValueError: no images, several sizes, another rank, another type, or values outside [0, 1].
    """
    if isinstance(images, str | os.PathLike):
        raise ValueError(
            f"{caller}: images must be an array [B, H, W, C], got the path {str(images)!r}; "
            "og.data.sources.load(path).images reads a folder of images, an .npz or a tfds data set"
        )
    try:
        array = np.asarray(images)
    except ValueError:
        sizes = sorted({np.shape(image) for image in images})  # type: ignore[union-attr]
        raise ValueError(
            f"{caller}: images must all have one size, got {', '.join(str(list(s)) for s in sizes[:3])}; "
            "resize or crop them, or call once for each size"
        ) from None
    image_checks.check_batch(array, caller=caller, least=1)
    image_checks.check_floats_or_uint8(array, caller=caller)
    if array.dtype == np.uint8:
        return array
    image_checks.check_range(array, caller=caller)
    return array.astype(np.float32)


def check_tolerance(tolerance: float, *, caller: str, remedy: str) -> None:
    """Refuses a tolerance that is no positive, finite number; `remedy` ends the message."""
    value = np.asarray(tolerance)
    if value.ndim > 0 or value.dtype.kind not in "fiu" or not 0 < value < np.inf:
        raise ValueError(
            f"{caller}: tolerance must be a positive, finite number, got {tolerance!r:.60}; {remedy}"
        )


def check_batch_size(batch_size: int | None, *, caller: str) -> None:
    """Refuses a batch size that is not a positive integer."""
    check_integers(caller=caller, batch_size=batch_size)
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"{caller}: batch_size must be at least 1, got {batch_size}; use None for a default"
        )


def checked_precision(precision: str | None, *, caller: str) -> str | None:
    """The precision, or JAX's current setting for None; refuses what `jax.default_matmul_precision` does not take."""
    if precision is None:
        return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    try:
        with jax.default_matmul_precision(precision):
            return precision
    except (ValueError, TypeError):
        raise ValueError(
            f"{caller}: precision must be a name that jax.default_matmul_precision takes, got {precision!r}; pass "
            "'highest' for full float32, or None for JAX's current setting"
        ) from None


def meaning(
    network: Network, variables: Any, images: np.ndarray, output: Any, *, caller: str
) -> Meaning:
    """Structure and kinds of what the network returns for images like these.

    Raises:
      ValueError: the network is no function or `variables` hold something else than arrays; it fails on such images,
        or does not return arrays [B, ..., K]; `output` does not match.
    """
    network_checks.check(network.apply_fn, variables, caller=caller)
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    try:
        out = jax.eval_shape(network.apply_fn, variables, one)
    except TransformError as error:
        raise ValueError(f"{caller}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{caller}: apply_fn(variables, images) fails on images of shape {list(images.shape)}: {error}. "
            f"{network_checks.remedy(network.apply_fn, error)}"
        ) from error
    leaves, structure = jax.tree.flatten(out)
    for path, leaf in jax.tree_util.tree_leaves_with_path(out):
        if (
            not hasattr(leaf, "shape")
            or len(leaf.shape) < 2
            or leaf.shape[0] != 1
            or 0 in leaf.shape
        ):
            found = list(leaf.shape) if hasattr(leaf, "shape") else type(leaf).__name__
            part = f" as output{jax.tree_util.keystr(path)}" if path else ""
            is_flat = found == [1]
            remedy = (
                "For a number an image, add an axis: [:, None]"
                if is_flat
                else "Wrap it so that it does"
            )
            raise ValueError(
                f"{caller}: apply_fn must return outputs [B, ..., K]; for one image it returns {found}{part}. {remedy}"
            )
    if not leaves:
        raise ValueError(
            f"{caller}: apply_fn must return outputs [B, ..., K], but it returns nothing"
        )
    return Meaning(
        structure,
        tuple(leaf.shape[1:] for leaf in leaves),
        _kinds(output, structure, caller=caller),
    )


def checked_targets(
    meaning: Meaning, targets: Any, num_images: int, *, caller: str
) -> tuple[np.ndarray, ...]:
    """Targets like the outputs -> one [B, R, K] float32 a part, NaN where an entry is free.

    Raises:
      ValueError: another tree, a shape that does not broadcast, or values that cannot be targets.
    """
    leaves = target_leaves(meaning.structure, targets, caller=caller)
    parts = []
    zipped = zip(meaning.paths, leaves, meaning.shapes, meaning.kinds, strict=True)
    for path, leaf, shape, kind in zipped:
        where = f"{caller}: output{jax.tree_util.keystr(path)}" if path else caller
        rows = with_all_axes(as_masked(leaf), num_images, shape, caller=where)
        try:
            flat = kind.validated(rows.reshape(-1, shape[-1]), caller=where)
        except ValueError as error:
            if len(meaning.kinds) == 1 or len(set(meaning.kinds)) > 1:
                raise
            raise ValueError(
                f"{error}. All {len(meaning.kinds)} outputs are taken for {kind!r}; if they are of several kinds, pass "
                "output= a tree of og.outputs like the network's outputs"
            ) from error
        checked = np.broadcast_to(flat.reshape(rows.shape), (num_images, *shape))
        parts.append(np.ascontiguousarray(checked).reshape(num_images, -1, shape[-1]))
    return tuple(parts)


def counts(meaning: Meaning, targets: tuple[np.ndarray, ...]) -> list[tuple[int | None, ...]]:
    """For each image, how many classes of each part get a coordinate each; None: all.

    A function of the image's own target alone.
    """
    columns = (kind.counts(rows) for kind, rows in zip(meaning.kinds, targets, strict=True))
    return list(zip(*columns, strict=True))


def _kinds(output: Any, structure: Any, *, caller: str) -> tuple[Output, ...]:
    """One kind a part, from one for all or a tree of them."""
    output = output_kinds.softmax() if output is None else output
    if _is_kind(output):
        return (output,) * structure.num_leaves
    expected = "output must be one of og.outputs, or a tree of them"
    kinds = leaves_like(structure, output, expected=expected, caller=caller)
    wrong = [kind for kind in kinds if not _is_kind(kind)]
    if wrong:
        raise ValueError(
            f"{caller}: output must be made of og.outputs.softmax(), .sigmoid() and .values(); got {wrong[0]!r}"
        )
    return tuple(kinds)


def _is_kind(output: Any) -> bool:
    return isinstance(output, Output)


def leaves_like(structure: Any, tree: Any, *, expected: str, caller: str) -> list[Any]:
    """The parts of a tree like the network's outputs, in their order; the tree itself for a plain array.

    Raises:
      ValueError: another tree; `expected` is what it must be.
    """
    try:
        return list(structure.flatten_up_to(tree))
    except (ValueError, TypeError, KeyError) as error:
        described = str(structure).removeprefix("PyTreeDef(").removesuffix(")")
        raise ValueError(
            f"{caller}: {expected} like the network's outputs, {described}: {error}"
        ) from None


def target_leaves(structure: Any, targets: Any, *, caller: str) -> list[np.ndarray]:
    """The arrays of a tree of targets, in the order of the outputs' parts; numpy's, such as memory maps, as they are.

    Raises:
      ValueError: another tree, or leaves that are no arrays.
    """
    leaves = leaves_like(structure, targets, expected="targets must be a tree", caller=caller)
    is_kept = (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiu" for leaf in leaves)
    found: list[np.ndarray] = []
    for leaf, kept in zip(leaves, is_kept, strict=True):
        try:
            found.append(leaf if kept else as_masked(leaf))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{caller}: targets must be an array of numbers ({error}). Use og.targets.parse to turn text into one"
            ) from None
    return found


def _rows_remedy(target: np.ndarray, shape: tuple[int, ...]) -> str:
    """What to do about targets for outputs [B, ..., K] of this `shape`."""
    if target.shape == shape[:1] and shape[-1] == 1:
        return "For a number an image, pass targets[:, None]"
    if target.shape == shape[:1]:
        return f"For class labels, pass numpy.eye({shape[-1]})[labels]"
    return "Give one row per image, in the order of the network's outputs"


def with_all_axes(
    target: np.ndarray, num_images: int, shape: tuple[int, ...], *, caller: str
) -> np.ndarray:
    """`target` with all axes [B or 1, ..., K] of outputs [B, *shape]; axes that are left out have length 1.

    It is a view: a memory map stays on disk.

    Raises:
      ValueError: a shape that does not broadcast.
    """
    full = (num_images, *shape)
    rank, wanted = target.ndim, len(full)
    middle = wanted - 2
    if rank == 2 and wanted == 3 and target.shape[0] == num_images == shape[0] > 1:
        raise ValueError(
            f"{caller}: targets {list(target.shape)} may be for {num_images} images or for {shape[0]} views. Pass "
            "targets[:, None] for a target of each image, targets[None] for one of each view"
        )
    if rank == wanted:
        found = target
    elif rank == 1:
        found = target.reshape((1,) * (wanted - 1) + target.shape)
    elif rank == 2 and target.shape[0] == num_images:  # [B, K] holds for all axes between
        found = target.reshape((target.shape[0],) + (1,) * middle + target.shape[1:])
    elif rank == wanted - 1:  # no axis of images
        found = target.reshape((1, *target.shape))
    else:
        found = target
    fits = found.ndim == wanted and all(a in (1, b) for a, b in zip(found.shape, full, strict=True))
    if not fits or found.shape[-1] != shape[-1]:
        options = [list(full), [num_images, shape[-1]], [shape[-1]]]
        listed = ", ".join(dict.fromkeys(map(str, options)))
        raise ValueError(
            f"{caller}: targets must have one of the shapes {listed} for {num_images} images and {shape[-1]} outputs; "
            f"they have {list(target.shape)}. {_rows_remedy(target, full)}"
        )
    return found
