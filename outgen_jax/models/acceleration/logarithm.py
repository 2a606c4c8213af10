"""Logarithms of probabilities, for networks that end in a softmax.

In `jnp.log(jax.nn.softmax(x))` a probability that underflows has the logarithm minus infinity, and no derivative. There
log(e^a / s) is computed as a − log s. The quotient may come out of a function that was compiled by `jax.jit`. Where
there is no such form, the derivative of the logarithm at 0 is taken for 0: it is infinite, and times 0 it would be NaN
for all pixels, in the rows of other classes too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

_CALLS = ("jit", "pjit")
Operands = dict[int, tuple[Any, ...]]  # by the identity of an equation


@jax.custom_jvp
def log(x: jax.Array) -> jax.Array:
    """The logarithm, with the derivative 1/x where x is not 0, and 0 where it is; any shape.

    >>> import jax, jax.numpy as jnp
    >>> jax.grad(lambda x: log(x).sum())(jnp.array([0.0, 0.5])).tolist()
    [0.0, 2.0]
    """
    return jax.lax.log(x)


@log.defjvp
def _log_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    is_zero = x == 0
    slope = jnp.where(is_zero, jnp.zeros_like(x), 1 / jnp.where(is_zero, jnp.ones_like(x), x))
    return log(x), slope * tangent


def exposed(jaxpr: Jaxpr) -> tuple[Jaxpr, Operands]:
    """A jaxpr, and a, s and q of its equations log q where q is e^a / s.

    Where q is the result of a compiled function, the new jaxpr has one that returns a and s as well.
    """
    operands = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "log":
            found = _quotient(jaxpr, equation.invars[0])
            if found is not None:
                jaxpr, parts = found
                operands[id(equation)] = (*parts, equation.invars[0])
    return jaxpr, operands


def _quotient(jaxpr: Jaxpr, value: Any) -> tuple[Jaxpr, tuple[Any, Any]] | None:
    """The jaxpr, exposed, with its a and s of a value e^a / s; None if that is another."""
    makers = {id(var): equation for equation in jaxpr.eqns for var in equation.outvars}
    maker = makers.get(id(value))
    if maker is None:
        return None
    if maker.primitive.name in _CALLS:
        return _from_call(jaxpr, maker, value)
    power = makers.get(id(maker.invars[0])) if maker.primitive.name == "div" else None
    if power is None or power.primitive.name != "exp":
        return None
    return jaxpr, (power.invars[0], maker.invars[1])


def _from_call(jaxpr: Jaxpr, call: JaxprEqn, value: Any) -> tuple[Jaxpr, tuple[Any, Any]] | None:
    """`_quotient` for a value that `call`, an equation of the jaxpr, returns."""
    body = call.params["jaxpr"]
    place = next(i for i, var in enumerate(call.outvars) if var is value)
    found = _quotient(body.jaxpr, body.jaxpr.outvars[place])
    if found is None or any(isinstance(part, Literal) for part in found[1]):
        return None
    inner, parts = found
    inner = inner.replace(outvars=[*inner.outvars, *parts])
    is_one_class = body.jaxpr is body  # since JAX 0.12
    function = jaxpr_as_fun(inner if is_one_class else ClosedJaxpr(inner, body.consts))
    (more,) = jax.make_jaxpr(jax.jit(function))(*(v.aval for v in call.invars)).jaxpr.eqns
    new = more.replace(
        invars=call.invars,
        outvars=[*call.outvars, *more.outvars[-2:]],
        source_info=call.source_info,
        ctx=call.ctx,
    )
    equations = [new if equation is call else equation for equation in jaxpr.eqns]
    exponent, divisor = more.outvars[-2:]
    return jaxpr.replace(eqns=equations), (exponent, divisor)


def form(equation: JaxprEqn, operands: Sequence[Any]) -> Callable[..., jax.Array] | None:
    """What computes an equation that takes a logarithm of real numbers from its `operands`; None for others."""
    if equation.primitive.name != "log":
        return None
    if not all(jnp.issubdtype(operand.aval.dtype, jnp.floating) for operand in operands):
        return None
    return log if len(operands) == 1 else _log_of_quotient


def _log_of_quotient(exponent: jax.Array, divisor: jax.Array, quotient: jax.Array) -> jax.Array:
    """log(e^a / s); a − log s where the quotient has no logarithm, since e^a or s is too small or too large."""
    is_lost = (quotient == 0) | ~jnp.isfinite(quotient)
    one = jnp.ones((), quotient.dtype)
    # Both are differentiated: an infinite slope of one must not meet the other's 0.
    direct = log(jnp.where(is_lost, one, quotient))
    return jnp.where(is_lost, exponent - log(jnp.where(is_lost, divisor, one)), direct)
