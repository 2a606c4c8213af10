r"""What a network's outputs mean: a distribution, independent labels, or numbers.

Every kind answers the same questions about one row of outputs [K], the last axis of what the network returns:

- What is far from what? `distance` is what users are told, `divergence` what solvers minimise: convex in the output,
  and 0 only at the target.
- In which *coordinates* r [M] does Gauss-Newton see the row? The divergence is a convex function of them, with a known
  slope and curvature. `errors` are how far each coordinate is off, in its own units.

Targets [K] hold NaN where an entry is free. A `goal` is a target as the coordinates need it.

All functions are pure, take one row and are lifted with `jax.vmap`.
"""

from outgen_jax.outputs.distribution import Softmax as Softmax
from outgen_jax.outputs.distribution import softmax as softmax
from outgen_jax.outputs.labels import Sigmoid as Sigmoid
from outgen_jax.outputs.labels import sigmoid as sigmoid
from outgen_jax.outputs.numbers import Values as Values
from outgen_jax.outputs.numbers import values as values
from outgen_jax.outputs.protocol import Output as Output
