"""The checks of a GAN's parts: what networks return, and whether a state belongs to a network.

Shapes and types are read while an update is traced, so that its compiled program is the same with them.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

T = TypeVar("T")


def described(output: Any) -> str:
    """Type and shape of what a network returned, such as "float32 [8, 1]"; of each array where there are several."""
    if hasattr(output, "dtype"):
        return f"{output.dtype} {list(output.shape)}"
    arrays = [described(leaf) for leaf in jax.tree.leaves(output) if hasattr(leaf, "dtype")]
    return f"{type(output).__name__} of {', '.join(arrays) or 'no arrays'}"


def check_options(
    latent_shape: Any, key: Any, average_decay: float, penalty: Any, augmentation: Any
) -> None:
    """Refuses options of `gan.make_update`; `augmentation` is its function, or None."""
    check_key(key, caller="make_update")
    check_latent_shape(latent_shape, caller="make_update")
    if not 0 <= average_decay < 1 or (not callable(penalty) and not penalty >= 0):
        raise ValueError(
            f"make_update: average_decay must lie in [0, 1) and penalty be at least 0, got {average_decay} and "
            f"{penalty}; 0.999 is usual, and 0 leaves both out"
        )
    if augmentation is not None:
        check_arguments(augmentation, ("key", "images", "probability"), "make_update: augmentation")


def check_key(key: Any, *, caller: str) -> None:
    """Refuses what is no random key; None passes."""
    if key is not None and not hasattr(key, "dtype"):
        raise ValueError(
            f"{caller}: key must be a random key, got {key!r}; pass jax.random.key(0), with a seed of your choice"
        )


def check_latent_shape(latent_shape: Any, *, caller: str) -> None:
    """Refuses what is no shape of one latent vector."""
    if not isinstance(latent_shape, Sequence) or isinstance(latent_shape, str):
        raise ValueError(
            f"{caller}: latent_shape must be a tuple, the shape of one image's z, got {latent_shape!r}; vectors of "
            "length 100 have the shape (100,)"
        )


def check_arguments(function: Callable[..., Any], names: tuple[str, ...], what: str) -> None:
    """Refuses a function that cannot be called with so many arguments by position."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*names)
    except TypeError:
        raise ValueError(
            f"{what} must take {len(names)} arguments, {', '.join(names)}, got one of {signature}; write "
            f"lambda {', '.join(names)}: ..., of which it may leave some unused"
        ) from None


def check_kind(value: Any, kind: type, what: str, remedy: str) -> None:
    """Refuses what is not of the named tuple `kind`."""
    if not isinstance(value, kind):
        pair = "the pair" if type(value) is tuple else type(value).__name__
        raise ValueError(f"{what} must be a gan.{kind.__name__}, got {pair}; {remedy}")


def check_probability(probability: float | None) -> None:
    """Refuses a probability outside of [0, 1]; a traced one passes."""
    if probability is None or isinstance(probability, jax.core.Tracer):
        return
    if not 0 <= probability <= 1:
        raise ValueError(
            f"gan.create: probability must lie in [0, 1], got {probability}; 1.0 changes every image, and 0.0 is where "
            "an adaptive one begins"
        )


def the_key(own: Any, of_state: Any) -> Any:
    """The key of `make_update` or that of the state, whichever there is."""
    if own is None and of_state is None:
        raise ValueError(
            "make_update: there is no key; pass key=jax.random.key(0) to make_update, or to create for a key in the "
            "state"
        )
    if own is not None and of_state is not None:
        raise ValueError(
            "make_update: there are two keys, make_update's and the state's; leave key out of create, or pass "
            "key=None to make_update"
        )
    return of_state if own is None else own


def check_augmentation(has_augmentation: bool, probability: Any) -> None:
    """Refuses an augmentation without its probability, and the other way round."""
    if has_augmentation and probability is None:
        raise ValueError(
            "make_update: there is an augmentation, and the state has no probability for it; pass probability= to "
            "create, such as 1.0, with which every image is changed"
        )
    if not has_augmentation and probability is not None:
        raise ValueError(
            "make_update: the state has a probability, and there is no augmentation; pass augmentation= to "
            "make_update, or leave probability out of create"
        )


def check_rows(rows: Any) -> None:
    """Refuses rows that are not those of one batch."""
    if np.ndim(rows) != 1:
        raise ValueError(
            f"make_update: an update takes the rows [B] of one batch, got {list(np.shape(rows))}; "
            "updates.compile_updates(update) makes the function of rows [n, B], which gan_fit.train calls"
        )


def check_batch(real: Any) -> None:
    """Refuses a batch of the data that is not of 8 bits: it is divided by 255."""
    if real.dtype != jnp.uint8:
        raise ValueError(
            f"make_update: the batch of images must be uint8, got {described(real)}; outgen_jax.data.to_uint8 makes "
            "such images of floats in [0, 1]"
        )


