"""The sides of the convolution benchmark: each layer's output and its two gradients.

A layer's image is [B, S, S, C], its kernel [k, k, C, K], or [k, k, C] where it is depthwise; stride
1, zero padding to the same size. Outputs come back in this layout from every side.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.harness.alternation import Operations
from outgen_jax.devices import processors
from outgen_jax.models import conv

OPERATIONS = ("forward", "input gradient", "kernel gradient")


class Layer(NamedTuple):
    batch: int
    size: int
    inputs: int
    outputs: int | None  # None: depthwise
    kernel: int = 3

    @property
    def name(self) -> str:
        channels = f"{self.inputs}→{self.outputs}" if self.outputs else f"{self.inputs} depthwise"
        return f"{self.batch}×{self.size}×{self.size}, {channels}, {self.kernel}×{self.kernel}"


class Arrays(NamedTuple):
    image: np.ndarray
    kernel: np.ndarray
    cotangent: np.ndarray  # of the output


@functools.lru_cache(maxsize=1)
def arrays(layer: Layer) -> Arrays:
    rng = np.random.default_rng(0)
    channels = (layer.inputs, layer.outputs) if layer.outputs else (layer.inputs,)
    shapes = (
        (layer.batch, layer.size, layer.size, layer.inputs),
        (layer.kernel, layer.kernel, *channels),
        (layer.batch, layer.size, layer.size, layer.outputs or layer.inputs),
    )
    return Arrays(*(rng.standard_normal(shape, np.float32) for shape in shapes))


def outgen(layers: Sequence[Layer]) -> Operations:
    """`outgen_jax.models.conv`."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (conv.convolution if kernel.ndim == 4 else conv.depthwise_convolution)(x, kernel)

    return _jax(convolve, layers)


def xla(layers: Sequence[Layer]) -> Operations:
    """`jax.lax.conv_general_dilated`."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel if kernel.ndim == 4 else kernel[:, :, None],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=1 if kernel.ndim == 4 else x.shape[-1],
        )

    return _jax(convolve, layers)


def _jax(
    convolve: Callable[[jax.Array, jax.Array], jax.Array], layers: Sequence[Layer]
) -> Operations:
    @jax.jit
    def forward(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
        return convolve(x, kernel)

    @jax.jit
    def input_gradient(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: convolve(x, kernel), x)[1](cotangent)[0]

    @jax.jit
    def kernel_gradient(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](cotangent)[0]

    @functools.lru_cache(maxsize=1)
    def on_device(layer: Layer) -> list[jax.Array]:
        return [jnp.asarray(a) for a in arrays(layer)]

    def call(function: Callable[..., jax.Array], layer: Layer) -> jax.Array:
        return function(*on_device(layer))

    functions = dict(zip(OPERATIONS, (forward, input_gradient, kernel_gradient), strict=True))
    return Operations(
        {
            f"{layer.name}: {name}": functools.partial(call, f, layer)
            for layer in layers
            for name, f in functions.items()
        },
        wait=jax.block_until_ready,
        to_array=np.asarray,
    )


def pytorch(layers: Sequence[Layer]) -> Operations:
    """`torch.nn.functional.conv2d`, channels-last, and the kernels behind its gradients."""
    import torch

    torch.set_num_threads(processors())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as XLA
        torch.backends.cudnn.benchmark = True

    def nchw(a: np.ndarray) -> Any:
        tensor = torch.from_numpy(a).permute(0, 3, 1, 2).to(device)
        return tensor.contiguous(memory_format=torch.channels_last)

    @functools.lru_cache(maxsize=1)
    def on_device(layer: Layer) -> tuple[Any, ...]:
        x, kernel, cotangent = arrays(layer)
        oihw = kernel.transpose(3, 2, 0, 1) if layer.outputs else kernel.transpose(2, 0, 1)[:, None]
        weight = torch.from_numpy(oihw.copy()).to(device, memory_format=torch.channels_last)
        return nchw(x), weight, nchw(cotangent)

    def forward(layer: Layer) -> Any:
        x, weight, _ = on_device(layer)
        groups = 1 if layer.outputs else layer.inputs
        y = torch.nn.functional.conv2d(x, weight, padding=layer.kernel // 2, groups=groups)
        return y.permute(0, 2, 3, 1)

    def gradient(layer: Layer, wanted: tuple[bool, bool, bool]) -> Any:
        x, weight, cotangent = on_device(layer)
        ones, padding = (1, 1), (layer.kernel // 2,) * 2
        groups = 1 if layer.outputs else layer.inputs
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(
            cotangent, x, weight, None, ones, padding, ones, False, (0, 0), groups, wanted
        )
        if wanted[0]:
            return of_input.permute(0, 2, 3, 1)
        return of_weight.permute(2, 3, 1, 0) if layer.outputs else of_weight[:, 0].permute(1, 2, 0)

    calls: tuple[Callable[[Layer], Any], ...] = (
        forward,
        functools.partial(gradient, wanted=(True, False, False)),
        functools.partial(gradient, wanted=(False, True, False)),
    )
    return Operations(
        {
            f"{layer.name}: {name}": functools.partial(call, layer)
            for layer in layers
            for name, call in zip(OPERATIONS, calls, strict=True)
        },
        wait=lambda _: torch.cuda.synchronize() if device.type == "cuda" else None,
        to_array=lambda tensor: tensor.cpu().numpy(),
    )
