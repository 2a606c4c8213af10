"""Crops, flips, inversion and contrast: exact contents, every outcome, one image at a time."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.data import augment


def distinct(n: int, h: int, w: int, c: int = 2) -> np.ndarray:
    """Images without zeros whose pixels all differ, in every image the same."""
    return np.broadcast_to(np.arange(1, h * w * c + 1).reshape(h, w, c), (n, h, w, c)).copy()


def test_crops_are_windows_of_the_padded_image_at_every_offset():
    images = distinct(500, 3, 4)
    crops = jax.jit(augment.random_crop, static_argnames="padding")(
        jax.random.key(0), images, padding=2
    )
    padded = np.pad(images[0], ((2, 2), (2, 2), (0, 0)))
    windows = {padded[i : i + 3, j : j + 4].tobytes(): (i, j) for i in range(5) for j in range(5)}
    assert len(windows) == 25
    counts = collections.Counter(
        windows[crop.tobytes()] for crop in np.asarray(crops, padded.dtype)
    )
    assert len(counts) == 25
    assert min(counts.values()) >= 6  # 20 expected; 6 or fewer has probability 2e-4 a window


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 4)])
def test_single_images_are_refused(shape):
    image, key = np.full(shape, 0.5), jax.random.key(0)
    for call in (
        augment.flip_left_right,
        augment.flip_up_down,
        augment.contrast,
        lambda images: augment.random_flip_left_right(key, images),
        lambda images: augment.random_crop(key, images, padding=1),
    ):
        with pytest.raises(ValueError, match=r"must be \[B, H, W, C\], got .*images\[None"):
            call(image)


def test_crop_without_padding_changes_nothing():
    images = distinct(3, 3, 4)
    np.testing.assert_array_equal(augment.random_crop(jax.random.key(0), images, padding=0), images)


def test_flips_half_of_the_images_whole():
    images = distinct(400, 2, 3)
    flipped = np.asarray(augment.random_flip_left_right(jax.random.key(1), images))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    np.testing.assert_array_equal(mirrored, ~same)
    assert 150 < mirrored.sum() < 250  # five standard deviations


def test_flip_left_right_mirrors_columns():
    image = np.array([[1, 2, 3], [4, 5, 6]])[None, :, :, None]
    np.testing.assert_array_equal(
        augment.flip_left_right(image)[0, :, :, 0], [[3, 2, 1], [6, 5, 4]]
    )


def test_flip_up_down_mirrors_rows():
    image = np.array([[1, 2], [3, 4], [5, 6]])[None, :, :, None]
    np.testing.assert_array_equal(augment.flip_up_down(image)[0, :, :, 0], [[5, 6], [3, 4], [1, 2]])


def test_invert_is_the_negative():
    images = jnp.array([0, 0.25, 1]).reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(augment.invert(images).ravel(), [1, 0.75, 0])
    photographs = fractions(2)
    np.testing.assert_allclose(augment.invert(augment.invert(photographs)), photographs, atol=1e-7)


def fractions(n: int, low: float = 0, high: float = 1) -> np.ndarray:
    """Random images [n, 3, 4, 2] between two values."""
    return np.random.default_rng(n).uniform(low, high, (n, 3, 4, 2)).astype(np.float32)


def test_contrast_stretches_each_channel_about_its_mean():
    images = fractions(3, 0.3, 0.7)  # no value reaches 0 or 1 at twice the contrast
    means = images.mean((1, 2), keepdims=True)
    for factor in (0, 0.5, 1, 1.5):
        changed = augment.contrast(images, factor)
        np.testing.assert_allclose(changed, means + factor * (images - means), atol=1e-6)
        np.testing.assert_allclose(changed.mean((1, 2), keepdims=True), means, atol=1e-6)
        np.testing.assert_allclose(changed.std((1, 2)), factor * images.std((1, 2)), atol=1e-6)


def test_contrast_of_each_image_its_own_by_default_higher():
    images = fractions(3, 0.3, 0.7)
    changed = jax.jit(augment.contrast)(images, jnp.array([0.5, 1, 1.5]))
    for image, factor, result in zip(images, (0.5, 1, 1.5), changed, strict=True):
        np.testing.assert_allclose(augment.contrast(image[None], factor)[0], result, atol=1e-6)
    np.testing.assert_allclose(augment.contrast(images)[2], changed[2], atol=1e-6)


def test_contrast_stays_in_range():
    changed = augment.contrast(fractions(4), 100.0)
    assert (changed.min(), changed.max()) == (0, 1)
    assert ((changed == 0) | (changed == 1)).mean() > 0.9


@pytest.mark.parametrize("change", [augment.invert, augment.contrast])
def test_rejects_8_bit_images(change):
    with pytest.raises(ValueError, match=rf"{change.__name__}: .*got uint8; divide"):
        change(np.zeros((1, 2, 2, 3), np.uint8))


def test_contrast_rejects_factors_of_another_shape():
    with pytest.raises(ValueError, match=r"contrast: factor must be one number or \[2\].*\[3\]"):
        augment.contrast(fractions(2), jnp.ones(3))


RANDOM = [
    lambda key, images: augment.random_crop(key, images, padding=2),
    augment.random_flip_left_right,
]


@pytest.mark.parametrize("change", RANDOM, ids=["crop", "flip"])
def test_each_image_is_changed_by_key_and_place_alone(change):
    images = jnp.asarray(distinct(8, 4, 4))
    others = images.at[1:].set(0)
    first = change(jax.random.key(5), images)
    np.testing.assert_array_equal(first, change(jax.random.key(5), images))
    np.testing.assert_array_equal(first[0], change(jax.random.key(5), others)[0])
    assert not np.array_equal(first, change(jax.random.key(6), images))
    assert len({np.asarray(image).tobytes() for image in first}) > 1


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("change", RANDOM, ids=["crop", "flip"])
def test_keeps_the_type(change, dtype):
    images = jax.ShapeDtypeStruct((2, 4, 4, 3), dtype)
    changed = jax.eval_shape(change, jax.random.key(0), images)
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("change", [augment.invert, augment.contrast, augment.flip_up_down])
def test_fixed_changes_keep_the_type(change, dtype):
    images = jax.ShapeDtypeStruct((2, 4, 4, 3), dtype)
    changed = jax.eval_shape(change, images)
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
