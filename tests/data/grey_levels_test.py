"""8-bit images: what comes back as it is, and what is refused."""

import ml_dtypes
import numpy as np
import pytest

from outgen_jax.data import grey_levels, to_uint8


def test_levels_are_the_nearest_and_8_bit_images_stay():
    images = np.array([0, 1, 128, 255], np.uint8)
    assert to_uint8(images) is images
    np.testing.assert_array_equal(to_uint8(np.float32(images) / 255), images)


@pytest.mark.parametrize("value", [1.2, -0.1])
def test_what_has_no_level_is_refused_and_the_remedy_works(value):
    images = np.array([0.5, value])
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].*np.clip"):
        to_uint8(images)
    assert to_uint8(np.clip(images, 0, 1)).tolist() == [128, 255 * (value > 0)]


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_images_that_are_not_finite_are_to_be_left_out(value, name):
    images = np.array([0.5, value], np.float32).reshape(2, 1, 1, 1)
    with pytest.raises(ValueError, match=f"got {name}, in row 1 first; leave out"):
        to_uint8(images)


def test_other_integers_are_refused():
    with pytest.raises(ValueError, match=r"int64.*numpy\.asarray\(images, numpy\.uint8\)"):
        to_uint8(np.array([3, 4]))


def test_floats_and_labels_that_do_not_fit_are_refused_where_8_bits_are_needed():
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.array([1, 0])
    grey_levels.check_labelled(images, labels, caller="accuracy")
    with pytest.raises(ValueError, match=r"accuracy: images must be uint8.*float64 \[2, 4, 4, 3\]"):
        grey_levels.check_labelled(images / 255, labels, caller="accuracy")
    grey_levels.check_labelled(to_uint8(images / 255), labels, caller="accuracy")  # the remedy
    with pytest.raises(ValueError, match=r"at least one, got uint8 \[0, 4, 4, 3\]"):
        grey_levels.check_labelled(images[:0], labels[:0], caller="accuracy")
    for wrong in (labels[:1], np.eye(2)):
        with pytest.raises(ValueError, match=r"accuracy: labels must be 2 integers"):
            grey_levels.check_labelled(images, wrong, caller="accuracy")


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_sixteen_bits_go_to_the_nearest_level(dtype):
    values = np.linspace(0, 1, 2000).astype(dtype)
    expected = np.rint(255 * values.astype(np.float64)).astype(np.uint8)
    np.testing.assert_array_equal(grey_levels.to_uint8(values), expected)
