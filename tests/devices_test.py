"""Where arrays lie."""

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import devices


class Placed:
    """Stands in for an array that was put on another platform's device."""

    committed = True

    def devices(self):
        class Device:
            platform = "tpu"

        return {Device()}


def test_arrays_that_were_put_somewhere_say_where(monkeypatch):
    cpu = jax.devices("cpu")[0]
    placed = {"n": 3, "host": np.zeros(2), "weights": jax.device_put(jnp.zeros(2), cpu)}
    assert devices.platform_of(placed) == "cpu"
    monkeypatch.setattr(devices.jax, "Array", Placed)
    assert devices.platform_of([np.zeros(2), Placed()]) == "tpu"


def test_without_such_arrays_it_is_the_default_device(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # not asked
    with jax.default_device(jax.devices("cpu")[0]):
        assert devices.platform_of() == devices.platform_of(np.zeros(3)) == "cpu"
        assert devices.platform_of(jnp.zeros(3)) == "cpu"


def test_in_a_trace_it_is_the_default_device():
    found = []

    @jax.jit
    def traced(x):
        found.append(devices.platform_of(x))
        return x

    traced(jnp.zeros(3))
    assert found == ["cpu"]


def test_keys_have_a_place():
    assert devices.platform_of(jax.random.key(0)) == "cpu"


def test_processors_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert devices.processors() == 3
    monkeypatch.delattr(devices.os, "sched_getaffinity")
    monkeypatch.setattr(devices.os, "cpu_count", lambda: None)
    assert devices.processors() == 1
