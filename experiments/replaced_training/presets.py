"""What the presets stand for, flag by flag."""

from typing import Any

from outgen_jax.models import pretrained

_FRACTIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")
PRESETS: dict[str, dict[str, Any]] = {
    # Table A1, for a GPU.
    "paper": {
        "dataset": "cifar10",
        "train_images": 0,
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
    # Took 40 minutes, half of them on one core only.
    "cpu": {
        "dataset": "cifar10",
        "train_images": 10_000,
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
    "boundary": {
        "dataset": "cifar10",
        "train_images": 5_000,
        "test_images": 10_000,
        "distorted_images": 2_000,
        "attacked_images": 1_000,
        "classifier": pretrained.SHIPPED[0],
        "arms": ["plain", "own:0.5", "plain@2", "mixup", "smoothing"],
        "seeds": 5,
        "epochs": 30,
        "batch_size": 128,
        "width": 0.125,
        "optimizer": "muon",
        "learning_rate": 0.08,
    },
    # Runs everything in seconds; its numbers mean nothing.
    "smoke": {
        "dataset": "digits",
        "train_images": 64,
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
