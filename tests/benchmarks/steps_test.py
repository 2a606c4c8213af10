"""Steps of a batch are counted, timed and handed from call to call."""

import functools
import re

import jax
import jax.numpy as jnp
import lowered
import optax
import pytest

import outgen_jax as og
from benchmarks.harness.steps import Steps
from benchmarks.harness.workload import CLASSES, Workload, layers
from benchmarks.synthesis import ours

BATCH = 7  # no other size of the network


@pytest.fixture
def workload(five_layers: None) -> Workload:
    return Workload(width=1 / 16, batch_size=BATCH)


def steps(workload: Workload, solver: og.Solver, **options) -> Steps:
    network = ours.network(workload, "float32")
    return Steps(network, solver, workload.images(), workload.targets(), **options)


def products(workload: Workload) -> int:
    """Of one pass of one image; at the border of a map a 3×3 kernel lies partly outside."""
    convolutions = [layer for block in layers(workload.width) for layer in block]
    inside = sum(c * k * (3 * size - 2) ** 2 for c, k, size in convolutions)
    return inside + convolutions[-1][1] * CLASSES


# Forward, nine rows backward, and what a loop over trials and their corrections has in its body: XLA counts it once.
PASSES = {
    "sgd": (og.preset("sgd"), 2),
    "gradient_descent": (og.gradient_descent(optax.adam(0.01), lowpass_radius=8), 2),
    "smallest_change": (og.smallest_change(), 1 + 9 + 1),
    "gauss_newton": (og.gauss_newton(), 1 + 9 + 1),
}


@pytest.mark.parametrize("name", PASSES)
def test_convolutions_of_a_step_are_batched_and_counted(name, workload):
    """On GPU and TPU: all images at once, not one of them in a loop; the slots are updated in place."""
    solver, passes = PASSES[name]
    made = steps(workload, solver)
    for text in lowered.texts(made.traced):
        total = 0
        for (images, kernel), result, dtype in lowered.convolutions(text):
            assert dtype == "f32"
            assert images[0] == result[0]
            assert images[0] % BATCH == 0
            size, inputs, outputs = images[1], kernel[2], kernel[3]
            total += images[0] * inputs * outputs * (3 * size - 2) ** 2
        convolutions = products(workload) - 4 * CLASSES
        assert total == passes * BATCH * convolutions
        assert lowered.is_in_place(made.traced, text)


def test_a_network_in_bfloat16_convolves_in_it(workload):
    network = ours.network(workload, "bfloat16")
    images, targets = workload.images(), workload.targets()
    made = Steps(network, og.preset("sgd"), images, targets, precision="bfloat16")
    for text in lowered.texts(made.traced):
        assert {found.dtype for found in lowered.convolutions(text)} == {"bf16"}


@pytest.mark.parametrize(
    ("precision", "lowers_to"),
    [("highest", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "DEFAULT")],
)
def test_precisions_are_those_of_jax(precision, lowers_to):
    """On a GPU, XLA computes HIGH and DEFAULT of float32 alike in TF32: "bfloat16" asks for no bfloat16 there."""
    product = jax.jit(functools.partial(jnp.matmul, precision=precision))
    square = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    for text in lowered.texts(product.trace(square, square)):
        found = re.search(r"precision = \[(\w+), \1\]", text)
        assert (found[1] if found else "DEFAULT") == lowers_to
        assert "bf16" not in text


def test_a_step_is_timed_more_than_once_and_its_memory_grows_with_the_batch(workload):
    made = steps(workload, og.preset("sgd"), updates=2)
    compiled = made.compile()
    found = made.seconds(compiled, most=3)
    assert len(found) == 3
    assert min(found) > 0
    larger = steps(workload._replace(batch_size=4 * BATCH), og.preset("sgd"), updates=2)
    memory = [of.memory_analysis().temp_size_in_bytes for of in (compiled, larger.compile())]
    assert memory[0] > 2 * workload.images().nbytes
    assert 2 < memory[1] / memory[0] < 4.5
