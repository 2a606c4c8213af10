"""The Jacobian of an image's coordinates, and how to correct it without computing a new one.

J is [M, D]: a row for every coordinate of the objective, a column for every value of the image.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from outgen_jax.solvers.objective import Objective, Outputs

# Backward passes of one image that run at once; more run in blocks of so many, to bound the memory.
BLOCK = 32


@dataclasses.dataclass(frozen=True)
class ViewedNetwork:
    """A network that sees an image under several views, with outputs for each that depend on this view alone.

    So one backward pass of all views together gives a row of J for every one of them.

    Attributes:
      views: V functions, image [H, W, C] -> what the network sees of it [H', W', C].
      outputs: what it sees [V, H', W', C] -> parts [R, K]; the first R/V rows of a part are those of the first view,
        and so on.
    """

    views: tuple[Callable[[jax.Array], jax.Array], ...]
    outputs: Callable[[jax.Array], Outputs]

    def __call__(self, image: jax.Array) -> Outputs:
        """One image [H, W, C] -> its outputs under all views."""
        return self.outputs(jnp.stack([view(image) for view in self.views]))


def jacobian(
    network: Callable[[jax.Array], Outputs], objective: Objective, image: jax.Array
) -> tuple[Outputs, jax.Array, jax.Array]:
    """Outputs of an image, their coordinates [M] and the Jacobian of these [M, D].

    The backward passes for one part of the outputs leave out what only the other parts depend on. With a
    `ViewedNetwork`, the views share them. So a second network or view costs its own passes only. Entries that are not
    finite are 0: a probability that has underflowed has no gradient.

    Args:
      network: an image -> its outputs.
      objective: defines the coordinates.
      image: of any shape, with D values.
    """
    viewed = network if isinstance(network, ViewedNetwork) else _with_one_view(network)
    shown, to_image = zip(*(jax.vjp(view, image) for view in viewed.views), strict=True)
    stacked = jnp.stack(shown)
    outputs, tangent = jax.linearize(viewed.outputs, stacked)

    def rows_of(part: int) -> tuple[jax.Array, jax.Array]:
        to_shown = jax.linear_transpose(lambda x: tangent(x)[part], stacked)

        def to_images(cotangent: jax.Array) -> jax.Array:
            """Pulls a cotangent of the part back through each view: [R, K] -> [V, D]."""
            (of_shown,) = to_shown(cotangent)
            pulled = [pull(x)[0] for pull, x in zip(to_image, of_shown, strict=True)]
            return jnp.stack(pulled).reshape(len(pulled), -1)

        coordinates = functools.partial(objective.coordinates_of, part)
        return _rows(coordinates, outputs[part], to_images, len(shown))

    parts = [rows_of(part) for part in range(len(outputs))]
    r, jac = (jnp.concatenate(found) for found in zip(*parts, strict=True))
    return outputs, r, jnp.where(jnp.isfinite(jac), jac, 0)


def _rows(
    coordinates: Callable[[jax.Array], jax.Array],
    output: jax.Array,
    to_images: Callable[[jax.Array], jax.Array],
    count: int,
) -> tuple[jax.Array, jax.Array]:
    """The coordinates of one part [m] and their rows of J [m, D].

    Args:
      coordinates: the part [R, K] -> its coordinates [R, n].
      output: the part.
      to_images: a cotangent of the part [R, K] -> its gradient in the image, for each view by itself [V, D].
      count: V.
    """
    r, to_output = jax.vjp(coordinates, output)

    def of_all_views(unit: jax.Array) -> jax.Array:
        """The same coordinate of every view, as a unit vector [m/V] -> its rows [V, D]."""
        (cotangent,) = to_output(jnp.tile(unit, count).reshape(r.shape))
        return to_images(cotangent)

    units, at_once = jnp.eye(r.size // count, dtype=jnp.float32), max(1, BLOCK // count)
    if len(units) <= at_once:
        rows = jax.vmap(of_all_views)(units)
    else:
        rows = jax.lax.map(of_all_views, units, batch_size=at_once)
    return r.ravel(), rows.swapaxes(0, 1).reshape(r.size, -1)


def _with_one_view(network: Callable[[jax.Array], Outputs]) -> ViewedNetwork:
    """`network` as one whose only view is the image itself."""
    return ViewedNetwork((lambda image: image,), lambda shown: network(shown[0]))


def broyden(jac: jax.Array, step: jax.Array, error: jax.Array) -> jax.Array:
    r"""J + (y − JΔ) Δᵀ / ΔᵀΔ: the Jacobian closest to J that would have predicted y (Broyden, 1965).

    J as it is where the network or the step is not finite.

    Args:
      jac: J [M, D].
      step: Δ [D].
      error: y − JΔ [M], of the prediction.
    """
    squared = step @ step
    update = jnp.outer(error, step) / jnp.where(squared > 0, squared, 1)
    return jac + jnp.where(jnp.isfinite(update).all(), update, 0)


def null_space_part(jac: jax.Array, directions: jax.Array, change: jax.Array) -> jax.Array:
    """(I − W (J W)⁻¹ J) Δ: the part of a change Δ [D] in the null space of J, which has no effect on the coordinates.

    The other part is removed along the directions W; along the rows of J it is the smallest in L2.

    Args:
      jac: J [M, D].
      directions: Wᵀ [M, D].
      change: Δ [D].
    """
    return change - solve_gram(jac @ directions.T, jac @ change) @ directions


def solve_gram(gram: jax.Array, right: jax.Array) -> jax.Array:
    """Solves G λ = b for J's Gram matrix G [M, M], with 1e-6 of its mean eigenvalue on the diagonal: [M] -> [M]."""
    least = jnp.maximum(1e-6 * jnp.trace(gram) / len(gram), 1e-20)
    return jnp.linalg.solve(gram + least * jnp.eye(len(gram), dtype=jnp.float32), right)
