"""Networks as pairs `(apply_fn, variables)`, as `synthesize` takes them.

A plain function `f(variables, images [B, H, W, C]) -> logits [B, K]` needs no adapter. For Equinox, whose modules see
one image and are pytrees themselves: `arrays, static = eqx.partition(model, eqx.is_array)` and
`lambda arrays, images: jax.vmap(eqx.combine(arrays, static))(images)`.
"""

import functools
from typing import Any

import jax
from flax import linen, nnx

from outgen_jax.networks import ApplyFn


def from_nnx(model: nnx.Module) -> tuple[ApplyFn, nnx.State]:
    """Splits an NNX network, put into inference mode, into `apply_fn` and its variables.

    Networks of one structure share one `apply_fn`, so new weights do not compile again.
    """
    model = nnx.clone(model)
    model.eval()
    graphdef, variables = nnx.split(model)
    return _nnx_apply(graphdef), variables


@functools.lru_cache(maxsize=64)
def _nnx_apply(graphdef: nnx.GraphDef) -> ApplyFn:
    return lambda variables, images: nnx.merge(graphdef, variables)(images)


def from_linen(module: linen.Module, **options: Any) -> ApplyFn:
    """`apply_fn` of a Flax linen network; `options` go to every call, for example `train=False`."""

    def apply_fn(variables: Any, images: jax.Array) -> jax.Array:
        logits: jax.Array = module.apply(variables, images, **options)  # type: ignore[assignment]
        return logits

    return apply_fn
