"""What `synthesize` must do, in plain numpy: float64, one image, no code of the package.

Images [H, W, C] in [0, 1], logits and targets [K]; a network is a function
(image, target) -> (logits, gradient of the cross-entropy with respect to the image).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Network = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

# Half a grey level, less a little: a clipped black or white pixel must still round to itself.
_MARGIN = 0.499 / 255


class Perceptron(NamedTuple):
    """A network of two layers: logits = tanh(x·w1 + b1)·w2 + b2, x the image as one vector."""

    w1: np.ndarray  # [H·W·C, hidden]
    b1: np.ndarray  # [hidden]
    w2: np.ndarray  # [hidden, K]
    b2: np.ndarray  # [K]


class Ended(NamedTuple):
    """Where one image ended."""

    image: np.ndarray  # [H, W, C], the best by KL
    kl: float  # its KL(target ‖ probs)
    steps: int  # updates used
    history: list[float]  # KL before every update, and after the last


def perceptron(
    shape: tuple[int, ...], *, hidden: int = 16, classes: int = 5, steepness: float = 0.7
) -> Perceptron:
    """Random weights for images of `shape`, float32, large enough for an image to matter.

    The hidden units are bounded, and `steepness` times their number bounds the logits.
    """
    rng, size = np.random.default_rng(1), int(np.prod(shape))
    scales = (
        ((size, hidden), 3 / size**0.5),
        (hidden, 0.3),
        ((hidden, classes), steepness),
        (classes, 0.3),
    )
    return Perceptron(*(rng.normal(0, scale, shape).astype(np.float32) for shape, scale in scales))


def perceptron_logits(weights: Perceptron, images: jax.Array) -> jax.Array:
    """The same network as the package takes it: images [B, H, W, C] -> logits [B, K]."""
    flat = images.reshape(len(images), -1)
    return jnp.tanh(flat @ weights.w1 + weights.b1) @ weights.w2 + weights.b2


def perceptron_gradient(weights: Perceptron) -> Network:
    """The network of `weights` with its gradient derived by hand."""
    w1, b1, w2, b2 = (w.astype(np.float64) for w in weights)

    def network(image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden = np.tanh(image.ravel() @ w1 + b1)
        logits = hidden @ w2 + b2
        to_hidden = w2 @ (softmax(logits) - target)
        return logits, (w1 @ (to_hidden * (1 - hidden**2))).reshape(image.shape)

    return network


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def kl_divergence(target: np.ndarray, logits: np.ndarray) -> float:
    """KL(target ‖ softmax(logits)) in nats, classes of probability 0 left out."""
    wanted = target > 0
    log_probs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    return float((target[wanted] * (np.log(target[wanted]) - log_probs[wanted])).sum())


def lowpass(image: np.ndarray, radius: float, rolloff: str = "ideal") -> np.ndarray:
    """A circular mask on the centred full spectrum of every channel."""
    height, width, _ = image.shape
    row, column = np.mgrid[:height, :width]
    distance = np.hypot(row - height // 2, column - width // 2)
    mask = distance <= radius if rolloff == "ideal" else np.exp(-(distance**2) / (2 * radius**2))
    out = np.empty(image.shape)
    for channel in range(image.shape[2]):
        spectrum = np.fft.fftshift(np.fft.fft2(image[:, :, channel]))
        out[:, :, channel] = np.fft.ifft2(np.fft.ifftshift(spectrum * mask)).real
    return out


def descend(
    network: Network,
    source: np.ndarray,
    target: np.ndarray,
    *,
    steps: int = 100,
    learning_rate: float = 0.05,
    weight_decay: float = 5e-4,
    momentum: float = 0.0,
    printed: bool = False,
    radius: float | None = None,
    tolerance: float | None = None,
) -> Ended:
    """Paper A on one image: W ← W − γ∇L − γλW (Eq. A6), or with momentum (Eq. A7–A8).

    `printed` applies the learning rate twice, as Eq. A7–A8 stand; `radius` filters between the
    weights and the network and on the way out (Fig. A5).
    """
    weights = np.tan((np.clip(source.astype(np.float64), _MARGIN, 1 - _MARGIN) - 0.5) * np.pi)
    velocity = np.zeros_like(weights)
    best, history = (np.inf, source), []
    for step in range(steps + 1):
        unfiltered = np.arctan(weights) / np.pi + 0.5
        overshot = unfiltered if radius is None else lowpass(unfiltered, radius)
        image = np.clip(overshot, 0, 1)
        logits, gradient = network(image, target)
        history.append(kl_divergence(target, logits))
        if history[-1] < best[0]:
            best = history[-1], image
        distance = np.abs(softmax(logits) - target).sum() / 2
        if step == steps or (tolerance is not None and distance <= tolerance):
            break
        gradient = gradient * ((overshot >= 0) & (overshot <= 1))
        if radius is not None:  # a symmetric real mask: the filter is its own transpose
            gradient = lowpass(gradient, radius)
        gradient = gradient / (np.pi * (1 + weights**2)) + weight_decay * weights
        if not momentum:
            weights = weights - learning_rate * gradient
        elif printed:
            velocity = momentum * velocity + learning_rate * gradient
            weights = weights - learning_rate * velocity
        else:
            velocity = momentum * velocity + learning_rate * gradient
            weights = weights - velocity
    return Ended(best[1], best[0], step, history)
