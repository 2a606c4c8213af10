"""Leaking augmentations: the share of generated images that a small classifier takes for inverted or upside down.

The classifier is trained on real images. Whether it is right on generated ones is examined with those of a GAN on the
originals alone, as they are and changed.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import outgen_jax as og

LEAKS = ("invert", "flip_up_down")  # what a generated image may be taken for
LEAST = 0.9  # of the generated images of each known kind that the detector must be right on
_HELD_OUT = 5  # every fifth original, in all its versions, examines the detector
_PENALTY = 1e-3  # on the detector's squared weights
_UPDATES = 300


class Detector(NamedTuple):
    """A linear classifier of features: original, inverted or upside-down images."""

    mean: np.ndarray  # [d]
    scale: np.ndarray  # [d]
    weights: np.ndarray  # [d + 1, 3]
    accuracy: float  # on originals, and their versions, that it was not trained on
    images: int  # so many of them

    def shares(self, features: np.ndarray) -> np.ndarray:
        """One-hot verdicts [n, 3]: as it was, then LEAKS."""
        inputs = _inputs((features - self.mean) / self.scale)
        return np.eye(1 + len(LEAKS))[np.argmax(inputs @ self.weights, -1)]


def fit_detector(features: Mapping[str, np.ndarray]) -> Detector:
    """Trains on four fifths of the originals and their versions, [n, d] each, and tests on the rest."""
    versions = [features[name] for name in ("original", *LEAKS)]
    held_out = held_out_rows(len(versions[0]))
    known = np.concatenate([version[~held_out] for version in versions])
    mean, scale = known.mean(0), known.std(0) + 1e-6
    onehot = np.repeat(np.eye(len(versions)), np.sum(~held_out), axis=0)
    weights = np.asarray(_fit(_inputs((known - mean) / scale), onehot))
    untested = Detector(mean, scale, weights, 0.0, 0)
    right = [untested.shares(version[held_out])[:, i] for i, version in enumerate(versions)]
    return untested._replace(
        accuracy=float(np.concatenate(right).mean()), images=int(held_out.sum())
    )


@jax.jit
def _fit(inputs: jax.Array, onehot: jax.Array) -> jax.Array:
    """Logistic regression, [n, d], [n, K] -> weights [d, K]."""
    optimizer = optax.adam(0.01)

    def loss(weights: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(inputs @ weights)
        return -jnp.mean(jnp.sum(onehot * log_probs, -1)) + _PENALTY * jnp.sum(weights**2)

    def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], None]:
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, updates), state), None

    first = jnp.zeros((inputs.shape[1], onehot.shape[1]))
    return jax.lax.scan(step, (first, optimizer.init(first)), length=_UPDATES)[0][0]


def held_out_rows(number: int) -> np.ndarray:
    """Originals that the detector is not trained on, bool [number]."""
    return np.arange(number) % _HELD_OUT == _HELD_OUT - 1


def leaks(detector: Detector, features: np.ndarray, *, resamples: int) -> dict[str, Any]:
    """Shares of images that the detector takes for inverted or upside down."""
    shares = detector.shares(features)
    bootstrap = functools.partial(og.metrics.bootstrap_interval, np.mean, resamples=resamples)
    found = {name: bootstrap(shares[:, 1 + i])._asdict() for i, name in enumerate(LEAKS)}
    return {name: {k: float(v) for k, v in values.items()} for name, values in found.items()}


class Reliability(NamedTuple):
    """How the detector does for one kind of change, on generated images of known kind; shares of images."""

    false_alarms: float  # of images as they are
    found: float | None  # of changed ones; None: not measured


def examine(detector: Detector, features: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """The detector's reliability for each change, from generated images as they are ("original") and changed."""
    found = {}
    for i, name in enumerate(LEAKS, 1):
        false_alarms, right = (
            float(detector.shares(features[kind])[:, i].mean()) for kind in ("original", name)
        )
        found[name] = Reliability(false_alarms, right)._asdict()
    return found


def reliability(control: Sequence[Mapping[str, Any]], name: str) -> Reliability | None:
    """The mean over the seeds of the GAN on the originals alone, as results.json has them; None without any.

    Older results did not measure what is found.
    """
    if not control:
        return None
    false_alarms = [run["leaks"][name]["estimate"] for run in control]
    found = [run["detector"][name]["found"] for run in control if "detector" in run]
    return Reliability(float(np.mean(false_alarms)), float(np.mean(found)) if found else None)


def passes(found: Reliability | None) -> bool:
    """Whether the detector can be believed; where what is found was not measured, its shares are lower bounds."""
    if found is None or found.false_alarms > 1 - LEAST:
        return False
    return found.found is None or found.found >= LEAST


def _inputs(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1), features.dtype)], -1)
