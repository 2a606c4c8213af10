"""What programs for accelerators must not hold is found in them."""

import jax
import jax.numpy as jnp
import lowered
import numpy as np
import pytest


def on_the_host(x):
    return jax.pure_callback(np.asarray, x, x)


def in_float64(x):
    return x.astype(jnp.float64)


@pytest.mark.parametrize(
    ("function", "name"),
    # JAX itself refuses a call of the host for a platform that is not there.
    [(on_the_host, "call of the host|platform"), (in_float64, "float64")],
)
def test_what_is_forbidden_is_found(function, name):
    with jax.enable_x64(True):
        traced = jax.jit(function).trace(jax.ShapeDtypeStruct((3,), jnp.float32))
        with pytest.raises((AssertionError, ValueError), match=name):
            list(lowered.texts(traced))


def test_a_dynamic_shape_is_found():
    (rows,) = jax.export.symbolic_shape("rows")
    traced = jax.jit(jnp.sin).trace(jax.ShapeDtypeStruct((rows, 2), jnp.float32))
    with pytest.raises(AssertionError, match="a dynamic shape"):
        list(lowered.texts(traced))


def test_what_is_not_donated_is_not_in_place():
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    for donate, expected in [(0, True), ((), False)]:
        traced = jax.jit(jnp.sin, donate_argnums=donate).trace(shape)
        assert all(lowered.is_in_place(traced, text) == expected for text in lowered.texts(traced))
