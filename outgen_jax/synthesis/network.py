"""The network of one image, as solvers see it: all parts of the output as rows of float32."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax.models.acceleration.accelerate import accelerate
from outgen_jax.outputs import Output
from outgen_jax.solvers.jacobian import ViewedNetwork
from outgen_jax.solvers.objective import Outputs
from outgen_jax.synthesis.programs import Network


def of_one_image(
    network: Network, kinds: tuple[Output, ...], variables: Any
) -> Callable[[jax.Array], Outputs]:
    """A function of one image [H, W, C] -> its outputs, one [R, K] float32 a part, cleaned.

    A `ViewedNetwork` for the network of `og.views`.
    """
    seen = network.views()
    if seen is None:
        return lambda image: _rows(kinds, raw_outputs(network, variables, image))
    apply_fn = _precisely(network.precision, accelerate(seen.apply_fn))
    return ViewedNetwork(
        tuple(_precisely(network.precision, accelerate(show)) for show in seen.transforms),
        lambda shown: _rows(kinds, apply_fn(variables, shown)),
    )


def raw_outputs(network: Network, variables: Any, image: jax.Array) -> Any:
    """One image [H, W, C] float32 -> what the network returns for a batch of it alone."""
    return _precisely(network.precision, network.apply_fn)(variables, image[None])


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 or float on the host -> float32 in [0, 1]; one program then serves both."""
    if images.dtype == np.uint8:
        return images / np.float32(255)
    return images.astype(np.float32, copy=False)


def _rows(kinds: tuple[Output, ...], tree: Any) -> Outputs:
    """What a network returns for a batch of one image, or of its views -> its parts as rows [R, K]."""
    parts = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    return tuple(jax.vmap(kind.cleaned)(r) for kind, r in zip(kinds, rows, strict=True))


def _precisely(precision: str | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its matrix products in a precision; None: in that of the device."""

    def call(*args: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return function(*args)

    return call
