"""What the presets stand for, flag by flag."""

from typing import Any

from outgen_jax.models import pretrained

_FRACTIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
# What decides comes first: none replaced against 30 %, then the other fractions.
_TABLE_A1 = ["plain", *(f"sgd:{f}" for f in ("0.3", "0.1", "0.2", "0.4", "0.5"))]
_VGG16 = {"network": "vgg16", "momentum": 0.9, "schedule": "cosine", "precision": None}
_VGG16_ON_CIFAR = {**_VGG16, "dataset": "cifar10", "size": 32, "crop_padding": 4}
# The recipe of the whitened network without label smoothing, which Eq. A12 does not have.
_WHITENED = {
    "network": "whitened_cnn",
    "optimizer": "normalized_muon",
    "learning_rate": 0.24,
    "momentum": 0.6,
    "schedule": "linear",
}
# Few images and many epochs.
_BOUNDARY = {
    **_VGG16_ON_CIFAR,
    "train_images": 5_000,
    "test_split": "test",
    "test_images": 10_000,
    "distorted_images": 2_000,
    "attacked_images": 1_000,
    "classifier": pretrained.SHIPPED[0],
    "seeds": 5,
    "epochs": 30,
    "batch_size": 128,
    "width": 0.125,
    "optimizer": "muon",
    "learning_rate": 0.08,
}
PRESETS: dict[str, dict[str, Any]] = {
    # Table A1, for a GPU.
    "paper": {
        **_VGG16_ON_CIFAR,
        "train_images": 0,
        "test_split": "test",
        "test_images": 10_000,
        "distorted_images": 10_000,
        "attacked_images": 10_000,
        "classifier": pretrained.SHIPPED[0],
        "arms": ["plain", *(f"sgd:{f}" for f in _FRACTIONS)],
        "seeds": 5,
        "epochs": 300,
        "batch_size": 128,
        "width": 1.0,
        "optimizer": "sgd",
        "learning_rate": 0.1,
    },
    # Table A1 with a network for two cores; --width and --epochs change its cost.
    "table_a1": {
        **_WHITENED,
        "dataset": "cifar10",
        "size": 32,
        "crop_padding": 4,
        "train_images": 0,
        "test_split": "test",
        "test_images": 10_000,
        "distorted_images": 0,
        "attacked_images": 0,
        "classifier": "train",
        "arms": [*_TABLE_A1, *(arm.replace("sgd", "exact") for arm in _TABLE_A1[1:])],
        "seeds": 5,
        "epochs": 8,
        "batch_size": 2000,
        "width": 1.0,
        "precision": "bfloat16",
    },
    # The paper's fractions at a size for minutes: 16×16 pixels and 100 updates, half of those in `table_a1`.
    "small": {
        **_WHITENED,
        "dataset": "cifar10",
        "size": 16,
        "crop_padding": 2,
        "train_images": 2_000,
        "test_split": "test",
        "test_images": 2_000,
        "distorted_images": 0,
        "attacked_images": 0,
        "classifier": "train",
        "arms": _TABLE_A1,
        "seeds": 30,
        "epochs": 5,
        "batch_size": 100,
        "width": 0.125,
        "precision": None,
    },
    # Took 40 minutes, half of them on one core only.
    "cpu": {
        **_VGG16_ON_CIFAR,
        "train_images": 10_000,
        "test_split": "test",
        "test_images": 2_000,
        "distorted_images": 500,
        "attacked_images": 200,
        "classifier": pretrained.SHIPPED[0],
        "arms": [
            *("plain", "exact:0.2", "during:0.1"),
            *("smoothing", "mixup", "distillation", "plain@1.5"),
        ],
        "seeds": 3,
        "epochs": 5,
        "batch_size": 128,
        "width": 0.125,
        "optimizer": "muon",
        "learning_rate": 0.08,
    },
    # Few images and many epochs: images at the network's own boundaries.
    "boundary": {**_BOUNDARY, "arms": ["plain", "own:0.5", "plain@2", "mixup", "smoothing"]},
    # The arm that `boundary` found, on images that no setting was chosen on, beside adversarial training and noise.
    "boundary_controls": {
        **_BOUNDARY,
        "test_split": "train[40000:]",
        "arms": ["plain", "own:0.5", "pgd:0.5", "fgsm:0.5", "noise:0.5"],
    },
    # Runs everything in seconds; its numbers mean nothing.
    "smoke": {
        **_VGG16,
        "dataset": "digits",
        "size": 32,
        "crop_padding": 4,
        "train_images": 64,
        "test_split": "test",
        "test_images": 32,
        "distorted_images": 32,
        "attacked_images": 32,
        "classifier": "train",
        "arms": ["plain", "sgd:0.5", "during:0.5"],
        "seeds": 2,
        "epochs": 1,
        "batch_size": 16,
        "width": 1 / 16,
        "optimizer": "sgd",
        "learning_rate": 0.05,
    },
}
