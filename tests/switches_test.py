"""JAX's global switches, all of them at once, change nothing: float32 in, float32 out, the same values.

A researcher sets `jax_enable_x64`, `jax_numpy_dtype_promotion="strict"`,
`jax_numpy_rank_promotion="raise"` and `jax_debug_nans` for a whole program. One row a function: it
is called with and without them, and so is its gradient, whose types are looked at as well. A float64
that leaks in says nothing by itself, it only slows and changes everything after it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import switches
from flax import nnx

import outgen_jax as og
from outgen_jax import losses, metrics, pixels
from outgen_jax.data import augment, augmented_set, differentiable_augment, distort
from outgen_jax.data.image_source import ImageSource
from outgen_jax.models import (
    attention,
    conv,
    dcgan,
    draw,
    efficientnet_lite,
    inception,
    inception_blocks,
    lenet,
    mlp_gan,
    vgg,
    vgg_imagenet,
    whitened_cnn,
)
from outgen_jax.models.attention import Attention


class Row(NamedTuple):
    """A function of float32 arrays, and what it is called with."""

    name: str
    call: Callable[..., Any]
    inputs: tuple[Any, ...]
    gradient: bool = True  # whether it is traced, and the sum of its outputs has one in all inputs


def array(*shape: int, low: float = 0.1, high: float = 0.9, seed: int = 0) -> np.ndarray:
    """Uniform float32 numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed)


IMAGES = array(2, 8, 8, 3)
LOGITS = array(4, 5, low=-3, high=3)
PROBS = np.array([[0.5, 0.2, 0.2, 0.1, 0], [0, 0, 1, 0, 0], [0.2] * 5, [0.1] * 5], np.float32)
PROBS[3, 4] += 0.5
LABELS = np.array([0, 2, 4, 1], np.int32)
GENERATED = np.array([True, False, True, False])
SWITCHED_OFF = np.array([1.0, -1.0, 0.5, -np.inf, 0.2], np.float32)  # a class that is never said
WITHOUT_IT = np.array([0.5, 0.5, 0, 0, 0], np.float32)
GLANCE = Attention(*(np.float32(v) for v in (3.1, 4.2, 1.5, 0.7, 1.2)))


def layers(scale: float) -> dict[str, np.ndarray]:
    return {"a": scale * array(2, 3, low=-1), "b": scale * array(2, 4, 4, 2, low=-1)}


LOSSES = [
    Row("cross_entropy", losses.cross_entropy, (LOGITS[0], PROBS[0])),
    Row("cross_entropy, -inf", losses.cross_entropy, (SWITCHED_OFF, WITHOUT_IT), gradient=False),
    Row("kl_divergence", losses.kl_divergence, (LOGITS[0], PROBS[0])),
    Row("kl_divergence, -inf", losses.kl_divergence, (SWITCHED_OFF, WITHOUT_IT), gradient=False),
    Row(
        "printed_kl_divergence",
        losses.printed_kl_divergence,
        (LOGITS[0], np.log(array(5))),
    ),
    Row(
        "replaced_data",
        lambda x, t: losses.replaced_data(x, LABELS, t, GENERATED),
        (LOGITS, array(4, 5, seed=1)),
    ),
    Row(
        "replaced_data, printed",
        lambda x, t: losses.replaced_data(x, LABELS, t, GENERATED, printed_smoothing=0.1),
        (LOGITS, array(4, 5, seed=1)),
    ),
    Row("discriminator", losses.discriminator, (LOGITS[0], LOGITS[1])),
    Row("generator", losses.generator, (LOGITS[0],)),
    Row("intermediate_constraint", losses.intermediate_constraint, (LOGITS, LOGITS[::-1])),
    Row(
        "intermediate_constraint, gain",
        lambda a, b, gain: losses.intermediate_constraint(a, b, gain=gain),
        (LOGITS, LOGITS[::-1], np.float32(30)),
    ),
    Row("intermediate_mse", losses.intermediate_mse, (LOGITS, LOGITS[::-1])),
    Row(
        "mean_over_layers",
        lambda a, b: losses.mean_over_layers(losses.intermediate_constraint, a, b),
        (layers(1.0), layers(0.9)),
    ),
    Row(
        "mean_over_layers, weights",
        lambda a, b: losses.mean_over_layers(
            losses.intermediate_mse, a, b, weights={"a": 1, "b": 0.5}
        ),
        (layers(1.0), layers(0.9)),
    ),
    Row("jensen_shannon", losses.jensen_shannon, (LOGITS,)),
    Row("lowpass", lambda x: pixels.lowpass(x, 2.0), (IMAGES[0],)),
    Row("high_frequency_energy", lambda x: pixels.high_frequency_energy(x, 2.0), (IMAGES[0],)),
]

