"""Frozen networks for scores of images: features, class probabilities, and a name for both.

Images are uint8 [N, H, W, 3], as saved; each network resizes them itself. A score depends on its network, so the
network names it: `network.score_name("IS")` is "IS[EfficientNet-Lite0]".
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax import devices, image_checks
from outgen_jax.models import efficientnet_lite, efficientnet_lite_imagenet, inception
from outgen_jax.models.efficientnet_lite import EfficientNetLite

# Images of one compiled call. The maps of two stay in a CPU's cache; 50 took half as long again an image.
_CPU_BATCH, _ACCELERATOR_BATCH = 2, 64


class FeatureNetwork(NamedTuple):
    """A frozen network for scores.

    Attributes:
      name: goes with every score.
      size: side in pixels of what the network sees, whatever the images' own.
      class_names: [K].
      features_and_probs: images [N, H, W, 3] uint8 -> features [N, D] and probabilities [N, K].
    """

    name: str
    size: int
    class_names: tuple[str, ...]
    features_and_probs: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    """Images uint8 [N, H, W, 3] -> features [N, d], probabilities [N, K], both float32, a batch at a time.

    Raises:
      ValueError: no images, or of another type or shape.
    """

    def score_name(self, score: str) -> str:
        """What the score of this network is called: `IS` -> `IS[EfficientNet-Lite0]`."""
        return f"{score}[{self.name}]"


def efficientnet_lite0(
    path: str | os.PathLike[str] | None = None, *, batch_size: int | None = None
) -> FeatureNetwork:
    """EfficientNet-Lite0 with its ImageNet weights: 1,000 classes, 1,280 features.

    Images are resized to its 224×224 bilinearly between pixel centres, shrunk ones averaged over what a pixel covers.

    Args:
      path: as `efficientnet_lite_imagenet.load_imagenet`.
      batch_size: images in one compiled call; None: 2 on CPU, 64 elsewhere.

    Raises:
      FileNotFoundError, ValueError: as `efficientnet_lite_imagenet.load_imagenet`.
      ValueError: a batch of no images.
    """
    return _efficientnet_lite(efficientnet_lite.EfficientNetLite0, path, batch_size)


def efficientnet_lite1(
    path: str | os.PathLike[str] | None = None, *, batch_size: int | None = None
) -> FeatureNetwork:
    """EfficientNet-Lite1, of 240×240 pixels; all else as `efficientnet_lite0`."""
    return _efficientnet_lite(efficientnet_lite.EfficientNetLite1, path, batch_size)


def efficientnet_lite2(
    path: str | os.PathLike[str] | None = None, *, batch_size: int | None = None
) -> FeatureNetwork:
    """EfficientNet-Lite2, of 260×260 pixels; all else as `efficientnet_lite0`."""
    return _efficientnet_lite(efficientnet_lite.EfficientNetLite2, path, batch_size)


def _efficientnet_lite(
    network: type[EfficientNetLite], path: str | os.PathLike[str] | None, batch_size: int | None
) -> FeatureNetwork:
    name, size = network.variant.name, network.variant.image_size

    def resized(images: jax.Array) -> jax.Array:
        return jax.image.resize(images, (len(images), size, size, 3), "bilinear")

    model = efficientnet_lite_imagenet.load_imagenet(path, network=network)
    caller = name.lower().replace("-", "_")
    look = _in_batches(model, batch_size, prepare=resized, caller=caller)
    return FeatureNetwork(name, size, efficientnet_lite_imagenet.imagenet_classes(), look)


def inception_v3(
    path: str | os.PathLike[str],
    *,
    sha256: str | None = inception.FID_SHA256,
    batch_size: int | None = None,
) -> FeatureNetwork:
    """The FID's Inception v3: 1,008 classes from logits without biases, 2,048 features.

    Its scores are the field's "Inception Score" and "FID" where the weights are pytorch-fid's. The classes have no
    names here: their order is not ImageNet's usual one.

    Args:
      path: as `inception.load_fid`.
      sha256: as `inception.load_fid`.
      batch_size: images in one compiled call; None: 2 on CPU, 64 elsewhere.

    Raises:
      FileNotFoundError, ValueError: as `inception.load_fid`.
      ValueError: a batch of no images.
    """
    model = inception.load_fid(path, sha256=sha256)
    look = _in_batches(model, batch_size, caller="inception_v3")
    names = tuple(f"class {i}" for i in range(inception.CLASSES))
    return FeatureNetwork("Inception-v3", inception.SIDE, names, look)


def _in_batches(
    model: Any,  # `model.features(images) -> logits, features`
    batch_size: int | None,
    *,
    prepare: Callable[[jax.Array], jax.Array] = lambda images: images,
    caller: str,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    graphdef, variables = nnx.split(model)
    if batch_size is None:
        on_cpu = devices.platform_of(variables) == "cpu"
        batch_size = _CPU_BATCH if on_cpu else _ACCELERATOR_BATCH
    if batch_size < 1:
        raise ValueError(
            f"{caller}: batch_size must be at least 1, got {batch_size}; None chooses for the platform"
        )

    @jax.jit
    def look(variables: nnx.State, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        network = nnx.merge(graphdef, variables)
        logits, features = network.features(prepare(images.astype(jnp.float32) / 255))
        return features, jax.nn.softmax(logits)

    def features_and_probs(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _check_images(images, caller)
        parts = []
        for start in range(0, len(images), batch_size):
            # The last batch is filled up with copies, so that one shape is compiled for all.
            chosen = np.minimum(np.arange(start, start + batch_size), len(images) - 1)
            parts.append([np.asarray(a) for a in look(variables, images[chosen])])
        rows = (np.concatenate(arrays)[: len(images)] for arrays in zip(*parts, strict=True))
        return next(rows), next(rows)

    return features_and_probs


def _check_images(images: np.ndarray, caller: str) -> None:
    if not isinstance(images, np.ndarray):
        raise ValueError(
            f"{caller}: images must be an array of NumPy, got a {type(images).__name__}; numpy.asarray(images) is one"
        )
    image_checks.check_uint8(images, caller=caller)
    image_checks.check_batch(images, caller=caller, least=1, channels=(3,))
