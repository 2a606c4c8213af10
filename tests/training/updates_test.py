"""The core of all trainings: one update or several a call are the same training, in a fixed order of the images."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax import chunking
from outgen_jax.training import updates

KEY = jax.random.key(0)


def moving_average(state, values, factor, rows):
    """An update whose result depends on the order of the batches."""
    mean, count = state
    batch = factor * values[rows].mean()
    return (0.5 * mean + batch, count + 1), {"batch": batch, "row": rows[0]}


def by_hand(values, factor, rows):
    mean, found = 0.0, []
    for batch in rows:
        found.append(factor * values[batch].mean())
        mean = 0.5 * mean + found[-1]
    return mean, found


@pytest.fixture(scope="module")
def compiled():
    return updates.compile_updates(moving_average)


def start():
    return jnp.zeros(()), jnp.zeros((), jnp.int32)


VALUES = np.random.default_rng(0).normal(size=20)  # float64, as a caller's may be
ROWS = np.random.default_rng(1).permutation(20)[:18].reshape(6, 3)  # int64


@pytest.mark.parametrize("most", [1, 2, 4, 6])
def test_any_number_of_updates_a_call_makes_the_updates_by_hand(compiled, monkeypatch, most):
    monkeypatch.setattr(chunking, "updates_per_call", lambda *_: most)
    calls = list(updates.run(compiled, start(), VALUES, 3.0, rows=ROWS))
    assert [len(m["row"]) for _, m in calls] == chunking.lengths(6, most)
    mean, batches = by_hand(VALUES, 3.0, ROWS)
    (got, count), metrics = calls[-1][0], updates.joined([m for _, m in calls])
    np.testing.assert_allclose(got, mean, rtol=1e-5)
    assert count == 6
    np.testing.assert_allclose(metrics["batch"], batches, rtol=1e-5)
    np.testing.assert_array_equal(metrics["row"], ROWS[:, 0])
    assert isinstance(metrics["batch"], np.ndarray)


def test_the_number_of_updates_a_call_is_asked_of_chunking(compiled, monkeypatch):
    asked = []

    def updates_per_call(*arguments):
        asked.append(arguments)
        return 4

    monkeypatch.setattr(chunking, "updates_per_call", updates_per_call)
    list(updates.run(compiled, start(), VALUES, 3.0, rows=ROWS))
    ((function, _, values, factor, rows),) = asked
    assert (function, factor, rows.shape) == (compiled, 3.0, (1, 3))  # of one update
    assert values is VALUES


def test_chunking_takes_what_a_training_gives_it(compiled):
    """Ten updates a call on CPU, as nothing convolves here, and no warning about numpy's 64 bits."""
    rows = np.arange(74).reshape(37, 2) % 20
    calls = list(updates.run(compiled, start(), VALUES, 3.0, rows=rows))
    assert [len(m["row"]) for _, m in calls] == [9, 9, 9, 10]


def test_a_single_update_is_outside_of_any_loop(compiled):
    def primitives(rows):
        return str(compiled.trace(start(), VALUES, 3.0, rows).jaxpr)

    assert "scan" not in primitives(ROWS[:1])
    assert "scan" in primitives(ROWS[:2])


def test_the_old_state_is_donated_and_the_data_is_not(compiled):
    state, data = start(), jnp.asarray(VALUES, jnp.float32)
    compiled(state, data, 3.0, ROWS[:1])
    assert all(leaf.is_deleted() for leaf in state)
    assert not data.is_deleted()


def test_nothing_keeps_the_programs_of_an_update_that_is_gone():
    def update(state, rows):
        return state + rows.sum(), rows

    compiled = updates.compile_updates(update)
    list(updates.run(compiled, jnp.zeros((), jnp.int32), rows=ROWS))
    alive = weakref.ref(update)
    del update, compiled
    jax.clear_caches()
    gc.collect()
    assert alive() is None


def test_epoch_rows_visit_each_image_once_in_an_order_of_key_and_epoch():
    key = jax.random.key(0)
    rows = updates.epoch_rows(key, 0, 50, 12)
    assert rows.shape == (4, 12)
    assert rows.dtype == np.int32
    assert len(np.unique(rows)) == 48
    assert set(rows.ravel()) <= set(range(50))
    np.testing.assert_array_equal(rows, updates.epoch_rows(key, 0, 50, 12))
    assert not np.array_equal(rows, updates.epoch_rows(key, 1, 50, 12))
    assert not np.array_equal(rows, updates.epoch_rows(jax.random.key(1), 0, 50, 12))
    left_out = {
        tuple(sorted({*range(50)} - set(updates.epoch_rows(key, e, 50, 12).ravel())))
        for e in range(4)
    }
    assert len(left_out) > 1
    with pytest.raises(ValueError, match="batch_size 51 exceeds the 50 images"):
        updates.epoch_rows(key, 0, 50, 51)


@pytest.mark.parametrize("batch_size", [0, -4])
def test_a_batch_of_no_images_is_refused(batch_size):
    for rows in (updates.epoch_rows, updates.consecutive_rows):
        arguments = (0, 50) if rows is updates.epoch_rows else (0, 2, 50)
        with pytest.raises(ValueError, match=f"batch_size {batch_size} is not positive; use one f"):
            rows(KEY, *arguments, batch_size)


def test_consecutive_rows_are_parts_of_endless_passes():
    straight = [updates.consecutive_rows(KEY, 2 * number, 2, 12, 5) for number in range(3)]
    parts = updates.consecutive_rows(KEY, 0, 6, 12, 5)  # passes of two batches
    np.testing.assert_array_equal(np.concatenate(straight), parts)
    np.testing.assert_array_equal(updates.consecutive_rows(KEY, 3, 2, 12, 5), parts[3:5])
    np.testing.assert_array_equal(parts[:2], updates.epoch_rows(KEY, 0, 12, 5))
    assert len({*parts[:2].ravel()}) == 10  # every image once a pass at most
    assert (parts[:2] != parts[2:4]).any()
    with pytest.raises(ValueError, match="batch_size 5 exceeds the 4 images"):
        updates.consecutive_rows(KEY, 0, 1, 4, 5)


def test_a_precision_is_that_of_the_products_inside():
    def update(state, rows):
        return state @ state, rows

    def program(precision):
        traced = updates.with_precision(update, precision)
        return str(jax.make_jaxpr(traced)(jnp.eye(2), jnp.arange(2)))

    assert "HIGHEST" in program("highest")
    assert "BF16" in program("bfloat16") or "DEFAULT" in program("bfloat16")
    assert program(None) == str(jax.make_jaxpr(update)(jnp.eye(2), jnp.arange(2)))


def test_the_order_has_a_key_that_no_update_has():
    key = jax.random.key(3)
    numbers = jnp.arange(2000, dtype=jnp.int32)
    of_updates = jax.vmap(lambda step: jax.random.key_data(jax.random.fold_in(key, step)))(numbers)
    order = updates.order_key(key)
    of_epochs = jax.vmap(lambda n: jax.random.key_data(jax.random.fold_in(order, n)))(numbers)
    taken = {tuple(words) for words in np.asarray(of_updates).tolist()}
    assert not taken & {tuple(words) for words in np.asarray(of_epochs).tolist()}
    assert tuple(np.asarray(jax.random.key_data(order)).tolist()) not in taken
