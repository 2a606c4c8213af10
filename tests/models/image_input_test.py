"""Networks of the package refuse grey levels, which they would take for values in [0, 1]."""

import numpy as np
import pytest
from flax import nnx

import outgen_jax as og
from outgen_jax.models import dcgan, draw, efficientnet_lite, inception, mlp_gan


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
def test_grey_levels_are_refused(build, shape):
    model = nnx.eval_shape(build)
    with pytest.raises(
        ValueError, match=r"float in \[0, 1\], got uint8; divide 8-bit images by 255"
    ):
        nnx.eval_shape(model, np.zeros((1, *shape), np.uint8))
