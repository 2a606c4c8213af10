"""How many updates go into one call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax import loops
from outgen_jax.models import conv


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, []),
        (1, [1]),
        (9, [9]),
        (10, [10]),
        (18, [9, 9]),
        (100, [10] * 10),
        (11, [5, 6]),
        (37, [9, 9, 9, 10]),
    ],
)
def test_lengths_are_one_where_they_can_be(total, expected):
    assert loops.lengths(total, 10) == expected


@pytest.mark.parametrize("most", [1, 2, 10, 25])
def test_lengths_cover_all_updates_in_few_lengths(most):
    for total in range(120):
        found = loops.lengths(total, most)
        assert sum(found) == total
        assert len(set(found)) <= 2
        assert all(0 < length <= most for length in found)


def test_split_keeps_every_row_in_order():
    rows = np.arange(74).reshape(37, 2)
    parts = loops.split(rows, 10)
    assert [len(part) for part in parts] == [9, 9, 9, 10]
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def chunk(network):
    """An update over rows [updates, B] that passes through a network and its gradient."""

    def step(weights, images):
        return weights - jax.grad(lambda w: network(images, w).sum())(weights), None

    return jax.jit(lambda weights, images, rows: jax.lax.scan(step, weights, images[rows])[0])


@pytest.mark.parametrize(
    ("strides", "expected"), [(1, loops._ON_CPU), (2, 1)], ids=["as products", "by XLA"]
)
def test_only_xlas_own_convolutions_forbid_loops_on_cpu(monkeypatch, strides, expected):
    update = chunk(lambda x, kernel: conv.convolution(x, kernel, strides=strides))
    arguments = (jnp.zeros((3, 3, 8, 8)), jnp.zeros((6, 4, 4, 8)), np.zeros((1, 2), np.int32))
    assert loops.updates_per_call(update, *arguments) == expected
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert loops.updates_per_call(update, *arguments) == loops._ON_ACCELERATOR


def test_arguments_may_be_keys_and_functions():
    update = jax.jit(lambda f, key, x: f(key, x.shape) + x, static_argnums=0)
    found = loops.updates_per_call(update, jax.random.normal, jax.random.key(0), np.zeros(3))
    assert found == loops._ON_CPU
