r"""Kinds of outputs: a distribution, independent labels, or numbers.

Every kind has the same methods. They take one row of outputs [K], along the last axis of what the network returns:

- `distance` is what `og.synthesize` reports and compares with the tolerance. `divergence` is what solvers minimise:
  convex in the output, and 0 only at the target.
- *Coordinates* r [M] are what Gauss-Newton works in: the divergence is a convex function of them, with known gradient
  and Hessian. `errors` are the differences between coordinates and target.

Targets [K] hold NaN where an entry is free. A `goal` is the target of the coordinates.

All methods are pure functions of one row, and are mapped over rows and images with `jax.vmap`.
"""

from outgen_jax.outputs.distribution import Softmax as Softmax
from outgen_jax.outputs.distribution import softmax as softmax
from outgen_jax.outputs.labels import Sigmoid as Sigmoid
from outgen_jax.outputs.labels import sigmoid as sigmoid
from outgen_jax.outputs.numbers import Values as Values
from outgen_jax.outputs.numbers import values as values
from outgen_jax.outputs.output import Output as Output
