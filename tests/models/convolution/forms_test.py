"""At which precision, and on which processors, factors are rounded to bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.models import conv
from outgen_jax.models.convolution import processor


def products(precision: str | None, dtype: jnp.dtype = jnp.float32) -> str:
    """The compiled program of a wide convolution and both gradients."""
    x, kernel = jnp.ones((1, 4, 4, 32), dtype), jnp.ones((3, 3, 32, 32), dtype)

    def call(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv.convolution(x, kernel).sum()

    with jax.default_matmul_precision(precision):
        return jax.jit(jax.grad(call, (0, 1))).lower(x, kernel).as_text()


def rounded(text: str) -> int:
    """How many products have bfloat16 factors."""
    return sum("dot_general" in line and "bf16" in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("has", "precision", "expected"),
    [
        (True, "bfloat16", True),
        (True, "BF16_BF16_F32", True),
        (True, "highest", False),
        (True, None, False),
        (False, "bfloat16", False),
    ],
)
def test_only_at_its_precision_and_where_the_processor_has_it(
    monkeypatch, has, precision, expected
):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: has)
    # The gradient to the image; that to the kernel stays in float32, and the value is not needed.
    assert (rounded(products(precision)) > 0) == expected


def test_rounding_changes_results_by_bfloat16_s_error(monkeypatch):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 32)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 32, 32)), jnp.float32)
    exact = conv.convolution(x, kernel)
    with jax.default_matmul_precision("bfloat16"):
        near = conv.convolution(x, kernel)
    error = float(jnp.abs(near - exact).max() / jnp.abs(exact).max())
    assert 1e-4 < error < 2e-2
