"""Restrictions of a change: the box, the norm, and masks as values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import outgen_jax as og
from outgen_jax import pixels
from outgen_jax.solvers.limits import Mask, Restriction, restriction
from outgen_jax.solvers.momentum import Momentum

SOURCE = np.random.default_rng(0).random((4, 5, 3), np.float32)


def test_the_box_is_the_range_the_reach_and_the_mask():
    mask = np.zeros((4, 5))
    mask[1:3, 2:] = 7  # anything but 0
    limits = restriction(mask, 0.1, None, caller="test").limits(jnp.asarray(SOURCE))
    low, high = (np.reshape(side, SOURCE.shape) for side in limits[:2])
    free = np.broadcast_to(mask[:, :, None] != 0, SOURCE.shape)
    np.testing.assert_array_equal(low[~free], SOURCE[~free])
    np.testing.assert_array_equal(high[~free], SOURCE[~free])
    np.testing.assert_allclose(low[free], np.maximum(SOURCE - 0.1, 0)[free], atol=1e-7)
    np.testing.assert_allclose(high[free], np.minimum(SOURCE + 0.1, 1)[free], atol=1e-7)
    everything = Restriction().limits(jnp.asarray(SOURCE))
    assert not everything.low.any()
    assert (everything.high == 1).all()
    row = jnp.arange(60.0)
    assert everything.smooth(row) is row


def test_the_norm_weighs_frequencies():
    limits = restriction(None, None, 2.0, caller="test").limits(jnp.asarray(SOURCE))
    expected = pixels.lowpass(SOURCE, 2.0, rolloff="gaussian")
    np.testing.assert_allclose(limits.smooth(SOURCE.ravel()), expected.ravel(), atol=1e-6)


def test_masks_are_equal_by_their_entries():
    a, b = (restriction(m, None, None, caller="t") for m in (np.eye(4), 3 * np.eye(4)))
    other = restriction(np.ones((4, 4)), None, None, caller="t")
    narrow = restriction(np.eye(4)[:2], None, None, caller="t")
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b, other, narrow, Restriction()}) == 4
    assert Mask(np.eye(4)) != "mask"
    assert repr(a.mask) == "Mask([4, 4, 1])"


def test_a_mask_is_data_and_the_rest_is_the_program():
    limited = restriction(np.eye(4), 0.1, 2.0, caller="t")
    leaves, structure = jax.tree.flatten(limited)
    assert [leaf.shape for leaf in leaves] == [(4, 4, 1)]
    assert jax.tree.unflatten(structure, leaves) == limited
    assert structure == jax.tree.structure(restriction(1 - np.eye(4), 0.1, 2.0, caller="t"))
    assert structure != jax.tree.structure(restriction(np.eye(4), 0.2, 2.0, caller="t"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 0.0, None), "someone: max_change must be positive, got 0.0; None: no limit"),
        ((None, 8, None), "someone: max_change must be at most 1, .*, got 8; .* are 8/255, None"),
        ((None, None, np.nan), "someone: lowpass_radius must be positive, got nan; None: no limit"),
        ((np.zeros((2, 2)), None, None), r"mask must be .* got 0 such entries in \[2, 2\]; mark"),
        ((np.ones(3), None, None), r"got 3 such entries in \[3\]"),
    ],
)
def test_bad_restrictions_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        restriction(*arguments, caller="someone")


@pytest.mark.parametrize(
    ("shape", "found"), [((5, 4), "5x4x1"), ((4, 5, 2), "4x5x2"), ((1, 5), "1x5x1")]
)
def test_a_mask_of_another_size_is_named(shape, found):
    limited = restriction(np.ones(shape), None, None, caller="test")
    with pytest.raises(
        ValueError, match=f"mask is {found}, images are 4x5x3 .*with one channel or all of them"
    ):
        limited.limits(jnp.asarray(SOURCE))
    solver = og.gauss_newton(mask=np.ones(shape), steps=1)
    with pytest.raises(ValueError, match=f"mask is {found}, images are 4x5x3 "):
        og.synthesize(
            _logits, np.ones((60, 2), np.float32), SOURCE[None], [0.9, 0.1], solver=solver
        )


@pytest.mark.parametrize(
    "solver_of",
    [
        og.smallest_change,
        og.gauss_newton,
        lambda **options: og.restarted(
            og.gauss_newton(steps=2, **options),
            times=1,
            via=Momentum(
                steps=4, restriction=restriction(options.get("mask"), None, None, caller="t")
            ),
        ),
    ],
    ids=["smallest_change", "gauss_newton", "momentum"],
)
def test_a_mask_is_a_network_that_does_not_see_the_other_pixels(solver_of):
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.4, (60, 8)).astype(np.float32), rng.normal(0, 2, (8, 3))
    allowed = np.zeros((4, 5, 1), bool)
    allowed[1:3, 1:4] = True

    def sees_all(weights, images):
        hidden = jnp.tanh(images.reshape(len(images), -1) @ weights[0])
        return hidden @ weights[1].astype(jnp.float32)

    def sees_some(weights, images):
        return sees_all(weights, jnp.where(allowed, images, SOURCE))

    options = {
        "images": SOURCE[None],
        "targets": [0.2, 0.7, 0.1],
        "tolerance": 1e-5,
        "history": True,
    }
    masked = og.synthesize(sees_all, weights, solver=solver_of(mask=allowed), **options)
    blind = og.synthesize(sees_some, weights, solver=solver_of(), **options)
    assert masked.steps[0] > 2
    np.testing.assert_allclose(masked.images, blind.images, atol=1e-4)
    np.testing.assert_allclose(masked.history[0, :4], blind.history[0, :4], rtol=1e-3)


def _logits(weights, images):
    return images.reshape(len(images), -1) @ weights
