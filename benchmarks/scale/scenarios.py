"""The sets, methods and machines that the page shows; every assumption is a number here."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.scale.model import Machine, Work

# An H200 by its data sheet, without sparsity: operations a second, bytes a second of PCIe 5 x16 in one direction.
PEAKS = {"float32": 67e12, "bfloat16": 989e12}
LINK = 64e9
# Assumed: shares of the peak that synthesis sustains, accelerators of a host, bytes a second to disk.
SHARES = (0.3, 0.6)
PER_HOST, DISK = 8, 1e9
ACCELERATORS = (1, 8, 64)
SGD_UPDATES = 100  # paper A's
STEPS_OF_CALL = 25  # on GPU and TPU, see `outgen_jax.chunking`


class Scenario(NamedTuple):
    """A set, and how its images are changed."""

    name: str
    images: int
    size: int
    method: str  # "SGD", or "exact": the default solver with ten classes
    arithmetic: str


SCENARIOS = (
    Scenario("CIFAR-10", 50_000, 32, "exact", "float32"),
    Scenario("CIFAR-10", 50_000, 32, "SGD", "bfloat16"),
    Scenario("ImageNet", 1_281_167, 224, "SGD", "float32"),
    Scenario("ImageNet", 1_281_167, 224, "SGD", "bfloat16"),
    Scenario("LAION-400M", 400_000_000, 224, "SGD", "bfloat16"),
)


def work(scenario: Scenario, measured: Mapping[str, Any]) -> Work:
    """What it takes, of what was measured."""
    size = str(scenario.size)
    steps, passes = SGD_UPDATES, 2
    if scenario.method == "exact":
        steps, passes = measured["exact_steps"], measured["exact_passes"]
    calls = steps / STEPS_OF_CALL
    return Work(
        images=scenario.images,
        values=3 * scenario.size**2,
        passes=steps * passes,
        flops=measured["flops_of_pass"] * (scenario.size / 32) ** 2,
        host_seconds=measured["handing"][size] + calls * measured["calling"],
        writer_seconds=measured["writing"][size]["seconds"],
        stored=measured["writing"][size]["bytes"],
    )


def machine(scenario: Scenario, accelerators: int, share: float) -> Machine:
    """H200s, eight to a host."""
    return Machine(
        accelerators=accelerators,
        per_host=PER_HOST,
        peak=PEAKS[scenario.arithmetic],
        sustained=share,
        link=LINK,
        disk=DISK,
    )
