"""The checks of the arguments of `finetuning_fit.finetune`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax import image_checks
from outgen_jax.training.finetuning_recipe import (
    HELD,
    PASSES,
    PENALTIES,
    SCHEDULES,
    Distort,
    FinetuningRecipe,
    Penalty,
)

# A distorted pixel at most: noise may lead out of [0, 1], grey levels of 8 bits are much larger.
_MOST = 20.0


def validate(
    model: nnx.Module,
    images: Any,
    labels: np.ndarray,
    recipe: FinetuningRecipe,
    penalty: Penalty,
    distort: Distort,
    teacher: nnx.Module | None,
    checkpoint_every: int = 1,
) -> None:
    """Checks all arguments of `finetune`.

    Raises:
      ValueError: see `finetune`.
    """
    _check_recipe(recipe, len(labels))
    _check_penalty(penalty)
    if checkpoint_every < 1:
        raise ValueError(
            f"finetune: checkpoint_every must be at least 1 update, got {checkpoint_every}; leave `checkpoints` out to "
            "keep none"
        )
    if not isinstance(model, nnx.Module):
        raise ValueError(
            f"finetune: model must be a flax.nnx module, got {type(model).__name__}; for networks of other frameworks, "
            "use the losses of og.losses in a loop of your own"
        )
    if not callable(getattr(model, "activations", None)):
        raise ValueError(
            f"finetune: {type(model).__name__} has no activations(images) -> (logits, {{layer name: "
            "pre-activation}); give it one, as outgen_jax.models.VGG16 has"
        )
    if teacher is not None:
        _check_teacher(model, teacher)
    logits, hidden = _shapes(model, images, distort)
    _check_labels(labels, len(images), logits.shape[-1])
    if penalty.kind in HELD:
        known = getattr(model, "layer_names", tuple(hidden))  # traced dictionaries lose their order
        check_layers(type(model).__name__, penalty.layers, known)


def check_layers(network: str, layers: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Checks that the network has the layers; the error names those that it has.

    >>> from outgen_jax.training import finetuning_checks
    >>> finetuning_checks.check_layers("Network", ("fc2",), known=("fc1", "fc2"))

    Raises:
      ValueError: no layers, one twice, or an unknown one.
    """
    unknown = [name for name in layers if name not in known]
    if unknown or not layers or len(set(layers)) < len(layers):
        what = (
            f"no layer {unknown[0]!r}" if unknown else f"layers {list(layers)} are none or repeated"
        )
        raise ValueError(f"finetune: {what}; {network} has {', '.join(map(repr, known))}")


def _shapes(model: Any, images: Any, distort: Distort) -> tuple[Any, dict[str, Any]]:
    """Logits and pre-activations of one image, traced only."""
    sample = np.asarray(images[np.array([0])])
    image_checks.check_uint8(sample, caller="finetune")
    distorted = _distorted(distort, sample)
    graphdef, variables = nnx.split(model)

    def activations(variables: Any, image: jax.Array) -> Any:
        return nnx.merge(graphdef, variables, copy=True).activations(image)

    try:
        found = jax.eval_shape(activations, variables, distorted)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"finetune: the network fails on a distorted image of shape {list(distorted.shape[1:])}: {error}. Check "
            "the image size and the number of channels that it takes"
        ) from error
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise ValueError(
            f"finetune: {type(model).__name__}.activations must return (logits, {{layer name: pre-activation}}), got a "
            f"{type(found).__name__}"
        )
    return found


def _distorted(distort: Distort, sample: np.ndarray) -> jax.Array:
    """A distorted image of the data, computed; `distort` must work inside of a compiled function, too."""
    image = jnp.asarray(sample, jnp.float32) / 255
    try:
        found = jax.jit(distort)(jax.random.key(0), image)
    except Exception as error:
        raise ValueError(
            f"finetune: distort fails on (key, images {list(image.shape)} float32): {error}. It must be a function "
            "that jax.jit can trace, of a random key and a batch of images"
        ) from error
    if not isinstance(found, jax.Array) or found.ndim != 4 or len(found) != 1:
        shape = list(np.shape(found)) if isinstance(found, jax.Array) else type(found).__name__
        raise ValueError(
            f"finetune: distort must return images [B, H, W, C] for images [B, H, W, C], got {shape} for "
            f"{list(image.shape)}"
        )
    if not bool(jnp.isfinite(found).all()):
        raise ValueError(
            "finetune: distort returns NaN or infinity for the first image; look for a division by zero in it"
        )
    if float(jnp.abs(found).max()) > _MOST:
        raise ValueError(
            f"finetune: distort must return images on the scale of [0, 1], got values up to {float(found.max()):.4g}; "
            "divide what is on the scale of 8 bits by 255"
        )
    return found


