"""Networks of other frameworks as pairs `(apply_fn, variables)`, as `synthesize` takes them.

Every adapter puts the network into inference mode: no dropout, batch normalisation by stored
statistics. Networks of one structure share one `apply_fn`, so new weights do not compile again. A
network that holds what has no hash, such as a list or a dictionary, gets an `apply_fn` of its own.
Images are [B, H, W, C] here; `channels_first` says that the network takes [C, H, W].

A plain function `f(variables, images) -> outputs` needs no adapter. No framework but Flax is
imported before its adapter is called; Keras's is in `keras_models`.
"""

import dataclasses
import functools
import importlib
import inspect
import numbers
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from outgen_jax.networks import ApplyFn

# Framework, its classes of networks, and the adapter's call. The frameworks are looked up only where they are loaded.
_ADAPTERS = (
    ("flax.nnx", ("Module",), "from_nnx(model)"),
    ("flax.linen", ("Module",), "from_linen(module, variables)"),
    ("equinox", ("Module",), "from_equinox(model)"),
    ("haiku", ("Transformed", "TransformedWithState"), "from_haiku(transformed, params)"),
    ("keras", ("Layer",), "from_keras(model)"),
)
_CACHED = 64  # structures whose `apply_fn` is kept


def from_nnx(model: nnx.Module, **options: Any) -> tuple[ApplyFn, nnx.State]:
    """Splits an NNX network into `apply_fn` and its variables.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> apply_fn, variables = from_nnx(nnx.Conv(3, 5, (3, 3), rngs=nnx.Rngs(0)))
    >>> apply_fn(variables, jnp.ones((2, 8, 8, 3))).shape
    (2, 8, 8, 5)

    Args:
      model: called as `model(images, **options)`. It is left as it is.
      **options: of every call, such as `train=False` where the network takes that.

    Raises:
      TypeError: `model` is not an NNX module.
    """
    expect(model, nnx.Module, caller="from_nnx", what="an NNX module")
    model = nnx.clone(model)
    model.eval()
    graphdef, variables = nnx.split(model)
    return _shared(_nnx_apply, graphdef, options, graphdef), variables


def _nnx_apply(graphdef: nnx.GraphDef, options: dict[str, Any]) -> ApplyFn:
    return lambda variables, images: nnx.merge(graphdef, variables)(images, **options)


def from_linen(module: linen.Module, variables: Any, **options: Any) -> tuple[ApplyFn, Any]:
    """Makes `apply_fn` of a Flax linen network.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen
    >>> module, images = linen.Conv(5, (3, 3)), jnp.ones((2, 8, 8, 3))
    >>> apply_fn, variables = from_linen(module, module.init(jax.random.key(0), images))
    >>> apply_fn(variables, images).shape
    (2, 8, 8, 5)

    Args:
      module: called as `module.apply(variables, images, **options)`.
      variables: what `module.init` returned, or trained ones like it: all collections.
      **options: of every call. They must put the network into inference mode, such as `train=False`.

    Raises:
      TypeError: `module` is not a linen module.
    """
    expect(module, linen.Module, caller="from_linen", what="a linen module")
    return _shared(_linen_apply, module, options, module), variables


def _linen_apply(module: linen.Module, options: dict[str, Any]) -> ApplyFn:
    return lambda variables, images: module.apply(variables, images, **options)


def from_equinox(
    model: Any, state: Any = None, *, channels_first: bool = True, **options: Any
) -> tuple[ApplyFn, Any]:
    """Makes `apply_fn` of an Equinox network, which takes one image at a time, and puts it into inference mode.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> apply_fn, variables = from_equinox(eqx.nn.Conv2d(3, 5, 3, key=jax.random.key(0)))
    >>> apply_fn(variables, jnp.ones((2, 8, 8, 3))).shape
    (2, 5, 6, 6)

    Args:
      model: called as `model(image, **options)`, or `model(image, state, **options)` where there is a state.
      state: of `eqx.nn.make_with_state`, for batch normalisation.
      channels_first: the network takes images [C, H, W], as `eqx.nn.Conv2d` does; False: [H, W, C].
      **options: of every call, such as `key=None`.

    Raises:
      ImportError: Equinox is not installed.
      TypeError: `model` is not an Equinox module.
    """
    eqx = framework("equinox", "equinox", caller="from_equinox")
    expect(model, eqx.Module, caller="from_equinox", what="an Equinox module")
    network = (eqx.nn.inference_mode(model), state)
    variables, static = eqx.partition(network, lambda x: isinstance(x, jax.Array | np.ndarray))
    leaves, structure = jax.tree.flatten(static)
    key = (structure, tuple(leaves), channels_first)
    return _shared(_equinox_apply, (static, channels_first), options, key), variables


def _equinox_apply(network: tuple[Any, bool], options: dict[str, Any]) -> ApplyFn:
    import equinox as eqx

    static, channels_first = network

    def apply_fn(variables: Any, images: jax.Array) -> Any:
        model, state = eqx.combine(variables, static)

        def of_one(image: jax.Array) -> Any:
            if state is None:
                return model(image, **options)
            return model(image, state, **options)[0]

        return jax.vmap(of_one)(jnp.moveaxis(images, -1, 1) if channels_first else images)

    return apply_fn


