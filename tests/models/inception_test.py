"""The FID's Inception v3 against a table of its layers, PyTorch's functions and stored values."""

import functools
import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from outgen_jax.models import inception, inception_blocks

# Written out from torchvision's `Inception3` and pytorch-fid's changes to it: inputs, then kernel height, width and
# outputs of every convolution.
_STEM = {
    "Conv2d_1a_3x3": (3, 3, 3, 32),
    "Conv2d_2a_3x3": (32, 3, 3, 32),
    "Conv2d_2b_3x3": (32, 3, 3, 64),
    "Conv2d_3b_1x1": (64, 1, 1, 80),
    "Conv2d_4a_3x3": (80, 3, 3, 192),
}


def _a(n: int, pool: int) -> dict[str, tuple[int, ...]]:
    return {
        "branch1x1": (n, 1, 1, 64),
        "branch5x5_1": (n, 1, 1, 48),
        "branch5x5_2": (48, 5, 5, 64),
        "branch3x3dbl_1": (n, 1, 1, 64),
        "branch3x3dbl_2": (64, 3, 3, 96),
        "branch3x3dbl_3": (96, 3, 3, 96),
        "branch_pool": (n, 1, 1, pool),
    }


def _c(c: int) -> dict[str, tuple[int, ...]]:
    return {
        "branch1x1": (768, 1, 1, 192),
        "branch7x7_1": (768, 1, 1, c),
        "branch7x7_2": (c, 1, 7, c),
        "branch7x7_3": (c, 7, 1, 192),
        "branch7x7dbl_1": (768, 1, 1, c),
        "branch7x7dbl_2": (c, 7, 1, c),
        "branch7x7dbl_3": (c, 1, 7, c),
        "branch7x7dbl_4": (c, 7, 1, c),
        "branch7x7dbl_5": (c, 1, 7, 192),
        "branch_pool": (768, 1, 1, 192),
    }


def _e(n: int) -> dict[str, tuple[int, ...]]:
    return {
        "branch1x1": (n, 1, 1, 320),
        "branch3x3_1": (n, 1, 1, 384),
        "branch3x3_2a": (384, 1, 3, 384),
        "branch3x3_2b": (384, 3, 1, 384),
        "branch3x3dbl_1": (n, 1, 1, 448),
        "branch3x3dbl_2": (448, 3, 3, 384),
        "branch3x3dbl_3a": (384, 1, 3, 384),
        "branch3x3dbl_3b": (384, 3, 1, 384),
        "branch_pool": (n, 1, 1, 192),
    }


