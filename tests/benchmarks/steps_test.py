"""Steps of a batch are counted, timed and handed from call to call."""

import re

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


PASSES = {
    "sgd": (og.preset("sgd"), 2),
    # Forward, nine rows backward, and a trial with its correction; XLA counts a loop's body once.
    "smallest_change": (og.smallest_change(), 1 + 9 + 2),
}


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_convolutions_of_a_step_are_batched_and_counted(name, platform, workload):
    solver, passes = PASSES[name]
    text = steps(workload, solver, platform=platform).lowered.as_text()
    found = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    total = 0
    for line in found:
        assert "feature_group_count = 1 " in line
        assert "batch_group_count = 1 " in line
        images, kernel, made = (
            [int(n) for n in re.findall(r"(\d+)x", shape)]
            for shape in re.findall(r"tensor<([\dx]+f32)>", line)
        )
        assert images[0] == made[0]
        assert images[0] % BATCH == 0  # all images at once, not one of them in a loop
        size, inputs, outputs = images[1], kernel[2], kernel[3]
        total += images[0] * inputs * outputs * (3 * size - 2) ** 2
    convolutions = products(workload) - 4 * CLASSES
    assert total == passes * BATCH * convolutions
    assert "tf.aliasing_output" in text  # the slots are updated in place


def test_a_step_is_timed_more_than_once(workload):
    made = steps(workload, og.preset("sgd"), updates=2)
    found = made.seconds(made.compile(), most=3)
    assert len(found) == 3
    assert min(found) > 0
    assert made.compile().memory_analysis().temp_size_in_bytes > 0
