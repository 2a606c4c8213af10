r"""Pixels that are moved by one grey level each, one after another, to cancel an error of the output.

Let e [N] be the error of the judged outputs, such as probabilities, and a_i [N] their change per grey level of pixel i.
Each pick takes the pixel and the sign s that most reduce the squared error,

.. math:: \|e - s a_i\|^2 - \|e\|^2 = \|a_i\|^2 - 2 s e · a_i

Not all pixels are compared for each pick: they form 256 groups, and the best pixels of the groups serve eight picks
before they are chosen anew.

Here an image is a vector [D] of grey levels 0 to 255 (float32, whole numbers).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

_MOST_PICKS = 1024
_CANDIDATES = 256  # pixels that are compared for a pick, the best of as many groups
_PICKS_AMONG = 8  # made among the same candidates


class _Pixels(NamedTuple):
    """Pixels that may be picked."""

    levels: jax.Array  # [D]
    low: jax.Array  # [D], levels at least
    high: jax.Array  # [D], levels at most
    effects: jax.Array  # [N, D], change of the output per grey level
    squares: jax.Array  # [D], of the effects

    def some(self, chosen: jax.Array) -> "_Pixels":
        """The `chosen` ones alone."""
        return _Pixels(
            self.levels[chosen],
            self.low[chosen],
            self.high[chosen],
            self.effects[:, chosen],
            self.squares[chosen],
        )


class _Picks(NamedTuple):
    """The picks so far."""

    change: jax.Array  # [D], of the levels: -1, 0 or 1
    order: jax.Array  # [D] int32: which pick changed a pixel, counted from 0
    made: jax.Array  # [] int32, how many
    error: jax.Array  # [N], by the linear model
    helped: jax.Array  # [] bool: whether the last pick reduced the error


def greedy_picks(
    levels: jax.Array,
    effects: jax.Array,
    error: jax.Array,
    limit: int = _MOST_PICKS,
    *,
    low: ArrayLike = 0.0,
    high: ArrayLike = 255.0,
) -> tuple[jax.Array, jax.Array]:
    """Moves at most `limit` pixels by one grey level each, to cancel an error of the output.

    Args:
      levels: [D], whole numbers 0-255.
      effects: [N, D], change of the output per grey level.
      error: [N], wanted less present output.
      limit: of the picks; they end earlier where none reduces the error.
      low: [D] or one number, levels at least.
      high: [D] or one number, levels at most.

    Returns:
      The change of the levels [D], of -1, 0 or 1, and which pick made it [D] int32, counted from 0.
    """
    least, most = (jnp.broadcast_to(jnp.float32(x), levels.shape) for x in (low, high))
    pixels = _Pixels(levels, least, most, effects, (effects**2).sum(0))
    none = jnp.zeros_like(levels)
    found = jax.lax.while_loop(
        lambda picks: picks.helped & (picks.made < limit),
        lambda picks: _picks_among_candidates(pixels, picks, limit),
        _Picks(none, none.astype(jnp.int32), jnp.int32(0), error, jnp.bool_(True)),
    )
    return found.change, found.order


def _picks_among_candidates(pixels: _Pixels, picks: _Picks, limit: int) -> _Picks:
    """A few more picks, `limit` in all at most, among the pixels that are now the best of their groups."""
    chosen = _candidates(_reductions(pixels, picks)[0])
    few, until = pixels.some(chosen), jnp.minimum(picks.made + _PICKS_AMONG, limit)
    found = jax.lax.while_loop(
        lambda picks: picks.helped & (picks.made < until),
        lambda picks: _one_pick(few, picks),
        picks._replace(change=picks.change[chosen], order=picks.order[chosen]),
    )
    return found._replace(
        change=picks.change.at[chosen].set(found.change),
        order=picks.order.at[chosen].set(found.order),
        helped=found.made > picks.made,
    )


def _candidates(reductions: jax.Array) -> jax.Array:
    """The pixel of the largest reduction in each group: pixel i is in group i modulo the number of groups."""
    number = min(_CANDIDATES, reductions.size)
    padding = (0, -reductions.size % number)
    groups = jnp.pad(reductions, padding, constant_values=-jnp.inf).reshape(-1, number)
    return groups.argmax(0) * number + jnp.arange(number)


def _reductions(pixels: _Pixels, picks: _Picks) -> tuple[jax.Array, jax.Array]:
    """By how much one more pick of each pixel reduces the squared error [D], and its sign [D]."""
    along = picks.error @ pixels.effects
    sign = jnp.sign(along)
    moved = pixels.levels + sign
    is_open = (picks.change == 0) & (moved >= pixels.low) & (moved <= pixels.high)
    return jnp.where(is_open, 2 * jnp.abs(along) - pixels.squares, 0), sign


def _one_pick(pixels: _Pixels, picks: _Picks) -> _Picks:
    """The pick that most reduces the squared error, if one does."""
    reductions, sign = _reductions(pixels, picks)
    best = reductions.argmax()
    helps = reductions[best] > 0
    taken = jnp.where(helps, sign[best], 0)
    return _Picks(
        picks.change.at[best].add(taken),
        picks.order.at[best].set(jnp.where(helps, picks.made, picks.order[best])),
        picks.made + helps,
        picks.error - taken * pixels.effects[:, best],
        helps,
    )
