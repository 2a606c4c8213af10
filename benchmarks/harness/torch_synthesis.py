"""Paper A's SGD with any PyTorch network: the updates that `og.synthesize` makes.

Tensors are NCHW. The network's parameters are frozen, gradients go to the image alone. On a GPU
float32 products run as TF32, which is also XLA's default there.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.harness.alternation import Updates
from benchmarks.harness.workload import ConvolutionWeights
from outgen_jax.devices import processors
from outgen_jax.solvers import descent


def updates(
    build: Callable[[torch.device, torch.memory_format], nn.Module],
    images: np.ndarray,
    targets: np.ndarray,
    *,
    channels_last: bool = False,
    compiled: bool = False,
    bfloat16: bool = False,
) -> Updates:
    """Updates of all images [B, H, W, C] at a time, to targets [B, K].

    Args:
      build: makes the network, frozen and in evaluation mode: images [B, C, H, W] in [0, 1] -> logits.
      images: float32, clear of 0 and 1.
      targets: distributions.
      channels_last: the layout of weights and images.
      compiled: pixel map, network and loss by torch.compile.
      bfloat16: the network under autocast.
    """
    where = device()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = build(where, layout)
    start = tensor(where, np.tan((images - 0.5) * np.pi), layout)
    wanted = torch.from_numpy(targets).to(where)

    def loss(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(where.type, torch.bfloat16, enabled=bfloat16):
            logits = model(_image(weights))
        return functional.cross_entropy(logits.float(), wanted, reduction="sum"), logits

    loss = torch.compile(loss) if compiled else loss

    def update(weights: torch.Tensor) -> torch.Tensor:
        """Changes the weights in place -> logits of the images before."""
        value, logits = loss(weights)
        (gradient,) = torch.autograd.grad(value, weights)
        with torch.no_grad():
            gradient.add_(weights, alpha=descent.WEIGHT_DECAY)
            weights.sub_(gradient, alpha=descent.LEARNING_RATE)
        return logits.detach().float()

    def run(updates: int) -> None:
        weights = start.clone().requires_grad_()
        for _ in range(updates):
            update(weights)
        wait(where)

    return Updates(
        run,
        device=name(where),
        images=lambda updates: best_images(update, start, wanted, updates),
        memory=lambda: memory(where),
    )


def _image(weights: torch.Tensor) -> torch.Tensor:
    return torch.atan(weights) / math.pi + 0.5


def best_images(
    update: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    targets: torch.Tensor,
    updates: int,
) -> np.ndarray:
    """The images of lowest cross-entropy on the way, as `og.synthesize` returns them, NHWC."""
    weights = start.clone().requires_grad_()
    best = _image(start)
    lowest = torch.full((len(start),), torch.inf, device=start.device)
    for _ in range(updates + 1):  # the last one only for the logits
        image = _image(weights.detach())
        entropy = functional.cross_entropy(update(weights), targets, reduction="none")
        better = entropy < lowest
        best = torch.where(better[:, None, None, None], image, best)
        lowest = torch.where(better, entropy, lowest)
    return best.permute(0, 2, 3, 1).cpu().numpy()


def convolution(a: ConvolutionWeights, *, stride: int = 1) -> list[nn.Module]:
    """A convolution with as much padding on all sides, and its batch normalisation, with these weights."""
    size, _, channels, outputs = a.kernel.shape
    layer = nn.Conv2d(channels, outputs, size, stride=stride, padding=size // 2, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-5)
    assign(layer, weight=a.kernel.transpose(3, 2, 0, 1))
    assign(norm, weight=a.scale, bias=a.bias, running_mean=a.mean, running_var=a.var)
    return [layer, norm]


def linear(kernel: np.ndarray, bias: np.ndarray) -> nn.Linear:
    """A linear layer with this kernel [C, K] and bias [K]."""
    layer = nn.Linear(*kernel.shape)
    assign(layer, weight=kernel.T, bias=bias)
    return layer


def assign(module: nn.Module, **arrays: np.ndarray) -> None:
    """Copies arrays into the parameters and buffers of these names."""
    with torch.no_grad():
        for key, array in arrays.items():
            getattr(module, key).copy_(torch.from_numpy(np.ascontiguousarray(array)))


def device() -> torch.device:
    """The GPU if there is one. On CPU, PyTorch is told to use as many threads as XLA."""
    torch.set_num_threads(processors())
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda")


def tensor(where: torch.device, images: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
    """Images [B, H, W, C] -> [B, C, H, W] on the device."""
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    return nchw.to(where).contiguous(memory_format=layout)


def wait(where: torch.device) -> None:
    if where.type == "cuda":
        torch.cuda.synchronize()


def name(where: torch.device) -> str:
    return torch.cuda.get_device_name() if where.type == "cuda" else "cpu"


def memory(where: torch.device) -> dict[str, int]:
    if where.type == "cuda":
        return {"device_peak": torch.cuda.max_memory_allocated()}
    return {}