DATA = [
    Row("random_crop", lambda x: augment.random_crop(key(), x, padding=2), (IMAGES,)),
    Row("flip_left_right", augment.flip_left_right, (IMAGES,)),
    Row("flip_up_down", augment.flip_up_down, (IMAGES,)),
    Row("invert", augment.invert, (IMAGES,)),
    Row("contrast", augment.contrast, (IMAGES,)),
    Row("contrast, each", augment.contrast, (IMAGES, np.array([0.5, 2], np.float32))),
    Row("random_flip_left_right", lambda x: augment.random_flip_left_right(key(), x), (IMAGES,)),
    Row("gaussian_noise", lambda x: distort.gaussian_noise(key(), x, 20.0), (IMAGES,)),
    Row("gaussian_noise, int", lambda x: distort.gaussian_noise(key(), x, 20), (IMAGES,)),
    Row(
        "gaussian_noise, each",
        lambda x, s: distort.gaussian_noise(key(), x, s),
        (IMAGES, np.array([0, 40], np.float32)),
    ),
    Row("gaussian_blur", lambda x: distort.gaussian_blur(x, 1.5), (IMAGES,)),
    Row(
        "gaussian_blur, each",
        lambda x: distort.gaussian_blur(x, np.array([0, 2.0]), truncate=4.0, border="edge"),
        (IMAGES,),
    ),
    Row(
        "random_levels",
        lambda: distort.random_levels(key(), 7, distort.PAPER_32),
        (),
        gradient=False,
    ),
    Row(
        "random_distortion",
        lambda x: distort.random_distortion(key(), x, distort.CIFAR10_C),
        (IMAGES,),
    ),
    Row("brightness", differentiable_augment.brightness, (IMAGES[0], np.float32(0.1))),
    Row("saturation", differentiable_augment.saturation, (IMAGES[0], np.float32(0.7))),
    Row("contrast of one image", differentiable_augment.contrast, (IMAGES[0], np.float32(0.7))),
    Row("translate", lambda x: differentiable_augment.translate(x, 1, -1), (IMAGES[0],)),
    Row("cut_out", lambda x: differentiable_augment.cut_out(x, 1, 6), (IMAGES[0],)),
    Row(
        "differentiable_augment",
        lambda x: differentiable_augment.differentiable_augment(key(), x, 0.8),
        (IMAGES,),
    ),
    Row("adapt", differentiable_augment.adapt, (np.float32(0.3), LOGITS[0]), gradient=False),
    Row(
        "augmented_set",
        lambda: _augmented_set(),
        (),
        gradient=False,
    ),
]

NETWORK_PARTS = [
    Row("conv.convolution", conv.convolution, (IMAGES, array(3, 3, 3, 4))),
    Row("conv.convolution, wide", conv.convolution, (array(2, 4, 4, 6), array(3, 3, 6, 6))),
    Row(
        "conv.convolution, stride",
        lambda x, w: conv.convolution(x, w, strides=2),
        (IMAGES, array(4, 4, 3, 4)),
    ),
    Row("conv.depthwise_convolution", conv.depthwise_convolution, (IMAGES, array(3, 3, 3))),
    Row("conv.max_pool", conv.max_pool, (IMAGES,)),
    Row(
        "filter_bank",
        lambda c, d, s: attention.filter_bank(c, d, s, points=3, size=8),
        (np.float32(3.1), np.float32(1.5), np.float32(0.7)),
    ),
    Row(
        "filter_bank, numbers",
        lambda: attention.filter_bank(3.5, 1, 0.7, points=3, size=8),
        (),
        gradient=False,
    ),
    Row(
        "attend",
        lambda p: attention.attend(p, points=3, height=8, width=8),
        (array(5, low=-0.5),),
    ),
    Row("read", lambda x, at: attention.read(x, at, points=3), (IMAGES[0], GLANCE)),
    Row("read, grey", lambda x, at: attention.read(x, at, points=3), (IMAGES[0, ..., 0], GLANCE)),
    Row(
        "write",
        lambda w, at: attention.write(w, at, height=8, width=8),
        (array(3, 3, 2), GLANCE),
    ),
    Row("image_logits", lambda: draw.image_logits(IMAGES[0], (8, 8, 3)), (), gradient=False),
    Row("marginal_sample", lambda: draw.marginal_sample(key(), IMAGES), (), gradient=False),
    Row("dcgan.pixel_shuffle", dcgan.pixel_shuffle, (array(1, 2, 2, 8),)),
    Row("inception.resize", lambda x: inception_blocks.resize(x, 11), (IMAGES,)),
    Row("inception.pooled", lambda x: inception_blocks.pooled(x, "average"), (IMAGES,)),
]