def _check_recipe(recipe: FinetuningRecipe, count: int) -> None:
    if recipe.updates < 1 or not 1 <= recipe.batch_size <= count:
        raise ValueError(
            "finetune: updates must be at least 1 and batch_size from 1 to the number of images, "
            f"{count}; got {recipe.updates} and {recipe.batch_size}"
        )
    least = min(recipe.weight_decay, recipe.crop_padding)
    if not recipe.learning_rate > 0 or not 0 <= recipe.momentum < 1 or least < 0:
        raise ValueError(
            "finetune: learning_rate must be positive, momentum in [0, 1), weight_decay and "
            f"crop_padding not negative; got {recipe.learning_rate}, {recipe.momentum}, "
            f"{recipe.weight_decay} and {recipe.crop_padding}"
        )
    if recipe.schedule not in SCHEDULES:
        raise ValueError(
            f"finetune: unknown schedule {recipe.schedule!r}; use one of {', '.join(SCHEDULES)}"
        )


def _check_penalty(penalty: Penalty) -> None:
    if penalty.kind not in PENALTIES:
        raise ValueError(
            f"finetune: unknown penalty {penalty.kind!r}; use one of {', '.join(PENALTIES)}"
        )
    if penalty.kind == "none" and penalty.weight != 0:
        raise ValueError(
            f"finetune: a penalty of weight {penalty.weight} has no kind; choose one of "
            f"{', '.join(kind for kind in PENALTIES if kind != 'none')}, or leave the weight out"
        )
    if not (penalty.weight >= 0 and math.isfinite(penalty.weight)):
        raise ValueError(
            f"finetune: the penalty's weight λ must be finite and not negative, got {penalty.weight}; "
            "0 is plain fine-tuning"
        )
    if penalty.held_pass not in PASSES:
        raise ValueError(
            f"finetune: unknown held_pass {penalty.held_pass!r}; use one of {', '.join(PASSES)}"
        )
    end = penalty.gain if penalty.gain_end is None else penalty.gain_end
    if not (penalty.gain > 0 and end > 0 and penalty.gain_rate >= 0):
        raise ValueError(
            "finetune: gain and gain_end (α) must be positive and gain_rate not negative; got "
            f"{penalty.gain}, {penalty.gain_end} and {penalty.gain_rate}. The paper's α is 100"
        )
    weights = penalty.layer_weights
    if weights is not None and (
        len(weights) != len(penalty.layers) or min(weights) < 0 or not sum(weights) > 0
    ):
        raise ValueError(
            f"finetune: layer_weights must be one per layer, not negative and not all 0; got "
            f"{list(weights)} for {list(penalty.layers)}"
        )


def _check_labels(labels: np.ndarray, count: int, num_classes: int) -> None:
    y = np.asarray(labels)
    if y.shape != (count,) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"finetune: labels must be integers [{count}], one per image; got {y.dtype} {list(y.shape)}"
        )
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"finetune: labels must be in 0..{num_classes - 1}, the network's classes; they span "
            f"{y.min()}..{y.max()}. Match the data's classes to the network's"
        )


def _check_teacher(model: nnx.Module, teacher: nnx.Module) -> None:
    ours, theirs = _layout(model), _layout(teacher)
    differing = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
    if type(model) is not type(teacher) or differing:
        example = ""
        if differing:
            first = differing[0]
            example = (
                f": {first} is {theirs.get(first, 'not there')}, not {ours.get(first, 'there')}"
            )
        raise ValueError(
            f"finetune: the teacher must have the architecture of the network, {type(model).__name__}; "
            f"it is a {type(teacher).__name__} of another shape{example}. Leave it out to hold the "
            "network to what it is now"
        )


def _layout(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    flat = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable.shape for path, variable in flat}
