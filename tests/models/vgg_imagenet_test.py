"""VGG16 without batch normalisation: torchvision's weights read as torchvision computes with them."""

import hashlib
import math
import pickle
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from outgen_jax.models import vgg_imagenet
from outgen_jax.models.vgg_imagenet import ImageNetVGG16

# Where torchvision's `features` has its convolutions, and their channels.
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_FIVE = dict(zip((0, 3, 6, 9, 12), (4, 4, 4, 4, 6), strict=True))  # one convolution a block
_SIDE = 64  # two pixels a side reach `fc1`, so that their order counts
# Logits of `seeded_state()` on `images()` by PyTorch 2.13.
_GOLDEN = (
    (-0.1551963, -0.2913258, 0.1669625, 0.03032384, 0.7779225),
    (-0.1602106, -0.09218228, 0.05408809, 0.05148417, 0.9352065),
)


def seeded_state(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under torchvision's names and in its layout."""
    rng = np.random.default_rng(seed)
    state, inputs = {}, 3

    def layer(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = rng.normal(0, (2 / math.prod(shape[1:])) ** 0.5, shape)
        state[f"{name}.bias"] = rng.normal(0, 0.3, shape[0])

    for place, channels in _FIVE.items():
        layer(f"features.{place}", channels, inputs, 3, 3)
        inputs = channels
    for place, shape in ((0, (7, inputs * 4)), (3, (7, 7)), (6, (5, 7))):
        layer(f"classifier.{place}", *shape)
    return {name: array.astype(np.float32) for name, array in state.items()}


def images() -> np.ndarray:
    return np.random.default_rng(1).random((2, _SIDE, _SIDE, 3), np.float32)


def by_torch(torch, state: dict[str, np.ndarray], x: np.ndarray):
    """Logits and pre-activations [B, ...] in PyTorch's layout."""
    functional = torch.nn.functional
    weights = {name: torch.from_numpy(array) for name, array in state.items()}
    x = torch.from_numpy(x).permute(0, 3, 1, 2)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, pre = (x - mean[:, None, None]) / std[:, None, None], []
    for place in _FIVE:
        names = (f"features.{place}.weight", f"features.{place}.bias")
        pre.append(functional.conv2d(x, *(weights[name] for name in names), padding=1))
        x = functional.max_pool2d(functional.relu(pre[-1]), 2)
    x = x.flatten(1)
    for place in (0, 3, 6):
        names = (f"classifier.{place}.weight", f"classifier.{place}.bias")
        pre.append(functional.linear(x, *(weights[name] for name in names)))
        x = functional.relu(pre[-1])
    return pre.pop(), pre


@pytest.fixture(autouse=True)
def five_convolutions(monkeypatch):
    monkeypatch.setattr(vgg_imagenet, "BLOCKS", ((64,), (64,), (64,), (64,), (96,)))


@pytest.fixture(scope="module")
def outputs():
    """Logits and pre-activations of the seeded weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vgg_imagenet, "BLOCKS", ((64,), (64,), (64,), (64,), (96,)))
        model = vgg_imagenet.from_torch(seeded_state())
        model.eval()
        graphdef, variables = nnx.split(model)
        run = jax.jit(lambda v, x: nnx.merge(graphdef, v, copy=True).activations(x))
        return model, run(variables, jnp.asarray(images()))


def test_golden_values(outputs):
    model, (logits, pre) = outputs
    np.testing.assert_allclose(logits, _GOLDEN, rtol=1e-4, atol=1e-5)
    assert logits.dtype == jnp.float32
    assert tuple(pre) == model.layer_names
    assert model.image_size == _SIDE
    assert pre["fc1"].shape == pre["fc2"].shape == (2, 7)
    assert pre["fc2"].min() < 0 < pre["fc2"].max()


def test_equals_torch(outputs):
    torch = pytest.importorskip("torch")
    _, (logits, pre) = outputs
    expected, expected_pre = by_torch(torch, seeded_state(), images())
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    for (name, got), want in zip(pre.items(), expected_pre, strict=True):
        want = want.permute(0, 2, 3, 1) if want.ndim == 4 else want
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=name)


def test_reads_a_file_and_checks_it(tmp_path):
    torch = pytest.importorskip("torch")
    path, state = tmp_path / "vgg16.pth", seeded_state()
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
    with pytest.raises(ValueError, match="expected 397923af8e79cdbb6a7127f12361acd7a2f83e06b0"):
        vgg_imagenet.load_torchvision(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for model in (
        vgg_imagenet.load_torchvision(path, sha256=digest),
        vgg_imagenet.load_torchvision(path, sha256=None),
    ):
        np.testing.assert_array_equal(model.head.kernel[...], state["classifier.6.weight"].T)
        assert model.dropout.deterministic  # in evaluation mode
    with pytest.raises(FileNotFoundError, match="no file"):
        vgg_imagenet.load_torchvision(tmp_path / "none.pth")


def legacy_file(path: Path, state: dict[str, np.ndarray]) -> Path:
    """What the first versions of PyTorch wrote, as torchvision's published file is, by hand."""
    code = b"ccollections\nOrderedDict\n)R"
    for key, (name, array) in enumerate(state.items()):
        shape, strides = array.shape, tuple(s // 4 for s in array.strides)
        storage = f"(Vstorage\nctorch\nFloatStorage\nV{key}\nVcpu\nI{array.size}\nNtQ"
        code += f"V{name}\nctorch._utils\n_rebuild_tensor\n({storage}I0\n".encode()
        for values in (shape, strides):
            code += b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"
        code += b"tRs"
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    keys = pickle.dumps([str(key) for key in range(len(state))], 2)
    raw = [struct.pack("<q", array.size) + array.tobytes() for array in state.values()]
    parts = [pickle.dumps(part, 2) for part in head]
    path.write_bytes(b"".join([*parts, code, b".", keys, *raw]))
    return path


def test_reads_a_file_of_the_first_versions_of_torch(tmp_path):
    state = seeded_state()
    model = vgg_imagenet.load_torchvision(legacy_file(tmp_path / "old.pth", state), sha256=None)
    np.testing.assert_array_equal(model.head.kernel[...], state["classifier.6.weight"].T)
    np.testing.assert_array_equal(
        model.blocks[0][0].kernel[...], state["features.0.weight"].transpose(2, 3, 1, 0)
    )


def test_another_file_is_read_with_the_hash_that_the_message_names(tmp_path):
    path = legacy_file(tmp_path / "mine.pth", seeded_state())
    with pytest.raises(ValueError, match="give its own hash as sha256") as error:
        vgg_imagenet.load_torchvision(path)
    digest = str(error.value).split("SHA-256 ")[1].split(",")[0]
    assert vgg_imagenet.load_torchvision(path, sha256=digest).image_size == _SIDE


def test_structure_is_torchvisions(monkeypatch):
    monkeypatch.undo()  # all thirteen convolutions
    model = nnx.eval_shape(lambda: ImageNetVGG16(rngs=nnx.Rngs(0)))
    named = dict(vgg_imagenet._torch_names(model))
    kernels = {name: v.shape for name, v in named.items() if name.endswith("weight")}
    inputs = (3, *_CHANNELS)
    expected = {
        f"features.{place}.weight": (3, 3, c, k)
        for place, c, k in zip(_PLACES, inputs, _CHANNELS, strict=False)
    }
    expected |= {"classifier.0.weight": (25088, 4096), "classifier.3.weight": (4096, 4096)}
    assert kernels == expected | {"classifier.6.weight": (4096, 1000)}
    assert {name: v.shape for name, v in named.items() if name.endswith("bias")} == {
        name.replace("weight", "bias"): shape[-1:] for name, shape in kernels.items()
    }
    assert sum(math.prod(v.shape) for v in named.values()) == 138_357_544  # torchvision's count
    assert model.layer_names[-3:] == ("conv5_3", "fc1", "fc2")
    assert len(model.layer_names) == 15  # paper D's layers 14 and 15 are the last


def test_dropout_follows_the_hidden_layers_in_training_only(outputs):
    model = nnx.clone(outputs[0])
    ones = jnp.ones((1, 64))
    np.testing.assert_array_equal(model.dropout(ones), ones)
    model.train()
    assert set(np.unique(model.dropout(ones))) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"features.1.running_mean": np.zeros(4)}, "unexpected: features.1.running"),
        (lambda s: s.pop("classifier.3.bias") * 0, "missing: classifier.3.bias"),
        (lambda s: s | {"features.3.weight": np.zeros((4, 5, 3, 3))}, r"'features.3.weight' .*\(4, 5"),
        (lambda s: s | {"classifier.0.weight": np.zeros((7, 23))}, r"'classifier.0.weight' .*\(7, 23"),
        (lambda s: s.clear(), "no usable 'features.0.weight'.*torchvision's names"),
    ],
)  # fmt: skip
def test_refuses_other_networks(change, message):
    state = seeded_state()
    changed = change(state)
    with pytest.raises(ValueError, match=rf"vgg_imagenet.from_torch: .*{message}"):
        vgg_imagenet.from_torch(changed if isinstance(changed, dict) else state)


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 32, 32, 3), (1, 64, 64, 1), (1, 3, 64, 64)])
def test_names_the_expected_shape_of_images(outputs, shape):
    with pytest.raises(ValueError, match=r"images must be \[B, 64, 64, 3\], got \["):
        outputs[0](jnp.zeros(shape))


@pytest.mark.parametrize(
    "options", [{"image_size": 100}, {"width_multiplier": 0.01}, {"hidden": 0}]
)
def test_refuses_sizes(options):
    with pytest.raises(ValueError, match="image_size must be a multiple of 32, width_multiplier"):
        ImageNetVGG16(rngs=nnx.Rngs(0), **options)
