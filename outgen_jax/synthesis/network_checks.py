"""Whether a network is a function of arrays, and what to do about one that fails."""

import re
import weakref
from typing import Any

import jax

from outgen_jax.models import adapters

_NUMBERS = (bool, int, float, complex)
_NOT_NUMERIC = ("O", "S", "U")  # kinds of numpy types: objects and text
# Of networks that train: they change their statistics, or ask for random numbers or for the mode itself.
_OF_TRAINING = re.compile(
    r"ModifyScopeVariableError|MissingRNG|PRNG|is immutable|use_running_average|deterministic|non-None PRNGKey"
)
_OF_SHAPES = re.compile(r"shape|dimension|size|rank|broadcast|contract|channel|feature")


def check(apply_fn: Any, variables: Any, *, caller: str) -> None:
    """Looks at a network before it is called.

    Raises:
      ValueError: `apply_fn` is a framework's network, no function, or not hashable; a leaf of `variables` is no array.
    """
    call = adapters.adapter_for(apply_fn)
    if call is not None:
        raise ValueError(
            f"{caller}: apply_fn must be a function of variables and images, got {type(apply_fn).__name__}, a network "
            f"that an adapter makes one of: apply_fn, variables = {call}"
        )
    if not callable(apply_fn):
        raise ValueError(
            f"{caller}: apply_fn must be a function (variables, images) -> outputs, got a {type(apply_fn).__name__}. "
            "The order of arguments is apply_fn, variables, images"
        )
    owner = getattr(apply_fn, "__self__", apply_fn)
    try:
        hash(owner)
        weakref.ref(owner)  # compiled programs live as long as their network
    except TypeError:
        raise ValueError(
            f"{caller}: apply_fn must be hashable and weakly referable, as functions are, but {type(owner).__name__} "
            f"is not. {_wrapping_remedy(apply_fn)}"
        ) from None
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if not _is_numeric(leaf):
            raise ValueError(
                f"{caller}: variables must be a pytree of arrays, but variables{jax.tree_util.keystr(path)} is a "
                f"{type(leaf).__name__}: {leaf!r:.60}. Partition them, so that apply_fn closes over what is no array; "
                "og.models.from_equinox(model) does so for Equinox"
            )


def remedy(apply_fn: Any, error: Exception) -> str:
    """What to do about a network that fails with `error`."""
    home = getattr(apply_fn, "__module__", None) or ""
    call = adapters.adapter_for(getattr(apply_fn, "__self__", None))
    if home.startswith("haiku."):
        call = "og.models.from_haiku(transformed, params)"
    if call is not None:
        return f"An adapter makes a function of variables and images: apply_fn, variables = {call}"
    if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError):
        return "The network must be one that jax.jit can trace: jax.numpy for numpy, and no branch on values"
    if isinstance(error, TypeError) and "missing" in str(error):
        return (
            "Give the argument to the adapter, as in og.models.from_nnx(model, train=False) or "
            "og.models.from_linen(module, variables, train=False), or bind it in a function of variables and images"
        )
    if isinstance(error, TypeError) and "unexpected keyword" in str(error):
        return "Give the adapter only arguments that the network has, such as train, is_training or deterministic"
    if _OF_TRAINING.search(f"{type(error).__name__}: {error}"):
        return (
            "The network seems to be in training mode. Give the adapter what switches that off, as in "
            "og.models.from_linen(module, variables, train=False)"
        )
    if _OF_SHAPES.search(str(error)):
        return (
            "Check the image size and the number of channels that the network takes, and that variables are those of "
            "this network"
        )
    return (
        f"This {type(error).__name__} is the network's own: check that variables are those of this network, and call "
        "apply_fn(variables, images) to find its cause"
    )


def _wrapping_remedy(apply_fn: Any) -> str:
    call = adapters.adapter_for(getattr(apply_fn, "__self__", None))
    if call is not None:
        return f"Make it by the adapter: apply_fn, variables = {call}"
    return "Wrap it once, lambda variables, images: f(variables, images), and pass the same wrapper in every call"


def _is_numeric(leaf: Any) -> bool:
    if hasattr(leaf, "dtype"):
        return getattr(leaf.dtype, "kind", None) not in _NOT_NUMERIC
    return isinstance(leaf, _NUMBERS) or hasattr(leaf, "__jax_array__")
