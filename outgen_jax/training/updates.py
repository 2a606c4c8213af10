"""Many updates of a training: compiled once, several in a call where that is faster, in an order of their own.

Classifiers, GANs and fine-tuning share this. An update is a pure function

    update(state, *data, rows) -> (state, metrics)

of all that changes (`state`), of arrays that stay as they are (`data`: images, labels, a frozen network), and of the
rows [B] of the data set that form its batch.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from outgen_jax import chunking

Update = Callable[..., tuple[Any, Any]]

# Folded into a key for the order. Numbers of updates, which are int32, do not reach it.
_ORDER = 2**31
_DROPOUT = 2**31 + 1


def dropout_key(key: jax.Array) -> jax.Array:
    """The key of dropout and other random layers, derived from that of the training."""
    return jax.random.fold_in(key, _DROPOUT)


def reseed(model: nnx.Module, key: jax.Array) -> None:
    """Gives every random layer of a network a key of its own, derived from `key`, in place.

    >>> import jax
    >>> from flax import nnx
    >>> from outgen_jax.training import updates
    >>> first, second = (nnx.Dropout(0.5, rngs=nnx.Rngs(0)) for _ in range(2))
    >>> updates.reseed(second, jax.random.key(1))
    >>> x = jax.numpy.ones(20)
    >>> bool((first(x) == second(x)).all())
    False
    """
    leaves, structure = jax.tree.flatten(nnx.state(model, nnx.RngKey))
    fresh = [jax.random.fold_in(key, i) for i in range(len(leaves))]
    nnx.update(model, jax.tree.unflatten(structure, fresh))


def compile_updates(update: Update) -> Update:
    """Compiles `update` for one or several batches: `(state, *data, rows [n, B]) -> (state, metrics [n, ...])`.

    One batch runs as it is, several run in a `jax.lax.scan`. The buffers of the state are donated: the state that
    goes in cannot be used again. Each n is a program of its own. The programs live as long as what is returned.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import updates
    >>> def update(total, values, rows):
    ...     return total + values[rows].sum(), values[rows].max()
    >>> compiled = updates.compile_updates(update)
    >>> total, largest = compiled(jnp.zeros(()), jnp.arange(4.0), jnp.array([[0, 3], [1, 2]]))
    >>> print(total, largest)
    6.0 [3. 2.]
    """

    def chunk(state: Any, *data_and_rows: Any) -> tuple[Any, Any]:
        *data, rows = data_and_rows
        if np.ndim(rows) != 2:
            raise ValueError(
                f"compile_updates: a compiled update takes the rows [n, B] of n batches, got {list(np.shape(rows))}; "
                "pass rows[None] for one batch"
            )
        if len(rows) == 1:
            state, metrics = update(state, *data, rows[0])
            return state, jax.tree.map(lambda m: m[None], metrics)
        return jax.lax.scan(lambda state, batch: update(state, *data, batch), state, rows)

    functools.update_wrapper(chunk, update, assigned=())  # with the attributes of the update
    return jax.jit(chunk, donate_argnums=0)


def with_precision(update: Update, precision: str | None) -> Update:
    """`update` with matrix products and convolutions of a precision, whatever JAX's setting is outside of it.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import updates
    >>> square = updates.with_precision(lambda matrix: matrix @ matrix, "bfloat16")
    >>> print(square(jnp.eye(2))[0])
    [1. 0.]

    Args:
      update: the function, before it is compiled.
      precision: as `jax.default_matmul_precision` takes it. None: JAX's own.
    """
    if precision is None:
        return update

    def traced(*arguments: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return update(*arguments)

    functools.update_wrapper(traced, update, assigned=())
    return traced


def run(compiled: Update, state: Any, *data: Any, rows: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """Runs the batches `rows` [n, B], as many in a call as `chunking` decides; yields after each call.

    >>> import jax.numpy as jnp, numpy as np
    >>> from outgen_jax.training import updates
    >>> compiled = updates.compile_updates(lambda total, values, rows: (total + values[rows].sum(), rows[0]))
    >>> for total, first in updates.run(compiled, jnp.zeros(()), jnp.arange(4.0), rows=np.array([[0, 3], [1, 2]])):
    ...     print(total, first)
    6.0 [0 1]

    Args:
      compiled: from `compile_updates`.
      state: before the first update. It is donated, and so is every state that was yielded once the next is asked
        for: only the last one may be kept.
      *data: what the update takes between its state and its rows.
      rows: int32 [n, B], at least one batch.

    Yields:
      The state, and the metrics of the call's updates, [updates of the call, ...].
    """
    most = chunking.updates_per_call(compiled, state, *data, rows[:1])
    for part in chunking.split(rows, most):
        state, metrics = compiled(state, *data, jnp.asarray(part))
        yield state, metrics


@jax.jit
def all_finite(arrays: Any) -> jax.Array:
    """Whether all numbers of a pytree of floating arrays, at least one, are finite: [] bool.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import updates
    >>> print(updates.all_finite({"kernel": jnp.ones(2), "bias": jnp.array([jnp.nan])}))
    False
    """
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays)]).all()


def joined(metrics: list[Any]) -> Any:
    """The metrics of several calls as numpy arrays over all their updates, [n, ...].

    >>> import numpy as np
    >>> from outgen_jax.training import updates
    >>> updates.joined([{"loss": np.ones(2)}, {"loss": np.zeros(1)}])
    {'loss': array([1., 1., 0.])}
    """
    return jax.tree.map(lambda *parts: np.concatenate(parts), *metrics)


def check_compiled(update: Update, *, caller: str) -> None:
    """Refuses an update that is not compiled.

    Raises:
      ValueError: in the name of `caller`.

    >>> check_compiled(compile_updates(lambda state, rows: (state, rows)), caller="fit")
    """
    if not hasattr(update, "trace"):
        raise ValueError(
            f"{caller}: update must be compiled; pass updates.compile_updates(update), of outgen_jax.training"
        )


def check_kept(state: Any, *, caller: str, remedy: str) -> None:
    """Refuses a state whose buffers were given to an update; arrays that are being traced pass.

    Raises:
      ValueError: in the name of `caller`, with the remedy.

    >>> check_kept({"weights": jnp.ones(2)}, caller="fit", remedy="make another")
    """
    for leaf in jax.tree.leaves(state):
        is_traced = isinstance(leaf, jax.core.Tracer)
        if isinstance(leaf, jax.Array) and not is_traced and leaf.is_deleted():
            raise ValueError(
                f"{caller}: the state was used before, and its buffers were given away; {remedy}"
            )


def order_key(key: jax.Array) -> jax.Array:
    """The key of the order of the images, of a training whose updates fold their number into the same `key`.

    Without it, the order of epoch n and the random crops and flips of update n would share a key.

    >>> import jax
    >>> from outgen_jax.training import updates
    >>> order = updates.order_key(jax.random.key(0))
    >>> updates.epoch_rows(order, 0, num_images=10, batch_size=4).shape
    (2, 4)
    """
    return jax.random.fold_in(key, _ORDER)


def check_batch_size(num_images: int, batch_size: int, *, caller: str) -> None:
    """Refuses a batch of no images, or larger than the data set.

    Raises:
      ValueError: in the name of `caller`.

    >>> check_batch_size(10, 4, caller="fit")
    """
    if not 1 <= batch_size <= num_images:
        fault = f"exceeds the {num_images} images" if batch_size > 0 else "is not positive"
        raise ValueError(
            f"{caller}: batch_size {batch_size} {fault}; use one from 1 to the number of images"
        )


def epoch_rows(key: jax.Array, epoch: int, num_images: int, batch_size: int) -> np.ndarray:
    """The batches of one pass over the images: each row once, in an order that depends on key and epoch.

    The rows that do not fill a batch are left out.

    >>> import jax
    >>> from outgen_jax.training import updates
    >>> updates.epoch_rows(jax.random.key(0), 0, num_images=10, batch_size=4).shape
    (2, 4)

    Returns:
      int32 [num_images // batch_size, batch_size].

    Raises:
      ValueError: a batch of no images, or larger than the data set.
    """
    check_batch_size(num_images, batch_size, caller="epoch_rows")
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), num_images))
    steps = num_images // batch_size
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def consecutive_rows(
    key: jax.Array, first: int, steps: int, num_images: int, batch_size: int
) -> np.ndarray:
    """Batches number `first` to `first + steps` of an endless sequence of passes, see `epoch_rows`.

    >>> import jax
    >>> from outgen_jax.training import updates
    >>> updates.consecutive_rows(jax.random.key(0), 3, 5, num_images=10, batch_size=4).shape
    (5, 4)

    Returns:
      int32 [steps, batch_size].

    Raises:
      ValueError: a batch of no images, or larger than the data set.
    """
    check_batch_size(num_images, batch_size, caller="consecutive_rows")
    a_pass = num_images // batch_size
    passes = range(first // a_pass, (first + steps - 1) // a_pass + 1)
    rows = np.concatenate([epoch_rows(key, number, num_images, batch_size) for number in passes])
    return rows[first % a_pass :][:steps]
