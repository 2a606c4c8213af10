"""One image shown to a network in several ways: flipped, shifted, resized, blurred, compressed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from outgen_jax.networks import ApplyFn

Transform = Callable[[jax.Array], jax.Array]  # one image [H, W, C] -> [H', W', C]
Shape = tuple[int, ...]


class TransformError(ValueError):
    """A transform that views cannot show an image through; the message names it."""


def views(apply_fn: ApplyFn, transforms: Sequence[Transform]) -> ApplyFn:
    """A network that sees every image under all `transforms`: its outputs gain an axis, [B, V, K].

    A target [B, K] of `synthesize` then holds for every view. The Jacobian has V times as many rows.

    Args:
      apply_fn: (variables, images [B, H, W, C]) -> outputs: an array [B, ..., K], or a pytree of such arrays.
      transforms: V functions of one image [H, W, C] float32 in [0, 1], differentiable, each with a fixed output shape.

    Raises:
      ValueError: no transforms, or one that is no function. When the result is called: transforms that return images
        of different shapes; a transform that fails, whose shape changes from call to call, that does not return
        floats, or whose gradient is zero everywhere, as that of rounding is.

    >>> import jax.numpy as jnp
    >>> import outgen_jax as og
    >>> seen = og.views(lambda w, x: x.reshape(len(x), -1) @ w, [lambda x: x, lambda x: x[:, ::-1]])
    >>> seen(jnp.zeros((48, 5)), jnp.zeros((2, 4, 4, 3))).shape
    (2, 2, 5)
    """
    if callable(transforms):
        raise TransformError("views: transforms must be a list, got one function; pass [transform]")
    transforms = tuple(transforms)
    for v, transform in enumerate(transforms):
        if not callable(transform):
            raise TransformError(
                f"views: transform {v} must be a function of one image [H, W, C], got {transform!r:.60}; wrap it, as "
                "lambda image: ... does"
            )
    if not transforms:
        raise ValueError(
            "views: there must be at least one transform, got none; lambda image: image shows it as it is"
        )
    return Views(apply_fn, transforms)


class Views:
    """What `views` returns: a network that sees every image under V transforms.

    Attributes:
      apply_fn: the network of one view.
      transforms: see `views`.
    """

    def __init__(self, apply_fn: ApplyFn, transforms: tuple[Transform, ...]) -> None:
        self.apply_fn, self.transforms = apply_fn, transforms
        # What each transform makes of images of a shape [H, W, C]; V shapes.
        self._known: dict[Shape, list[Shape]] = {}

    def __call__(self, variables: Any, images: jax.Array) -> Any:
        """Images [B, H, W, C] -> the outputs of all views, a tree of [B, V, ...]."""
        shown = jnp.stack(self._shown(images), 1)  # [B, V, H', W', C]
        batch, count = shown.shape[:2]
        outputs = self.apply_fn(variables, shown.reshape(batch * count, *shown.shape[2:]))
        return jax.tree.map(lambda x: x.reshape(batch, count, *x.shape[1:]), outputs)

    def _shown(self, images: jax.Array) -> list[jax.Array]:
        """What the network sees of images [B, H, W, C]: V of [B, H', W', C]."""
        one = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
        if one.shape not in self._known:
            checked = [_checked(v, transform, one) for v, transform in enumerate(self.transforms)]
            self._known[one.shape] = checked
        shown = [jax.vmap(transform)(images) for transform in self.transforms]
        shapes = [tuple(image.shape[1:]) for image in shown]
        for v, (shape, before) in enumerate(zip(shapes, self._known[one.shape], strict=True)):
            _check_same_shape(v, self.transforms[v], shape, before)
        if len(set(shapes)) > 1:
            raise TransformError(
                f"views: all transforms must give images of one shape, got {sorted(map(list, set(shapes)))}; resize "
                "them to what the network takes"
            )
        return shown


def shift(rows: int, columns: int) -> Transform:
    """Shifts an image by whole pixels, down by `rows` and right by `columns`; the pixels that enter are 0.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.synthesis import views
    >>> views.shift(0, 1)(jnp.ones((1, 3, 1)))[0, :, 0].tolist()
    [0.0, 1.0, 1.0]
    """
    return functools.partial(_shifted, rows, columns)


def straight_through(transform: Transform) -> Transform:
    """Gives a transform without a useful gradient, such as rounding or JPEG, the gradient of the identity.

    >>> import jax, jax.numpy as jnp
    >>> from outgen_jax.synthesis import views
    >>> rounded = views.straight_through(lambda x: jnp.round(x * 8) / 8)
    >>> rounded(jnp.full(1, 0.3)).item(), jax.grad(lambda x: rounded(x).sum())(jnp.full(1, 0.3)).item()
    (0.25, 1.0)
    """
    return functools.partial(_straight_through, transform)


def _checked(v: int, transform: Transform, one: jax.ShapeDtypeStruct) -> Shape:
    """The shape that a transform gives images like `one`; nothing is computed."""
    # JAX remembers what functions do to shapes: new ones, so that the transform is called twice.
    try:
        out, again = (jax.eval_shape(lambda image: transform(image), one) for _ in range(2))
    except Exception as error:
        raise TransformError(
            f"views: {_named(v, transform)} fails on an image of shape {list(one.shape)}: {error}. It must take one "
            "image [H, W, C], and be a function that jax.jit can trace"
        ) from error
    if not hasattr(out, "shape") or not hasattr(again, "shape"):
        raise TransformError(
            f"views: {_named(v, transform)} must return one image [H, W, C], but returns {_kind_of(out)}"
        )
    _check_same_shape(v, transform, again.shape, out.shape)
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TransformError(
            f"views: {_named(v, transform)} must return floats in [0, 1], but returns {out.dtype}; "
            "views.straight_through(lambda image: ...) takes a transform that rounds and returns floats"
        )
    if not _has_gradient(transform, one):
        raise TransformError(
            f"views: the gradient of {_named(v, transform)} is zero everywhere, as that of rounding or of a constant "
            "is, so no solver can move an image through it. Wrap it in outgen_jax.synthesis.views.straight_through, "
            "which gives it the gradient of the identity, or leave it out"
        )
    return tuple(out.shape)


def _check_same_shape(v: int, transform: Transform, shape: Shape, before: Shape) -> None:
    if tuple(shape) != tuple(before):
        raise TransformError(
            f"views: {_named(v, transform)} must give images of one shape in every call, but gave {list(before)} and "
            f"then {list(shape)}; draw what is random once, before og.views, a transform for each draw"
        )


def _has_gradient(transform: Transform, one: jax.ShapeDtypeStruct) -> bool:
    """Whether what a transform pulls back depends on the cotangent; it does not where JAX knows the gradient as 0."""

    def pulled_back(image: jax.Array, scale: jax.Array) -> jax.Array:
        shown, pull = jax.vjp(transform, image)
        return pull(jnp.full_like(shown, scale))[0]

    program = jax.make_jaxpr(pulled_back)(one, jax.ShapeDtypeStruct((), one.dtype)).jaxpr
    reached = {program.invars[1]}
    for equation in program.eqns:
        inputs = (x for x in equation.invars if not isinstance(x, core.Literal))
        if not reached.isdisjoint(inputs):
            reached.update(equation.outvars)
    return not reached.isdisjoint(x for x in program.outvars if not isinstance(x, core.Literal))


def _kind_of(out: Any) -> str:
    return "None; is its return missing?" if out is None else f"a {type(out).__name__}"


def _named(v: int, transform: Transform) -> str:
    name = getattr(transform, "__name__", None) or repr(transform)
    return f"transform {v} ({name})"


def _shifted(rows: int, columns: int, image: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    pads = ((abs(rows),) * 2, (abs(columns),) * 2, (0, 0))
    padded = jnp.pad(image, pads)
    top, left = abs(rows) - rows, abs(columns) - columns
    return padded[top : top + height, left : left + width]


def _straight_through(transform: Transform, image: jax.Array) -> jax.Array:
    # No derivative of the transform is asked for: a callback has none.
    fixed = jax.lax.stop_gradient(image)
    return image + jax.lax.stop_gradient(transform(fixed) - fixed)
