"""The PyTorch sides: the same networks, written as for PyTorch, with the same weights."""

import functools
import importlib.resources
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchmarks.harness import torch_synthesis
from benchmarks.harness.alternation import Updates
from benchmarks.networks.workload import EFFICIENTNET, RESNET20, VGG16, Workload
from benchmarks.networks.workload import Block as BlockWeights
from benchmarks.synthesis import torch_peers
from outgen_jax.models.efficientnet_lite import EfficientNetLite0


def pytorch(workload: Workload, *, channels_last: bool = False, compiled: bool = False) -> Updates:
    """The update with the workload's network in PyTorch."""
    return torch_synthesis.updates(
        functools.partial(network, workload),
        workload.images(),
        workload.targets(),
        channels_last=channels_last,
        compiled=compiled,
    )


def network(workload: Workload, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """Frozen, in evaluation mode: images [B, 3, H, W] in [0, 1] -> logits."""
    if workload.network == VGG16:
        return torch_peers.network(workload.vgg16(), device, layout)
    build: dict[str, Callable[[], nn.Module]] = {
        RESNET20: lambda: resnet20(workload),
        EFFICIENTNET: efficientnet_lite0,
    }
    model = build[workload.network]().to(device).eval().requires_grad_(False)
    return model.to(memory_format=layout)  # type: ignore[call-overload]  # PyTorch's stubs lack it


class Block(nn.Module):
    """A residual block."""

    def __init__(self, weights: BlockWeights) -> None:
        super().__init__()
        stride, layers = 1 if weights.shortcut is None else 2, torch_synthesis.convolution
        self.inner = nn.Sequential(
            *layers(weights.first, stride=stride), nn.ReLU(), *layers(weights.second)
        )
        self.shortcut = nn.Identity()
        if weights.shortcut is not None:
            self.shortcut = nn.Sequential(*layers(weights.shortcut, stride=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.inner(x) + self.shortcut(x))


def resnet20(workload: Workload) -> nn.Module:
    weights = workload.resnet20()
    return nn.Sequential(
        torch_peers.Normalize(),
        *torch_synthesis.convolution(weights.stem),
        nn.ReLU(),
        *(Block(block) for block in weights.blocks),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        torch_synthesis.linear(weights.kernel, weights.bias),
    )


class SameConvolution(nn.Conv2d):
    """TensorFlow's "SAME" padding, of maps whose sides the stride divides, and no bias."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        even = stride == 1  # as much on all sides, which the convolution does itself
        super().__init__(
            inputs,
            outputs,
            size,
            stride=stride,
            padding=size // 2 if even else 0,
            groups=groups,
            bias=False,
        )
        before, after = (size - stride) // 2, (size - stride + 1) // 2
        self._pads = None if even else (before, after, before, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if self._pads is None else functional.pad(x, self._pads))


class InvertedResidual(nn.Module):
    """A block of EfficientNet-Lite, with the published names."""

    def __init__(
        self, inputs: int, outputs: int, *, size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = expansion * inputs
        if expansion != 1:
            self._expand_conv, self._bn0 = SameConvolution(inputs, wide, 1), _norm(wide)
        self._depthwise_conv = SameConvolution(wide, wide, size, stride=stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv, self._bn2 = SameConvolution(wide, outputs, 1), _norm(outputs)
        self._expands = expansion != 1
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._residual else y


class EfficientNet(nn.Module):
    """EfficientNet-Lite0, with the names of the PyPI package `efficientnet-lite-pytorch`."""

    def __init__(self) -> None:
        super().__init__()
        inputs, blocks = 32, []
        for repeats, size, first_stride, expansion, outputs in EfficientNetLite0.variant.stages():
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                blocks.append(
                    InvertedResidual(inputs, outputs, size=size, stride=stride, expansion=expansion)
                )
                inputs = outputs
        self._conv_stem, self._bn0 = SameConvolution(3, 32, 3, stride=2), _norm(32)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConvolution(inputs, 1280, 1), _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self._bn0(self._conv_stem((255 * x - 127) / 128)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def efficientnet_lite0() -> nn.Module:
    """With the published weights."""
    variant, model = EfficientNetLite0.variant, EfficientNet()
    package = importlib.resources.files(variant.package.replace("-", "_"))
    with importlib.resources.as_file(package / "models" / variant.file) as path:
        model.load_state_dict(torch.load(path, weights_only=True))
    return model


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