_BLOCKS = {
    "Mixed_5b": _a(192, 32),
    "Mixed_5c": _a(256, 64),
    "Mixed_5d": _a(288, 64),
    "Mixed_6a": {
        "branch3x3": (288, 3, 3, 384),
        "branch3x3dbl_1": (288, 1, 1, 64),
        "branch3x3dbl_2": (64, 3, 3, 96),
        "branch3x3dbl_3": (96, 3, 3, 96),
    },
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": {
        "branch3x3_1": (768, 1, 1, 192),
        "branch3x3_2": (192, 3, 3, 320),
        "branch7x7x3_1": (768, 1, 1, 192),
        "branch7x7x3_2": (192, 1, 7, 192),
        "branch7x7x3_3": (192, 7, 1, 192),
        "branch7x7x3_4": (192, 3, 3, 192),
    },
    "Mixed_7b": _e(1280),
    "Mixed_7c": _e(2048),
}
# Of the layers' outputs for 299×299: side and channels.
_MAPS = {
    **{"Conv2d_1a_3x3": (149, 32), "Conv2d_2a_3x3": (147, 32), "Conv2d_2b_3x3": (147, 64)},
    **{"Conv2d_3b_1x1": (73, 80), "Conv2d_4a_3x3": (71, 192)},
    **{"Mixed_5b": (35, 256), "Mixed_5c": (35, 288), "Mixed_5d": (35, 288), "Mixed_6a": (17, 768)},
    **{"Mixed_6b": (17, 768), "Mixed_6c": (17, 768), "Mixed_6d": (17, 768), "Mixed_6e": (17, 768)},
    **{"Mixed_7a": (8, 1280), "Mixed_7b": (8, 2048), "Mixed_7c": (8, 2048)},
}


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of pytorch-fid's file under its name, in PyTorch's layout."""
    table = dict(_STEM)
    for block, branches in _BLOCKS.items():
        table |= {f"{block}.{name}": shape for name, shape in branches.items()}
    found: dict[str, tuple[int, ...]] = {}
    for name, (i, h, w, o) in table.items():
        found[f"{name}.conv.weight"] = (o, i, h, w)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.bn.{part}"] = (o,)
        found[f"{name}.bn.num_batches_tracked"] = ()
    return {**found, "fc.weight": (1008, 2048), "fc.bias": (1008,)}


@functools.cache
def seeded_state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in shapes().items():
        if name.endswith("tracked"):
            state[name] = np.array(7)
        elif len(shape) > 1:
            scale = (2 / math.prod(shape[1:])) ** 0.5
            state[name] = scale * rng.standard_normal(shape, np.float32)
        elif name.endswith(("bn.weight", "var")):
            state[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            state[name] = rng.normal(0, 0.2, shape).astype(np.float32)
    return state


def image() -> np.ndarray:
    return np.random.default_rng(1).random((1, 5, 7, 3), np.float32)


@functools.cache
def compiled():
    model = inception.from_torch(seeded_state())
    model.eval()
    graphdef, variables = nnx.split(model)

    @jax.jit
    def run(variables, x):
        model = nnx.merge(graphdef, variables, copy=True)
        return *model.activations(x), *model.features(x)

    return model, run(variables, jnp.asarray(image()))


# --- structure ---


@functools.cache
def abstract() -> inception.InceptionV3:
    return nnx.eval_shape(lambda: inception.InceptionV3(rngs=nnx.Rngs(0)))


def test_every_layer_has_its_name_and_shape():
    found = {name: variable.shape for name, variable in inception._torch_names(abstract())}
    expected = {name: shape for name, shape in shapes().items() if not name.endswith("tracked")}
    for name, shape in expected.items():
        if len(shape) > 1:  # OIHW -> HWIO, OI -> IO
            expected[name] = (*shape[2:], shape[1], shape[0])
    assert found == expected
    assert len(shapes()) == 566  # tensors of pytorch-fid's file
    parameters = sum(math.prod(s) for name, s in found.items() if "running" not in name)
    # torchvision's Inception v3 without its auxiliary head has 23,834,568 with 1,000 classes.
    assert parameters == 23_834_568 + 8 * 2049


def test_maps_have_the_published_sides():
    _, (logits, maps, _, _) = compiled()
    sides = {name: (1, side, side, c) for name, (side, c) in _MAPS.items()}
    assert {name: array.shape for name, array in maps.items()} == {**sides, "pool": (1, 2048)}
    assert tuple(maps) == abstract().layer_names
    assert logits.shape == (1, 1008)
    assert logits.dtype == jnp.float32


# --- values ---

# Of `seeded_state()` on `image()` by PyTorch 2.13's functions (`by_torch`): the first of each.
_GOLDEN = {
    "logits": (19.98203, -4.061946, 4.002124, 14.24249),
    "unbiased": (20.09897, -3.906098, 3.733539, 14.13106),
    "pool": (4.944272, 8.087937, 3.321283, 0.4553817),
}


def by_torch(torch, state: dict[str, np.ndarray], images: np.ndarray):
    """Logits without biases, features, and every layer's output (NHWC), in PyTorch."""
    f = torch.nn.functional
    weights = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    found = {}

    def c(x, name: str, stride: int = 1, padding=0):
        x = f.conv2d(x, weights[f"{name}.conv.weight"], stride=stride, padding=padding)
        bn = (weights[f"{name}.bn.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return f.relu(f.batch_norm(x, *bn, eps=0.001))

    def average(x):
        return f.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    def a(x, at):
        b1 = c(x, f"{at}.branch1x1")
        b5 = c(c(x, f"{at}.branch5x5_1"), f"{at}.branch5x5_2", padding=2)
        b3 = c(c(x, f"{at}.branch3x3dbl_1"), f"{at}.branch3x3dbl_2", padding=1)
        b3 = c(b3, f"{at}.branch3x3dbl_3", padding=1)
        return torch.cat([b1, b5, b3, c(average(x), f"{at}.branch_pool")], 1)

    def b(x, at):
        b3 = c(x, f"{at}.branch3x3", stride=2)
        double = c(c(x, f"{at}.branch3x3dbl_1"), f"{at}.branch3x3dbl_2", padding=1)
        double = c(double, f"{at}.branch3x3dbl_3", stride=2)
        return torch.cat([b3, double, f.max_pool2d(x, 3, stride=2)], 1)

    def wide(x, at, tall: tuple[int, ...], flat: tuple[int, ...], n: int):
        """The n layers `at`_1, ..., with those listed padded along the one or the other axis."""
        for i in range(1, n + 1):
            x = c(x, f"{at}_{i}", padding=(3 * (i in tall), 3 * (i in flat)))
        return x

    def m(x, at):
        b7 = wide(x, f"{at}.branch7x7", (3,), (2,), 3)
        double = wide(x, f"{at}.branch7x7dbl", (2, 4), (3, 5), 5)
        b1, pool = c(x, f"{at}.branch1x1"), c(average(x), f"{at}.branch_pool")
        return torch.cat([b1, b7, double, pool], 1)

    def d(x, at):
        b3 = c(c(x, f"{at}.branch3x3_1"), f"{at}.branch3x3_2", stride=2)
        b7 = wide(x, f"{at}.branch7x7x3", (3,), (2,), 3)
        b7 = c(b7, f"{at}.branch7x7x3_4", stride=2)
        return torch.cat([b3, b7, f.max_pool2d(x, 3, stride=2)], 1)

    def e(x, at, pool):
        b3 = c(x, f"{at}.branch3x3_1")
        double = c(c(x, f"{at}.branch3x3dbl_1"), f"{at}.branch3x3dbl_2", padding=1)
        parts = [c(x, f"{at}.branch1x1")]
        for y, name in ((b3, "branch3x3_2"), (double, "branch3x3dbl_3")):
            parts.append(c(y, f"{at}.{name}a", padding=(0, 1)))
            parts.append(c(y, f"{at}.{name}b", padding=(1, 0)))
        return torch.cat([*parts, c(pool(x), f"{at}.branch_pool")], 1)

    def keep(name: str, x):
        found[name] = x.permute(0, 2, 3, 1).numpy()
        return x

    x = torch.from_numpy(resized(images * np.float32(255))).permute(0, 3, 1, 2)
    x = keep("Conv2d_1a_3x3", c((x - 128) / 128, "Conv2d_1a_3x3", stride=2))
    x = keep("Conv2d_2a_3x3", c(x, "Conv2d_2a_3x3"))
    x = keep("Conv2d_2b_3x3", c(x, "Conv2d_2b_3x3", padding=1))
    x = keep("Conv2d_3b_1x1", c(f.max_pool2d(x, 3, stride=2), "Conv2d_3b_1x1"))
    x = f.max_pool2d(keep("Conv2d_4a_3x3", c(x, "Conv2d_4a_3x3")), 3, stride=2)
    for name in _BLOCKS:
        letter = {"5": a, "6": m, "7": e}[name[6]]
        if name in ("Mixed_6a", "Mixed_7a"):
            x = (b if name == "Mixed_6a" else d)(x, name)
        elif letter is e:
            last = functools.partial(f.max_pool2d, kernel_size=3, stride=1, padding=1)
            x = e(x, name, average if name == "Mixed_7b" else last)
        else:
            x = letter(x, name)
        keep(name, x)
    pool = x.mean((2, 3))
    return (pool @ weights["fc.weight"].T).numpy(), pool.numpy(), found


def resized(images: np.ndarray) -> np.ndarray:
    """TensorFlow 1's bilinear resize pixel by pixel: source = target · (n / 299), two neighbours."""
    _, h, w, _ = images.shape
    out = np.empty((len(images), 299, 299, images.shape[3]), np.float32)
    for i in range(299):
        y = np.float32(i) * np.float32(h / 299)
        y0, y1 = int(y), min(int(y) + 1, h - 1)
        row = images[:, y0] + (images[:, y1] - images[:, y0]) * (y - y0)
        for j in range(299):
            x = np.float32(j) * np.float32(w / 299)
            x0, x1 = int(x), min(int(x) + 1, w - 1)
            out[:, i, j] = row[:, x0] + (row[:, x1] - row[:, x0]) * (x - x0)
    return out


def test_golden_values():
    _, (logits, maps, unbiased, pool) = compiled()
    found = {"logits": logits, "unbiased": unbiased, "pool": pool}
    for name, golden in _GOLDEN.items():
        np.testing.assert_allclose(found[name][0, : len(golden)], golden, rtol=1e-3, err_msg=name)
    np.testing.assert_array_equal(pool, maps["pool"])
    np.testing.assert_allclose(logits - unbiased, seeded_state()["fc.bias"][None], atol=1e-4)


def test_equals_torch_layer_by_layer():
    torch = pytest.importorskip("torch")
    _, (_, maps, unbiased, pool) = compiled()
    expected_unbiased, expected_pool, expected = by_torch(torch, seeded_state(), image())
    for name, want in {**expected, "pool": expected_pool}.items():
        np.testing.assert_allclose(maps[name], want, atol=1e-4 * want.max(), err_msg=name)
    scale = np.abs(expected_unbiased).max()
    np.testing.assert_allclose(unbiased, expected_unbiased, atol=1e-4 * scale)
    np.testing.assert_allclose(pool, expected_pool, rtol=1e-3)


# --- resize and pooling ---


def test_resize_is_tensorflow_1s():
    """The example of TensorFlow's issue: 2×2 -> 4×4 with `align_corners=False`."""
    x = jnp.asarray([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1)
    expected = [[0, 0.5, 1, 1], [1, 1.5, 2, 2], [2, 2.5, 3, 3], [2, 2.5, 3, 3]]
    np.testing.assert_array_equal(inception_blocks.resize(x, 4)[0, :, :, 0], expected)
    # Shrinking reads every second pixel: nothing is averaged.
    np.testing.assert_array_equal(inception_blocks.resize(x, 1)[0, 0, 0], [0.0])


@pytest.mark.parametrize(("h", "w"), [(32, 32), (299, 299), (128, 400), (1, 3)])
def test_resize_equals_the_loop(h, w):
    x = 255 * np.random.default_rng(0).random((1, h, w, 2), np.float32)
    got = inception_blocks.resize(jnp.asarray(x), 299)
    np.testing.assert_allclose(got, resized(x), atol=1e-4)
    if h == w == 299:
        np.testing.assert_array_equal(got, x)


def test_poolings_leave_the_padding_out():
    x = jnp.asarray(-np.arange(1.0, 10).reshape(1, 3, 3, 1))
    average = inception_blocks.pooled(x, "average")[0, :, :, 0]
    np.testing.assert_allclose(average, [[-3, -3.5, -4], [-4.5, -5, -5.5], [-6, -6.5, -7]])
    largest = inception_blocks.pooled(x, "max")[0, :, :, 0]
    np.testing.assert_array_equal(largest, [[-1, -1, -2], [-1, -1, -2], [-4, -4, -5]])
    np.testing.assert_array_equal(inception_blocks.pooled(x, "max, stride 2"), [[[[-1.0]]]])


def test_the_last_block_takes_maxima_and_the_one_before_averages():
    poolings = {
        name: tuple(branch.pooling for branch in block.branches if branch.pooling)
        for name, block in abstract().blocks.items()
    }
    average, stride = ("average",), ("max, stride 2",)
    assert poolings == {
        **dict.fromkeys(["Mixed_5b", "Mixed_5c", "Mixed_5d"], average),
        **dict.fromkeys(["Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b"], average),
        **dict.fromkeys(["Mixed_6a", "Mixed_7a"], stride),
        "Mixed_7c": ("max",),
    }


# --- the file, and refusals ---


def small_state() -> dict[str, np.ndarray]:
    """The names and shapes, without values of their own."""
    return {name: np.broadcast_to(np.float32(1), shape) for name, shape in shapes().items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("Mixed_7c.branch_pool.bn.bias"), "missing: Mixed_7c.branch_pool.bn.bias;"),
        (lambda s: s.update({"AuxLogits.fc.bias": np.zeros(8)}), "unexpected: AuxLogits.fc.bias"),
        (
            lambda s: s.clear(),
            r"is not of pytorch-fid's .*missing: .* and 467 more; unexpected: none",
        ),
        (
            lambda s: s.update({"fc.weight": np.zeros((1000, 2048))}),
            r"'fc.weight' of .* has shape \(1000, 2048\), .*; expected \(2048, 1008\)",
        ),
        (
            lambda s: s.update({"Mixed_6c.branch7x7_2.conv.weight": np.zeros((160, 160, 7, 1))}),
            r"'Mixed_6c.branch7x7_2.conv.weight' of .* has shape \(160, 160, 7, 1\)",
        ),
    ],
)
def test_refuses_other_networks(change, message, monkeypatch):
    made = abstract()  # before eval_shape is replaced, which makes it
    monkeypatch.setattr(inception.nnx, "eval_shape", lambda build: nnx.clone(made))
    state = small_state()
    change(state)
    with pytest.raises(ValueError, match=rf"inception.from_torch: .*{message}"):
        inception.from_torch(state)


def test_reads_a_file_and_checks_it(tmp_path):
    torch = pytest.importorskip("torch")
    path, state = tmp_path / "pt_inception.pth", seeded_state()
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, path)
    with pytest.raises(ValueError, match="expected 6726825d0af5f729cebd5821db510b11b1cfad8faad88"):
        inception.load_fid(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    model = inception.load_fid(path, sha256=digest)
    np.testing.assert_array_equal(model.fc.bias[...], state["fc.bias"])
    name = "Mixed_6b.branch7x7dbl_5.conv.weight"
    kernel = model.blocks["Mixed_6b"].layers["branch7x7dbl_5"].kernel[...]
    np.testing.assert_array_equal(kernel, state[name].transpose(2, 3, 1, 0))
    assert model.stem["Conv2d_1a_3x3"].norm.use_running_average  # in evaluation mode
    with pytest.raises(FileNotFoundError, match="no file"):
        inception.load_fid(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((299, 299, 3), r"images\[None\]"),
        ((1, 299, 299, 1), r"images\.repeat\(3, -1\)"),
        ((1, 3, 299, 299), r"numpy\.moveaxis\(images, 1, -1\)"),
    ],
)
def test_names_the_expected_shape_of_images(shape, remedy):
    with pytest.raises(ValueError, match=rf"images must be \[B, H, W, 3\], got \[.*{remedy}"):
        abstract().activations(jnp.zeros(shape))
