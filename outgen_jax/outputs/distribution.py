"""One distribution over K classes, given by logits: `softmax`."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from outgen_jax import losses
from outgen_jax.metrics import classification
from outgen_jax.outputs.logits import SWITCHED_OFF, looks_like_probabilities
from outgen_jax.outputs.output import Output
from outgen_jax.targets import distributions, partial

# Classes that have a coordinate each, where there are no more than these.
ALL_CLASSES = 32
# Classes of one softmax with a coordinate each at most; of a target that names more, no Jacobian is made.
MOST_CLASSES = 64


@dataclasses.dataclass(frozen=True)
class Softmax(Output):
    """Logits of K classes. The target is a distribution, the distance the total variation."""

    bounds: ClassVar[tuple[float, float] | None] = None
    measure: ClassVar[str] = "total variation"

    def cleaned(self, output: jax.Array) -> jax.Array:
        """Logits with a finite number for minus infinity."""
        off = jnp.isneginf(output)
        lowest = jax.lax.stop_gradient(jnp.where(off, -jnp.inf, output).max()) + SWITCHED_OFF
        return jnp.where(off, lowest, output)

    def is_finite(self, output: jax.Array) -> jax.Array:
        """No NaN, and no infinity except the −∞ of a class that is switched off."""
        return ~(jnp.isnan(output) | jnp.isposinf(output)).any() & ~jnp.isneginf(output).all()

    def readout(self, output: jax.Array) -> jax.Array:
        """Probabilities."""
        return jax.nn.softmax(output)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Cross-entropy (Eq. A11)."""
        wanted = partial.complete(target, jax.lax.stop_gradient(output))
        return losses.cross_entropy(output, wanted)

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """KL(target ‖ softmax(output)); free classes share what the others leave."""
        wanted = partial.complete(target, jax.lax.stop_gradient(output))
        return losses.kl_divergence(output, wanted)

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Total variation."""
        wanted = partial.complete(target, output)
        return classification.total_variation(jax.nn.softmax(output), wanted)

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        r"""H = diag(w) − w wᵀ/(1ᵀw), w the logarithmic mean of output and target.

        The quadratic model then has its minimum where the divergence has it, at log q.
        """
        probs, wanted = jax.nn.softmax(output), partial.complete(target, output)
        w = _logarithmic_mean(probs, wanted)
        return lambda u: w * (u - w @ u / w.sum())

    def num_coordinates(self, size: int, count: int | None) -> int:
        """Log-ratios to the first group of classes; all classes without a coordinate of their own form one group."""
        return size - 1 if count is None or count >= size else count

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """log(p/p₀) of every group of classes to the first one."""
        return log_ratios(output, leading_classes(target, count))

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """Target probabilities of the groups [M + 1]; the first is the group that coordinates refer to."""
        return group(partial.complete(target, output), leading_classes(target, count))

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """KL divergence of the groups."""
        return losses.kl_divergence(_with_first(r), goal)

    def gradient_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Probabilities less targets, p − q, of all groups but the first."""
        return (self.compared(r) - goal)[1:]

    def hessian_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """diag(p) − p pᵀ, of all groups but the first."""
        probs = self.compared(r)[1:]
        return jnp.diag(probs) - jnp.outer(probs, probs)

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """In nats. A group whose target is less than `floor` may have any probability below `floor`."""
        logs = jnp.log(jnp.maximum(goal, floor))
        errors = r - (logs[1:] - logs[0])
        # Where the first group, too, may have any probability below `floor`, the others may lie further above it.
        errors = jnp.where(goal[0] < floor, jnp.minimum(errors, 0), errors)
        one_sided = jnp.maximum(r - (logs[1:] - logs[0]), 0)
        return jnp.where(goal[1:] < floor, one_sided, errors)

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """The groups whose target is less than `floor`."""
        return goal[1:] < floor

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Of all groups together whose target is less than a tenth of `floor`, relative to the first group: [1].

        Relative to all others where the first group is such a group itself; the excess is then not convex in the
        coordinates of these others.
        """
        logits, zero = _with_first(r), goal < 0.1 * floor
        total = jax.nn.logsumexp(jnp.where(zero, logits, SWITCHED_OFF))
        others = jax.nn.logsumexp(jnp.where(~zero, logits, SWITCHED_OFF))
        others = jnp.where(zero[0], others, -jnp.log(jnp.where(zero[0], 1, goal[0])))
        return jnp.where(zero.any(), total - others - jnp.log(floor), 0)[None]

    def excess_gradient(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """The shares of the groups in each of the two sums, subtracted: [1, M]."""
        total, others = _shares(r, goal < 0.1 * floor)
        return (total - others)[None, 1:]

    def excess_curvature(
        self, r: jax.Array, goal: jax.Array, floor: float | jax.Array, weights: jax.Array
    ) -> jax.Array:
        """diag(s) − s sᵀ, s the shares in the first sum, less the same of the second."""
        total, others = _shares(r, goal < 0.1 * floor)
        outer = jnp.outer(total, total) - jnp.outer(others, others)
        return weights[0] * (jnp.diag(total - others) - outer)[1:, 1:]

    def compared(self, r: jax.Array) -> jax.Array:
        """Probabilities of the groups [M + 1]."""
        return jax.nn.softmax(_with_first(r))

    def counts(self, targets: np.ndarray) -> list[int | None]:
        """The classes that a target names, rounded up to a power of two, so that few programs are compiled."""
        size = targets.shape[-1]
        if size <= ALL_CLASSES:
            return [None] * len(targets)
        power = 2 ** np.ceil(np.log2(_num_named(targets).max(-1))).astype(int)
        # A target that names nearly all of a moderate number of classes has a row for each.
        is_for_all = (power >= size) & (size <= MOST_CLASSES)
        return [None if every else int(n) for n, every in zip(power, is_for_all, strict=True)]

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Distributions, divided by their sums."""
        return distributions.validate(
            targets, num_images=len(targets), num_classes=targets.shape[-1], caller=caller
        )

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:
        """Refuses one output, and probabilities where logits are expected."""
        if outputs.shape[-1] < 2:
            raise ValueError(
                f"{caller}: a softmax output needs at least two logits, got {outputs.shape[-1]}. For the probability "
                "of one label pass output=og.outputs.sigmoid(), for one number output=og.outputs.values()"
            )
        rows = np.asarray(outputs, np.float64)[np.isfinite(outputs).all(-1)]
        # Rows of bfloat16 probabilities sum to 1 within about 1e-2, and no logits do so in every row.
        sums_to_one = len(rows) and np.abs(rows.sum(-1) - 1).max() < 2e-2
        if len(rows) and rows.min() >= 0 and sums_to_one:
            raise ValueError(
                f"{caller}: apply_fn must return logits, but its rows are non-negative and sum to 1, as probabilities "
                "do. Leave the softmax out (in Keras, activation=None in the last layer), or return "
                "jnp.log(probabilities)"
            )
        if looks_like_probabilities(rows):
            raise ValueError(
                f"{caller}: apply_fn must return logits, but all its values lie in [0, 1], as those of a sigmoid do. "
                "Leave the sigmoid out (in Keras, activation=None in the last layer) and pass "
                "output=og.outputs.sigmoid(); if they are logits, subtract 1 from all"
            )


