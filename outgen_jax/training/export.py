"""A trained classifier as `models.pretrained.save` writes it, with what its card says of exactly these weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from outgen_jax.models import pretrained
from outgen_jax.networks import ApplyFn
from outgen_jax.training import adversarial_examples, classifier
from outgen_jax.training.classifier_fit import Epoch


class Exported(NamedTuple):
    """The network with rounded weights, in inference mode, and the measured entries of its card."""

    model: nnx.Module
    card: dict[str, Any]


def prepare(
    graphdef: nnx.GraphDef,
    state: classifier.TrainState,
    history: Sequence[Epoch],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    apply: ApplyFn,
    robust_radius: float | None = None,
) -> Exported:
    """Rounds the weights to bfloat16, as they are saved, and measures the rounded network on test images.

    Args:
      graphdef: from `classifier.create`.
      state: after the training.
      history: of the training.
      images: uint8 [N, H, W, C], for the accuracy.
      labels: int [N].
      apply: (training state, images) -> logits [B, K], from `classifier.make_apply`, better jitted.
      robust_radius: of the L2 ball in which the accuracy under attack is measured, too. None: it is not.

    Returns:
      The network, and of its card: test_images, test_accuracy, seconds, device and, with a radius, robustness.
    """
    model = pretrained.rounded(nnx.merge(graphdef, state.params, state.variables, copy=True))
    _, *states = nnx.split(model, nnx.Param, ...)
    params, variables = states
    rounded = state._replace(params=params, variables=variables)
    card: dict[str, Any] = {
        "test_images": len(images),
        "test_accuracy": classifier.accuracy(apply, rounded, images, labels),
        "seconds": sum(row.seconds for row in history),
        "device": jax.devices()[0].device_kind,
    }
    if robust_radius is not None:
        found = adversarial_examples.robustness(
            apply, rounded, images, labels, radius=robust_radius
        )
        card["robustness"] = found._asdict()
    return Exported(model, card)
