"""Independent labels, given by a logit each: `sigmoid`."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from outgen_jax import losses
from outgen_jax.outputs.logits import SWITCHED_OFF, looks_like_probabilities
from outgen_jax.outputs.output import Output
from outgen_jax.targets import partial


@dataclasses.dataclass(frozen=True)
class Sigmoid(Output):
    """Logits of L independent labels. The target is a probability for each, the distance the largest error."""

    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    measure: ClassVar[str] = "largest error of a probability"

    def cleaned(self, output: jax.Array) -> jax.Array:
        """Logits with finite numbers for both infinities."""
        return jnp.clip(output, SWITCHED_OFF, -SWITCHED_OFF)

    def is_finite(self, output: jax.Array) -> jax.Array:
        """No NaN."""
        return ~jnp.isnan(output).any()

    def readout(self, output: jax.Array) -> jax.Array:
        """Probabilities."""
        return jax.nn.sigmoid(output)

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
        w = jnp.where(jnp.isnan(target), 0, jnp.maximum(w, 0))  # rounding may make it negative
        return lambda u: w * u

    def divergence_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """The sum of the labels' KL divergences."""
        pairs = jnp.stack([goal, 1 - goal], -1)  # [L, 2]
        logits = jnp.stack([r, jnp.zeros_like(r)], -1)
        free = jnp.isnan(goal)
        pairs = jnp.where(free[:, None], 0.5, pairs)
        each = jax.vmap(losses.kl_divergence)(jnp.where(free[:, None], 0.0, logits), pairs)
        return each.sum()

    def gradient_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """Probabilities less targets, p − q."""
        return jnp.where(jnp.isnan(goal), 0, jax.nn.sigmoid(r) - goal)

    def hessian_at(self, r: jax.Array, goal: jax.Array) -> jax.Array:
        """diag(p (1 − p))."""
        variance = jax.nn.sigmoid(r) * jax.nn.sigmoid(-r)
        return jnp.diag(jnp.where(jnp.isnan(goal), 0, variance))

    def errors(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """In nats of the odds. A label whose target is within `floor` of 0 or 1 may lie anywhere beyond `floor`."""
        errors = r - _logit(jnp.clip(goal, floor, 1 - floor))
        errors = jnp.where(goal < floor, jnp.maximum(errors, 0), errors)
        errors = jnp.where(1 - goal < floor, jnp.minimum(errors, 0), errors)
        return jnp.where(jnp.isnan(goal), 0, errors)

    def one_sided(self, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """The labels whose target is within `floor` of 0 or 1."""
        return (goal < floor) | (1 - goal < floor)

    def excess(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """Of each label: [L]."""
        sided = self.one_sided(goal, 0.1 * floor)
        return jnp.where(sided, jnp.abs(self.errors(r, goal, floor)), 0)

    def excess_gradient(self, r: jax.Array, goal: jax.Array, floor: float | jax.Array) -> jax.Array:
        """The signs of the errors, on the diagonal: [L, L]."""
        sided = self.one_sided(goal, 0.1 * floor)
        return jnp.diag(jnp.where(sided, jnp.sign(self.errors(r, goal, floor)), 0))

    def excess_curvature(
        self, r: jax.Array, goal: jax.Array, floor: float | jax.Array, weights: jax.Array
    ) -> jax.Array:
        """Zero: each excess is linear in its coordinate."""
        del goal, floor, weights
        return jnp.zeros((len(r), len(r)), jnp.float32)

    def compared(self, r: jax.Array) -> jax.Array:
        """Probabilities [L]."""
        return jax.nn.sigmoid(r)

    def validated(self, targets: np.ndarray, *, caller: str) -> np.ndarray:
        """Probabilities in [0, 1]; they need not sum to 1."""
        rows = partial.finite_or_free(targets, caller=caller, what="probabilities of labels")
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
        if looks_like_probabilities(rows):
            raise ValueError(
                f"{caller}: apply_fn must return logits, but all its values lie in [0, 1], as probabilities do. "
                "Leave the sigmoid out (in Keras, activation=None in the last layer), or return "
                "jax.scipy.special.logit(probabilities)"
            )


def sigmoid() -> Sigmoid:
    """Logits of L independent labels [..., L]; a target is a probability for each label.

    The distance is the largest absolute error of a probability. Masked labels of a target are free.

    >>> import outgen_jax as og
    >>> og.outputs.sigmoid()
    Sigmoid()
    """
    return Sigmoid()


def _logit(probs: ArrayLike) -> jax.Array:
    p = jnp.clip(jnp.asarray(probs), 1e-12, 1 - 1e-7)
    return jnp.log(p) - jnp.log1p(-p)
