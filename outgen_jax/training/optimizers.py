"""Optimisers of the trainings: SGD whose weight decay spares biases, and Muon."""

import jax
import optax
from flax import nnx
from optax import contrib

# Adam's learning rate as a share of Muon's, for the parameters that Muon does not take.
_ADAM_SHARE = 0.1


def sgd(
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = True,
) -> optax.GradientTransformation:
    """SGD with momentum; the weight decay leaves out biases and normalisation (arrays of one axis).

    Example:
      >>> import jax.numpy as jnp
      >>> from outgen_jax.training import optimizers
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> sgd = optimizers.sgd(0.5, weight_decay=0.1)
      >>> updates, _ = sgd.update({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}, sgd.init(params), params)
      >>> print(updates["kernel"][0, 0], updates["bias"][0])
      -0.05 -0.0
    """
    return optax.chain(
        optax.add_decayed_weights(
            weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        ),
        optax.sgd(schedule, momentum or None, nesterov=nesterov and momentum > 0),
    )


def muon(
    schedule: optax.Schedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for convolutions and hidden layers, Adam for the rest.

    The momentum of each kernel, as a matrix [inputs, outputs], is replaced by the nearest orthogonal matrix, so that
    all of its directions learn equally fast. The weight decay is decoupled. Adam has a tenth of the learning rate,
    and takes what is called `head`, biases and normalisation.

    Example:
      >>> import optax
      >>> from flax import nnx
      >>> from outgen_jax.training import optimizers
      >>> params = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)
      >>> muon = optimizers.muon(optax.constant_schedule(0.05), momentum=0.9, weight_decay=0.05)
      >>> state = muon.init(params)
    """
    return contrib.muon(
        schedule,
        beta=momentum,
        weight_decay=weight_decay,
        adam_learning_rate=lambda step: _ADAM_SHARE * schedule(step),
        muon_weight_dimension_numbers=_matrix_axes,
    )


def _matrix_axes(params: nnx.State) -> nnx.State:
    """Which axes of a parameter are the rows and columns of its matrix; None: not for Muon."""

    def axes(path: tuple[jax.tree_util.KeyEntry, ...], p: jax.Array) -> object:
        if p.ndim < 2 or jax.tree_util.keystr(path[:1], simple=True) == "head":
            return None
        *inputs, output = range(p.ndim)
        return contrib.MuonDimensionNumbers(tuple(inputs), output)

    return jax.tree_util.tree_map_with_path(axes, params)
