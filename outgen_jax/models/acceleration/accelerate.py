"""A network with its convolutions and pooling in the fastest forms of the platform.

Networks of `flax.nnx.Conv`, `flax.linen.Conv`, `equinox.nn.Conv2d`, `haiku.Conv2D`, Keras or
`jax.lax.conv_general_dilated` call XLA's convolution. On CPU its gradients are up to a hundred
times slower than need be, most of all inside `jax.lax.scan`. `accelerate` traces the network and
exchanges the equations of its jaxpr:

  - `conv_general_dilated` by the primitive of `convolution.primitives`, in any layout,
  - pooling and its gradients by those of `pooling`,
  - the logarithm of a softmax by its closed form, any other by one whose derivative at 0 is 0 (`logarithm`),

in the bodies of `jit`, `checkpoint`, `scan`, `while_loop`, `cond`, `custom_jvp` and `custom_vjp`
too. All other equations stay as they are. On GPU and TPU the new primitives are XLA's convolutions.
"""

import contextlib
import functools
import logging
import types
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.extend import linear_util as lu
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from outgen_jax.models.acceleration import convolutions, logarithm, pooling

P = ParamSpec("P")
R = TypeVar("R")

# Names of the primitives whose equation may have its bodies exchanged, with the parameters that hold them.
_BODIES = {
    "jit": ("jaxpr",),
    "pjit": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
    "core_call": ("call_jaxpr",),
    "checkpoint": ("jaxpr",),
    "remat": ("jaxpr",),
    "remat2": ("jaxpr",),
    "scan": ("jaxpr",),
    "while": ("cond_jaxpr", "body_jaxpr"),
    "cond": ("branches",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
}
_ATTRIBUTE = "_outgen_jax_accelerated"
# What may get the attribute. An object may copy what it holds, or list it as its state.
_FUNCTIONS = (types.FunctionType, functools.partial, type(jax.jit(abs)))
_logger = logging.getLogger(__name__)


def accelerate(apply_fn: Callable[P, R]) -> Callable[P, R]:
    """`apply_fn` with faster convolutions and pooling: the same results up to float32 rounding.

    >>> import jax, jax.numpy as jnp
    >>> def apply_fn(variables, images):
    ...     numbers = ("NHWC", "HWIO", "NHWC")
    ...     x = jax.lax.conv_general_dilated(images, variables, (1, 1), "SAME", dimension_numbers=numbers)
    ...     return x.mean((1, 2))
    >>> fast = accelerate(apply_fn)
    >>> fast(jnp.ones((3, 3, 3, 8)), jnp.ones((2, 4, 4, 3))).shape
    (2, 8)
    >>> fast is accelerate(apply_fn)
    True

    It can be differentiated in reverse and forward mode, any number of times, with respect to
    images and variables; under `jax.vmap`, `jax.jit` and inside loops. Call it under `jax.jit`:
    outside, each call traces `apply_fn` again.

    Args:
      apply_fn: a function of arrays, pytrees of them, and other values, which are passed on as they are.

    Returns:
      A function of the same arguments, the same at each call for one function `apply_fn` and as long as that lives, so
      that a compiled program is found again; for a callable object, an equal one. `apply_fn` itself if it is
      accelerated already or comes from `as_written`.
    """
    if isinstance(apply_fn, _Accelerated | _AsWritten):
        return apply_fn
    # On the function itself, because a table of functions would keep them alive by their values.
    known = getattr(apply_fn, _ATTRIBUTE, None)
    if (
        isinstance(known, _Accelerated) and known.apply_fn is apply_fn
    ):  # not copied by functools.wraps
        return known
    accelerated = _Accelerated(apply_fn)
    if isinstance(apply_fn, _FUNCTIONS):  # of a method or a network they are equal, not the same
        with contextlib.suppress(AttributeError):
            setattr(apply_fn, _ATTRIBUTE, accelerated)
    return accelerated


def as_written(apply_fn: Callable[P, R]) -> Callable[P, R]:
    """Returns `apply_fn` as a function that `accelerate` leaves unchanged.

    >>> plain = as_written(lambda variables, images: images.mean((1, 2)) @ variables)
    >>> accelerate(plain) is plain
    True
    """
    return _AsWritten(apply_fn)


class _Wrapper:
    """A function made of an `apply_fn`, equal to another made of an equal one."""

    def __init__(self, apply_fn: Callable[..., Any]) -> None:
        self.apply_fn = apply_fn
        functools.update_wrapper(self, apply_fn, updated=())  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.apply_fn == other.apply_fn

    def __hash__(self) -> int:
        return hash((type(self), self.apply_fn))


class _AsWritten(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_fn(*args, **kwargs)


class _Accelerated(_Wrapper):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]

        def of_arrays(*arrays: Any) -> Any:
            filled = list(leaves)
            for i, array in zip(places, arrays, strict=True):
                filled[i] = array
            args, kwargs = jax.tree.unflatten(structure, filled)
            return self.apply_fn(*args, **kwargs)

        arrays = [leaves[i] for i in places]
        try:
            jaxpr, shapes = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        except (TypeError, jax.errors.JAXIndexError):
            # It looks at values, or returns what is no array. Or fails, and says so here:
            return self.apply_fn(*args, **kwargs)
        faster = _exchange(jaxpr, {})
        return jax.tree.unflatten(jax.tree.structure(shapes), jaxpr_as_fun(faster)(*arrays))


_Known = dict[int, tuple[Any, Any]]  # of a jaxpr: itself, so that it lives, and what it became


def _exchange(jaxpr: Any, known: _Known) -> Any:
    """A `Jaxpr`, `ClosedJaxpr` or tuple of them with faster equations; the same object if there are none."""
    if isinstance(jaxpr, tuple):
        bodies = tuple(_exchange(body, known) for body in jaxpr)
        return bodies if any(a is not b for a, b in zip(bodies, jaxpr, strict=True)) else jaxpr
    if id(jaxpr) not in known:
        known[id(jaxpr)] = jaxpr, _exchange_one(jaxpr, known)
    return known[id(jaxpr)][1]


def _exchange_one(jaxpr: Any, known: _Known) -> Any:
    if isinstance(jaxpr, ClosedJaxpr) and jaxpr.jaxpr is not jaxpr:  # one class since JAX 0.12
        inner = _exchange(jaxpr.jaxpr, known)
        return jaxpr if inner is jaxpr.jaxpr else ClosedJaxpr(inner, jaxpr.consts)
    jaxpr, quotients = _exposed(jaxpr)
    equations = [_faster(equation, known, quotients) for equation in jaxpr.eqns]
    if all(a is b for a, b in zip(equations, jaxpr.eqns, strict=True)):
        return jaxpr
    return jaxpr.replace(eqns=equations)


def _exposed(jaxpr: Jaxpr) -> tuple[Jaxpr, logarithm.Operands]:
    """See `logarithm.exposed`; as it is where that is not possible."""
    try:
        return logarithm.exposed(jaxpr)
    except Exception:  # as in `_faster`
        _logger.debug("logarithms stay as they are", exc_info=True)
        return jaxpr, {}


def _faster(equation: JaxprEqn, known: _Known, quotients: logarithm.Operands) -> JaxprEqn:
    """The equation, exchanged or with its bodies exchanged; as it is where that is not possible."""
    try:
        operands = quotients.get(id(equation), equation.invars)
        form = convolutions.form(equation) or pooling.form(equation)
        form = form or logarithm.form(equation, operands)
        if form is not None:
            return _like(equation, form, operands)
        return _with_bodies(equation, known)
    except Exception:  # what JAX's next version writes otherwise costs speed, not the result
        _logger.debug("%s stays as it is", equation.primitive, exc_info=True)
        return equation


def _like(equation: JaxprEqn, form: Callable[..., jax.Array], operands: Sequence[Any]) -> JaxprEqn:
    """An equation that calls `form` on some operands; `equation` if the result had another shape or type."""
    (call,) = jax.make_jaxpr(jax.jit(form))(*(v.aval for v in operands)).jaxpr.eqns
    new: Any = call.outvars[0].aval
    old: Any = equation.outvars[0].aval
    if (new.shape, new.dtype) != (old.shape, old.dtype):
        return equation
    return call.replace(
        invars=list(operands),
        outvars=equation.outvars,
        source_info=equation.source_info,
        ctx=equation.ctx,
    )


def _with_bodies(equation: JaxprEqn, known: _Known) -> JaxprEqn:
    name = equation.primitive.name
    old = {body: equation.params[body] for body in _BODIES.get(name, ())}
    new = {body: _exchange(jaxpr, known) for body, jaxpr in old.items()}
    is_same = all(new[body] is old[body] for body in old)
    if name == "custom_vjp_call":
        backward = equation.params["bwd"]
        function = backward.call_wrapped if is_same else _Accelerated(backward.call_wrapped)
        new["bwd"] = lu.wrap_init(_as_precise(function), debug_info=backward.debug_info)
        if not is_same:
            new["fwd_jaxpr_thunk"] = _exchange_later(equation.params["fwd_jaxpr_thunk"])
    elif is_same:
        return equation
    if name == "custom_jvp_call":
        new["jvp_jaxpr_fun"] = _exchange_later(equation.params["jvp_jaxpr_fun"])
    return equation.replace(params={**equation.params, **new})


def _as_precise(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, traced later, with its products in the precision of now."""
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]

    def call(*args: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return function(*args)

    return call


def _exchange_later(thunk: lu.WrappedFun) -> lu.WrappedFun:
    """For a function that returns a jaxpr, its constants and more."""

    def exchanged(*args: Any) -> tuple[Any, ...]:
        jaxpr, *rest = thunk.call_wrapped(*args)
        return _exchange(jaxpr, {}), *rest

    return lu.wrap_init(exchanged, debug_info=thunk.debug_info)
