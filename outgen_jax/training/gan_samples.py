"""Images of a trained generator.

Image i is a function of (key, i): more images of one key begin with those that a smaller number gives.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax.data import grey_levels
from outgen_jax.training import gan_checks
from outgen_jax.whole_numbers import check_integers

Call = Callable[[Any, jax.Array], jax.Array]  # network, latent vectors -> images


def latent_vectors(key: jax.Array, number: int, latent_shape: tuple[int, ...]) -> jax.Array:
    """Latent vectors z ~ N(0, 1) of `number` images, [number, *latent_shape] float32.

    Vector i is the same whatever the number.

    Raises:
      ValueError: a number below 1, or what is no key or shape.

    >>> import jax
    >>> from outgen_jax.training import gan_samples
    >>> few, many = (gan_samples.latent_vectors(jax.random.key(0), n, (3,)) for n in (2, 9))
    >>> bool((few == many[:2]).all())
    True
    """
    caller = "latent_vectors"
    check_integers(caller=caller, number=number)
    gan_checks.check_key(key, caller=caller)
    gan_checks.check_latent_shape(latent_shape, caller=caller)
    if number < 1:
        raise ValueError(f"{caller}: number must be at least 1, got {number}")

    def one(i: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, i), latent_shape, jnp.float32)

    return jax.vmap(one)(jnp.arange(number, dtype=jnp.int32))


def sample(
    generator: nnx.Module,
    z: jax.Array,
    *,
    generate: Call = lambda model, z: model(z),
    batch_size: int = 100,
) -> np.ndarray:
    """The images of latent vectors, rounded to 8 bits: [N, H, W, C] uint8.

    Args:
      generator: a `flax.nnx` module in inference mode, such as `gan.to_nnx` returns.
      z: [N, *latent_shape], such as `latent_vectors` returns.
      generate: `generate(model, z) -> images` in [0, 1], where the network returns more than images.
      batch_size: images at a time. All calls are of this size, so that an image does not depend on their number.

    Raises:
      ValueError: what is no `flax.nnx` module; latent vectors that it fails on; images that are not floats in [0, 1]; a
        batch of no images.

    >>> import jax
    >>> from flax import nnx
    >>> from outgen_jax.models import mlp_gan
    >>> from outgen_jax.training import gan_samples
    >>> generator = mlp_gan.Generator((4, 4, 1), latent=2, hidden=8, rngs=nnx.Rngs(0))
    >>> z = gan_samples.latent_vectors(jax.random.key(0), 3, generator.latent_shape)
    >>> gan_samples.sample(generator, z).shape
    (3, 4, 4, 1)
    """
    if not isinstance(generator, nnx.Module):
        raise ValueError(
            f"sample: generator must be a flax.nnx module, got {type(generator).__name__}; gan.to_nnx(model, "
            "gan.settled(...)) makes one of a state"
        )
    check_integers(caller="sample", batch_size=batch_size)
    if batch_size < 1 or len(z) < 1:
        raise ValueError(
            f"sample: needs at least one latent vector and a batch_size of at least 1, got {len(z)} and {batch_size}"
        )
    graphdef, state = nnx.split(generator)
    parts = []
    for first in range(0, len(z), batch_size):
        # The last batch is filled up with copies, so that one shape is compiled for all.
        chosen = z[np.minimum(np.arange(first, first + batch_size), len(z) - 1)]
        parts.append(grey_levels.to_uint8(_images(graphdef, generate, state, chosen)))
    return np.concatenate(parts)[: len(z)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _images(graphdef: nnx.GraphDef, generate: Call, state: nnx.State, z: jax.Array) -> jax.Array:
    def call() -> tuple[Any, None]:
        return generate(nnx.merge(graphdef, state, copy=True), z), None

    return gan_checks.generated(call, z, caller="sample")[0]
