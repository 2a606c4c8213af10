"""The sides of the fine-tuning benchmark: outgen_jax's update, and the same in PyTorch.

Both take a batch of clean and of already distorted images, and update a VGG16 with two hidden layers
by SGD, plainly or with paper D's constraint on these layers; PyTorch's is the twin of
`outgen_jax.training.finetuning`, dropout left out on both sides, so that their losses can be compared.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import outgen_jax as og
from benchmarks.harness.alternation import Operations
from benchmarks.harness.workload import CLASSES, Workload
from outgen_jax.data import distort
from outgen_jax.training import finetuning, finetuning_fit, finetuning_recipe
from outgen_jax.training.finetuning_recipe import FinetuningRecipe, Penalty

RATE, WEIGHT, GAIN = 1e-3, 0.1, 100.0
LAYERS = ("fc1", "fc2")
PENALTIES = {
    "plain": Penalty(kind="none"),
    "MSE": Penalty(kind="mse", weight=WEIGHT, layers=LAYERS),
    "constraint": Penalty(kind="constraint", weight=WEIGHT, layers=LAYERS, gain=GAIN),
    "AugMix-style": Penalty(kind="consistency", weight=WEIGHT),
}


class Inputs(NamedTuple):
    """What every side starts from, drawn by numpy from the workload's seed."""

    pairs: np.ndarray  # [B, 32, 32, 6] uint8: clean images, then distorted ones
    labels: np.ndarray  # [B]
    linear: list[tuple[np.ndarray, np.ndarray]]  # kernels [I, O] and biases [O] of fc1, fc2, head


def inputs(workload: Workload, hidden: int) -> Inputs:
    rng = np.random.default_rng((workload.seed, 4))
    clean = workload.images()
    noisy = np.clip(clean + rng.normal(0, 40 / 255, clean.shape), 0, 1)
    pairs = np.round(255 * np.concatenate([clean, noisy], -1)).astype(np.uint8)
    features = workload.weights().kernel.shape[0]
    sizes = [(features, hidden), (hidden, hidden), (hidden, CLASSES)]
    linear = [
        (
            rng.normal(0, (2 / i) ** 0.5, (i, o)).astype(np.float32),
            rng.normal(0, 0.1, o).astype(np.float32),
        )
        for i, o in sizes
    ]
    return Inputs(pairs, rng.integers(0, CLASSES, len(clean)).astype(np.int32), linear)


def given(key: jax.Array, images: jax.Array) -> jax.Array:
    """The distorted half of the channels."""
    return images[..., 3:]


def drawn(key: jax.Array, images: jax.Array) -> jax.Array:
    """Noise and blur drawn and computed in the update, as in training."""
    return distort.random_distortion(key, images[..., :3], distort.PAPER_32)


def network(workload: Workload, hidden: int) -> nnx.Module:
    model = nnx.eval_shape(
        lambda: og.models.VGG16(CLASSES, workload.width, hidden=hidden, rngs=nnx.Rngs(0))
    )
    model.dropout = nnx.Dropout(0.0, rngs=nnx.Rngs(0))
    for layers, arrays in zip(model.blocks, workload.weights().blocks, strict=True):
        for layer, a in zip(layers, arrays, strict=True):
            layer.kernel.set_value(jnp.asarray(a.kernel))
            for name in ("scale", "bias", "mean", "var"):
                getattr(layer.norm, name).set_value(jnp.asarray(getattr(a, name)))
    linear = inputs(workload, hidden).linear
    for layer, (kernel, bias) in zip((*model.hidden, model.head), linear, strict=True):
        layer.kernel.set_value(jnp.asarray(kernel))
        layer.bias.set_value(jnp.asarray(bias))
    return model


def outgen(workload: Workload, *, hidden: int, updates: int) -> Operations:
    """So many updates by name, each going on from where the last call ended -> losses [updates]."""
    model, given_inputs = network(workload, hidden), inputs(workload, hidden)
    images, labels = jnp.asarray(given_inputs.pairs), jnp.asarray(given_inputs.labels)
    rows = jnp.tile(jnp.arange(len(labels)), (updates, 1))
    recipe = FinetuningRecipe(updates=1, batch_size=len(labels), learning_rate=RATE, flip=False)

    def operation(penalty: Penalty, distortion: Any) -> Any:
        graphdef, state = finetuning.create(model, recipe, jax.random.key(workload.seed))
        frozen_graphdef, frozen = finetuning.freeze(model)
        advance = finetuning_fit.compile_update(
            graphdef, frozen_graphdef, recipe, penalty.without_numbers(), distortion
        )
        numbers, now = finetuning_recipe.coefficients(penalty), [state]

        def update() -> jax.Array:
            now[0], metrics = advance(now[0], frozen, numbers, images, labels, rows)
            return metrics.loss

        return update

    operations = {name: operation(penalty, given) for name, penalty in PENALTIES.items()}
    for name in ("plain", "constraint"):
        operations[f"{name}, distorting"] = operation(PENALTIES[name], drawn)
    return Operations(operations, wait=jax.block_until_ready, to_array=np.asarray)
