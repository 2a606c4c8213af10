"""Keras models as `(apply_fn, variables)`: Keras 3 on its JAX backend."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from outgen_jax.models import adapters
from outgen_jax.networks import ApplyFn

# Entries of a configuration that hold the names of layers.
_NAMES = ("name", "keras_history", "input_layers", "output_layers")


def from_keras(model: Any, *, channels_first: bool = False) -> tuple[ApplyFn, Any]:
    """Makes `apply_fn` of a Keras model, in inference mode.

    The variables are copies of the model's weights. After further training, call this function again.

    Equal models share one `apply_fn`, so the second one does not compile again. Models are equal if all their layers
    are Keras's own and have the same options; the names of layers do not matter. A model with layers or functions of
    yours, or whose options JSON cannot hold, gets a new `apply_fn` at each call. To avoid compiling it again, keep the
    first `apply_fn`, and pass it the variables of the later call.

    >>> import os; os.environ["KERAS_BACKEND"] = "jax"  # before the first import of keras
    >>> import keras, jax.numpy as jnp
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)])
    >>> apply_fn, variables = from_keras(model)
    >>> apply_fn(variables, jnp.ones((2, 8, 8, 3))).shape
    (2, 6, 6, 5)

    Args:
      model: built, on the JAX backend. For targets of a softmax it must return logits: make its last layer with
        `activation=None`, or set `model.layers[-1].activation = keras.activations.linear` first.
      channels_first: the model takes images [B, C, H, W].

    Raises:
      ImportError: Keras is not installed.
      RuntimeError: Keras runs on another backend.
      TypeError: `model` is not a Keras model.
      ValueError: the model is not built, or takes images channels first and `channels_first` is False.
    """
    keras = adapters.framework("keras", "keras", caller="from_keras")
    backend = keras.config.backend()
    if backend != "jax":
        raise RuntimeError(
            f"from_keras: Keras must run on JAX, but runs on {backend}; before the first import of keras set "
            'os.environ["KERAS_BACKEND"] = "jax"'
        )
    adapters.expect(model, keras.Layer, caller="from_keras", what="a Keras model")
    if not model.built:
        raise ValueError(
            "from_keras: the model is not built, so it has no weights yet; begin it with keras.Input(image.shape), or "
            "call it once on a batch of images"
        )
    _check_layout(model, channels_first)
    # Copies: `fit`, `evaluate` and `predict` of Keras donate the arrays of the model, which deletes them.
    variables = [jnp.array(variable.value, copy=True) for variable in model.variables]
    return _apply_fn(model, channels_first), variables


class _Kept(NamedTuple):
    model: Any
    apply_fn: ApplyFn


_kept: dict[tuple[str, bool], _Kept] = {}  # by structure and layout
_MOST_KEPT = 8  # each holds a model with its weights


def _apply_fn(model: Any, channels_first: bool) -> ApplyFn:
    """The function of a model of this structure that is kept, or a new one."""
    structure = _structure(model)
    if structure is None:
        return _new_apply_fn(model, channels_first)
    kept = _kept.pop((structure, channels_first), None)
    # A model may have been changed since, such as the activation of its last layer.
    if kept is None or _structure(kept.model) != structure:
        kept = _Kept(model, _new_apply_fn(model, channels_first))
    _kept[structure, channels_first] = kept
    if len(_kept) > _MOST_KEPT:
        del _kept[next(iter(_kept))]
    return kept.apply_fn


def _new_apply_fn(model: Any, channels_first: bool) -> ApplyFn:
    from keras import StatelessScope

    # All variables of the network, those of batch normalisation too, but none of an optimiser or a metric. They are
    # ordered by layer: unlike `trainable_variables`, in an order that freezing the model does not change.
    own = list(model.variables)

    def apply_fn(variables: Any, images: jax.Array) -> Any:
        if list(map(id, model.variables)) != list(map(id, own)):
            raise ValueError(
                "from_keras: the model has got or lost variables since this apply_fn was made; call from_keras again"
            )
        if channels_first:
            images = jnp.moveaxis(images, -1, 1)
        with StatelessScope(state_mapping=zip(own, variables, strict=True)):
            return model(images, training=False)

    return apply_fn


def _check_layout(model: Any, channels_first: bool) -> None:
    """Raises ValueError where the model's own input shape [B, ...] says that the channels are elsewhere."""
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        return
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first and not last and not channels_first:
        raise ValueError(
            f"from_keras: the model takes images of shape {list(shape[1:])}, channels first; pass channels_first=True"
        )
    if last and not first and channels_first:
        raise ValueError(
            f"from_keras: the model takes images of shape {list(shape[1:])}, channels last; leave channels_first out"
        )


def _structure(model: Any) -> str | None:
    """A model's configuration as text, its layers named by their order.

    None where others' code is part of it, or what the configuration leaves out: values without JSON, such as a NumPy
    number, and what a preprocessing layer has learned in `adapt`, which it keeps beside its variables.
    """
    layers = list(model._flatten_layers())
    if not all(map(_is_of_keras, layers)) or any(hasattr(layer, "adapt") for layer in layers):
        return None
    places = {layer.name: f"#{place}" for place, layer in enumerate(layers)}
    try:
        config = _renamed(model.get_config(), places, within=False)
        return json.dumps([type(model).__name__, config], sort_keys=True)
    except (
        TypeError,
        NotImplementedError,
    ):  # no JSON; an operation of Keras without a configuration
        return None


def _is_of_keras(layer: Any) -> bool:
    """Whether class and functions of a layer are Keras's own, so that its configuration says what it does."""
    functions = [value for value in vars(layer).values() if callable(value)]
    homes = [type(layer).__module__, *(_home(function) for function in functions)]
    return type(layer).__name__ != "Lambda" and all(home.split(".")[0] == "keras" for home in homes)


def _home(function: Any) -> str:
    return getattr(function, "__module__", None) or type(function).__module__


def _renamed(tree: Any, places: dict[str, str], *, within: bool) -> Any:
    """The tree with the names of layers replaced, where names stand."""
    if isinstance(tree, dict) and "DTypePolicy" not in str(tree.get("class_name")):
        return {key: _renamed(value, places, within=key in _NAMES) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_renamed(value, places, within=within) for value in tree]
    return places.get(tree, tree) if within and isinstance(tree, str) else tree
