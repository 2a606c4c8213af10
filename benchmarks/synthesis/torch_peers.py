"""The PyTorch sides of the synthesis benchmark: the same updates, and two attack libraries.

Tensors are NCHW. The network's parameters are frozen, gradients go to the image alone. On a GPU
float32 products run as TF32, which is also XLA's default there.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.harness.alternation import Updates, threads
from benchmarks.harness.workload import Workload
from outgen_jax.models import vgg
from outgen_jax.solvers import descent

# Attacks work on pixels, with steps of this L2 length within a ball of this radius.
_STEP, _RADIUS = 0.05, 1.0


class Normalize(nn.Module):
    """Images in [0, 1] -> what the first convolution sees, with VGG16's channel statistics."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(vgg.MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(vgg.STD).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def network(workload: Workload, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """VGG16 with the workload's weights, frozen: images [B, 3, H, W] in [0, 1] -> logits."""
    return trainable(workload, device, layout).eval().requires_grad_(False)


def trainable(workload: Workload, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """The same network in training mode."""
    weights = workload.weights()
    modules: list[nn.Module] = [Normalize()]
    for block in weights.blocks:
        for a in block:
            channels, outputs = a.kernel.shape[2:]
            convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(outputs, eps=1e-5)
            _set(convolution, weight=a.kernel.transpose(3, 2, 0, 1))
            _set(norm, weight=a.scale, bias=a.bias, running_mean=a.mean, running_var=a.var)
            modules += [convolution, norm, nn.ReLU()]
        # As in models/vgg.py, pooling before the ReLU: the same values from fewer elements.
        modules.insert(-1, nn.MaxPool2d(2))
    head = nn.Linear(*weights.kernel.shape)
    _set(head, weight=weights.kernel.T, bias=weights.bias)
    modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]
    model = nn.Sequential(*modules).to(device)
    return model.to(memory_format=layout)  # type: ignore[call-overload]  # PyTorch's stubs lack it


def _set(module: nn.Module, **arrays: np.ndarray) -> None:
    with torch.no_grad():
        for name, array in arrays.items():
            getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _device() -> torch.device:
    torch.set_num_threads(threads())
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda")


def _to(device: torch.device, images: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    return nchw.to(device).contiguous(memory_format=layout)


def pytorch(
    workload: Workload,
    *,
    channels_last: bool = False,
    compiled: bool = False,
    bfloat16: bool = False,
) -> Updates:
    """The update written in PyTorch; `compiled`: pixel map, network and loss by torch.compile."""
    device = _device()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = network(workload, device, layout)
    start = _to(device, np.tan((workload.images() - 0.5) * np.pi), layout)
    targets = torch.from_numpy(workload.targets()).to(device)

    def loss(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(_image(weights))
        return functional.cross_entropy(logits.float(), targets, reduction="sum"), logits

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
        _wait(device)

    return Updates(
        run,
        device=_name(device),
        images=lambda updates: _best(update, start, targets, updates),
        memory=lambda: _memory(device),
    )


def _image(weights: torch.Tensor) -> torch.Tensor:
    return torch.atan(weights) / math.pi + 0.5


def _best(
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


def foolbox(workload: Workload) -> Updates:
    """Foolbox's L2 projected gradient descent to target classes, on the same network."""
    import foolbox as fb

    device = _device()
    model = network(workload, device, torch.channels_last)
    bounded = fb.PyTorchModel(model, bounds=(0, 1), device=device)
    images = _to(device, workload.images(), torch.channels_last)
    classes = torch.from_numpy(workload.targets().argmax(-1)).to(device)
    criterion = fb.criteria.TargetedMisclassification(classes)

    def run(updates: int) -> None:
        attack = fb.attacks.L2PGD(steps=updates, abs_stepsize=_STEP, random_start=False)
        attack(bounded, images, criterion, epsilons=_RADIUS)
        _wait(device)

    return Updates(run, device=_name(device), memory=lambda: _memory(device))


def torchattacks(workload: Workload) -> Updates:
    """PGDL2 of torchattacks to target classes, on the same network; it only takes NCHW."""
    import torchattacks as ta

    device = _device()
    model = network(workload, device, torch.contiguous_format)
    images = _to(device, workload.images(), torch.contiguous_format)
    classes = torch.from_numpy(workload.targets().argmax(-1)).to(device)

    def run(updates: int) -> None:
        attack = ta.PGDL2(model, eps=_RADIUS, alpha=_STEP, steps=updates, random_start=False)
        attack.set_mode_targeted_by_label(quiet=True)
        attack(images, classes)
        _wait(device)

    return Updates(run, device=_name(device), memory=lambda: _memory(device))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


def _memory(device: torch.device) -> dict[str, int]:
    if device.type == "cuda":
        return {"device_peak": torch.cuda.max_memory_allocated()}
    return {}
