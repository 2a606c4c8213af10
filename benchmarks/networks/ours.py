"""The JAX sides: `og.synthesize` with each network, and images alone against the same images in a batch."""

import jax
import numpy as np

import outgen_jax as og
from benchmarks.harness import synthesis
from benchmarks.harness.alternation import Updates
from benchmarks.networks import written
from benchmarks.networks.workload import EFFICIENTNET, OWN, RESNET20, VGG16, Workload
from benchmarks.synthesis import ours

# Network and what it is written in -> `apply_fn, variables`.
_NETWORKS = {
    (VGG16, OWN): lambda workload: ours.network(workload.vgg16(), "float32"),
    (VGG16, "flax.nnx"): lambda workload: written.nnx_vgg16(workload.vgg16().weights()),
    (VGG16, "Equinox"): lambda workload: written.equinox_vgg16(workload.vgg16().weights()),
    (RESNET20, "jax.lax"): lambda workload: written.lax_resnet20(workload.resnet20()),
    (EFFICIENTNET, OWN): lambda workload: og.models.from_nnx(
        og.models.pretrained.load(EFFICIENTNET).model
    ),
}


def outgen(workload: Workload, *, written_in: str) -> Updates:
    """Paper A's SGD as a user runs it; `written_in` is one of those of the network in `NETWORKS`."""
    jax.config.update("jax_enable_compilation_cache", False)
    return synthesis.updates(network(workload, written_in), workload.images(), workload.targets())


def network(workload: Workload, written_in: str) -> written.Network:
    return _NETWORKS[workload.network, written_in](workload)


class Alone:
    """What the other images of a batch change in an image."""

    def __init__(self, workload: Workload, *, written_in: str) -> None:
        self._network = network(workload, written_in)
        self._images, self._targets = workload.images(), workload.targets()

    def differences(self, updates: int, number: int) -> np.ndarray:
        """[number]: the largest difference of a pixel, for each of the first images of the batch."""
        together = self._synthesize(slice(None), updates)[:number]
        alone = [self._synthesize(slice(i, i + 1), updates) for i in range(number)]
        return np.abs(np.concatenate(alone) - together).max((1, 2, 3))

    def _synthesize(self, rows: slice, updates: int) -> np.ndarray:
        images, solver = self._images[rows], og.preset("sgd", steps=updates)
        found = og.synthesize(
            *self._network, images, self._targets[rows], solver=solver, batch_size=len(images)
        )
        return found.images
