"""Bad input is refused at once, in words that name the value, the expectation and the remedy."""

import functools

import jax
import ml_dtypes
import numpy as np
import optax
import pytest
from toy_synthesis import APPLY, CLASSES, SHAPE, WEIGHTS

import outgen_jax as og

IMAGES = np.random.default_rng(0).random((3, *SHAPE), np.float32)
TARGETS = np.full((3, CLASSES), 0.2)


def changed(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


IN_RANGE = r"float images must lie in \[0, 1\], got values from {} to {}; divide by 255, or pass"
RANK_4 = r"images must have shape \[B, H, W, C\], got \[{}\]; one image is images\[None\]"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES * 255, IN_RANGE.format(r"[\d.]+", r"25\d\.?\d*")),
        (IMAGES * 2 - 1, IN_RANGE.format(r"-\d\.\d+", r"[\d.]+")),
        (changed(IMAGES, (1, 2, 3, 0), np.nan), IN_RANGE.format("nan", "nan")),
        (changed(IMAGES, (1, 2, 3, 0), np.inf), IN_RANGE.format(r"[\d.e-]+", "inf")),
        ((IMAGES * 2).astype(ml_dtypes.bfloat16), IN_RANGE.format(r"[\d.e-]+", r"[12]\.?\d*")),
        (IMAGES[0], RANK_4.format("8, 6, 3")),
        (IMAGES[:0], RANK_4.format("0, 8, 6, 3")),
        (
            (IMAGES * 255).astype(np.int32),
            r"must be uint8, or float in \[0, 1\], got int32; convert",
        ),
        (IMAGES > 0.5, r"must be uint8, or float in \[0, 1\], got bool; convert"),
        (
            IMAGES[..., :1],
            r"apply_fn\(variables, images\) fails on images of shape \[3, 8, 6, 1\]: .*"
            r"Check the image size and the number of channels",
        ),
    ],
)
def test_images(images, message):
    with pytest.raises(ValueError, match=rf"(?s)^synthesize: .*{message}"):
        og.synthesize(APPLY, WEIGHTS, images, TARGETS)


SHAPES = (
    r"must have shape \[5\] or \[3, 5\] for 3 images and 5 classes; they have \[{}\]\. Give one"
)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            changed(TARGETS, (2, 1), 0.07),
            r"must sum to 1 per row; row 2 sums to 0\.87\. Normalise them or use og\.targets\.parse",
        ),
        (
            changed(TARGETS, (1, 4), -0.1),
            r"must not be negative; row 1 has -0\.1 for class 4\. Give probabilities",
        ),
        (changed(TARGETS, (0, 3), np.nan), r"must be finite; row 0 has nan for class 3\. Give"),
        (TARGETS[:, :4] * 1.25, SHAPES.format("3, 4")),
        (TARGETS[:2], SHAPES.format("2, 5")),
        (TARGETS[None], SHAPES.format("1, 3, 5")),
        ("cat=1", r"must be an array of numbers \(.*\)\. Use og\.targets\.parse to turn text"),
    ],
)
def test_targets(targets, message):
    with pytest.raises(ValueError, match=rf"^synthesize: targets {message}"):
        og.synthesize(APPLY, WEIGHTS, IMAGES, targets)


def probabilities(weights, images):
    return jax.nn.softmax(APPLY(weights, images))


def activations(weights, images):
    return APPLY(weights, images), images


def one_row(weights, images):
    return APPLY(weights, images)[0]


def twice(weights, images):
    return APPLY(weights, images).repeat(2, 0)


def one_class(weights, images):
    return APPLY(weights, images)[:, :1]


LOGITS = r"must return logits \[B, K\]; for one image it returns {}\. Wrap it so that it does"


@pytest.mark.parametrize(
    ("apply_fn", "message"),
    [
        (
            probabilities,
            r"must return logits, but its rows are non-negative and sum to 1.*leave the softmax out",
        ),
        (activations, LOGITS.format("tuple")),
        (one_row, LOGITS.format(r"\[5\]")),
        (twice, LOGITS.format(r"\[2, 5\]")),
        (one_class, LOGITS.format(r"\[1, 1\]")),
    ],
)
def test_networks(apply_fn, message):
    with pytest.raises(ValueError, match=rf"^synthesize: apply_fn {message}"):
        og.synthesize(apply_fn, WEIGHTS, IMAGES, TARGETS)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"tolerance": 0}, "tolerance must be positive, got 0; use None to run all steps"),
        ({"tolerance": -0.1}, "tolerance must be positive, got -0.1; use None to run all steps"),
        ({"tolerance": np.nan}, "tolerance must be positive, got nan; use None to run all steps"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0; use None for a default"),
        ({"batch_size": -3}, "batch_size must be at least 1, got -3; use None for a default"),
    ],
)
def test_options(option, message):
    with pytest.raises(ValueError, match=f"^synthesize: {message}"):
        og.synthesize(APPLY, WEIGHTS, IMAGES, TARGETS, **option)


def test_logits_that_look_like_probabilities_for_one_image_only_are_taken():
    """Refused is a network all of whose rows are distributions, not one that passes through one."""

    def pixels_of(_, images):
        return images.reshape(len(images), -1)[:, :3]

    images = np.zeros((2, *SHAPE), np.float32)
    images[0, 0, 0] = [0.2, 0.3, 0.5]
    still = og.gradient_descent(optax.sgd(0.1), steps=0)
    result = og.synthesize(pixels_of, {}, images, [0.2, 0.3, 0.5], solver=still)
    assert np.isfinite(result.kl).all()


def test_arguments_are_left_as_they_were():
    images, targets = IMAGES.copy(), TARGETS.copy()
    run = functools.partial(og.synthesize, APPLY, WEIGHTS, solver=og.preset("sgd", steps=1))
    run(images, targets)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)
    device_images = jax.numpy.asarray(IMAGES)
    run(device_images, targets)
    np.testing.assert_array_equal(device_images, IMAGES)  # raises if its buffer was given away
