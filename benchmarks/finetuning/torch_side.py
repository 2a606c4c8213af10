"""PyTorch's twin of the fine-tuning update: eager, channels-last, same weights, batch and loss."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from benchmarks.finetuning.ours import GAIN, RATE, WEIGHT, inputs
from benchmarks.harness.alternation import Operations
from benchmarks.harness.workload import Workload
from benchmarks.synthesis.torch_peers import trainable
from outgen_jax.devices import processors


class Twin(nn.Module):
    """VGG16 with two hidden layers, whose pre-activations it returns too."""

    def __init__(self, workload: Workload, hidden: int, device: torch.device) -> None:
        super().__init__()
        whole = trainable(workload, device, torch.channels_last)
        self.features = whole[:-3]  # without mean, flattening and head
        layers = []
        for kernel, bias in inputs(workload, hidden).linear:
            layer = nn.Linear(*kernel.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
                layer.bias.copy_(torch.from_numpy(bias))
            layers.append(layer)
        self.linear = nn.ModuleList(layers).to(device)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [B, K] and the pre-activations of both hidden layers [B, 2·hidden]."""
        x, pre = self.features(images).flatten(1), []
        for layer in self.linear[:-1]:
            pre.append(layer(x))
            x = functional.relu(pre[-1])
        return self.linear[-1](x), torch.cat(pre, 1)


def pytorch(workload: Workload, *, hidden: int, updates: int) -> Operations:
    """As `ours.outgen`, its arms plain, MSE and constraint."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(processors())
    given = inputs(workload, hidden)
    pairs = torch.from_numpy(given.pairs).permute(0, 3, 1, 2).to(device).float() / 255
    clean, distorted = (
        half.contiguous(memory_format=torch.channels_last) for half in pairs.split(3, dim=1)
    )
    labels = torch.from_numpy(given.labels).long().to(device)

    def operation(arm: str) -> Callable[[], torch.Tensor]:
        student = Twin(workload, hidden, device).train()
        teacher = Twin(workload, hidden, device).eval().requires_grad_(False)
        optimizer = torch.optim.SGD(student.parameters(), RATE)

        def update() -> torch.Tensor:
            logits, ours = student(distorted)
            loss = functional.cross_entropy(logits, labels)
            if arm != "plain":
                with torch.no_grad():
                    theirs = teacher(clean)[1]
                if arm == "MSE":
                    loss = loss + WEIGHT * functional.mse_loss(ours, theirs)
                else:
                    u = (theirs > 0).float()
                    held = functional.binary_cross_entropy_with_logits(GAIN * ours, u)
                    loss = loss + WEIGHT * held
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return lambda: torch.stack([update() for _ in range(updates)])

    def wait(value: torch.Tensor) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    return Operations(
        {arm: operation(arm) for arm in ("plain", "MSE", "constraint")},
        wait=wait,
        to_array=lambda losses: losses.cpu().numpy(),
    )