TARGETS = [
    Row(
        "targets.validate",
        lambda: og.targets.validate(PROBS, num_images=4, num_classes=5),
        (),
        gradient=False,
    ),
    Row(
        "targets.parse",
        lambda: og.targets.parse(
            "true=0.5,random=0.3,rest=0.2",
            source=ImageSource(IMAGES, LABELS[:2], tuple("abcde"), ("x", "y")),
            class_names=tuple("edcba"),
        ),
        (),
        gradient=False,
    ),
    Row("targets.dirichlet", lambda: og.targets.dirichlet(0, 3, 5), (), gradient=False),
    Row("targets.completed", lambda: og.targets.completed(PROBS, PROBS), (), gradient=False),
    Row(
        "targets.completed, partial",
        lambda: og.targets.completed(
            np.ma.masked_array([0.5, 0, 0, 0, 0], [False, True, True, True, True]), PROBS[2:]
        ),
        (),
        gradient=False,
    ),
]

FEATURES, OTHERS = array(40, 3, seed=1), array(40, 3, seed=2)
SHARES = np.full((40, 5), 0.2, np.float32)
TWO_SETS = (
    metrics.frechet_distance,
    metrics.kernel_distance,
    metrics.prdc,
    metrics.realism_score,
    metrics.nearest_neighbours,
)
METRICS = [
    Row("l2_change", metrics.l2_change, (IMAGES, IMAGES[::-1]), gradient=False),
    Row("linf_change", metrics.linf_change, (IMAGES, IMAGES[::-1]), gradient=False),
    Row("total_variation", metrics.total_variation, (PROBS, PROBS[::-1]), gradient=False),
    Row("ordered_top_k", metrics.ordered_top_k, (PROBS, LABELS[:, None]), gradient=False),
    Row(
        "expected_calibration_error",
        metrics.expected_calibration_error,
        (PROBS, LABELS),
        gradient=False,
    ),
    Row(
        "negative_log_likelihood",
        metrics.negative_log_likelihood,
        (SHARES[:4], LABELS),
        gradient=False,
    ),
    Row("inception_score", metrics.inception_score, (SHARES,), gradient=False),
    Row("frechet_distance", metrics.frechet_distance, (FEATURES, OTHERS), gradient=False),
    Row("kernel_distance", metrics.kernel_distance, (FEATURES, OTHERS), gradient=False),
    Row("prdc", metrics.prdc, (FEATURES, OTHERS), gradient=False),
    Row("realism_score", metrics.realism_score, (FEATURES, OTHERS), gradient=False),
    Row("nearest_neighbours", metrics.nearest_neighbours, (FEATURES, OTHERS), gradient=False),
    Row("laplacian_variance", metrics.laplacian_variance, (IMAGES[..., :1],), gradient=False),
    Row("greyness", metrics.greyness, (IMAGES,), gradient=False),
]

# ------------------------------------------------------------------------------------------------
# Rows of what synthesis calls go here: synthesize, quantize, predict, generate_dataset, solvers.
SYNTHESIS: list[Row] = []
# ------------------------------------------------------------------------------------------------


ROWS = [*LOSSES, *DATA, *NETWORK_PARTS, *TARGETS, *METRICS, *SYNTHESIS]


def _augmented_set() -> Any:
    bank = (255 * array(4, 8, 8, 3)).astype(np.uint8)
    table = augmented_set.build(
        key(), originals=3, available=4, kinds=("contrast", "invert", "flip_up_down"), added=6
    )
    padded = augmented_set.pad(table, 12)
    return table, augmented_set.materialise(augmented_set.AugmentedSet(bank, padded))


