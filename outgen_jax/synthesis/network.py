"""The network of one image, as solvers see it: all parts of the output as rows of float32."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.outputs import Output
from outgen_jax.solvers.objective import Outputs
from outgen_jax.synthesis.programs import Network


def outputs_of(
    network: Network, kinds: tuple[Output, ...], variables: Any, image: jax.Array
) -> Outputs:
    """One image [H, W, C] -> its outputs, one [R, K] float32 a part, cleaned."""
    tree = raw_outputs(network, variables, image)
    parts = [leaf[0].astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    return tuple(jax.vmap(kind.cleaned)(r) for kind, r in zip(kinds, rows, strict=True))


def raw_outputs(network: Network, variables: Any, image: jax.Array) -> Any:
    """One image [H, W, C] float32 -> what the network returns for a batch of it alone."""
    with _precision(network.precision):
        return network.apply_fn(variables, image[None])


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 or float on the host -> float32 in [0, 1]; one program then serves both."""
    if images.dtype == np.uint8:
        return images / np.float32(255)
    return images.astype(np.float32, copy=False)


@contextlib.contextmanager
def _precision(precision: str | None) -> Iterator[None]:
    if precision is None:
        yield
        return
    with jax.default_matmul_precision(precision):
        yield
