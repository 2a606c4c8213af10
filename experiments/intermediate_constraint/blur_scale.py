"""The factor from paper D's blur levels to those of 32×32 images: that at which blur costs as much accuracy.

Purpose   Blur levels of 224×224 images, times 32/224, hardly change a 32×32 image. The paper prints one number for its
          five levels: after plain fine-tuning, accuracy on blurred images is 0.5073/0.6744 of that on clean ones.
          Here the shipped classifier is fine-tuned on blurred training images for a moment, its accuracy measured on
          other training images at many σ, and the factor sought at which its five levels have that share on average.
Command   python -m experiments.intermediate_constraint.blur_scale --data_dir=...
Expected  a few minutes of one core; the factor is BLUR_FACTOR of `presets`, which was set by hand from this
Output    --out gets results.json and table.md
"""

import jax
import numpy as np
from absl import flags
from flax import nnx

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import tables as common_tables
from experiments.intermediate_constraint.blur_levels import BATCH, SIGMAS, factor_of, table
from experiments.intermediate_constraint.study import PLAIN
from experiments.intermediate_constraint.tables import PAPER
from outgen_jax import runs, scripts
from outgen_jax.data import distort, sources
from outgen_jax.models import pretrained
from outgen_jax.training import finetuning_fit
from outgen_jax.training.finetuning_recipe import FinetuningRecipe

_DATA_DIR = common_flags.data_dir()
_UPDATES = flags.DEFINE_integer("updates", 40, "Of fine-tuning, 64 images each.", 1)
_NUMBER = flags.DEFINE_integer("number", 250, "Training images to measure accuracy on.", 2)
_OUT = common_flags.out("blur_scale")
_OVERWRITE = common_flags.overwrite()

TRAINED = distort.PAPER._replace(noise=(), blur=SIGMAS)


def blurred(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each image [B, H, W, C] clean or at one of `SIGMAS`."""
    return distort.random_distortion(key, images, TRAINED, kinds=("blur",))


def accuracies(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """On clean images [n, H, W, C] uint8, and at each of `SIGMAS`."""
    network = og.models.from_nnx(model)
    clean = images.astype(np.float32) / 255
    views = [clean, *(distort.gaussian_blur(clean, sigma) for sigma in SIGMAS)]
    return [float(np.mean(og.predict(*network, x).argmax(-1) == labels)) for x in views]


def main(argv: list[str]) -> None:
    """Runs the script with parsed flags."""
    del argv
    scripts.enable_compilation_cache()
    trained_on = _UPDATES.value * BATCH
    source = sources.load(
        "cifar10", split="train", data_dir=_DATA_DIR.value, limit=trained_on + _NUMBER.value
    )
    assert source.labels is not None
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    model = pretrained.load("cifar10_vgg16_half").model
    recipe = FinetuningRecipe(
        updates=_UPDATES.value,
        batch_size=BATCH,
        learning_rate=0.01,
        momentum=0.9,
        schedule="cosine",
        crop_padding=4,
    )
    tuned = finetuning_fit.finetune(
        model,
        source.images[:trained_on],
        source.labels[:trained_on],
        recipe,
        distort=blurred,
        key=jax.random.key(0),
    )
    held_out = source.images[trained_on:], source.labels[trained_on:]
    before, after = (accuracies(m, *held_out) for m in (model, tuned.model))
    clean, _, blur = PAPER[PLAIN]
    results = {
        "sigmas": SIGMAS,
        "images": len(held_out[1]),
        "updates": recipe.updates,
        "before": before,
        "after": after,
        "wanted": blur / clean,
        "factor": factor_of(after, blur / clean),
    }
    print(common_tables.write(run, results, table))


if __name__ == "__main__":
    scripts.start(main)
