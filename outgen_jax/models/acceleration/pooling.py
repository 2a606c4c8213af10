"""Pooling over windows with gradients that are fast on CPU.

XLA's gradient of max pooling takes ten to twenty times as long on CPU as a sum of cotangents that
are masked, spread by the stride and shifted; that of average pooling up to ten times. Both are
primitives here: each pair is linear and one is the other's transpose.

    gather(tangent, x)    the tangent at the first maximum of each window of `x`
    scatter(source, x)    the source of each window added to the place of its first maximum
    window_sum(x)         the sum of each window
    spread_sum(source)    the source of each window added to all its places

On GPU and TPU they are XLA's own. Layout: any; a window has a size, stride and padding by axis.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn, Primitive
from jax.interpreters import ad, batching, mlir

from outgen_jax.models.convolution.window import abstract_result

_LARGEST = 25  # places of a window: beyond, a sum of that many arrays is not faster


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """Sizes, strides and padding (before, after) of the windows, and the shape of the array under them."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]

    def mapped(self, length: int) -> "Windows":
        """With a mapped axis in front."""
        return Windows(
            size=(1, *self.size),
            strides=(1, *self.strides),
            padding=((0, 0), *self.padding),
            shape=(length, *self.shape),
        )


def form(equation: JaxprEqn) -> Callable[..., jax.Array] | None:
    """The function that computes a pooling equation or a gradient of one; None for others."""
    name, params = equation.primitive.name, equation.params
    function = _FUNCTIONS.get(name)
    if function is None:
        return None
    array: Any = equation.invars[-1].aval
    dilations = (*params.get("base_dilation", ()), *params.get("window_dilation", ()))
    if (
        not jnp.issubdtype(array.dtype, jnp.floating)
        or set(dilations) - {1}
        or math.prod(params["window_dimensions"]) > _LARGEST
        or params.get("select_prim", lax.ge_p) is not lax.ge_p
    ):
        return None
    windows = Windows(
        size=tuple(params["window_dimensions"]),
        strides=tuple(params["window_strides"]),
        padding=tuple((before, after) for before, after in params["padding"]),
        shape=tuple(array.shape),
    )
    return functools.partial(function, windows) if min(_counts(windows)) > 0 else None


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def window_max(windows: Windows, x: jax.Array) -> jax.Array:
    """The maximum of each window; its gradient goes to the first place that has it."""
    return _xla_max(x, windows=windows)


