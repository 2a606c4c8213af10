"""Limits on the change of an image: where, how far and how smooth.

In `Limits` an image is a vector [D], elsewhere [H, W, C].
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import pixels


class Limits(NamedTuple):
    """Limits on the change of one image."""

    low: jax.Array  # [D] pixels at least
    high: jax.Array  # [D] pixels at most
    smooth: Callable[[jax.Array], jax.Array]  # [D] -> [D], S, the inverse of the norm's matrix
    root: Callable[[jax.Array], jax.Array]  # [D] -> [D], S's square root

    def of_free_pixels(self, rows: jax.Array) -> jax.Array:
        """Gradients or rows of a Jacobian [..., D], 0 where no change is allowed."""
        return jnp.where(self.low < self.high, rows, 0)


@jax.tree_util.register_pytree_node_class
class Mask:
    """Pixels that may change, [H, W, C] bool; traced data in a solver, equal and hashed by its entries."""

    def __init__(self, allowed: ArrayLike) -> None:
        self.allowed = allowed

    def __eq__(self, other: object) -> bool:
        """Whether another mask has the same entries."""
        return isinstance(other, Mask) and np.array_equal(
            np.asarray(self.allowed), np.asarray(other.allowed)
        )

    def __hash__(self) -> int:
        """By the entries."""
        allowed = np.asarray(self.allowed)
        return hash((allowed.shape, allowed.tobytes()))

    def __repr__(self) -> str:
        """Its shape alone."""
        return f"Mask({list(np.shape(self.allowed))})"

    def tree_flatten(self) -> tuple[tuple[ArrayLike], None]:
        """For `jax.tree_util`."""
        return (self.allowed,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[ArrayLike]) -> "Mask":
        """For `jax.tree_util`."""
        return cls(*children)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Restriction:
    """Options that limit the change of an image.

    Attributes:
      mask: only pixels that it allows change; None: all may.
      max_change: no pixel changes by more than this (L∞); None: [0, 1] is the only limit.
      lowpass_radius: steps consist of frequencies up to about this many cycles per image side; None: of all. A start
        other than the source keeps its own frequencies.
    """

    mask: Mask | None = None
    max_change: float | None = dataclasses.field(default=None, metadata={"static": True})
    lowpass_radius: float | None = dataclasses.field(default=None, metadata={"static": True})

    def limits(self, source: jax.Array) -> Limits:
        """Of one image whose source is [H, W, C].

        Raises:
          ValueError: the mask is of another size.
        """
        self.check(source.shape)
        reach = 1.0 if self.max_change is None else self.max_change
        allowed = jnp.float32(1) if self.mask is None else jnp.asarray(self.mask.allowed)
        free = jnp.broadcast_to(allowed.astype(jnp.float32), source.shape)
        low, high = (jnp.clip(source + s * reach * free, 0, 1).ravel() for s in (-1.0, 1.0))

        def smoothed(row: jax.Array, factor: float) -> jax.Array:
            if self.lowpass_radius is None:
                return row
            image, radius = row.reshape(source.shape), factor * self.lowpass_radius
            return pixels.lowpass(image, radius, rolloff="gaussian").ravel()

        # exp(−f²/2r²) is the square of the filter of radius √2 r.
        return Limits(low, high, lambda row: smoothed(row, 1), lambda row: smoothed(row, 2**0.5))

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses a mask that is not of the height and width of images [H, W, C], and of one channel or as many."""
        if self.mask is None:
            return
        height, width, channels = np.shape(self.mask.allowed)
        if (height, width) != shape[:2] or channels not in (1, shape[2]):
            raise ValueError(
                f"mask is {_by(height, width, channels)}, images are {_by(*shape)} (height x width x channels); "
                "give a mask of the images' height and width, with one channel or all of them"
            )

    def nearest(self, source: jax.Array, image: jax.Array) -> jax.Array:
        """The image nearest to `image` [H, W, C] that the restriction allows."""
        limits = self.limits(source)
        return jnp.clip(image.ravel(), limits.low, limits.high).reshape(image.shape)


def _by(*sizes: int) -> str:
    return "x".join(map(str, sizes))


def restriction(
    mask: ArrayLike | None,
    max_change: float | None,
    lowpass_radius: float | None,
    *,
    caller: str,
) -> Restriction:
    """Checks what a solver's caller asked for.

    Raises:
      ValueError: `max_change` or a radius that is not positive, `max_change` above 1; a mask that is not of rank 2
        or 3, or that lets nothing change.
    """
    for name, value in (("max_change", max_change), ("lowpass_radius", lowpass_radius)):
        if value is not None and not value > 0:
            raise ValueError(f"{caller}: {name} must be positive, got {value}; None: no limit")
    if max_change is not None and max_change > 1:
        raise ValueError(
            f"{caller}: max_change must be at most 1, the range of a pixel, got {max_change}; {max_change} grey levels "
            f"of 255 are {max_change}/255, None: no limit"
        )
    # Python's numbers: those of numpy have a type, which would widen arrays under jax_enable_x64.
    max_change = None if max_change is None else float(max_change)
    lowpass_radius = None if lowpass_radius is None else float(lowpass_radius)
    if mask is None:
        return Restriction(max_change=max_change, lowpass_radius=lowpass_radius)
    allowed = np.asarray(mask) != 0
    if allowed.ndim not in (2, 3) or not allowed.any():
        raise ValueError(
            f"{caller}: mask must be [H, W] or [H, W, C] with an entry that is not 0, got "
            f"{int(allowed.sum())} such entries in {list(allowed.shape)}; mark the pixels that may change"
        )
    allowed = allowed if allowed.ndim == 3 else allowed[:, :, None]
    return Restriction(mask=Mask(allowed), max_change=max_change, lowpass_radius=lowpass_radius)
