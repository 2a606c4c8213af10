"""The PyTorch sides of the synthesis benchmark: the same updates, and two attack libraries."""

import functools

import torch
from torch import nn

from benchmarks.harness import torch_synthesis
from benchmarks.harness.alternation import Updates
from benchmarks.harness.torch_synthesis import convolution, linear
from benchmarks.harness.workload import Workload
from outgen_jax.models import vgg

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
            modules += [*convolution(a), nn.ReLU()]
        # As in models/vgg.py, pooling before the ReLU: the same values from fewer elements.
        modules.insert(-1, nn.MaxPool2d(2))
    head = linear(weights.kernel, weights.bias)
    modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]
    model = nn.Sequential(*modules).to(device)
    return model.to(memory_format=layout)  # type: ignore[call-overload]  # PyTorch's stubs lack it


def pytorch(
    workload: Workload,
    *,
    channels_last: bool = False,
    compiled: bool = False,
    bfloat16: bool = False,
) -> Updates:
    """The update written in PyTorch; `compiled`: pixel map, network and loss by torch.compile."""
    return torch_synthesis.updates(
        functools.partial(network, workload),
        workload.images(),
        workload.targets(),
        channels_last=channels_last,
        compiled=compiled,
        bfloat16=bfloat16,
    )


def foolbox(workload: Workload) -> Updates:
    """Foolbox's L2 projected gradient descent to target classes, on the same network."""
    import foolbox as fb

    device = torch_synthesis.device()
    model = network(workload, device, torch.channels_last)
    bounded = fb.PyTorchModel(model, bounds=(0, 1), device=device)
    images = torch_synthesis.tensor(device, workload.images(), torch.channels_last)
    classes = torch.from_numpy(workload.targets().argmax(-1)).to(device)
    criterion = fb.criteria.TargetedMisclassification(classes)

    def run(updates: int) -> None:
        attack = fb.attacks.L2PGD(steps=updates, abs_stepsize=_STEP, random_start=False)
        attack(bounded, images, criterion, epsilons=_RADIUS)
        torch_synthesis.wait(device)

    return Updates(
        run, device=torch_synthesis.name(device), memory=lambda: torch_synthesis.memory(device)
    )


def torchattacks(workload: Workload) -> Updates:
    """PGDL2 of torchattacks to target classes, on the same network; it only takes NCHW."""
    import torchattacks as ta

    device = torch_synthesis.device()
    model = network(workload, device, torch.contiguous_format)
    images = torch_synthesis.tensor(device, workload.images(), torch.contiguous_format)
    classes = torch.from_numpy(workload.targets().argmax(-1)).to(device)

    def run(updates: int) -> None:
        attack = ta.PGDL2(model, eps=_RADIUS, alpha=_STEP, steps=updates, random_start=False)
        attack.set_mode_targeted_by_label(quiet=True)
        attack(images, classes)
        torch_synthesis.wait(device)

    return Updates(
        run, device=torch_synthesis.name(device), memory=lambda: torch_synthesis.memory(device)
    )
