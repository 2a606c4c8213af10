"""What is measured of every trained network."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import outgen_jax as og
from outgen_jax.data import distort, sources
from outgen_jax.networks import ApplyFn
from outgen_jax.training import adversarial_examples

# A small attack: at 32×32 this radius (L2, pixels in [0, 1]) is a root mean square of half a grey level.
ATTACK_RADIUS = 0.1
ATTACK_STEPS = 10


class Exam(NamedTuple):
    """The test images, the same for all arms and seeds."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray  # [N]
    frozen_probs: np.ndarray  # [N, K] of the frozen classifier
    distorted: dict[
        str, list[np.ndarray]
    ]  # noise, blur: by level [M, H, W, C] uint8, of the first M
    attacked: int  # images, from the start


def prepare(
    test: sources.ImageSource, apply_fn: ApplyFn, variables: Any, *, distorted: int, attacked: int
) -> Exam:
    """Distorts the first images, and computes the frozen classifier's outputs.

    Levels are paper D's as a 32×32 image shows them (`distort.PAPER_32`), rounded to 8 bits.
    """
    assert test.labels is not None
    return Exam(
        test.images,
        test.labels,
        og.predict(apply_fn, variables, test.images),
        _distorted(test.images[:distorted]) if distorted else {},
        min(attacked, len(test.images)),
    )


def _distorted(images: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Images [M, H, W, C] uint8 -> `Exam.distorted`."""
    x = jnp.asarray(images, jnp.float32) / 255
    levels, key = distort.PAPER_32, jax.random.key(0)
    noise = jax.jit(distort.gaussian_noise)
    blur = jax.jit(
        functools.partial(distort.gaussian_blur, truncate=levels.truncate, border=levels.border)
    )
    noisy = [noise(jax.random.fold_in(key, i), x, s) for i, s in enumerate(levels.noise)]
    blurred = [blur(x, sigma) for sigma in levels.blur]
    return {
        "noise": [og.data.to_uint8(found) for found in noisy],
        "blur": [og.data.to_uint8(found) for found in blurred],
    }


def frozen_accuracy(exam: Exam) -> float:
    """Top-1 accuracy of the frozen classifier, in [0, 1]."""
    return float((exam.frozen_probs.argmax(1) == exam.labels).mean())


def measure(apply_fn: ApplyFn, variables: Any, exam: Exam) -> dict[str, Any]:
    """All numbers of one network.

    `agreement` is the share of test images to which it gives the frozen classifier's class,
    `boundary_agreement` that among the quarter where the frozen classifier's first two classes are
    closest. `noise` and `blur` are means over the levels in `noise_levels` and `blur_levels`. What no image is left
    for is not measured.
    """
    probs = og.predict(apply_fn, variables, exam.images)
    correct = probs.argmax(1) == exam.labels
    agrees = probs.argmax(1) == exam.frozen_probs.argmax(1)
    top = np.sort(exam.frozen_probs, 1)
    near = np.argsort(top[:, -1] - top[:, -2], kind="stable")[: -(-len(top) // 4)]
    found: dict[str, Any] = {
        "accuracy": float(correct.mean()),
        "nll": float(og.metrics.negative_log_likelihood(np.maximum(probs, 1e-30), exam.labels)),
        "ece": float(og.metrics.expected_calibration_error(probs, exam.labels)),
        "agreement": float(agrees.mean()),
        "boundary_agreement": float(agrees[near].mean()),
    }
    for name, levels in exam.distorted.items():
        labels = exam.labels[: len(levels[0])]
        rates = [
            float((og.predict(apply_fn, variables, images).argmax(1) == labels).mean())
            for images in levels
        ]
        found |= {name: float(np.mean(rates)), f"{name}_levels": rates}
    if not exam.attacked:
        return found
    chosen = slice(0, exam.attacked)
    robust = adversarial_examples.robust_accuracy(
        apply_fn,
        variables,
        exam.images[chosen],
        exam.labels[chosen],
        radius=ATTACK_RADIUS,
        steps=ATTACK_STEPS,
    )
    return found | {"robust": robust}