def generated(
    call: Callable[[], tuple[Any, T]], z: jax.Array, *, caller: str = "make_update"
) -> tuple[jax.Array, T]:
    """The images that `call` makes of z [B, ...], and the generator's variables afterwards.

    Raises:
      ValueError: the generator fails, or returns something else than one array of B images of floats.
    """
    try:
        images, variables = call()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{caller}: the generator fails on latent vectors {list(z.shape)}: {_sentence(error)} Pass latent_shape "
            "as the generator takes it, such as generator.latent_shape, and player and state of one and the same "
            "generator"
        ) from error
    if not hasattr(images, "dtype"):
        remedy = "take the images out of it, such as model(z).images, in the function that calls the generator"
    elif images.ndim < 2 or len(images) != len(z):
        remedy = "an image for each latent vector; a discriminator is not a generator"
    elif not jnp.issubdtype(images.dtype, jnp.floating):
        remedy = "images are floats in [0, 1], without rounding to grey levels"
    else:
        return images, variables
    raise ValueError(
        f"{caller}: the generator must return images [B, H, W, C], one array of floats, got {described(images)} for "
        f"{len(z)} latent vectors; {remedy}"
    )


def check_same_shape(images: jax.Array, real: jax.Array) -> None:
    """Refuses generated images of another shape than those of the data."""
    ours, theirs = list(images.shape[1:]), list(real.shape[1:])
    if ours == theirs:
        return
    remedy = f"build both networks for images {theirs}"
    if len(ours) == len(theirs) == 3:
        size = f"outgen_jax.data.sources.load(..., size=({ours[0]}, {ours[1]}))"
        if ours[:2] == theirs[:2]:
            size = f"source.with_channels({ours[2]}) of an ImageSource"
        remedy += f", or read the data as the generator makes them, by {size}"
    raise ValueError(
        f"make_update: the generator's images are {ours}, those of the data {theirs}; {remedy}"
    )


def check_in_unit(images: np.ndarray) -> None:
    """Refuses generated images outside of [0, 1], from which a discriminator tells them at once; NaN passes."""
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    if low < 0 or high > 1:
        raise ValueError(
            f"make_update: the generator's images must lie in [0, 1], as those of the data do, got values from "
            f"{low:.3g} to {high:.3g}; end the generator in jax.nn.sigmoid(x) or in (jnp.tanh(x) + 1) / 2"
        )


def judged(call: Callable[[], tuple[Any, T]], images: jax.Array) -> tuple[jax.Array, T]:
    """The logits [B] of images [B, ...] by `call`, and the discriminator's variables afterwards.

    Raises:
      ValueError: the discriminator fails, or returns something else than one logit for each image.
    """
    try:
        logits, variables = call()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"make_update: the discriminator fails on images {list(images.shape)}: {_sentence(error)} Build it for "
            f"images {list(images.shape[1:])}, and pass player and state of one and the same discriminator"
        ) from error
    number = len(images)
    is_array = hasattr(logits, "dtype")
    if is_array and logits.shape == (number,) and jnp.issubdtype(logits.dtype, jnp.floating):
        return logits, variables
    if not is_array:
        remedy = "take the logits out of it, such as model(images)[0], in the function that calls the discriminator"
    elif logits.shape == (number, 1):
        remedy = "take the only column, logits[:, 0]"
    elif logits.ndim == 0:
        remedy = "leave out the mean over the batch"
    else:
        remedy = "end the discriminator in a layer of one unit, and take its column, logits[:, 0]"
    raise ValueError(
        f"make_update: the discriminator must return logits [{number}], one for each image, got {described(logits)}; "
        f"{remedy}"
    )


def check_augmented(images: Any, before: jax.Array) -> None:
    """Refuses what an augmentation made of images if it is not of their shape."""
    if getattr(images, "shape", None) != before.shape:
        raise ValueError(
            f"make_update: the augmentation must keep the shape {list(before.shape)} of the images, got "
            f"{described(images)}; crop and resize to that shape within it, or leave that change out"
        )


def check_fits(model: nnx.Module, params: Any, variables: Any) -> None:
    """Refuses arrays that are not those of `model`, by their paths and shapes."""
    for what, wanted, found in (
        ("parameters", nnx.state(model, nnx.Param), params),
        ("other variables", nnx.state(model, nnx.Not(nnx.Param)), variables),
    ):
        here, there = _shapes(wanted), _shapes(found)
        if here == there:
            continue
        path = next(p for p in [*here, *there] if here.get(p) != there.get(p))
        raise ValueError(
            f"to_nnx: the {what} of the state are not those of the {type(model).__name__}: {path} is "
            f"{there.get(path, 'missing')} in the state and {here.get(path, 'missing')} in the network; pass the "
            "network that the player was made of, or one built with the same options"
        )


def _shapes(state: Any) -> dict[str, list[int]]:
    """Shapes of the arrays of a state, by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): list(np.shape(leaf)) for path, leaf in leaves}


def _sentence(error: Exception) -> str:
    return str(error).rstrip(". \n") + "."
