"""Optimisers of the trainings: SGD whose weight decay spares biases, and two forms of Muon."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from optax import contrib

# Adam's learning rate as a share of Muon's, for the parameters that Muon does not take.
_ADAM_SHARE = 0.1
# Of `normalized_muon`, all from airbench94_muon: SGD's learning rates, for the sum over a batch, as shares of Muon's
# (0.053 and 0.67 at 0.24), its decay of weights an image, and the Newton-Schulz steps.
_BIAS_SHARE, _HEAD_SHARE = 0.053 / 0.24, 0.67 / 0.24
_SGD_MOMENTUM = 0.85
_DECAY_PER_IMAGE = 2e-6
_NEWTON_SCHULZ_STEPS = 3


def sgd(
    schedule: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = True,
) -> optax.GradientTransformation:
    """SGD with momentum; the weight decay leaves out biases and normalisation (arrays of one axis).

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
    all of its directions learn equally fast. Its weight decay is decoupled. Adam has a tenth of the learning rate and
    no weight decay, and takes what is called `head`, biases and normalisation.

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


def normalized_muon(
    schedule: optax.Schedule, *, momentum: float, peak: float, batch_size: int
) -> optax.GradientTransformation:
    """Muon for convolutions whose kernels keep their norm, SGD for the rest, as in airbench94_muon (Jordan 2024).

    Before each update a kernel [..., inputs, outputs] is scaled so that the root mean square of its filters' norms is
    1: batch normalisation undoes the scale, and the learning rate keeps its meaning. What is called `head` and arrays
    of one axis are trained by Nesterov SGD on the sum of the batch's losses, with decay of weights.

    >>> import optax
    >>> from flax import nnx
    >>> from outgen_jax import models
    >>> from outgen_jax.training import optimizers
    >>> params = nnx.state(models.WhitenedCNN(10, 1 / 16, rngs=nnx.Rngs(0)), nnx.Param)
    >>> muon = optimizers.normalized_muon(
    ...     optax.constant_schedule(0.24), momentum=0.6, peak=0.24, batch_size=2000
    ... )
    >>> state = muon.init(params)

    Args:
      schedule: Muon's learning rate.
      momentum: Muon's, in [0, 1).
      peak: the largest value of `schedule`, for which the decay of weights is stated.
      batch_size: images of an update.
    """
    muon = optax.chain(
        contrib.scale_by_muon(
            beta=momentum, ns_steps=_NEWTON_SCHULZ_STEPS, weight_dimension_numbers=_matrix_axes
        ),
        optax.scale_by_learning_rate(schedule),
        _unit_filters(),
    )

    def sgd_for(share: float) -> optax.GradientTransformation:
        rate = share * batch_size
        # PyTorch's decay is scaled by the learning rate; at its peak it is the stated one.
        decay = optax.add_decayed_weights(_DECAY_PER_IMAGE / (share * peak))
        sgd_ = optax.sgd(lambda step: rate * schedule(step), _SGD_MOMENTUM, nesterov=True)
        return optax.chain(decay, sgd_)

    transforms = {"kernel": muon, "bias": sgd_for(_BIAS_SHARE), "head": sgd_for(_HEAD_SHARE)}
    return optax.partition(transforms, _roles)


def _unit_filters() -> optax.GradientTransformation:
    """Adds to the update of each kernel what brings its filters to a root mean square norm of 1."""

    def update(updates: nnx.State, params: nnx.State) -> nnx.State:
        def added(u: jax.Array, p: jax.Array) -> jax.Array:
            return u + p * (jnp.sqrt(p.shape[-1]) / jnp.linalg.norm(p.ravel()) - 1)

        return jax.tree.map(added, updates, params)

    return optax.stateless(update)


def _roles(params: nnx.State) -> nnx.State:
    """What each parameter is: a "kernel" of a convolution or hidden layer, the "head", or a "bias"."""

    def role(path: tuple[jax.tree_util.KeyEntry, ...], p: jax.Array) -> str:
        if jax.tree_util.keystr(path[:1], simple=True) == "head":
            return "head"
        return "bias" if p.ndim < 2 else "kernel"

    return jax.tree_util.tree_map_with_path(role, params)


def _matrix_axes(params: nnx.State) -> nnx.State:
    """Which axes of a parameter are the rows and columns of its matrix; None: not for Muon."""

    def axes(path: tuple[jax.tree_util.KeyEntry, ...], p: jax.Array) -> object:
        if p.ndim < 2 or jax.tree_util.keystr(path[:1], simple=True) == "head":
            return None
        *inputs, output = range(p.ndim)
        return contrib.MuonDimensionNumbers(tuple(inputs), output)

    return jax.tree_util.tree_map_with_path(axes, params)
