"""Checks of images name the caller and what came; the remedies that they name work."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import outgen_jax as og
from outgen_jax import image_checks
from outgen_jax.models import dcgan, draw, efficientnet_lite, inception, mlp_gan


def mended(error: pytest.ExceptionInfo[ValueError], **arrays: np.ndarray) -> np.ndarray:
    """What the expression in the remedy makes of the arrays."""
    remedy = str(error.value).split("; ")[1]
    expression = re.search(r"numpy\.\w+\(.*\)|images?(\[.*?\]|\.\w+\(.*\))", remedy)
    return eval(expression.group(), {"numpy": np, **arrays})


def test_batches_that_fit_are_taken():
    images = np.zeros((2, 32, 64, 3))
    image_checks.check_batch(images, caller="f")
    image_checks.check_batch(images, caller="f", channels=(1, 3), multiple=32, smallest=32, least=1)
    image_checks.check_batch(images, caller="f", size=(32, 64))
    image_checks.check_batch(images[:0], caller="f")
    image_checks.check_image(images[0], caller="f", channels=(3,))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4, 3), {}, r"\[B, H, W, C\], got \[4, 4, 3\]; one image is images\[None\]"),
        ((4, 4), {}, r"got \[4, 4\]; one grey image is images\[None, \.\.\., None\]"),
        ((4,), {}, r"got \[4\]; stack images \[H, W, C\]"),
        ((2, 0, 4, 3), {}, "leave out images without pixels"),
        ((0, 4, 4, 3), {"least": 1}, r"\[B, H, W, C\], at least one, got .*; give at least one"),
        ((1, 4, 4, 3), {"size": (5, 6)}, r"\[B, 5, 6, C\], got .*; resize or crop them"),
        ((1, 4, 4, 3), {"smallest": 5}, "H and W at least 5, got .*; resize"),
        ((1, 4, 6, 3), {"multiple": 4}, "H and W multiples of 4, got .*; resize"),
        ((1, 4, 4, 2), {"channels": (1, 3)}, r"\[B, H, W, 1 or 3\], .*; keep the channels"),
    ],
)
def test_other_batches_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=rf"^f: images must be .*{message}"):
        image_checks.check_batch(np.zeros(shape), caller="f", **options)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((4, 5, 3), (3,)),
        ((4, 5), (1,)),
        ((2, 3, 4, 5), (1, 3)),
        ((2, 4, 5, 4), (1, 3)),
        ((2, 4, 5, 1), (3,)),
        ((2, 4, 5, 3), (1,)),
    ],
)
def test_the_remedy_for_a_batch_works(shape, channels):
    images = np.zeros(shape)
    with pytest.raises(ValueError, match="f: images must be") as error:
        image_checks.check_batch(images, caller="f", channels=channels)
    image_checks.check_batch(mended(error, images=images), caller="f", channels=channels)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (4, 5, 4)])
def test_the_remedy_for_an_image_works(shape):
    image = np.zeros(shape)
    with pytest.raises(ValueError, match="f: the image must be") as error:
        image_checks.check_image(image, caller="f", channels=(1, 3))
    image_checks.check_image(mended(error, image=image), caller="f", channels=(1, 3))


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (4,), (4, 0, 3)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"f: the image must be \[H, W, C\], got \["):
        image_checks.check_image(np.zeros(shape), caller="f")


@pytest.mark.parametrize("images", [np.full((1, 2, 2, 3), 200), [[[[200, 0, 100]]]]])
def test_grey_levels_of_another_type_become_uint8(images):
    with pytest.raises(ValueError, match=r"f: images must be uint8, or float in \[0, 1\]") as error:
        image_checks.check_floats_or_uint8(np.asarray(images), caller="f")
    found = mended(error, images=images)
    image_checks.check_floats_or_uint8(found, caller="f")
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_grey_levels_become_floats(dtype):
    images = np.full((1, 2, 2, 3), 51, dtype)
    with pytest.raises(ValueError, match=rf"f: images must be float .*, got {np.dtype(dtype)}; "):
        image_checks.check_floats(images, caller="f")


@pytest.mark.parametrize("images", [np.full((1, 2, 2, 3), 51.0), np.full((1, 2, 2, 3), 0.2)])
def test_the_remedy_for_8_bits_works(images):
    with pytest.raises(ValueError, match=r"must be uint8 \[N, H, W, C\], at least one") as error:
        image_checks.check_uint8(images, caller="f")
    remedy = re.search(r"(outgen_jax\.data\.to_uint8|numpy\.asarray)\(.*?\)", str(error.value))
    found = eval(remedy.group(), {"numpy": np, "images": images, "outgen_jax": og})
    image_checks.check_uint8(found, caller="f")
    assert np.unique(found) == [51]


@pytest.mark.parametrize("values", [(-0.05, 1.05), (0, 255), (-1, 1), (-3, 3), (0, np.nan)])
def test_the_range_is_that_of_fractions(values):
    images = np.array(values).reshape(2, 1, 1, 1)
    with pytest.raises(ValueError, match=r"f: float images must lie in \[0, 1\], got"):
        image_checks.check_range(images, caller="f")
    image_checks.check_range(np.array([0.0, 1.0]), caller="f")
    image_checks.check_range(np.array([-0.01, 1.01]), caller="f", margin=0.02)


def test_values_are_not_known_within_a_trace():
    far = jnp.full((1, 2, 2, 3), 300.0)
    for check in (image_checks.check_range, image_checks.check_no_grey_levels):
        with pytest.raises(ValueError, match="lie in"):
            check(far, caller="f")

        def unchecked(x, check=check):
            check(x, caller="f")
            check(far, caller="f")  # also of what a compiled function closes over
            return x

        jax.jit(unchecked)(far)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: og.models.VGG16(3, 1 / 64, rngs=nnx.Rngs(0)), (32, 32, 3)),
        (lambda: og.models.WhitenedCNN(3, 1 / 64, rngs=nnx.Rngs(0)), (32, 32, 3)),
        (lambda: og.models.LeNet(3, rngs=nnx.Rngs(0)), (28, 28, 1)),
        (lambda: dcgan.Discriminator(size=16, width=4, rngs=nnx.Rngs(0)), (16, 16, 3)),
        (lambda: draw.Discriminator((8, 8, 1), rngs=nnx.Rngs(0)), (8, 8, 1)),
        (lambda: mlp_gan.Discriminator((8, 8, 1), rngs=nnx.Rngs(0)), (8, 8, 1)),
        (lambda: efficientnet_lite.EfficientNetLite0(rngs=nnx.Rngs(0)), (64, 64, 3)),
        (lambda: inception.InceptionV3(rngs=nnx.Rngs(0)), (80, 80, 3)),
    ],
)
def test_networks_refuse_grey_levels(build, shape):
    model = nnx.eval_shape(build)
    with pytest.raises(
        ValueError, match=r"float in \[0, 1\], got uint8; divide 8-bit images by 255"
    ):
        nnx.eval_shape(model, np.zeros((1, *shape), np.uint8))
