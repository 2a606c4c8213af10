"""A trained classifier as `models.pretrained.save` writes it, with what its card says of exactly these weights."""

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from outgen_jax.models import adapters, pretrained
from outgen_jax.training import adversarial_examples, classifier
from outgen_jax.training.classifier_fit import Trained


class Exported(NamedTuple):
    """The network with rounded weights, in inference mode, and the measured entries of its card."""

    model: nnx.Module
    card: dict[str, Any]


def prepare(
    trained: Trained,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    robust_radius: float | None = None,
) -> Exported:
    """Rounds the weights to bfloat16, as they are saved, and measures the rounded network on test images.

    Args:
      trained: from `classifier_fit.train`.
      images: uint8 [N, H, W, C], for the accuracy.
      labels: int [N].
      robust_radius: of the L2 ball in which the accuracy under attack is measured, too. None: it is not.

    Returns:
      The network, and of its card: test_images, test_accuracy, seconds, device and, with a radius, robustness.
    """
    model = pretrained.rounded(trained.model)
    apply_fn, variables = adapters.from_nnx(model)
    card: dict[str, Any] = {
        "test_images": len(images),
        "test_accuracy": classifier.accuracy(jax.jit(apply_fn), variables, images, labels),
        "seconds": sum(row.seconds for row in trained.history),
        "device": jax.devices()[0].device_kind,
    }
    if robust_radius is not None:
        found = adversarial_examples.robustness(
            apply_fn, variables, images, labels, radius=robust_radius
        )
        card["robustness"] = found._asdict()
    return Exported(model, card)