def check_types(found: Any, what: str) -> None:
    """Every float is a float32: x64 changes no type."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        dtype = np.asarray(leaf).dtype
        if jnp.issubdtype(dtype, jnp.inexact):
            assert dtype == jnp.float32, f"{what}{jax.tree_util.keystr(path)}: {dtype}"


def check_equal(found: Any, expected: Any, tolerance: float) -> None:
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def outcome(row: Row) -> Any:
    """What a row's function returns and, where it has one, the gradient of its sum in all inputs."""
    if not row.gradient:
        return row.call(*row.inputs)

    def total(inputs: tuple[Any, ...]) -> tuple[jax.Array, Any]:
        outputs = row.call(*inputs)
        return jnp.sum(jnp.stack([jnp.sum(x) for x in jax.tree.leaves(outputs)])), outputs

    return jax.jit(jax.grad(total, has_aux=True))(row.inputs)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_functions(row):
    expected = outcome(row)
    check_types(expected, row.name)
    with switches():
        found = outcome(row)
    check_types(found, row.name)
    check_equal(found, expected, 1e-5)


@pytest.mark.parametrize("row", METRICS, ids=[row.name for row in METRICS])
def test_measures_of_float64(row):
    """Sets of float64, and of both types, under strict promotion."""
    expected = outcome(row)
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in row.inputs]
    with switches():
        found = [row.call(*wide)]
        if row.call in TWO_SETS:
            found.append(row.call(row.inputs[0], wide[1]))
    for outputs in found:
        check_equal(outputs, expected, 1e-4)


# --- networks ---


class Network(NamedTuple):
    """A small network, how it is called, and on what."""

    name: str
    build: Callable[[], nnx.Module]
    inputs: tuple[int, ...]  # shape
    call: Callable[[Any, jax.Array], Any] = lambda model, x: model.activations(x)
    rtol: float = 1e-4
    trained: bool = True  # whether it is called in training too


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)


def draw_generator(cell: str) -> nnx.Module:
    return draw.Generator(
        (8, 8, 1),
        cell=cell,
        units=6,
        points=3,
        steps=3,
        latent=4,
        first_image=IMAGES[0, ..., :1],
        rngs=rngs(),
    )


def draw_discriminator(cell: str) -> nnx.Module:
    first = draw.Glance(2, 1.0, 3.0)
    return draw.Discriminator(
        (8, 8, 1), cell=cell, units=6, points=3, steps=3, first=first, rngs=rngs()
    )


def inception_block() -> nnx.Module:
    """One block with each kind of branch."""
    parts = inception_blocks
    return parts.Block(
        3,
        (
            parts.Branch("one", (parts.Layer(2),)),
            parts.Branch(
                "fork", (parts.Layer(2), parts.Layer(2, (1, 3)), parts.Layer(2, (3, 1))), fork=True
            ),
            parts.Branch("pool", (parts.Layer(2),), "average"),
            parts.Branch("largest", pooling="max"),
        ),
        rngs=rngs(),
    )


def itself(model: Any, x: jax.Array) -> Any:
    return model(x)


