"""A network's outputs for images, a batch at a time on all devices."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from outgen_jax.networks import ApplyFn
from outgen_jax.outputs import Output
from outgen_jax.solvers.objective import Outputs
from outgen_jax.synthesis import batch_sizes, request, slots
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis.bound import Bound, bind
from outgen_jax.synthesis.programs import Network, per_network
from outgen_jax.synthesis.request import Meaning

# Numbers that go to the default device at a time, where a function of outputs is called there.
_NUMBERS_AT_ONCE = 2**24


def predict(
    apply_fn: ApplyFn,
    variables: Any,
    images: ArrayLike,
    *,
    output: Any = None,
    batch_size: int | None = None,
    precision: str | None = "highest",
) -> Any:
    """The outputs of a network in the units of targets: probabilities, or the numbers of `og.outputs.values()`.

    Args:
      apply_fn: (variables, images [B, H, W, C] float32 in [0, 1]) -> outputs: an array [B, ..., K], or a pytree of such
        arrays.
      variables: any pytree of arrays.
      images: [B, H, W, C], uint8 or float in [0, 1].
      output: one of `og.outputs`, or a pytree of them like the outputs; None: `og.outputs.softmax()`.
      batch_size: images at a time on each device; None: chosen by platform and image size.
      precision: of the network's matrix products and convolutions on GPU and TPU; see `synthesize`.

    Returns:
      float32 arrays of the shapes and structure of the network's outputs.

    Raises:
      ValueError: images that are not of rank 4 or outside their range; outputs that do not match `output`, such as
        probabilities where logits are expected; a batch size that is not positive; an unknown `precision`.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> images = jnp.full((2, 4, 4, 1), 0.5)
    >>> og.predict(lambda weights, x: x.reshape(len(x), -1) @ weights, jnp.zeros((16, 2)), images).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    array = request.checked_images(images, caller="predict")
    bound = bind(
        apply_fn,
        variables,
        array,
        output=output,
        batch_size=batch_size,
        precision=precision,
        caller="predict",
    )
    parts = outputs_of(bound, array)
    _check_kinds(bound, array, parts, caller="predict")
    return bound.meaning.tree(readout(bound.meaning, parts))


def readout(meaning: Meaning, parts: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    """Raw outputs in the units of targets: [B, R, K] a part."""
    zipped = zip(meaning.kinds, parts, strict=True)
    return tuple(by_rows(jax.vmap(kind.readout), part) for kind, part in zipped)


def by_rows(function: Callable[..., jax.Array], *trees: Any) -> np.ndarray:
    """`function` of every row of trees of arrays [B, ...] on the host, with few enough at a time for a device's memory.

    The number of rows at a time does not depend on the devices, so the bits of the result do not either.
    """
    leaves = jax.tree.leaves(trees)
    numbers = sum(math.prod(leaf.shape[1:]) for leaf in leaves)
    at_once = max(1, _NUMBERS_AT_ONCE // numbers)
    found = []
    for start in range(0, max(1, len(leaves[0])), at_once):
        chosen = jax.tree.map(lambda leaf, s=start: leaf[s : s + at_once], trees)
        found.append(np.asarray(jax.vmap(function)(*chosen)))
    return np.concatenate(found)


def outputs_of(bound: Bound, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cleaned outputs of images [B, H, W, C]: one [B, R, K] for each part.

    The devices hold the outputs of two batches at most.
    """
    mesh, kinds = bound.mesh, bound.kinds
    size = batch_sizes.largest(bound, images)
    found: list[Any] = []
    for start in range(0, len(images), size):
        # The last batch is filled up with copies, so that one shape is compiled for all.
        chosen = np.minimum(np.arange(start, start + size), len(images) - 1)
        placed = slots.shared(mesh, networks.as_float(images[chosen]))
        found.append(_outputs(bound.network, bound.variables, placed, kinds=kinds, mesh=mesh))
        if len(found) > 1:  # the batch before is fetched while the devices work on this one
            found[-2] = jax.tree.map(np.array, found[-2])
    joined = zip(*found, strict=True)
    return tuple(np.concatenate([np.asarray(x) for x in part])[: len(images)] for part in joined)


def check_sources(bound: Bound, images: np.ndarray, *, caller: str) -> None:
    """Checks the outputs of all source images.

    Raises:
      ValueError: they are not finite, or do not match their kinds.
    """
    parts = outputs_of(bound, images)
    for part in parts:
        bad = np.flatnonzero(~np.isfinite(part).all((1, 2)))  # cleaned: finite where valid
        if len(bad):
            listed = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
            raise ValueError(
                f"{caller}: the network must be finite on every source image, but returns NaN or infinity for "
                f"{len(bad)} of {len(images)}: row {listed}. Leave these rows out, or look at their pixels"
            )
    _check_kinds(bound, images, parts, caller=caller)


def _check_kinds(
    bound: Bound, images: np.ndarray, parts: tuple[np.ndarray, ...], *, caller: str
) -> None:
    """Checks that `parts`, the outputs of the images, are what their kinds say, such as logits.

    The logits of a few images may look like probabilities by chance. Then the negatives of the images decide.
    """
    try:
        _check_raw(bound.kinds, parts, caller=caller)
    except ValueError:
        others = outputs_of(bound, 1 - networks.as_float(images))
        both = tuple(np.concatenate(pair) for pair in zip(parts, others, strict=True))
        _check_raw(bound.kinds, both, caller=caller)


def _check_raw(kinds: tuple[Output, ...], parts: tuple[np.ndarray, ...], *, caller: str) -> None:
    for kind, part in zip(kinds, parts, strict=True):
        kind.check_raw(part.reshape(-1, part.shape[-1]), caller=caller)


@per_network(static_argnames=("kinds", "mesh"))
def _outputs(
    network: Network,
    variables: Any,
    images: jax.Array,
    *,
    kinds: tuple[Output, ...],
    mesh: Mesh,
) -> Outputs:
    """Outputs of images [S, H, W, C], image by image under `jax.vmap`."""

    def share(variables: Any, images: jax.Array) -> Outputs:
        one = networks.of_one_image(network, kinds, variables)
        return jax.vmap(one)(images)

    return slots.on_each_device(mesh, share, slots.SPLIT)(variables, images)