@window_max.defjvp
def _window_max_jvp(
    windows: Windows, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return window_max(windows, x), gather(windows, tangent, x)


def gather(windows: Windows, tangent: jax.Array, x: jax.Array) -> jax.Array:
    """The `tangent` at the first maximum of each window of `x`."""
    return _gather_p.bind(tangent, x, windows=windows)


def scatter(windows: Windows, source: jax.Array, x: jax.Array) -> jax.Array:
    """Adds the `source` of each window to the place of its first maximum in `x`."""
    return _scatter_p.bind(source, x, windows=windows)


def window_sum(windows: Windows, x: jax.Array) -> jax.Array:
    """The sum of each window."""
    return _sum_p.bind(x, windows=windows)


def spread_sum(windows: Windows, source: jax.Array) -> jax.Array:
    """Adds the `source` of each window to all its places."""
    return _spread_p.bind(source, windows=windows)


_FUNCTIONS: dict[str, Callable[..., jax.Array]] = {
    "reduce_window_max": window_max,
    "reduce_window_sum": window_sum,
    "select_and_gather_add": gather,
    "select_and_scatter_add": scatter,
}


# XLA's own, for every platform.


def _xla_max(x: jax.Array, *, windows: Windows) -> jax.Array:
    lowest = np.array(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, windows.size, windows.strides, windows.padding)


def _xla_gather(tangent: jax.Array, x: jax.Array, *, windows: Windows) -> jax.Array:
    return jax.jvp(functools.partial(_xla_max, windows=windows), (x,), (tangent,))[1]


def _xla_scatter(source: jax.Array, x: jax.Array, *, windows: Windows) -> jax.Array:
    return jax.vjp(functools.partial(_xla_max, windows=windows), x)[1](source)[0]


def _xla_sum(x: jax.Array, *, windows: Windows) -> jax.Array:
    zero = np.array(0, x.dtype)
    return lax.reduce_window(x, zero, lax.add, windows.size, windows.strides, windows.padding)


def _xla_spread(source: jax.Array, *, windows: Windows) -> jax.Array:
    x = jax.ShapeDtypeStruct(windows.shape, source.dtype)
    return jax.linear_transpose(functools.partial(_xla_sum, windows=windows), x)(source)[0]


# The forms of the CPU.


def _cpu_gather(tangent: jax.Array, x: jax.Array, *, windows: Windows) -> jax.Array:
    places = zip(_first_maxima(x, windows), _seen(tangent, windows, 0), strict=True)
    zero = jnp.zeros((), tangent.dtype)
    return functools.reduce(jnp.add, [jnp.where(first, t, zero) for first, t in places])


def _cpu_scatter(source: jax.Array, x: jax.Array, *, windows: Windows) -> jax.Array:
    zero = jnp.zeros((), source.dtype)
    return _add_up([jnp.where(f, source, zero) for f in _first_maxima(x, windows)], windows)


def _cpu_spread(source: jax.Array, *, windows: Windows) -> jax.Array:
    return _add_up([source] * math.prod(windows.size), windows)


def _seen(x: jax.Array, windows: Windows, value: float) -> Iterator[jax.Array]:
    """What the windows see at each of their places, `value` in the padding."""
    config = [(before, after, 0) for before, after in windows.padding]
    padded = lax.pad(x, jnp.array(value, x.dtype), config)
    counts = _counts(windows)
    for place in np.ndindex(*windows.size):
        end = [i + (n - 1) * s + 1 for i, n, s in zip(place, counts, windows.strides, strict=True)]
        yield lax.slice(padded, place, end, windows.strides)


def _first_maxima(x: jax.Array, windows: Windows) -> list[jax.Array]:
    """For each place, in which windows it is the first to hold the maximum."""
    seen = list(_seen(x, windows, -np.inf))
    maximum = functools.reduce(jnp.maximum, seen)
    hits = [~(pixels < maximum) for pixels in seen]  # all of them where one is NaN
    firsts, taken = hits[:1], hits[0]
    for hit in hits[1:]:
        firsts.append(hit & ~taken)
        taken = taken | hit
    return firsts


def _add_up(terms: Sequence[jax.Array], windows: Windows) -> jax.Array:
    """The sum of what each place of the windows gives to the array under them."""
    zero = jnp.zeros((), terms[0].dtype)
    counts = _counts(windows)
    total = zero
    for place, term in zip(np.ndindex(*windows.size), terms, strict=True):
        config = []
        for i, n, s, (before, _), length in zip(
            place, counts, windows.strides, windows.padding, windows.shape, strict=True
        ):
            start = i - before
            config.append((start, length - start - (n - 1) * s - 1, s - 1))
        total = total + lax.pad(term, zero, config)
    return total


def _counts(windows: Windows) -> list[int]:
    return [
        (n + sum(pads) - k) // s + 1
        for n, pads, k, s in zip(
            windows.shape, windows.padding, windows.size, windows.strides, strict=True
        )
    ]


# The primitives.


def _primitive(name: str, on_cpu: Callable[..., jax.Array], xla: Callable[..., jax.Array]) -> Any:
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames="windows"))

    def batch(
        operands: Sequence[jax.Array], axes: Sequence[int | None], *, windows: Windows
    ) -> tuple[jax.Array, int]:
        (length,) = {a.shape[i] for a, i in zip(operands, axes, strict=True) if i is not None}
        arrays = [
            jnp.broadcast_to(a, (length, *a.shape)) if i is None else jnp.moveaxis(a, i, 0)
            for a, i in zip(operands, axes, strict=True)
        ]
        return primitive.bind(*arrays, windows=windows.mapped(length)), 0

    primitive.def_abstract_eval(functools.partial(abstract_result, xla))
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(xla, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), "cpu")
    return primitive


_gather_p = _primitive("pooling_gather", _cpu_gather, _xla_gather)
_scatter_p = _primitive("pooling_scatter", _cpu_scatter, _xla_scatter)
_sum_p = _primitive("pooling_sum", _xla_sum, _xla_sum)
_spread_p = _primitive("pooling_spread", _cpu_spread, _xla_spread)


def _define_transpose(primitive: Primitive, transpose: Callable[..., jax.Array]) -> None:
    """Linear in the first operand, constant in the second, where there is one."""

    def jvp(
        primals: Sequence[jax.Array], tangents: Sequence[Any], *, windows: Windows
    ) -> tuple[jax.Array, Any]:
        y = primitive.bind(*primals, windows=windows)
        tangent, *_ = tangents
        if isinstance(tangent, ad.Zero):
            return y, ad.Zero(jax.typeof(y).to_tangent_aval())
        return y, primitive.bind(tangent, *primals[1:], windows=windows)

    def rule(cotangent: Any, _: Any, *rest: Any, windows: Windows) -> list[Any]:
        if isinstance(cotangent, ad.Zero):
            return [None] * (1 + len(rest))
        return [transpose(windows, cotangent, *rest), *(None for _ in rest)]

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = rule


_define_transpose(_gather_p, scatter)
_define_transpose(_scatter_p, gather)
_define_transpose(_sum_p, spread_sum)
_define_transpose(_spread_p, window_sum)
