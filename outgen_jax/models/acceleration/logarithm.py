"""Logarithms of probabilities, for networks that end in a softmax.

In `jnp.log(jax.nn.softmax(x))` a probability that underflows has the logarithm minus infinity, and no derivative.
log(e^a / s) is a − log s, which loses nothing. Where there is no such form, the derivative of the logarithm at 0 is
taken for 0: it is infinite, and times 0 it would be NaN for all pixels, in the rows of other classes too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn


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


def operands(equation: JaxprEqn, makers: Mapping[int, JaxprEqn]) -> Sequence[Any]:
    """Those of an equation; of log(e^a / s), a and s instead of the quotient."""
    if equation.primitive.name != "log":
        return equation.invars
    quotient = makers.get(id(equation.invars[0]))
    if quotient is None or quotient.primitive.name != "div":
        return equation.invars
    power = makers.get(id(quotient.invars[0]))
    if power is None or power.primitive.name != "exp":
        return equation.invars
    return power.invars[0], quotient.invars[1]


def form(equation: JaxprEqn, operands: Sequence[Any]) -> Callable[..., jax.Array] | None:
    """What computes an equation that takes a logarithm of real numbers from its `operands`; None for others."""
    if equation.primitive.name != "log":
        return None
    if not all(jnp.issubdtype(operand.aval.dtype, jnp.floating) for operand in operands):
        return None
    found: Callable[..., jax.Array] = log if len(operands) == 1 else _log_of_quotient
    return found


def _log_of_quotient(exponent: jax.Array, divisor: jax.Array) -> jax.Array:
    """log(e^a / s) = a − log s."""
    return exponent - log(divisor)