NETWORKS = [
    Network("VGG16", lambda: vgg.VGG16(3, 1 / 16, rngs=rngs()), (2, 32, 32, 3)),
    Network("VGG16, hidden", lambda: vgg.VGG16(3, 1 / 16, hidden=4, rngs=rngs()), (2, 32, 32, 3)),
    Network(
        "VGG16, bfloat16",
        lambda: vgg.VGG16(3, 1 / 16, hidden=4, dtype=jnp.bfloat16, rngs=rngs()),
        (2, 32, 32, 3),
        call=itself,
        rtol=0.05,
        trained=False,  # flax's normalisation of a batch needs promotion in bfloat16
    ),
    Network(
        "ImageNetVGG16",
        lambda: vgg_imagenet.ImageNetVGG16(3, 1 / 16, hidden=4, image_size=32, rngs=rngs()),
        (2, 32, 32, 3),
    ),
    Network("WhitenedCNN", lambda: whitened(), (2, 32, 32, 3)),
    Network("LeNet", lambda: lenet.LeNet(3, (2, 3), rngs=rngs()), (2, 28, 28, 1)),
    Network(
        "EfficientNetLite0",
        lambda: efficientnet_lite.EfficientNetLite0(3, rngs=rngs()),
        (2, 32, 32, 3),
    ),
    Network("InceptionV3's block", inception_block, (1, 8, 8, 3), call=itself),
    Network(
        "InceptionV3",
        lambda: inception.InceptionV3(rngs=rngs()),
        (1, 8, 8, 3),
        call=lambda model, x: model.activations(x)[0],
    ),
    Network(
        "dcgan.Generator",
        lambda: dcgan.Generator(size=16, width=2, latent=3, rngs=rngs()),
        (2, 3),
        call=itself,
    ),
    Network(
        "dcgan.Discriminator",
        lambda: dcgan.Discriminator(size=16, width=2, rngs=rngs()),
        (2, 16, 16, 3),
        call=itself,
    ),
    *(
        Network(f"draw.Generator, {c}", lambda c=c: draw_generator(c), (2, 3, 4), itself)
        for c in ("sigmoid", "gru", "lstm")
    ),
    *(
        Network(f"draw.Discriminator, {c}", lambda c=c: draw_discriminator(c), (2, 8, 8, 1), itself)
        for c in ("sigmoid", "lstm")
    ),
    Network(
        "mlp_gan.Generator",
        lambda: mlp_gan.Generator(
            (4, 4, 1), mean_image=IMAGES[0, :4, :4, :1], latent=3, hidden=5, rngs=rngs()
        ),
        (2, 3),
        call=itself,
    ),
    Network(
        "mlp_gan.Discriminator",
        lambda: mlp_gan.Discriminator((4, 4, 1), units=3, pieces=2, rngs=rngs()),
        (2, 4, 4, 1),
        call=lambda model, x: (model(x), model(x, key=jax.random.key(0))),
    ),
]


def whitened() -> whitened_cnn.WhitenedCNN:
    model = whitened_cnn.WhitenedCNN(3, 1 / 64, rngs=rngs())
    model.whiten(array(4, 8, 8, 3))
    return model


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch, five_layers: None) -> None:
    """Networks of the same parts with few layers, quick to compile."""
    monkeypatch.setattr(vgg_imagenet, "BLOCKS", ((64,), (64,), (64,), (64,), (64,)))
    monkeypatch.setattr(efficientnet_lite, "_STAGES", ((1, 3, 1, 1, 8), (2, 5, 2, 6, 8)))
    layer = inception_blocks.Layer(2, (3, 3), 2)
    monkeypatch.setattr(inception, "_STEM", (("Conv2d_1a_3x3", layer, "VALID"), None))
    block = (inception_blocks.Branch("pool", pooling="average"),)
    monkeypatch.setattr(inception, "_BLOCKS", {"Mixed_5b": block})
    monkeypatch.setattr(inception, "SIDE", 11)


def run(network: Network, inputs: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """Initial values, outputs, gradients in variables and inputs, and statistics after training."""
    model = network.build()
    initial = nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    check_types(initial, network.name)
    model.eval()
    graphdef, variables, others = nnx.split(model, nnx.Any(nnx.Param, nnx.BatchStat), ...)

    def total(variables: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        outputs = network.call(nnx.merge(graphdef, variables, others, copy=True), x)
        parts = [jnp.mean(y.astype(jnp.float32)) for y in jax.tree.leaves(outputs)]
        return jnp.sum(jnp.stack(parts)), outputs

    slopes, outputs = jax.jit(jax.grad(total, (0, 1), has_aux=True))(variables, inputs)
    check_types(outputs, f"{network.name}: output")
    slopes = (nnx.to_pure_dict(slopes[0]), slopes[1])
    check_types(slopes, f"{network.name}: gradient")
    if network.trained and nnx.state(model, nnx.BatchStat):
        model.train()
        trained = nnx.jit(lambda model, x: network.call(model, x))(model, inputs)
        check_types(trained, f"{network.name}: in training")
    statistics = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    check_types(statistics, f"{network.name}: statistics")
    return initial, outputs, slopes, statistics


@pytest.mark.usefixtures("few_layers")
@pytest.mark.parametrize("network", NETWORKS, ids=[network.name for network in NETWORKS])
def test_networks(network):
    inputs = array(*network.inputs)
    expected = run(network, inputs)
    with switches():
        found = run(network, inputs)
    for one, other in zip(found, expected, strict=True):
        check_equal(one, other, network.rtol)
