"""The peak memory of one call, in a process of its own."""

import resource

import jax
import numpy as np
from flax import nnx

import outgen_jax as og

MIB = 2**20


def peak(images: int, batch_size: int, width: float) -> dict[str, float]:
    """MiB of this process at most, and of them the arrays given and returned."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (images, 32, 32, 3), np.uint8)
    targets = rng.dirichlet(np.ones(10), images).astype(np.float32)
    model = og.models.VGG16(width_multiplier=width, rngs=nnx.Rngs(0))
    model.eval()
    network = og.models.from_nnx(model)
    result = og.synthesize(
        *network, source, targets, solver=og.preset("sgd", steps=1), batch_size=batch_size
    )
    leaves = jax.tree.leaves(
        (source, targets, result)
    )  # some of a result's say what its outputs are
    arrays = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, np.ndarray))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"peak": most / MIB, "arrays": arrays / MIB}
