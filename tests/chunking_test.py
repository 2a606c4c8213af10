"""How many updates go into one call."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax import chunking, devices
from outgen_jax.models import conv
from outgen_jax.models.acceleration.accelerate import accelerate


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
    assert chunking.lengths(total, 10) == expected


@pytest.mark.parametrize("most", [1, 2, 10, 25])
def test_lengths_cover_all_updates_in_few_lengths(most):
    for total in range(120):
        found = chunking.lengths(total, most)
        assert sum(found) == total
        assert len(set(found)) <= 2
        assert all(0 < length <= most for length in found)


def test_split_keeps_every_row_in_order():
    rows = np.arange(74).reshape(37, 2)
    parts = chunking.split(rows, 10)
    assert [len(part) for part in parts] == [9, 9, 9, 10]
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def chunk(network):
    """An update over rows [updates, B] that passes through a network and its gradient."""

    def step(weights, images):
        return weights - jax.grad(lambda w: network(images, w).sum())(weights), None

    return jax.jit(lambda weights, images, rows: jax.lax.scan(step, weights, images[rows])[0])


def by_xla(x, kernel):
    """A convolution as JAX writes it; its gradients have other layouts than images NHWC and kernels HWIO."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


ARGUMENTS = (jnp.zeros((3, 3, 8, 8)), jnp.zeros((6, 4, 4, 8)), np.zeros((1, 2), np.int32))


@pytest.mark.parametrize(
    ("network", "expected"),
    [(conv.convolution, chunking._ON_CPU), (accelerate(by_xla), chunking._ON_CPU), (by_xla, 1)],
    ids=["the package's", "accelerated", "by XLA"],
)
def test_only_xlas_own_convolutions_forbid_scans_on_cpu(monkeypatch, network, expected):
    update = chunk(network)
    assert chunking.updates_per_call(update, *ARGUMENTS) == expected
    monkeypatch.setattr(devices, "platform_of", lambda arrays: "gpu")
    assert chunking.updates_per_call(update, *ARGUMENTS) == chunking._ON_ACCELERATOR


def test_the_arrays_and_not_the_backend_say_where_the_program_runs(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_cpu = jax.device_put(ARGUMENTS, jax.devices("cpu")[0])
    assert chunking.updates_per_call(chunk(conv.convolution), *on_cpu) == chunking._ON_CPU


def test_arguments_may_be_keys_and_functions():
    update = jax.jit(lambda f, key, x: f(key, x.shape) + x, static_argnums=0)
    found = chunking.updates_per_call(update, jax.random.normal, jax.random.key(0), np.zeros(3))
    assert found == chunking._ON_CPU


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.uint8, np.float16])
def test_arguments_may_be_numpy_arrays_of_any_type(dtype):
    update = jax.jit(lambda x, rows: (x * rows.sum()).sum())
    found = chunking.updates_per_call(update, np.zeros(3, dtype), np.zeros((1, 2), dtype))
    assert found == chunking._ON_CPU
    # The program that was asked about is the one that runs.
    traced = update.trace(np.zeros(3, dtype), np.zeros((1, 2), dtype))
    assert chunking._abstract(np.zeros(3, dtype)).dtype == traced.in_avals[0][0].dtype


def test_a_function_and_what_it_was_given_can_be_collected():
    def network(x):
        return x + 1

    update = jax.jit(lambda f, x: f(x), static_argnums=0)
    chunking.updates_per_call(update, network, np.zeros(3))
    alive = [weakref.ref(update), weakref.ref(network)]
    del update, network
    jax.clear_caches()
    gc.collect()
    assert [ref() for ref in alive] == [None, None]
