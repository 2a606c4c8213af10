"""Logarithms of probabilities, for networks that end in a softmax.

In `jnp.log(jax.nn.softmax(x))` a probability that underflows has the logarithm minus infinity, and no derivative.
log(e^a / s) is a − log s, which loses nothing. Where there is no such form, the derivative of the logarithm at 0 is
taken for 0: it is infinite, and times 0 it would be NaN for all pixels, in the rows of other classes too.
"""

from collections.abc import Callable, Mapping
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


def form(equation: JaxprEqn) -> Callable[..., jax.Array] | None:
    """What replaces an equation that takes a logarithm of real numbers, or of a softmax; None for others."""
    if equation.primitive.name != "log":
        return None
    operand: Any = equation.invars[0].aval
    if not jnp.issubdtype(operand.dtype, jnp.floating):
        return None
    found: Callable[..., jax.Array] = log if len(equation.invars) == 1 else _log_of_quotient
    return found


def of_softmax(equation: JaxprEqn, makers: Mapping[int, JaxprEqn]) -> JaxprEqn:
    """log(e^a / s) with a and s for its operands; any other equation as it is.

    `form` gives such an equation a − log s.
    """
    if equation.primitive.name != "log":
        return equation
    quotient = makers.get(id(equation.invars[0]))
    if quotient is None or quotient.primitive.name != "div":
        return equation
    power = makers.get(id(quotient.invars[0]))
    if power is None or power.primitive.name != "exp":
        return equation
    return equation.replace(invars=[power.invars[0], quotient.invars[1]])


def _log_of_quotient(exponent: jax.Array, divisor: jax.Array) -> jax.Array:
    """log(e^a / s) = a − log s."""
    return exponent - log(divisor)
