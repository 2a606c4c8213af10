"""Milliseconds of a DCGAN's resampling layers, in every form they could take.

Subject   Forward pass and both gradients, float32, outside of loops. Up, a map of h×w to 2h×2w: a 3×3
          convolution to four times the channels and a pixel shuffle (`outgen_jax.models.dcgan`'s); nearest
          neighbours, then a 3×3 convolution; a transposed 4×4 convolution of stride 2 by XLA. These have 36,
          9 and 16 weights for a pair of channels and compute different functions. Down: a 4×4 convolution of
          stride 2 by XLA (`dcgan`'s), and the same function by Winograd's 3×3 over blocks of 2×2 pixels.
Method    The forms in one process, all of them XLA's programs, taking turns; median of the rounds, with the
          fastest and the slowest.
Command   python benchmarks/upsampling.py
Duration  4 minutes on one CPU core shared with other work, 1 min 46 s of its time
Output    the table, and --out gets results.json with the raw numbers of every round.
"""

import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import flags
from alternation import Operations, table, threads
from flax import nnx
from jax import lax

from outgen_jax import runs
from outgen_jax.models import conv, dcgan

_BATCH = flags.DEFINE_integer("batch_size", 64, "Images.", 1)
_SIZE = flags.DEFINE_integer("size", 64, "Side of the images, a power of two from 16.", 16)
_WIDTH = flags.DEFINE_integer("width", 64, "Channels next to the image.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each form.", 1)
_OUT = flags.DEFINE_string("out", "benchmarks/results/upsampling", "Directory of the run.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another run's results in --out.")

_NHWC = ("NHWC", "HWIO", "NHWC")


class Form(NamedTuple):
    """A way to double or to halve the sides of a map."""

    apply: Callable[[jax.Array, jax.Array], jax.Array]  # [B, h, w, C], kernel -> [B, h', w', K]
    kernel: int  # its side
    multiple: int = 1  # of the output's channels that the kernel has


class Layer(NamedTuple):
    size: int  # of its input
    inputs: int
    outputs: int

    @property
    def name(self) -> str:
        return f"{self.size}×{self.size}, {self.inputs}→{self.outputs}"


def shuffled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return dcgan.pixel_shuffle(conv.convolution(x, kernel))


def resized(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.convolution(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), kernel)


def transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=_NHWC)


def strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return conv.convolution(x, kernel, strides=2)


def over_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`strided`: the 4×4 kernel, with a margin of zeros, sees 3×3 blocks of 2×2 pixels."""
    n, h, w, c = x.shape
    blocks = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    kernel = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0))).reshape(3, 2, 3, 2, c, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, 4 * c, -1)
    return conv.convolution(blocks.reshape(n, h // 2, w // 2, 4 * c), kernel)


UP = {
    "pixel shuffle": Form(shuffled, 3, multiple=4),
    "nearest + convolution": Form(resized, 3),
    "transposed": Form(transposed, 4),
}
DOWN = {"stride 2": Form(strided, 4), "Winograd over blocks": Form(over_blocks, 4)}


def layers(size: int, width: int) -> tuple[list[Layer], list[Layer]]:
    """The generator's upsamplings and the discriminator's downsamplings, as they come."""

    def kernels(
        network: type[dcgan.Generator] | type[dcgan.Discriminator],
    ) -> list[tuple[int, ...]]:
        model = nnx.eval_shape(lambda: network(size=size, width=width, rngs=nnx.Rngs(0)))
        found = [layer.kernel.shape for layer in model.hidden]
        return found + ([model.pixels.kernel.shape] if hasattr(model, "pixels") else [])

    up = [
        Layer(4 << i, inputs, outputs // 4)
        for i, (*_, inputs, outputs) in enumerate(kernels(dcgan.Generator))
    ]
    down = [
        Layer(size >> i, inputs, outputs)
        for i, (*_, inputs, outputs) in enumerate(kernels(dcgan.Discriminator))
    ]
    return up, down


def operations(forms: Mapping[str, Form], layer: Layer, batch: int) -> Operations:
    """By form: the output and the two gradients, where the output's own gradient is all ones."""
    shape = (batch, layer.size, layer.size, layer.inputs)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))

    def make(form: Form) -> Callable[[], Any]:
        shape = (form.kernel, form.kernel, layer.inputs, form.multiple * layer.outputs)
        kernel = jnp.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))

        @jax.jit
        def passes(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
            y, pull_back = jax.vjp(form.apply, x, kernel)
            return y, *pull_back(jnp.ones_like(y))

        return functools.partial(passes, x, kernel)

    return Operations(
        {name: make(form) for name, form in forms.items()},
        wait=jax.block_until_ready,
        to_array=lambda passes: np.asarray(passes[0]),
    )


def measure(timed: Operations, forms: Mapping[str, Form], rounds: int) -> dict[str, list[float]]:
    """Seconds of each form, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name in forms:
            seconds[name].append(timed.seconds(name))
    return seconds


def rows(layer: Layer, seconds: Mapping[str, list[float]]) -> list[dict[str, str]]:
    ours = statistics.median(next(iter(seconds.values())))
    return [
        {
            "layer": layer.name,
            "form": name,
            "ms": f"{1e3 * statistics.median(values):.1f}",
            "fastest": f"{1e3 * min(values):.1f}",
            "slowest": f"{1e3 * max(values):.1f}",
            "/ dcgan's": f"{statistics.median(values) / ours:.2f}",
        }
        for name, values in seconds.items()
    ]


def main(argv: list[str]) -> None:
    del argv
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    up, down = layers(_SIZE.value, _WIDTH.value)
    cases = [(UP, layer) for layer in up] + [(DOWN, layer) for layer in down]
    shown, raw = [], {}
    for forms, layer in tqdm.tqdm(cases, mininterval=1, leave=False):
        seconds = measure(operations(forms, layer, _BATCH.value), forms, _ROUNDS.value)
        raw[f"{'up' if forms is UP else 'down'} {layer.name}"] = seconds
        shown += rows(layer, seconds)
    print(table(shown))
    print(run.write_results({"threads": threads(), "seconds": raw}))


if __name__ == "__main__":
    runs.start(main)
