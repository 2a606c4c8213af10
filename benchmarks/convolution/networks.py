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

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from benchmarks.harness import workload
from benchmarks.networks import written
from benchmarks.networks.workload import RESNET20, Workload
from benchmarks.synthesis import ours
from outgen_jax.models.acceleration.accelerate import accelerate

BATCH = flags.DEFINE_integer("batch_size", 32, "images a batch")
UPDATES = flags.DEFINE_integer("updates", 3, "updates a call of the accelerated networks")
ROUNDS = flags.DEFINE_integer("rounds", 5, "calls timed")


def rate(network: written.Network, *, updates: int) -> float:
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
    vgg16 = workload.Workload()
    networks = {
        "the package's VGG16": ours.network(vgg16, "float32"),
        "VGG16 of `flax.nnx`": written.nnx_vgg16(vgg16.weights()),
        "VGG16 of Equinox": written.equinox_vgg16(vgg16.weights()),
        "ResNet-20 of `jax.lax`": written.lax_resnet20(Workload(RESNET20, 1).resnet20()),
    }
    for name, (apply_fn, variables) in networks.items():
        fast = (accelerate(apply_fn), variables)
        rates = (
            rate((apply_fn, variables), updates=1),
            rate(fast, updates=1),
            rate(fast, updates=UPDATES.value),
        )
        print(f"| {name} | " + " | ".join(f"{r:.1f}" for r in rates) + " |", flush=True)


if __name__ == "__main__":
    app.run(main)
