"""The sides of the training benchmark: one update of VGG16 by the package, and by PyTorch.

The update is `classifier`'s: mean cross-entropy with labels, batch normalisation in training mode,
Nesterov SGD (rate 0.1, momentum 0.9, weight decay 5e-4 of the kernels). What is compared are all
kernels, flattened one after the other as [height, width, inputs, outputs] and [inputs, outputs].
"""

from typing import Any

import numpy as np

from benchmarks.harness.alternation import Updates
from benchmarks.harness.workload import Workload, flops_per_update, layers

_RATE, _MOMENTUM, _DECAY = 0.1, 0.9, 5e-4


def kernels(workload: Workload) -> np.ndarray:
    """Those of the start."""
    weights = workload.weights()
    arrays = [layer.kernel for block in weights.blocks for layer in block]
    return np.concatenate([array.ravel() for array in (*arrays, weights.kernel)])


def flops_per_image(width: float) -> int:
    """Of a training step: forward, gradient to the activations, gradient to the kernels.

    The image itself needs no gradient. 1.88 GFLOP at full width.
    """
    inputs, outputs, size = next(iter(layers(width)))[0]
    return flops_per_update(width) * 3 // 2 - 2 * 9 * inputs * outputs * size**2


def outgen(workload: Workload, *, dtype: str = "float32", augmented: bool = False) -> Updates:
    """The package's compiled training step; `augmented`: with its crop and flip, as it is used."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from benchmarks.synthesis.ours import build
    from outgen_jax.training import classifier, objectives, optimizers
    from outgen_jax.training.updates import compile_updates
    from outgen_jax.training.updates import run as run_updates

    jax.config.update("jax_enable_compilation_cache", False)
    plain = objectives.plain()
    given_images = plain._replace(
        prepare=lambda key, state, images, given: (given.frozen, given.labels)
    )
    optimizer = optimizers.sgd(
        optax.constant_schedule(_RATE), momentum=_MOMENTUM, weight_decay=_DECAY
    )
    graphdef, state = classifier.create(build(workload, dtype), optimizer)
    update = compile_updates(
        classifier.make_update(graphdef, optimizer, objective=plain if augmented else given_images)
    )
    images = jnp.asarray(workload.images())
    pixels = jnp.asarray(np.round(workload.images() * 255), jnp.uint8)
    labels = jnp.asarray(workload.targets().argmax(-1), jnp.int32)
    given = objectives.Supervision(labels, frozen=images, key=jax.random.key(workload.seed))

    def run(updates: int) -> classifier.TrainState:
        rows = np.tile(np.arange(workload.batch_size, dtype=np.int32), (updates, 1))
        end = jax.tree.map(jnp.copy, state)
        for end, _ in run_updates(update, end, pixels, given, rows=rows):  # noqa: B007, B020
            pass
        return jax.block_until_ready(end)

    def trained(updates: int) -> np.ndarray:
        model = nnx.merge(graphdef, *run(updates)[:2], copy=True)
        arrays = [layer.kernel[...] for block in model.blocks for layer in block]
        return np.concatenate([np.ravel(array) for array in (*arrays, model.head.kernel[...])])

    def memory() -> dict[str, int]:
        statistics = jax.devices()[0].memory_stats() or {}
        peak = statistics.get("peak_bytes_in_use")
        return {} if peak is None else {"device_peak": peak}

    # Crop and flip make it another update.
    images_of = None if augmented else trained
    return Updates(run, device=jax.devices()[0].device_kind, images=images_of, memory=memory)


def pytorch(
    workload: Workload,
    *,
    channels_last: bool = False,
    compiled: bool = False,
    bfloat16: bool = False,
) -> Updates:
    """The same update in PyTorch; `compiled`: network and loss by torch.compile."""
    import torch
    from torch.nn import functional

    from benchmarks.harness import torch_synthesis
    from benchmarks.synthesis.torch_peers import trainable

    device = torch_synthesis.device()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = trainable(workload, device, layout)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch_synthesis.tensor(device, workload.images(), layout)
    labels = torch.from_numpy(workload.targets().argmax(-1)).to(device)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]

    def loss() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(images)
        return functional.cross_entropy(logits.float(), labels)

    loss = torch.compile(loss) if compiled else loss

    def run(updates: int) -> None:
        model.load_state_dict(start)
        optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": _DECAY}, {"params": others}],
            lr=_RATE,
            momentum=_MOMENTUM,
            nesterov=True,
        )
        for _ in range(updates):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        torch_synthesis.wait(device)

    def trained(updates: int) -> np.ndarray:
        run(updates)
        arrays = [p.detach().cpu() for p in decayed]
        channels_at_end = [a.permute(2, 3, 1, 0) if a.ndim == 4 else a.T for a in arrays]
        return np.concatenate([a.contiguous().numpy().ravel() for a in channels_at_end])

    return Updates(
        run,
        device=torch_synthesis.name(device),
        images=trained,
        memory=lambda: torch_synthesis.memory(device),
    )
