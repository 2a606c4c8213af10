r"""What a network's outputs mean: a distribution, independent labels, or numbers.

Every kind answers the same questions about one row of outputs [K], the last axis of what the network returns:

- What is far from what? `distance` is what users are told, `divergence` what solvers minimise: convex in the output,
  and 0 only at the target.
- In which *coordinates* r [M] does Gauss-Newton see the row? The divergence is a convex function of them, with a known
  slope and curvature. `errors` are how far each coordinate is off, in its own units.

Targets [K] hold NaN where an entry is free. A `goal` is a target as the coordinates need it.

All functions are pure, take one row and are lifted with `jax.vmap`.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import losses
from outgen_jax.metrics import classification
from outgen_jax.targets import distributions, partial

# A logit of minus infinity is taken for one so far below the largest: its probability is 0 in float32.
_SWITCHED_OFF = -300.0
# Classes of a softmax that have a coordinate each, where there are no more than these.
ALL_CLASSES = 32


class Output(Protocol):
    """One kind of output. All methods take one row of outputs [K] float32; see the module.

    `bounds` are those of an entry of a target; None: the entries of a row sum to 1.
    """

    bounds: ClassVar[tuple[float, float] | None]

    def cleaned(self, output: jax.Array) -> jax.Array:
        """The row as the other methods take it [K], finite wherever `is_finite` says so."""

    def is_finite(self, output: jax.Array) -> jax.Array:
        """Whether the row means anything: [] bool."""

    def readout(self, output: jax.Array) -> jax.Array:
        """What the row says, in the units of targets: [K]."""

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What gradient descent minimises: the divergence, or the divergence up to a constant: []."""

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What solvers minimise: [], 0 at the target."""

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """What users are told: []."""

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """U [K] -> Hu [K]: a model of the divergence's curvature between output and target."""

    def num_coordinates(self, size: int, count: int | None) -> int:
        """M, of a row of `size` outputs of which `count` have a coordinate each; None: all."""

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """R [M]."""

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target as the following methods take it; free entries follow the output."""

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """`divergence` as a function of the coordinates: []."""

    def slope(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Its gradient [M]."""

    def curvature(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Its Hessian [M, M]."""

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """How far each coordinate is off [M]; one-sided where a probability within `floor` of 0 or 1 will do."""

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Which coordinates may lie anywhere on one side: [M] bool."""

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """How far what should be 0 or 1 is from being within `floor` of it: [E], in nats, at most 0 where it is."""

    def judged(self, r: jax.Array) -> jax.Array:
        """What the distance compares, as a function of the coordinates: [N]."""

    def wanted(self, goal: jax.Array) -> jax.Array:
        """What `judged` should be: [N], NaN where anything will do."""

    def num_named(self, targets: np.ndarray) -> np.ndarray:
        """How many coordinates each target needs: [..., K] on the host -> [...] int."""

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Targets [n, K] float64, maybe masked -> float32, NaN where masked.

        Raises:
          ValueError: they cannot be targets of this kind.
        """

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:
        """Looks at outputs [n, K] of source images.

        Raises:
          ValueError: they are not what the network should return for this kind.
        """


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Logits of K classes; the target is a distribution. The distance is the total variation."""

    bounds: ClassVar[tuple[float, float] | None] = None

    def cleaned(self, output: jax.Array) -> jax.Array:
        """Logits with a finite number for minus infinity."""
        off = jnp.isneginf(output)
        lowest = jax.lax.stop_gradient(jnp.where(off, -jnp.inf, output).max()) + _SWITCHED_OFF
        return jnp.where(off, lowest, output)

    def is_finite(self, output: jax.Array) -> jax.Array:
        """No NaN, no infinity but that of a class that is switched off."""
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
        return losses.kl_divergence(wanted, output)

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
        """Log-ratios to the first group of classes; the classes that are not led form one group."""
        return size - 1 if count is None or count >= size else count

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """log(p/p₀) of every group of classes to the first one."""
        return log_ratios(output, leading_classes(target, count))

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """Probabilities of the groups [M + 1], the first one of the coordinates leading."""
        return group(partial.complete(target, output), leading_classes(target, count))

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """KL divergence of the groups."""
        return losses.kl_divergence(goal, _with_first(r))

    def slope(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """P − q."""
        return (self.judged(r) - goal)[1:]

    def curvature(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """diag(p) − p pᵀ."""
        probs = self.judged(r)[1:]
        return jnp.diag(probs) - jnp.outer(probs, probs)

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """In nats. A group wanted with less than `floor` may have anything below that."""
        logs = jnp.log(jnp.maximum(goal, floor))
        errors = r - (logs[1:] - logs[0])
        return jnp.where(goal[1:] < floor, jnp.maximum(errors, 0), errors)

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """The groups wanted with less than `floor`."""
        return goal[1:] < floor

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Of all groups wanted with less than a tenth of `floor`, together, over the first group: [1]."""
        zero = goal[1:] < 0.1 * floor
        total = jax.nn.logsumexp(jnp.where(zero, r, _SWITCHED_OFF))
        return jnp.where(zero.any(), total - jnp.log(floor / goal[0]), 0)[None]

    def judged(self, r: jax.Array) -> jax.Array:
        """Probabilities of the groups [M + 1]."""
        return jax.nn.softmax(_with_first(r))

    def wanted(self, goal: jax.Array) -> jax.Array:
        """The goal itself."""
        return goal

    def num_named(self, targets: np.ndarray) -> np.ndarray:
        """Classes that are named, or wanted at all in full targets."""
        free = np.isnan(targets)
        is_partial = free.any(-1, keepdims=True)
        return np.maximum(np.where(is_partial, ~free, targets > 0).sum(-1), 1)

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
        if _looks_like_probabilities(rows):
            raise ValueError(
                f"{caller}: apply_fn must return logits, but all its values lie in [0, 1], as those of a sigmoid do. "
                "Leave the sigmoid out (in Keras, activation=None in the last layer) and pass "
                "output=og.outputs.sigmoid(); if they are logits, subtract 1 from all"
            )


@dataclasses.dataclass(frozen=True)
class Sigmoid:
    """Logits of L independent labels; the target is a probability each. The distance is the largest error of one."""

    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def cleaned(self, output: jax.Array) -> jax.Array:
        """Logits with finite numbers for both infinities."""
        return jnp.clip(output, _SWITCHED_OFF, -_SWITCHED_OFF)

    def is_finite(self, output: jax.Array) -> jax.Array:
        """No NaN."""
        return ~jnp.isnan(output).any()

    def readout(self, output: jax.Array) -> jax.Array:
        """Probabilities."""
        return jax.nn.sigmoid(output)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """The sum of the labels' cross-entropies."""
        free = jnp.isnan(target)
        q = jnp.where(free, 0.5, target)
        each = q * jax.nn.log_sigmoid(output) + (1 - q) * jax.nn.log_sigmoid(-output)
        return -jnp.where(free, 0, each).sum()

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """The sum of the labels' KL divergences."""
        return self.divergence_at(output, target)

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """The largest absolute error of a probability."""
        errors = jnp.abs(jax.nn.sigmoid(output) - target)
        return jnp.where(jnp.isnan(target), 0, errors).max()

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Diagonal: the logarithmic mean of the odds' two sides, so that the model's minimum is the target."""
        probs = jax.nn.sigmoid(output)
        wanted = jnp.where(jnp.isnan(target), probs, target)
        gap = output - _logit(wanted)
        mean = (probs - wanted) / jnp.where(gap == 0, 1, gap)
        w = jnp.where(jnp.abs(gap) < 1e-3, probs * (1 - probs), mean)
        w = jnp.where(jnp.isnan(target), 0, w)
        return lambda u: w * u

    def num_coordinates(self, size: int, count: int | None) -> int:
        """One for every label."""
        return size

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The logits themselves."""
        return output

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target itself."""
        return target

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """The sum of the labels' KL divergences."""
        pairs = jnp.stack([goal, 1 - goal], -1)  # [L, 2]
        logits = jnp.stack([r, jnp.zeros_like(r)], -1)
        free = jnp.isnan(goal)
        pairs = jnp.where(free[:, None], 0.5, pairs)
        each = jax.vmap(losses.kl_divergence)(pairs, jnp.where(free[:, None], 0.0, logits))
        return each.sum()

    def slope(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """P − q."""
        return jnp.where(jnp.isnan(goal), 0, jax.nn.sigmoid(r) - goal)

    def curvature(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """diag(p (1 − p))."""
        bends = jax.nn.sigmoid(r) * jax.nn.sigmoid(-r)
        return jnp.diag(jnp.where(jnp.isnan(goal), 0, bends))

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """In nats of the odds. A label wanted within `floor` of 0 or 1 may lie anywhere beyond that."""
        errors = r - _logit(jnp.clip(goal, floor, 1 - floor))
        errors = jnp.where(goal < floor, jnp.maximum(errors, 0), errors)
        errors = jnp.where(goal > 1 - floor, jnp.minimum(errors, 0), errors)
        return jnp.where(jnp.isnan(goal), 0, errors)

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """The labels wanted within `floor` of 0 or 1."""
        return (goal < floor) | (goal > 1 - floor)

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Of every label for itself: [L]."""
        sided = self.one_sided(goal, 0.1 * floor)
        return jnp.where(sided, jnp.abs(self.errors(r, goal, floor)), 0)

    def judged(self, r: jax.Array) -> jax.Array:
        """Probabilities [L]."""
        return jax.nn.sigmoid(r)

    def wanted(self, goal: jax.Array) -> jax.Array:
        """The goal itself."""
        return goal

    def num_named(self, targets: np.ndarray) -> np.ndarray:
        """All labels: free ones cost a coordinate too."""
        return np.full(targets.shape[:-1], targets.shape[-1])

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Probabilities in [0, 1], each for itself."""
        rows = _finite(targets, caller=caller, what="probabilities of labels")
        wrong = np.argwhere((rows < 0) | (rows > 1))
        if len(wrong):
            row, label = wrong[0]
            raise ValueError(
                f"{caller}: targets of a sigmoid output must be probabilities in [0, 1]; row {row} has "
                f"{rows[row, label]:g} for label {label}. Give probabilities, not logits"
            )
        return rows.astype(np.float32)

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:
        """Refuses probabilities where logits are expected."""
        rows = np.asarray(outputs, np.float64)[np.isfinite(outputs).all(-1)]
        if _looks_like_probabilities(rows):
            raise ValueError(
                f"{caller}: apply_fn must return logits, but all its values lie in [0, 1], as probabilities do. "
                "Leave the sigmoid out (in Keras, activation=None in the last layer), or return "
                "jax.scipy.special.logit(probabilities)"
            )


@dataclasses.dataclass(frozen=True)
class Values:
    """M real numbers, such as a regression, logits or an embedding; the target is a number each.

    The distance is the root mean square error over the named numbers, in units of `scale`.
    """

    bounds: ClassVar[tuple[float, float] | None] = (-np.inf, np.inf)

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuses a scale that measures nothing."""
        if not 0 < self.scale < np.inf:
            raise ValueError(
                f"outputs.values: scale must be positive and finite, got {self.scale}; give the size of a typical "
                "difference between outputs, such as their standard deviation over some images"
            )

    def cleaned(self, output: jax.Array) -> jax.Array:
        """The numbers as they are."""
        return output

    def is_finite(self, output: jax.Array) -> jax.Array:
        """Every number is finite."""
        return jnp.isfinite(output).all()

    def readout(self, output: jax.Array) -> jax.Array:
        """The numbers as they are."""
        return output

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Half the mean squared error, in squared units of `scale`."""
        return self.divergence(output, target)

    def divergence(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Half the mean squared error, in squared units of `scale`."""
        return self.divergence_at(output / self.scale, target / self.scale)

    def distance(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Root mean square error in units of `scale`."""
        return jnp.sqrt(2 * self.divergence(output, target))

    def curvature_product(
        self, output: jax.Array, target: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Diagonal: 1/(n scale²) for each of the n named numbers."""
        named = ~jnp.isnan(target)
        w = jnp.where(named, 1 / (_at_least_one(named.sum()) * self.scale**2), 0)
        return lambda u: w * u

    def num_coordinates(self, size: int, count: int | None) -> int:
        """One for every number."""
        return size

    def coordinates(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The numbers in units of `scale`."""
        return output / self.scale

    def goal(self, output: jax.Array, target: jax.Array, count: int | None) -> jax.Array:
        """The target in units of `scale`."""
        return target / self.scale

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Half the mean squared error."""
        errors = self.errors(r, goal, 0.0)
        return (errors**2).sum() / (2 * _at_least_one((~jnp.isnan(goal)).sum()))

    def slope(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """(r − goal)/n."""
        return self.errors(r, goal, 0.0) / _at_least_one((~jnp.isnan(goal)).sum())

    def curvature(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """1/n on the diagonal."""
        named = ~jnp.isnan(goal)
        return jnp.diag(named.astype(jnp.float32) / _at_least_one(named.sum()))

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """In units of `scale`."""
        return jnp.where(jnp.isnan(goal), 0, r - goal)

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros(goal.shape, bool)

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """None: [0]."""
        return jnp.zeros(0, jnp.float32)

    def judged(self, r: jax.Array) -> jax.Array:
        """The coordinates themselves."""
        return r

    def wanted(self, goal: jax.Array) -> jax.Array:
        """The goal itself."""
        return goal

    def num_named(self, targets: np.ndarray) -> np.ndarray:
        """All numbers: free ones cost a coordinate too."""
        return np.full(targets.shape[:-1], targets.shape[-1])

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Finite numbers."""
        return _finite(targets, caller=caller, what="numbers").astype(np.float32)

    def check_raw(self, outputs: np.ndarray, *, caller: str) -> None:
        """Takes any numbers."""


def softmax() -> Softmax:
    """Logits of K classes, steered to a distribution: [..., K].

    The distance is the total variation, in [0, 1]. Masked classes of a target share what the others leave.

    >>> import outgen_jax as og
    >>> og.outputs.softmax() == og.outputs.softmax()
    True
    """
    return Softmax()


def sigmoid() -> Sigmoid:
    """Logits of L independent labels, steered to a probability each: [..., L].

    The distance is the largest absolute error of a probability. Masked labels of a target are free.

    >>> import outgen_jax as og
    >>> og.outputs.sigmoid()
    Sigmoid()
    """
    return Sigmoid()


def values(*, scale: float = 1.0) -> Values:
    """M real numbers, steered to a number each: [..., M]. Masked numbers of a target are free.

    Args:
      scale: the unit of the distance, the root mean square error over the named numbers.

    Raises:
      ValueError: a scale that is not positive.

    >>> import outgen_jax as og
    >>> og.outputs.values(scale=0.5)
    Values(scale=0.5)
    """
    return Values(float(scale))


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
    """log(p/p₀) in the order of `group`, p₀ the first of `classes`: [K] -> [M], M one less than there."""
    ratios = logits[classes[1:]] - logits[classes[0]]
    if len(classes) == len(logits):
        return ratios
    others = jnp.delete(logits, classes, assume_unique_indices=True)
    return jnp.append(ratios, jax.nn.logsumexp(others) - logits[classes[0]])


def _with_first(r: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros(1, r.dtype), r])


def _logarithmic_mean(probs: jax.Array, wanted: jax.Array) -> jax.Array:
    """(q − p)/log(q/p), p where they are alike: [K], [K] -> [K]."""
    ratios = jnp.log(jnp.maximum(wanted, 1e-12)) - jnp.log(jnp.maximum(probs, 1e-30))
    alike = ratios == 0
    return probs * jnp.where(alike, 1, jnp.expm1(ratios) / jnp.where(alike, 1, ratios))


def _logit(probs: ArrayLike) -> jax.Array:
    p = jnp.clip(jnp.asarray(probs), 1e-12, 1 - 1e-7)
    return jnp.log(p) - jnp.log1p(-p)


def _at_least_one(count: jax.Array) -> jax.Array:
    return jnp.maximum(count, 1).astype(jnp.float32)


def _looks_like_probabilities(rows: np.ndarray) -> bool:
    """Whether so many numbers [n, K] all lie in [0, 1] that it is hardly chance."""
    return rows.size >= 16 and rows.min() >= 0 and rows.max() <= 1 and rows.max() > 0


def _finite(targets: np.ndarray, *, caller: str, what: str) -> np.ndarray:
    """Targets [n, K] as float64, NaN where masked."""
    masked = np.ma.getmaskarray(targets)
    rows = np.array(np.ma.filled(targets, 0), np.float64)
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{caller}: targets must be {what}; row {row} has {rows[row, column]:g} in column {column}. Mask entries "
            "that are free: numpy.ma.masked_invalid(targets)"
        )
    rows[masked] = np.nan
    return rows