def from_haiku(
    transformed: Any, params: Any, state: Any = None, **options: Any
) -> tuple[ApplyFn, Any]:
    """Makes `apply_fn` of a Haiku network; all weights of one `transformed` share the same `apply_fn`.

    >>> import haiku as hk, jax, jax.numpy as jnp
    >>> transformed, images = hk.transform(lambda x: hk.Conv2D(5, 3)(x)), jnp.ones((2, 8, 8, 3))
    >>> apply_fn, variables = from_haiku(transformed, transformed.init(jax.random.key(0), images))
    >>> apply_fn(variables, images).shape
    (2, 8, 8, 5)

    Args:
      transformed: what `hk.transform` or `hk.transform_with_state` returned.
      params: of its `init`, or trained ones like it.
      state: likewise, for `hk.transform_with_state`.
      **options: of every call. They must put the network into inference mode, such as `is_training=False`.

    Raises:
      ImportError: Haiku is not installed.
      TypeError: `transformed` was not made by one of these functions.
      ValueError: the state is missing, or the network has none.
    """
    hk = framework("haiku", "dm-haiku", caller="from_haiku")
    kinds = (hk.Transformed, hk.TransformedWithState)
    remedy = "make it with hk.transform or hk.transform_with_state"
    expect(transformed, kinds, caller="from_haiku", what="what hk.transform returns", remedy=remedy)
    has_state = isinstance(transformed, hk.TransformedWithState)
    if has_state and state is None:
        raise ValueError(
            "from_haiku: this network has a state; pass it after the parameters, "
            "og.models.from_haiku(transformed, params, state)"
        )
    if state is not None and not has_state:
        raise ValueError(
            "from_haiku: a state came with a network that has none; leave it out, or make the network with "
            "hk.transform_with_state"
        )
    variables = (params, state) if has_state else (params,)
    return _shared(_haiku_apply, transformed, options, transformed), variables


def _haiku_apply(transformed: Any, options: dict[str, Any]) -> ApplyFn:
    # hk.without_apply_rng leaves the key out.
    rng = (None,) if "rng" in inspect.signature(transformed.apply).parameters else ()

    def apply_fn(variables: Any, images: jax.Array) -> Any:
        returned = transformed.apply(*variables, *rng, images, **options)
        return returned[0] if len(variables) == 2 else returned

    return apply_fn


def adapter_for(thing: object) -> str | None:
    """The adapter's call for a network of a known framework; None for anything else. Imports nothing.

    >>> from flax import nnx
    >>> adapter_for(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    'og.models.from_nnx(model)'
    """
    for module, classes, call in _ADAPTERS:
        loaded = sys.modules.get(module)
        kinds = tuple(getattr(loaded, name) for name in classes if hasattr(loaded, name))
        # What wraps a function, such as eqx.filter_jit, is an Equinox module too.
        if isinstance(thing, kinds) and not type(thing).__module__.startswith("equinox._"):
            return f"og.models.{call}"
    return None


def expect(
    thing: object,
    kinds: Any,
    *,
    caller: str,
    what: str,
    remedy: str = "pass the network itself, not its class or a function of it",
) -> None:
    """Raises TypeError where `thing` is not of `kinds`; names the adapter that it is for, or else the `remedy`."""
    if isinstance(thing, kinds):
        return
    call = adapter_for(thing)
    remedy = f"use {call}" if call else remedy
    raise TypeError(f"{caller} takes {what}, got {type(thing).__name__}; {remedy}")


def framework(module: str, distribution: str, *, caller: str) -> Any:
    """Imports a framework; raises ImportError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(
            f"{caller} needs {module}, which is not installed: pip install {distribution}"
        ) from None


@dataclasses.dataclass(frozen=True)
class _Request:
    """What an `apply_fn` is made of; equal to another where key, options and their types are."""

    make: Callable[[Any, dict[str, Any]], ApplyFn]
    key: Hashable
    options: tuple[tuple[str, Any], ...]
    types: Hashable
    network: Any = dataclasses.field(compare=False)


def _shared(
    make: Callable[[Any, dict[str, Any]], ApplyFn],
    network: Any,
    options: dict[str, Any],
    key: Hashable,
) -> ApplyFn:
    """`make(network, options)`, the same for equal keys and options; a new one where they have no hash."""
    named = tuple(sorted(options.items()))
    try:
        hash((key, named))
    except TypeError:
        return make(network, options)
    return _made(_Request(make, key, named, _types((key, named)), network))


def _types(value: Any) -> Hashable:
    """What tells equal values apart that are not the same: all types within, and numbers as they are written.

    To Python 1 == True and 0.0 == -0.0, alone or in tuples, dataclasses and trees; a network may differ by them.
    """
    if isinstance(value, numbers.Number):
        return type(value), repr(value)
    if isinstance(value, Set):
        return type(value), frozenset(map(_types, value))
    return type(value), tuple(map(_types, _parts(value)))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, tuple | list):
        return value
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, jax.tree_util.PyTreeDef):
        return (value.node_data(), *value.children())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        compared = [f.name for f in dataclasses.fields(value) if f.compare and f.hash is not False]
        return [getattr(value, name, None) for name in compared]
    return ()


@functools.lru_cache(maxsize=_CACHED)
def _made(request: _Request) -> ApplyFn:
    return request.make(request.network, dict(request.options))
