"""What is refused before anything is trained, since a later part of the run would fail with it."""

import dataclasses

from flax import nnx

from experiments.intermediate_constraint.data import Split
from experiments.intermediate_constraint.presets import OWN_WEIGHTS, Preset, grid
from experiments.intermediate_constraint.study import Settings, distortion
from outgen_jax.training import finetuning_checks


def check_choice(settings: Settings, preset: Preset) -> None:
    """Refuses several λ for an arm where no validation images are held out to choose one on.

    Raises:
      ValueError: in the name of the flags that ask for them.
    """
    several = [name for name in settings.variants if len(grid(name, settings.weights)) > 1]
    if preset.validation_images or not several:
        return
    own = [name for name in several if name in OWN_WEIGHTS]
    remedies = ["give --weights one value"] if len(several) > len(own) else []
    remedies += [f"leave {', '.join(own)} out of --variants"] if own else []
    raise ValueError(
        f"{', '.join(several)}: there are several values of λ, and this preset holds out no validation images to "
        f"choose on; {' and '.join(remedies)}, or use a preset that does, such as --preset=cpu"
    )


def check_numbers(settings: Settings, train_images: int) -> None:
    """Refuses more images an update, or more that are brought to targets, than there are to train on.

    Raises:
      ValueError: in the name of the flag.
    """
    batch, targeted = settings.recipe.batch_size, settings.targeted_images
    if batch > train_images:
        raise ValueError(
            f"--batch_size={batch} must be at most the number of training images, {train_images}; lower it, or raise "
            "--train_images"
        )
    if targeted and not batch <= targeted <= train_images:
        raise ValueError(
            f"--targeted_images={targeted} must be from --batch_size={batch} to the number of training images, "
            f"{train_images}; 0 leaves that part out"
        )


def check_network(model: nnx.Module, split: Split, settings: Settings) -> None:
    """Refuses layers, numbers or labels with which a later job would fail.

    Raises:
      ValueError: see `finetuning_fit.finetune`.
    """
    clean = distortion("clean", settings.levels)
    for penalty in settings.variants.values():
        # Also where the arm has no penalty: the agreement of these layers is measured for all.
        held = dataclasses.replace(penalty, kind="constraint")
        finetuning_checks.validate(
            model, split.images, split.labels, settings.recipe, held, clean, None
        )
