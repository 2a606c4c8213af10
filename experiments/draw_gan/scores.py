"""All scores of one set of generated digits; paper C left numerical realism to future work."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import outgen_jax as og
from outgen_jax.metrics import neighbours, samples
from outgen_jax.models import pretrained

DIGITS = tuple("0123456789")
K = 5  # neighbours, of precision, recall, density and coverage
BLOCKS = 5  # equal parts of the samples, whose scores give an interval where rows must not be drawn twice
FEWEST = BLOCKS * (K + 1)  # images a set must have
STEP_IMAGES = 1000  # whose canvases are scored at every step
NEIGHBOUR_IMAGES = 1000  # whose nearest training image is sought
_RARE = 0.01  # a digit below this share counts as missing


class Scored(NamedTuple):
    """The classifier's features of a set of images."""

    images: np.ndarray  # [n, 28, 28, 1] uint8
    probs: np.ndarray  # [n, 10]
    features: np.ndarray  # [n, 84], penultimate


class Reference(NamedTuple):
    """The real images that generated ones are compared with."""

    test: Scored
    train: np.ndarray  # [N, 28, 28, 1] uint8, the images trained on
    look: Callable[[np.ndarray], Scored]


def reference(test: np.ndarray, train: np.ndarray) -> Reference:
    """The features of the shipped LeNet for the test images [n, 28, 28, 1] uint8."""
    check_number("the test set", len(test))
    model = pretrained.load("mnist_lenet").model
    assert isinstance(model, og.models.LeNet)
    features = jax.jit(model.features)

    def look(images: np.ndarray) -> Scored:
        parts = [
            features(jnp.asarray(images[i : i + 500], jnp.float32) / 255)
            for i in range(0, len(images), 500)
        ]
        logits, rows = (np.concatenate(values) for values in zip(*parts, strict=True))
        return Scored(images, np.asarray(jax.nn.softmax(logits)), rows)

    return Reference(look(test), train, look)


def check_number(what: str, number: int) -> None:
    """Refuses, in the name of `what`, fewer images than the scores need."""
    if number < FEWEST:
        raise ValueError(
            f"{what} has {number} images; the scores need at least {FEWEST} ({BLOCKS} parts of {K + 1}, for "
            f"neighbourhoods of {K})"
        )


def score(
    images: np.ndarray, against: Reference, *, resamples: int, canvases: np.ndarray | None = None
) -> dict[str, Any]:
    """All scores of images [n, 28, 28, 1] uint8, as {"estimate", "low", "high"} where there is a 95 % interval.

    Args:
      images: the samples.
      against: real images.
      resamples: of the bootstrap over images.
      canvases: [m, T, 28, 28, 1] uint8, to score the realism of every step.
    """
    check_number("the sample", len(images))
    found, real = against.look(images), against.test
    bootstrap = functools.partial(og.metrics.bootstrap_interval, resamples=resamples)
    labels = found.probs.argmax(-1)
    counts = np.bincount(labels, minlength=10)
    realism = np.asarray(neighbours.realism_score(real.features, found.features))
    pixels = images[:NEIGHBOUR_IMAGES].reshape(-1, 784) / np.float32(255)
    train = against.train.reshape(-1, 784) / np.float32(255)
    nearest = np.asarray(neighbours.nearest_neighbours(pixels, train).distance)
    floats = images.astype(np.float32) / 255
    scores: dict[str, Any] = {
        "images": len(images),
        "real_images": len(real.images),
        "classifier_score": bootstrap(og.metrics.inception_score, found.probs),
        # Copies of rows raise the distance: intervals mirrored at the estimate.
        "fid": bootstrap(
            functools.partial(_distance_to, real.features),
            found.features,
            resamples=max(2, resamples // 5),
            method="basic",
        ),
        **_in_blocks(found.features, real.features),
        "kl_to_uniform": bootstrap(lambda y: samples.kl_to_uniform(y, 10), labels),
        "realism": bootstrap(np.mean, realism),
        "realistic_share": bootstrap(np.mean, (realism >= 1).astype(float)),
        "nearest_training_distance": bootstrap(np.mean, nearest),
        "laplacian_variance": bootstrap(np.mean, np.asarray(samples.laplacian_variance(floats))),
        "greyness": bootstrap(np.mean, np.asarray(samples.greyness(floats))),
    }
    plain = {key: _plain(value) for key, value in scores.items()}
    plain["digit_histogram"] = counts.tolist()
    plain["digits"] = int(np.sum(counts >= _RARE * len(labels)))
    if canvases is not None:
        plain["realism_by_step"] = realism_by_step(canvases, against)
    return plain


def realism_by_step(canvases: np.ndarray, against: Reference) -> list[float]:
    """Mean realism of the canvases [m, T, 28, 28, 1] uint8 of each step."""
    means = []
    for step in range(canvases.shape[1]):
        features = against.look(canvases[:, step]).features
        scores = neighbours.realism_score(against.test.features, features)
        means.append(float(np.mean(scores)))
    return means


def _distance_to(real: np.ndarray, features: np.ndarray) -> Any:
    return og.metrics.frechet_distance(real, features)


def _in_blocks(fake: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    """KID and PRDC of equal parts: a row drawn twice would be its own neighbour, so no bootstrap."""
    size = min(len(fake), len(real)) // BLOCKS
    rows: dict[str, list[float]] = {}
    for a, b in _parts(fake, real, size):
        rows.setdefault("kid", []).append(float(og.metrics.kernel_distance(a, b)))
        for name, value in og.metrics.prdc(b, a, k=K)._asdict().items():
            rows.setdefault(name, []).append(float(value))
    intervals: dict[str, Any] = {n: og.metrics.mean_interval(v) for n, v in rows.items()}
    return {**intervals, "block_images": size}


def _parts(a: np.ndarray, b: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(BLOCKS):
        rows = slice(i * size, (i + 1) * size)
        yield a[rows], b[rows]


def _plain(value: Any) -> Any:
    if isinstance(value, og.metrics.Interval):
        return {key: float(number) for key, number in value._asdict().items()}
    return value
