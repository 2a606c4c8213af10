"""The JAX sides of the synthesis benchmark: `og.synthesize` itself, and pieces of it."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import outgen_jax as og
from benchmarks.harness import synthesis
from benchmarks.harness.alternation import Operations, Updates
from benchmarks.harness.workload import CLASSES, Weights, Workload
from outgen_jax import losses, scripts
from outgen_jax.data import sources
from outgen_jax.networks import ApplyFn


def outgen(workload: Workload, *, dtype: str = "float32", cache: bool = False) -> Updates:
    """Paper A's SGD as a user runs it; `cache`: with the scripts' persistent compilation cache."""
    jax.config.update("jax_enable_compilation_cache", cache)
    if cache:
        scripts.enable_compilation_cache()
    return synthesis.updates(network(workload, dtype), workload.images(), workload.targets())


def network(workload: Workload, dtype: str) -> tuple[ApplyFn, Any]:
    """`apply_fn, variables` of VGG16 with the workload's weights; the computation is in `dtype`."""
    return og.models.from_nnx(build(workload, dtype))


def build(workload: Workload, dtype: str) -> og.models.VGG16:
    """VGG16 with the workload's weights."""
    model = nnx.eval_shape(
        lambda: og.models.VGG16(CLASSES, workload.width, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    )
    model.dropout = nnx.Dropout(model.dropout.rate, rngs=nnx.Rngs(0))
    _set_weights(model, workload.weights())
    return model


def _set_weights(model: og.models.VGG16, weights: Weights) -> None:
    for layers, arrays in zip(model.blocks, weights.blocks, strict=True):
        for layer, a in zip(layers, arrays, strict=True):
            layer.kernel.set_value(jnp.asarray(a.kernel))
            for name in ("scale", "bias", "mean", "var"):
                getattr(layer.norm, name).set_value(jnp.asarray(getattr(a, name)))
    model.head.kernel.set_value(jnp.asarray(weights.kernel))
    assert model.head.bias is not None
    model.head.bias.set_value(jnp.asarray(weights.bias))


def gradients(workload: Workload) -> Operations:
    """The gradient of all images' losses: the network called on the batch, and image by image."""
    apply_fn, variables = network(workload, "float32")
    images, targets = jnp.asarray(workload.images()), jnp.asarray(workload.targets())

    def batched(images: jax.Array, variables: Any) -> jax.Array:
        return jax.vmap(losses.cross_entropy)(apply_fn(variables, images), targets).sum()

    def one(image: jax.Array, variables: Any, target: jax.Array) -> jax.Array:
        return losses.cross_entropy(apply_fn(variables, image[None])[0], target)

    of_batch = jax.jit(jax.grad(batched))
    of_images = jax.jit(jax.vmap(jax.grad(one), (0, None, 0)))
    return Operations(
        {
            "batched": lambda: of_batch(images, variables),
            "mapped": lambda: of_images(images, variables, targets),
        },
        wait=jax.block_until_ready,
        to_array=np.asarray,
    )


class WholeSet:
    """Many images at once through `og.synthesize`, its own batch size: what a user waits for."""

    def __init__(self, workload: Workload, *, dtype: str, data_dir: str | None) -> None:
        """CIFAR-10's training images; random ones if there is no `data_dir`."""
        self._network = network(workload, dtype)
        self._targets = workload.targets()
        self._images = np.round(workload.images() * 255).astype(np.uint8)
        if data_dir is not None:
            source = sources.load("cifar10", split="train", data_dir=data_dir)
            self._images = source.images[: workload.batch_size]
            self._targets = self._targets[: len(self._images)]

    @property
    def count(self) -> int:
        """Images: those of the workload, or all of CIFAR-10's where these are fewer."""
        return len(self._images)

    def seconds(self, updates: int) -> float:
        """With compilation, from the images on the host to the results on the host."""
        start = time.perf_counter()
        solver = og.preset("sgd", steps=updates)
        og.synthesize(*self._network, self._images, self._targets, solver=solver)
        return time.perf_counter() - start
