"""One image shown to a network in several ways: flipped, shifted, resized, blurred, compressed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from outgen_jax.networks import ApplyFn

Transform = Callable[[jax.Array], jax.Array]  # one image [H, W, C] -> [H', W', C]


def views(apply_fn: ApplyFn, transforms: Sequence[Transform]) -> ApplyFn:
    """A network that sees every image under all `transforms`: its outputs gain an axis, [B, V, K].

    A target [B, K] of `synthesize` then holds for every view. Views cost a Jacobian of V times as many rows; the
    engine computes it in blocks.

    Args:
      apply_fn: (variables, images [B, H, W, C]) -> outputs, an array [B, ..., K] or a pytree of such.
      transforms: V functions of one image [H, W, C] float32 in [0, 1], differentiable, each with a fixed output shape.

    Raises:
      ValueError: no transforms. When the result is called: transforms that give images of different shapes.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> seen = og.views(lambda w, x: x.reshape(len(x), -1) @ w, [lambda x: x, lambda x: x[:, ::-1]])
    >>> seen(jnp.zeros((48, 5)), jnp.zeros((2, 4, 4, 3))).shape
    (2, 2, 5)
    """
    transforms = tuple(transforms)
    if not transforms:
        raise ValueError(
            "views: there must be at least one transform, got none; lambda image: image shows it as it is"
        )
    return functools.partial(_seen, apply_fn, transforms)


def shift(rows: int, columns: int) -> Transform:
    """Moves an image by whole pixels, as a crop of the padded image does; what comes in is 0.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.synthesis import views
    >>> views.shift(0, 1)(jnp.ones((1, 3, 1)))[0, :, 0].tolist()
    [0.0, 1.0, 1.0]
    """
    return functools.partial(_shifted, rows, columns)


def straight_through(transform: Transform) -> Transform:
    """A transform that is not differentiable, such as rounding or JPEG, with the gradient of the identity.

    >>> import jax, jax.numpy as jnp
    >>> from outgen_jax.synthesis import views
    >>> rounded = views.straight_through(lambda x: jnp.round(x * 8) / 8)
    >>> rounded(jnp.full(1, 0.3)).item(), jax.grad(lambda x: rounded(x).sum())(jnp.full(1, 0.3)).item()
    (0.25, 1.0)
    """
    return functools.partial(_straight_through, transform)


def _seen(
    apply_fn: ApplyFn, transforms: tuple[Transform, ...], variables: Any, images: jax.Array
) -> Any:
    shown = [jax.vmap(transform)(images) for transform in transforms]  # V of [B, H', W', C]
    shapes = {image.shape[1:] for image in shown}
    if len(shapes) > 1:
        raise ValueError(
            f"views: all transforms must give images of one shape, got {sorted(map(list, shapes))}; resize them "
            "to what the network takes"
        )
    stacked = jnp.stack(shown, 1)  # [B, V, H', W', C]
    batch, count = stacked.shape[:2]
    outputs = apply_fn(variables, stacked.reshape(batch * count, *stacked.shape[2:]))
    return jax.tree.map(lambda x: x.reshape(batch, count, *x.shape[1:]), outputs)


def _shifted(rows: int, columns: int, image: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    pads = ((abs(rows),) * 2, (abs(columns),) * 2, (0, 0))
    padded = jnp.pad(image, pads)
    top, left = abs(rows) - rows, abs(columns) - columns
    return padded[top : top + height, left : left + width]


def _straight_through(transform: Transform, image: jax.Array) -> jax.Array:
    return image + jax.lax.stop_gradient(transform(image) - image)
