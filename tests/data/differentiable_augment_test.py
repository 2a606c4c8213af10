"""Changes in front of a discriminator: limits, exact contents, gradients, and the probability that adapts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgen_jax.data import differentiable_augment as da

KEY = jax.random.key(7)


def images(number: int = 6, height: int = 8, width: int = 16, channels: int = 3) -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.random((number, height, width, channels)), jnp.float32)


@functools.cache
def compiled(*policy: str):
    options = {"policy": policy} if policy else {}
    return jax.jit(functools.partial(da.differentiable_augment, **options))


# --- each change ---


def test_brightness_and_stretches_are_their_formulas():
    x = images(1)[0]
    ours = np.asarray(x, np.float64)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    close(da.brightness(x, 0.2), ours + 0.2)
    mean = ours.mean(-1, keepdims=True)
    close(da.saturation(x, 1.7), mean + 1.7 * (ours - mean))
    close(da.contrast(x, 0.4), ours.mean() + 0.4 * (ours - ours.mean()))
    close(da.saturation(x, 1.0), ours)
    close(da.contrast(x, 1.0), ours)
    close(da.contrast(x, 0.0), np.full_like(ours, ours.mean()))
    grey = jnp.repeat(x[..., :1], 3, -1)
    close(da.saturation(grey, 0.3), grey)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(-1, 1), columns=st.integers(-2, 2))
def test_translation_moves_and_fills(rows, columns):
    x = np.asarray(images(1)[0])
    moved = np.asarray(da.translate(jnp.asarray(x), rows, columns))
    expected = np.full_like(x, 0.5)
    h, w, _ = x.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i - rows < h and 0 <= j - columns < w:
                expected[i, j] = x[i - rows, j - columns]
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [(4, 8, 4, 8), (0, 8, 2, 8), (8, 8, 2, 8), (4, 0, 4, 4), (8, 16, 2, 4), (1, 16, 3, 4)],
)
def test_the_square_cut_out_is_half_of_the_sides_less_what_lies_outside(row, column, rows, columns):
    x = images(1)[0] * 0.4  # nothing is 0.5
    cut = np.asarray(da.cut_out(x, row, column))
    gone = (cut == 0.5).all(-1)
    assert gone.sum() == rows * columns
    assert gone.any(1).sum() == rows
    np.testing.assert_array_equal(cut[~gone], np.asarray(x)[~gone])


def test_a_constant_grey_image_changes_by_its_brightness_alone():
    grey = jnp.full((40, 8, 16, 3), 0.5)
    for policy in ("translation", "cutout"):
        np.testing.assert_array_equal(compiled(policy)(KEY, grey), grey)
    bright = np.asarray(compiled("color")(KEY, grey))
    np.testing.assert_allclose(
        bright, np.broadcast_to(bright[:, :1, :1, :1], bright.shape), atol=1e-6
    )
    shifts = bright[:, 0, 0, 0] - 0.5
    assert np.abs(shifts).max() <= 0.25
    assert shifts.min() < -0.2
    assert shifts.max() > 0.2


# --- the whole ---


@pytest.mark.parametrize("policy", [("color",), ("translation", "cutout")])
def test_probability_0_is_the_identity_and_1_changes_every_image(policy):
    x = images(40)
    np.testing.assert_array_equal(compiled(*policy)(KEY, x, 0.0), x)
    changed = np.asarray(compiled(*policy)(KEY, x, 1.0) != x).any((1, 2, 3))
    assert changed.all()
    some = np.asarray(compiled(*policy)(KEY, x, 0.2) != x).any((1, 2, 3))
    assert 0 < some.sum() < 40


def test_changes_come_as_often_as_asked():
    x = jnp.full((2000, 8, 8, 1), 0.1)
    cut = np.asarray(compiled("cutout")(KEY, x, 0.3) == 0.5).any((1, 2, 3))
    assert abs(cut.mean() - 0.3) < 0.04  # four standard deviations


def test_an_image_has_its_own_draw_and_the_batch_no_part_in_it():
    x = jnp.repeat(images(1), 5, 0)
    changed = np.asarray(compiled()(KEY, x))
    assert len({image.tobytes() for image in changed}) == 5
    np.testing.assert_allclose(compiled()(KEY, x[:4]), changed[:4], atol=1e-6)
    np.testing.assert_array_equal(changed, compiled()(KEY, x))
    other = compiled()(jax.random.key(8), x)
    assert (np.asarray(other) != changed).any((1, 2, 3)).all()


def test_translations_and_cuts_reach_every_place():
    ramp = jnp.broadcast_to(jnp.arange(1, 17.0)[:, None, None], (1500, 16, 16, 1))
    moved = np.asarray(compiled("translation")(KEY, ramp))
    shifts = set((8 - moved[:, 7, 7, 0]).astype(int).tolist())
    assert shifts == {-2, -1, 0, 1, 2}  # an eighth of 16
    cut = (np.asarray(compiled("cutout")(KEY, ramp)) == 0.5).any((2, 3))
    assert set(cut.sum(1).tolist()) == {4, 5, 6, 7, 8}  # rows of the square that lie inside


@pytest.mark.parametrize("policy", ["color", "translation", "cutout"])
def test_the_gradient_is_that_of_finite_differences(policy):
    x, weights = images(4), images(4)[::-1]

    @jax.jit
    def loss_and_gradient(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        augment = functools.partial(da.differentiable_augment, KEY, policy=(policy,))
        return jax.value_and_grad(lambda x: jnp.sum(weights * jnp.sin(augment(x))))(x)

    gradient = np.asarray(loss_and_gradient(x)[1])
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=x.shape).astype(np.float32)
        step = 1e-2
        ends = [loss_and_gradient(x + sign * step * direction)[0] for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=5e-3, atol=5e-2)
    assert np.abs(gradient).max() > 0.1
    # Where the image was cut out or moved away nothing flows.
    assert (gradient == 0).all(-1).any() == (policy != "color")


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (jnp.zeros((1, 4, 4, 3), jnp.uint8), {}, r"float in \[0, 1\], got uint8; divide"),
        (jnp.zeros((4, 4, 3)), {}, r"\[B, H, W, C\], got \[4, 4, 3\]; one image is images\[None\]"),
        (jnp.zeros((1, 4, 4, 3)), {"policy": ["colour"]}, "no policy 'colour'; use some of color"),
    ],
)
def test_refuses_bad_input(x, options, message):
    with pytest.raises(ValueError, match=f"differentiable_augment: .*{message}"):
        da.differentiable_augment(KEY, x, **options)


# --- the probability ---


def test_the_probability_follows_the_sign_of_the_logits():
    sure, unsure = jnp.array([3.0, 1.0, 2.0, 0.1, 5.0]), jnp.array([3.0, -1.0, 2.0, -0.1, 5.0])
    up = da.adapt(jnp.array(0.5), sure, images=100)  # r = 1
    np.testing.assert_allclose(up, 0.55, rtol=1e-6)
    down = da.adapt(jnp.array(0.5), unsure, images=100)  # r = 0.2
    np.testing.assert_allclose(down, 0.45, rtol=1e-6)
    at = da.adapt(jnp.array(0.5), jnp.array([1.0, 1, 1, 1, -1]), target=0.6)  # r = 0.6
    np.testing.assert_allclose(at, 0.5, atol=2e-5)
    assert da.adapt(jnp.array(0.99), sure, images=100) == 1
    assert da.adapt(jnp.array(0.01), unsure, images=100) == 0


def test_the_probability_settles_where_the_target_is_met():
    """Of a discriminator that knows 1 − p/2 of the real images: r = 1 − p, so p goes to 0.4."""
    p = jnp.array(0.0)
    for _ in range(100):
        signs = jnp.where(jnp.arange(200) < 200 * (1 - p / 2), 1.0, -1.0)
        p = da.adapt(p, signs, images=10_000)
    np.testing.assert_allclose(p, 0.4, atol=0.021)
