"""The features of a frozen network for real and generated images, and the scores made from them.

Images are uint8 [n, H, W, C]. A score means nothing without the network's name and n, so both stand beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import outgen_jax as og
from experiments.augmented_gan.leaks import Detector, fit_detector
from experiments.augmented_gan.presets import Arm
from outgen_jax.data import augmented_set
from outgen_jax.metrics import Interval
from outgen_jax.models import feature_networks
from outgen_jax.models.feature_networks import FeatureNetwork

K = 5  # neighbours, of precision, recall, density and coverage
GROUPS = 10  # parts of the generated images, each left out once for an interval
FEWEST = GROUPS * 2  # images a set must have
TOP = 5  # classes noted of each image
FREQUENT = 3  # classes noted of each set
NETWORKS = ("EfficientNet-Lite0", "Inception-v3", "pixels")


class Look(NamedTuple):
    """Features of images."""

    features: np.ndarray  # [n, d], the network's
    probs: np.ndarray  # [n, K], the network's
    squares: np.ndarray  # [n, 8 · 8 · C], mean colours in [0, 1]

    def rows(self, rows: Any) -> "Look":
        """The features of some of the images; `rows` is an index of an array."""
        return Look(*(array[rows] for array in self))

    @property
    def evidence(self) -> np.ndarray:
        """Features for the detector. The network hardly sees a negative; colours do not show an upside-down dog."""
        return np.concatenate([self.features, self.squares], -1)


class Subject(NamedTuple):
    """Features of the real images of a subject."""

    kinds: Mapping[str, Look]  # of all originals, by the way they were changed
    held_out: Look | None  # real images that no GAN saw
    detector: Detector

    @property
    def real(self) -> Look:
        """The originals as they are."""
        return self.kinds["original"]


def network_of(name: str, weights: str | None) -> FeatureNetwork:
    """The network of a name in NETWORKS.

    Raises:
      ValueError: Inception v3 without a file of weights.
      FileNotFoundError, ValueError: as the network's own loading.
    """
    if name == "pixels":
        return _pixels()
    if name == "EfficientNet-Lite0":
        return feature_networks.efficientnet_lite0(weights)
    if weights is None:
        raise ValueError("--network=Inception-v3 needs the file of its weights in --weights")
    return feature_networks.inception_v3(weights)


def _pixels() -> FeatureNetwork:
    """A stand-in for tests: 4×4 mean values, and a fixed random map of them."""
    weights = np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)

    def look(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, height, width, _ = images.shape
        values = images.mean(-1).reshape(n, 4, height // 4, 4, width // 4).mean((2, 4)) / 255
        features = values.reshape(n, 16).astype(np.float32)
        return features, np.asarray(jax.nn.softmax(10 * features @ weights))

    return FeatureNetwork("pixels", 4, tuple(f"class {i}" for i in range(10)), look)


def look_at(network: FeatureNetwork, images: np.ndarray) -> Look:
    """Features of images with 1 or 3 channels, whose sides are multiples of 8."""
    n, height, width, _ = images.shape
    squares = images.reshape(n, 8, height // 8, 8, width // 8, -1).mean((2, 4)) / 255
    seen = network.features_and_probs(np.repeat(images, 3 // images.shape[-1], -1))
    return Look(*seen, squares.reshape(n, -1).astype(np.float32))


def look_at_kinds(
    network: FeatureNetwork, images: np.ndarray, kinds: Sequence[str]
) -> dict[str, Look]:
    """Features of all images, changed in each of some ways."""
    number = len(images)
    rows = np.arange(number, dtype=np.int32)
    found = {}
    for kind in kinds:
        table = augmented_set.Table(
            rows, np.full(number, augmented_set.KINDS.index(kind), np.int32)
        )
        changed = augmented_set.materialise(augmented_set.AugmentedSet(images, table))
        found[kind] = look_at(network, changed)
    return found


def named(name: str, look: Look) -> dict[str, np.ndarray]:
    """Features as named arrays for a file."""
    return {f"{name}/{field}": array for field, array in look._asdict().items()}


def subject_of(kinds: Mapping[str, Look], held_out: Look | None) -> Subject:
    """A subject with the detector of its changes, from the features of its originals."""
    evidence = {name: look.evidence for name, look in kinds.items()}
    return Subject(kinds, held_out, fit_detector(evidence))


def augmented_look(
    arm: Arm, table: augmented_set.Table, subject: Subject, generated: Look | None, number: int
) -> Look:
    """Features of `number` random images of an augmented set, or of all if there are fewer."""
    rows = np.random.default_rng(0).permutation(len(table.source))[:number]
    originals = len(subject.real.features)
    looks = []
    for source, kind in zip(table.source[rows], table.kind[rows], strict=True):
        name = augmented_set.KINDS[kind]
        if name == "generated":
            assert generated is not None, arm.name
            looks.append(generated.rows(source - originals))
        else:
            looks.append(subject.kinds[name].rows(source))
    return Look(*(np.stack(arrays) for arrays in zip(*looks, strict=True)))


def score(found: Look, real: Look, *, resamples: int) -> dict[str, Any]:
    """All scores, as {"estimate", "low", "high"} with 95 % intervals over the images found.

    The Inception Score's interval is from the bootstrap. The others, for which a row drawn twice is nearer to itself
    than any other, have the jackknife's, which leaves a tenth out at a time.
    """
    scores: dict[str, Any] = {
        "images": len(found.features),
        "real_images": len(real.features),
        "inception_score": inception_score(found, resamples=resamples),
    }

    def distances(features: np.ndarray) -> np.ndarray:
        fid = og.metrics.frechet_distance(real.features, features)
        kid = og.metrics.kernel_distance(real.features, features)
        return np.array([fid, kid, *og.metrics.prdc(real.features, features, k=K)], np.float64)

    intervals = og.metrics.jackknife_interval(distances, found.features, groups=GROUPS)
    names = ("fid", "kid", *og.metrics.PRDC._fields)
    for i, name in enumerate(names):
        scores[name] = plain(Interval(*(value[i] for value in intervals)))
    return scores


def inception_score(found: Look, *, resamples: int) -> dict[str, float]:
    """Eq. B1 and its interval."""
    return plain(
        og.metrics.bootstrap_interval(og.metrics.inception_score, found.probs, resamples=resamples)
    )


def point(found: Look, real: Look) -> dict[str, float]:
    """A point of the curves."""
    return {
        "images": len(found.features),
        "inception_score": float(og.metrics.inception_score(found.probs)),
        "fid": float(og.metrics.frechet_distance(real.features, found.features)),
    }


def by_image(found: Look, real: Look) -> dict[str, np.ndarray]:
    """For every image: top classes and their probabilities [n, TOP], and their surprise under the originals' [n]."""
    top = np.argsort(-found.probs, axis=-1, kind="stable")[:, :TOP]
    return {
        "classes": top.astype(np.int32),
        "probs": np.take_along_axis(found.probs, top, -1),
        "surprise": og.metrics.surprise(found.probs, real.probs),
    }


def frequent_classes(found: Look, names: Sequence[str]) -> dict[str, float]:
    """The most frequent top classes, with their shares of the images."""
    top = og.metrics.top_classes(found.probs, count=FREQUENT)
    return {names[i]: float(share) for i, share in zip(top.classes, top.shares, strict=True)}


def check_number(what: str, number: int) -> None:
    """Refuses, in the name of `what`, fewer images than the scores need."""
    if number < FEWEST:
        raise ValueError(f"{what}: {number} images; the scores need at least {FEWEST}")


def plain(interval: Interval) -> dict[str, float]:
    """An interval as JSON values."""
    return {key: float(number) for key, number in interval._asdict().items()}
