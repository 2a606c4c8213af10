"""Random crops and flips: exact contents, every outcome, one image at a time."""

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
