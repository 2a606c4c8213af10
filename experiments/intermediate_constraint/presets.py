"""The sizes at which the study of paper D is run."""

import dataclasses

from experiments.intermediate_constraint.study import AUGMIX, MSE, PLAIN, PROPOSED
from outgen_jax.data import distort
from outgen_jax.training.finetuning_recipe import FinetuningRecipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """What a run is unless flags say otherwise."""

    dataset: str
    size: int
    levels: distort.Levels
    compared: distort.Levels | None
    network: str | None
    train_images: int
    validation_images: int
    test_images: int
    epochs: float
    recipe: FinetuningRecipe
    weights: tuple[str, ...]
    kinds: tuple[str, ...]
    variants: tuple[str, ...]
    seeds: int
    targeted_images: int
    evaluation_batch: int
    # Of the network trained here first, where none is given:
    width: float = 0.25  # of its VGG16
    base_epochs: float = 10.0
    base_rate: float = 0.05
    convolutions: str | None = None  # a network whose convolutions it begins with


_ALL = 10**9  # more images than there are
# Of paper D's blur levels, for 32×32 images: the blur then costs as large a share of the accuracy as in its Table 1
# (results/blur_scale). Scaled by the sides, 32/224, the mildest level changes nothing.
BLUR_FACTOR = 0.26
COSTLY_32 = distort.PAPER._replace(blur=tuple(BLUR_FACTOR * sigma for sigma in distort.PAPER.blur))
_CIFAR10 = FinetuningRecipe(
    updates=0,
    batch_size=64,
    learning_rate=0.01,
    momentum=0.9,
    schedule="cosine",
    crop_padding=4,
)
PRESETS = {
    # The paper says SGD and a rate of 0.001; momentum and augmentation it does not name.
    "paper": Preset(
        dataset="imagenet2012",
        size=224,
        levels=distort.PAPER,
        compared=distort.IMAGENET_C,
        network="vgg16-397923af.pth",
        train_images=_ALL,
        validation_images=10_000,
        test_images=_ALL,
        epochs=40,
        recipe=FinetuningRecipe(updates=0, batch_size=64, learning_rate=1e-3),
        weights=(),  # those the paper chose
        kinds=("both",),
        variants=(),
        seeds=1,
        targeted_images=0,
        evaluation_batch=64,
    ),
    # The paper's λ, chosen before; everything on CIFAR-10 at the size of a night of two cores.
    "cifar10": Preset(
        dataset="cifar10",
        size=32,
        levels=COSTLY_32,
        compared=None,
        network=None,
        train_images=_ALL,
        validation_images=0,
        test_images=_ALL,
        epochs=1,
        recipe=_CIFAR10,
        weights=(),
        kinds=("both",),
        variants=("no dropout", "MSE no dropout", "inference"),
        seeds=8,
        targeted_images=0,
        evaluation_batch=250,
        width=0.5,
        base_epochs=4,
        base_rate=0.01,
        convolutions="cifar10_vgg16_half",
    ),
    # A quarter of the width and of the images; λ chosen on validation images, and many variants.
    "cpu": Preset(
        dataset="cifar10",
        size=32,
        levels=distort.PAPER_32,
        compared=distort.CIFAR10_C,
        network=None,
        train_images=12_800,
        validation_images=2_000,
        test_images=2_000,
        epochs=1,
        recipe=_CIFAR10,
        weights=("0.125", "0.1", "0.075", "0.05", "0.025"),
        kinds=("both", "noise", "blur"),
        variants=(
            AUGMIX,
            "alpha 10",
            "alpha 1",
            "alpha 1 to 100",
            "alpha learned",
            "last layer only",
        ),
        seeds=5,
        targeted_images=1_280,
        evaluation_batch=250,
    ),
    "smoke": Preset(
        dataset="digits",
        size=28,
        levels=distort.PAPER_32,
        compared=None,
        network=None,
        train_images=128,
        validation_images=64,
        test_images=64,
        epochs=1,
        recipe=FinetuningRecipe(
            updates=0, batch_size=32, learning_rate=0.01, momentum=0.9, flip=False
        ),
        weights=("0.1",),
        kinds=("both",),
        variants=(),
        seeds=2,
        targeted_images=0,
        evaluation_batch=64,
    ),
}
# 12 is the λ of AugMix's paper, for training from scratch; a smaller α pulls less, so its grid goes higher.
OWN_WEIGHTS = {
    PLAIN: (0.0,),
    AUGMIX: (12.0, 3.0, 1.0),
    "alpha 10": (0.1, 0.5, 1.0),
    "alpha 1": (0.1, 1.0, 5.0),
}
# By the paper, from 0.125, 0.1, 0.075, 0.05 and 0.025; other constraints have that of the proposed one.
CHOSEN = {MSE: (0.05,), "MSE no dropout": (0.05,), PROPOSED: (0.1,)}


def grid(variant: str, weights: tuple[float, ...]) -> tuple[float, ...]:
    """The values of λ to try for a variant; `weights` empty: the paper's choice."""
    return OWN_WEIGHTS.get(variant) or weights or CHOSEN.get(variant, CHOSEN[PROPOSED])
