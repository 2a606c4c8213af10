"""Networks as users write them, as written and accelerated, against the package's own VGG16.

Subject   gradient steps on images (one update: forward and backward), networks with random weights
Command   taskset -c 0 python -m benchmarks.convolution.networks
Output    a table: image-updates a second of CPU time, the median over rounds
Duration  about fifteen minutes on one core, most of it compilation

As written, a call makes one update, since XLA's gradients are slow inside loops; accelerated it
makes `--updates`. CPU time instead of the clock's, so that other work on the machine counts little.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx
from jax import lax

import outgen_jax as og
from outgen_jax.models.acceleration.accelerate import accelerate

BATCH = flags.DEFINE_integer("batch_size", 32, "images a batch")
UPDATES = flags.DEFINE_integer("updates", 3, "updates a call of the accelerated networks")
ROUNDS = flags.DEFINE_integer("rounds", 5, "calls timed")

Network = tuple[Callable[[Any, jax.Array], jax.Array], Any]
_PLAN = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]  # 0: pooling


class NnxVGG16(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        widths = [c for c in _PLAN if c]
        self.convolutions = nnx.List(
            nnx.Conv(c, k, (3, 3), use_bias=False, rngs=rngs)
            for c, k in zip([3, *widths], widths, strict=False)
        )
        self.norms = nnx.List(nnx.BatchNorm(c, rngs=rngs) for c in widths)
        self.head = nnx.Linear(512, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        layers = iter(zip(self.convolutions, self.norms, strict=True))
        for width in _PLAN:
            if width:
                convolution, norm = next(layers)
                x = nnx.relu(norm(convolution(x)))
            else:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.head(x.reshape(len(x), -1))


class EquinoxVGG16(eqx.Module):
    convolutions: list[eqx.nn.Conv2d]
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        widths = [c for c in _PLAN if c]
        *keys, last = jax.random.split(key, len(widths) + 1)
        self.convolutions = [
            eqx.nn.Conv2d(c, k, 3, padding=1, key=key)
            for c, k, key in zip([3, *widths], widths, keys, strict=False)
        ]
        self.head = eqx.nn.Linear(512, 10, key=last)

    def __call__(self, x: jax.Array) -> jax.Array:
        layers = iter(self.convolutions)
        x = x.transpose(2, 0, 1)
        for width in _PLAN:
            x = jax.nn.relu(next(layers)(x)) if width else eqx.nn.MaxPool2d(2, 2)(x)
        return self.head(x.reshape(-1))


def own_vgg16() -> Network:
    return og.models.from_nnx(og.models.VGG16(rngs=nnx.Rngs(0)))


def nnx_vgg16() -> Network:
    return og.models.from_nnx(NnxVGG16(nnx.Rngs(0)))


def equinox_vgg16() -> Network:
    arrays, static = eqx.partition(EquinoxVGG16(jax.random.key(0)), eqx.is_array)
    return lambda arrays, images: jax.vmap(eqx.combine(arrays, static))(images), arrays


def lax_resnet20() -> Network:
    """CIFAR ResNet-20 of `lax.conv_general_dilated`; batch normalisation is folded into the kernels."""
    rng = np.random.default_rng(0)
    variables: dict[str, jax.Array] = {}

    def kernel(name: str, size: int, inputs: int, outputs: int) -> None:
        deviation = (2 / (size * size * inputs)) ** 0.5
        values = rng.normal(0, deviation, (size, size, inputs, outputs))
        variables[name] = jnp.asarray(values, jnp.float32)

    blocks = [(f"block{i}", 16 << i // 3) for i in range(9)]
    kernel("stem", 3, 3, 16)
    inputs = 16
    for name, outputs in blocks:
        kernel(f"{name}/first", 3, inputs, outputs)
        kernel(f"{name}/second", 3, outputs, outputs)
        if inputs != outputs:
            kernel(f"{name}/shortcut", 1, inputs, outputs)
        inputs = outputs
    kernel("head", 1, 64, 10)

    def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def apply_fn(variables: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        x = jax.nn.relu(convolve(images, variables["stem"]))
        for name, _ in blocks:
            stride = 2 if f"{name}/shortcut" in variables else 1
            y = jax.nn.relu(convolve(x, variables[f"{name}/first"], stride))
            y = convolve(y, variables[f"{name}/second"])
            x = convolve(x, variables[f"{name}/shortcut"], 2) if stride == 2 else x
            x = 0.7 * jax.nn.relu(x + y)
        return x.mean((1, 2)) @ variables["head"][0, 0]

    return apply_fn, variables


def rate(network: Network, *, updates: int) -> float:
    """Image-updates a second of CPU time."""
    apply_fn, variables = network
    shape = (BATCH.value, 32, 32, 3)
    images = jnp.asarray(np.random.default_rng(0).random(shape, np.float32))

    def loss(image: jax.Array) -> jax.Array:
        return -jax.nn.log_softmax(apply_fn(variables, image[None])[0]).mean()

    @jax.jit
    def call(images: jax.Array) -> jax.Array:
        def step(images: jax.Array, _: None) -> tuple[jax.Array, None]:
            return images - 0.05 * jax.vmap(jax.grad(loss))(images), None

        if updates == 1:
            return step(images, None)[0]
        return lax.scan(step, images, None, length=updates)[0]

    call(images).block_until_ready()
    seconds = []
    for _ in range(ROUNDS.value):
        start = time.process_time()
        call(images).block_until_ready()
        seconds.append(time.process_time() - start)
    return BATCH.value * updates / statistics.median(seconds)


def main(_: list[str]) -> None:
    print("| network | as written, 1 update a call | accelerated, 1 | accelerated, several |")
    print("| --- | ---: | ---: | ---: |")
    for make in (own_vgg16, nnx_vgg16, equinox_vgg16, lax_resnet20):
        apply_fn, variables = make()
        fast = (accelerate(apply_fn), variables)
        rates = (
            rate((apply_fn, variables), updates=1),
            rate(fast, updates=1),
            rate(fast, updates=UPDATES.value),
        )
        print(f"| `{make.__name__}` | " + " | ".join(f"{r:.1f}" for r in rates) + " |", flush=True)


if __name__ == "__main__":
    app.run(main)