def softmax() -> Softmax:
    """Logits of K classes [..., K]; a target is a distribution.

    The distance is the total variation, in [0, 1]. Masked classes of a target share the probability that the others
    leave, in any proportion.

    >>> import outgen_jax as og
    >>> og.outputs.softmax() == og.outputs.softmax()
    True
    """
    return Softmax()


# --- groups of classes ---


def leading_classes(target: jax.Array, count: int | None) -> jax.Array:
    """The `count` classes of largest target, or all there are, largest first: [K] -> [N] int.

    Free classes, whose targets are NaN, come last.
    """
    named_first = jnp.where(jnp.isnan(target), -1, target)
    return jax.lax.top_k(named_first, min(count or len(target), len(target)))[1]


def group(probs: jax.Array, classes: jax.Array) -> jax.Array:
    """Probabilities of `classes` [N], then of all others together if there are any: [N] or [N + 1]."""
    leading = probs[classes]
    if len(classes) == len(probs):
        return leading
    return jnp.append(leading, jnp.delete(probs, classes, assume_unique_indices=True).sum())


def log_ratios(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """log(p/p₀) in the order of `group`, p₀ that of the first of `classes`: [K] -> [M], M one less than the groups."""
    ratios = logits[classes[1:]] - logits[classes[0]]
    if len(classes) == len(logits):
        return ratios
    others = jnp.delete(logits, classes, assume_unique_indices=True)
    return jnp.append(ratios, jax.nn.logsumexp(others) - logits[classes[0]])


def _shares(r: jax.Array, zero: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What part each group has in the two sums of `Softmax.excess`, each [M + 1]; 0 where a sum is constant."""
    logits = _with_first(r)
    total = jax.nn.softmax(jnp.where(zero, logits, SWITCHED_OFF))
    others = jax.nn.softmax(jnp.where(~zero, logits, SWITCHED_OFF))
    return jnp.where(zero.any(), total, 0), jnp.where(zero[0], others, 0)


def _with_first(r: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros(1, r.dtype), r])


def _logarithmic_mean(probs: jax.Array, wanted: jax.Array) -> jax.Array:
    """(q − p)/log(q/p), p where they are alike: [K], [K] -> [K]."""
    ratios = jnp.log(jnp.maximum(wanted, 1e-12)) - jnp.log(jnp.maximum(probs, 1e-30))
    alike = ratios == 0
    return probs * jnp.where(alike, 1, jnp.expm1(ratios) / jnp.where(alike, 1, ratios))


def _num_named(targets: np.ndarray) -> np.ndarray:
    """Classes that are not masked; in full targets, classes of positive probability: [..., K] -> [...], at least 1."""
    free = np.isnan(targets)
    is_partial = free.any(-1, keepdims=True)
    return np.maximum(np.where(is_partial, ~free, targets > 0).sum(-1), 1)
