"""The networks of the attention GAN against numpy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from outgen_jax.models import draw

CELLS = ("sigmoid", "tanh", "gru", "lstm")
SHAPE = (9, 7, 2)  # neither square nor grey
OPTIONS = {"units": 6, "points": 3, "steps": 4}


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def generator(cell: draw.Cell = "tanh", shape: tuple[int, int, int] = SHAPE) -> draw.Generator:
    mean = np.random.default_rng(5).uniform(size=shape)
    return draw.Generator(shape, cell=cell, first_image=mean, latent=5, rngs=nnx.Rngs(0), **OPTIONS)


@functools.cache
def discriminator(cell: draw.Cell = "tanh") -> draw.Discriminator:
    return draw.Discriminator(SHAPE, cell=cell, rngs=nnx.Rngs(1), **OPTIONS)


@functools.cache
def compiled(model: nnx.Module):
    graphdef, _ = nnx.split(model)
    return jax.jit(lambda variables, x: nnx.merge(graphdef, variables)(x))


def run(model: nnx.Module, x: jax.Array):
    return compiled(model)(nnx.state(model), x)


# --- cells and networks in numpy ---


def array(variable) -> np.ndarray:
    return np.float64(variable[...])


def linear(layer: nnx.Linear, x: np.ndarray) -> np.ndarray:
    return x @ array(layer.kernel) + (0 if layer.bias is None else array(layer.bias))


def numpy_step(rnn: draw.Recurrent, cell: str, memory: np.ndarray, h: np.ndarray, x: np.ndarray):
    """Next (memory, h) by the cells' equations."""
    sigmoid, inner = scipy.special.expit, rnn.cell
    wx, wh = linear(inner.dense_i, x), linear(inner.dense_h, h)
    if cell in ("sigmoid", "tanh"):
        return memory, (sigmoid if cell == "sigmoid" else np.tanh)(wx + wh)
    if cell == "gru":
        (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(wx, 3), np.split(wh, 3)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        return memory, (1 - z) * np.tanh(n_x + r * n_h) + z * h
    i, f, g, o = np.split(wx + wh, 4)
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return memory, sigmoid(o) * np.tanh(memory)


def numpy_banks(raw: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """γ, F_Y and F_X for N = 3 on SHAPE, with pixels counted from 1."""
    height, width, _ = SHAPE
    g_x, g_y = (width + 1) / 2 * (raw[0] + 1), (height + 1) / 2 * (raw[1] + 1)
    stride = (max(height, width) - 1) / 2 * np.exp(raw[3])
    banks = []
    for center, size in ((g_y, height), (g_x, width)):
        mean = center + (np.arange(1, 4) - 1.5 - 0.5) * stride
        rows = np.exp(-((np.arange(1, size + 1) - mean[:, None]) ** 2) / (2 * np.exp(raw[2])))
        banks.append(rows / rows.sum(1, keepdims=True))
    return np.exp(raw[4]), *banks


@pytest.mark.parametrize("cell", CELLS)
def test_generator_equals_numpy(cell):
    model = generator(cell)
    z = normal(0, 2, 4, 5)
    drawing = run(model, z)
    assert np.abs(np.asarray(drawing.canvases).std(0)).max() > 1e-3  # z tells
    for b in range(2):
        memory, h = np.zeros(6), array(model.rnn.h_0)
        canvas = array(model.c_0)
        for t in range(4):
            memory, h = numpy_step(model.rnn, cell, memory, h, np.float64(z[b, t]))
            gamma, f_y, f_x = numpy_banks(linear(model.attention, h))
            patch = linear(model.patch, h).reshape(3, 3, 2)
            canvas = canvas + gamma * np.einsum("yh,yxc,xw->hwc", f_y, patch, f_x)
            np.testing.assert_allclose(drawing.canvases[b, t], canvas, atol=1e-4)
            np.testing.assert_allclose(drawing.attention.intensity[b, t], gamma, rtol=1e-4)
        np.testing.assert_allclose(drawing.images[b], scipy.special.expit(canvas), atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_discriminator_equals_numpy(cell):
    model = discriminator(cell)
    images = jax.nn.sigmoid(normal(0, 2, *SHAPE))
    logits, attentions = run(model, images)
    assert abs(logits[0] - logits[1]) > 1e-4
    for b in range(2):
        memory, h = np.zeros(6), array(model.rnn.h_0)
        for t in range(4):
            raw = linear(model.attention, h)
            gamma, f_y, f_x = numpy_banks(raw)
            r = gamma * np.einsum("yh,hwc,xw->yxc", f_y, images[b], f_x)
            memory, h = numpy_step(model.rnn, cell, memory, h, np.concatenate([r.ravel(), h]))
            np.testing.assert_allclose(attentions.center_x[b, t], 4 * (raw[0] + 1) - 1, atol=1e-4)
            np.testing.assert_allclose(attentions.sigma[b, t], np.exp(raw[2] / 2), rtol=1e-4)
        np.testing.assert_allclose(logits[b], linear(model.head, h)[0], atol=1e-4)


def test_canvases_accumulate_the_writes_exactly():
    """Dyadic numbers add without rounding, in whatever order: any stray term would show."""
    model = nnx.merge(*nnx.split(generator(shape=(6, 6, 1))), copy=True)
    state, patch = nnx.state(model), np.arange(9.0).reshape(3, 3, 1) / 8
    for _, variable in nnx.to_flat_state(state):
        variable.set_value(jnp.zeros_like(variable[...]))
    nnx.update(model, state)
    first = np.arange(36.0).reshape(6, 6, 1) / 4
    model.c_0.set_value(jnp.asarray(first, jnp.float32))
    model.patch.bias.set_value(jnp.asarray(patch.ravel(), jnp.float32))
    # x, y, σ², δ̃, γ: a grid of stride 1 exactly on the pixels 1, 2, 3, in each of which σ vanishes
    bias = jnp.array([6 / 7 - 1, 6 / 7 - 1, -20, jnp.log(1 / 2.5), 0])
    model.attention.bias.set_value(bias)
    drawing = run(model, normal(0, 2, 4, 5))
    for t in range(4):
        expected = first + (t + 1) * np.pad(patch, ((1, 2), (1, 2), (0, 0)))
        np.testing.assert_array_equal(drawing.canvases[:, t], np.stack([expected] * 2))


def test_an_image_does_not_depend_on_its_batch():
    z, images = normal(0, 2, 4, 5), jax.nn.sigmoid(normal(1, 2, *SHAPE))
    for model, x in ((generator("lstm"), z), (discriminator("lstm"), images)):
        both, second = run(model, x), run(model, x[1:])
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(second), strict=True):
            np.testing.assert_allclose(a[1:], b, rtol=1e-5, atol=1e-5)


def test_shapes_for_colour():
    drawing = run(generator(), normal(0, 2, 4, 5))
    assert drawing.canvases.shape == (2, 4, *SHAPE)
    assert drawing.images.shape == (2, *SHAPE)
    logits, attentions = run(discriminator(), drawing.images)
    assert logits.shape == (2,)
    assert {a.shape for a in (*drawing.attention, *attentions)} == {(2, 4)}
    assert {a.dtype for a in jax.tree.leaves((drawing, logits))} == {jnp.dtype(jnp.float32)}


def test_the_defaults_are_the_papers():
    g = nnx.eval_shape(lambda: draw.Generator(rngs=nnx.Rngs(0)))
    d = nnx.eval_shape(lambda: draw.Discriminator(rngs=nnx.Rngs(0)))
    assert (g.latent_shape, g.c_0.shape, g.patch.kernel.shape) == ((6, 100), (28, 28, 1), (256, 25))
    assert (d.steps, d.rnn.cell.dense_i.kernel.shape) == (6, (25 + 256, 256))
    assert g.rnn.cell.activation_fn is d.rnn.cell.activation_fn is jax.nn.sigmoid


@pytest.mark.parametrize(("cell", "scale"), [("sigmoid", 4), ("tanh", 1)])
def test_initial_weights_have_the_scale_of_their_cell(cell, scale):
    rnn = draw.Recurrent(100, 64, cell=cell, rngs=nnx.Rngs(0))
    for layer, n in ((rnn.cell.dense_i, 100), (rnn.cell.dense_h, 64)):
        np.testing.assert_allclose(array(layer.kernel).std(), scale / n**0.5, rtol=0.05)
    assert 0.05 < array(rnn.h_0).std() < 0.2


@pytest.mark.parametrize("cell", ["tanh", "gru", "lstm"])  # "sigmoid" is "tanh" but for σ
def test_everything_is_learned(cell):
    """h_0 and c_0 too: no parameter is without gradient."""
    options = {"cell": cell, "units": 3, "points": 2, "steps": 2, "rngs": nnx.Rngs(0)}
    models = (
        draw.Generator((5, 4, 1), latent=2, **options),
        draw.Discriminator((5, 4, 1), **options),
    )
    states = [nnx.split(model, nnx.Param, ...) for model in models]

    def loss(params):
        g, d = (
            nnx.merge(graphdef, p, rest)
            for (graphdef, _, rest), p in zip(states, params, strict=True)
        )
        return d(g(normal(0, 1, 2, 2)).images)[0].sum()

    gradients = jax.jit(jax.grad(loss))([params for _, params, _ in states])
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(gradient).all(), path
        assert jnp.abs(gradient).max() > 0, f"{cell}: {jax.tree_util.keystr(path)}"


def test_the_attention_begins_as_asked():
    """By its bias, whatever h is."""
    first = draw.Glance(stride=2.5, sigma=1.5, intensity=30)
    for model in (
        draw.Generator((9, 7, 1), points=3, units=2, first=first, rngs=nnx.Rngs(0)),
        draw.Discriminator((9, 7, 1), points=3, units=2, first=first, rngs=nnx.Rngs(0)),
    ):
        got = draw.attend(model.attention(normal(0, 2)), points=3, height=9, width=7)
        np.testing.assert_allclose(got, (3, 4, 2.5, 1.5, 30), rtol=1e-6)
    as_in_draw = draw.Generator((9, 7, 1), points=3, units=2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(as_in_draw.attention.bias[...], np.zeros(5))


@pytest.mark.parametrize("name", ["stride", "sigma", "intensity"])
def test_a_first_glance_must_be_above_zero(name):
    first = draw.Glance(stride=4.0)._replace(**{name: 0})
    with pytest.raises(ValueError, match=r"stride, sigma and intensity must be above 0, got "):
        draw.Discriminator((9, 7, 1), points=3, first=first, rngs=nnx.Rngs(0))


def test_wild_latent_vectors_stay_finite():
    z = normal(0, 2, 4, 5).at[:, -1].mul(1e4)
    for cell in CELLS:
        drawing = run(generator(cell), z)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(drawing))


# --- the first canvas ---


def test_the_first_canvas_is_the_first_image():
    mean = np.random.default_rng(5).uniform(size=SHAPE)
    within = mean.clip(0.5 / 255, 1 - 0.5 / 255)
    # Near 1 a float32 mean is 6e-8 off, at most 3e-5 of its distance to 1.
    np.testing.assert_allclose(array(generator().c_0), scipy.special.logit(within), atol=5e-5)
    grey = draw.Generator(SHAPE, latent=5, rngs=nnx.Rngs(0), **OPTIONS)
    np.testing.assert_array_equal(grey.c_0[...], np.zeros(SHAPE))


def test_the_first_canvas_may_be_made_within_a_trace():
    image = jnp.full((4, 4, 1), 0.25)
    model = nnx.eval_shape(
        lambda: draw.Generator(
            (4, 4, 1), first_image=image, points=2, units=3, latent=2, steps=2, rngs=nnx.Rngs(0)
        )
    )
    assert model.c_0.shape == (4, 4, 1)


def test_pixels_that_never_vary_stay_finite():
    ends = draw.image_logits(jnp.array([0.0, 1.0]), (2,))
    np.testing.assert_allclose(jax.nn.sigmoid(ends), [0.5 / 255, 1 - 0.5 / 255], rtol=1e-5)
    assert np.isfinite(draw.image_logits(jnp.array([0.0, 1.0]), (2,), clip=1e-7)).all()


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (
            np.zeros((9, 7)),
            r"the image must have the shape \(9, 7, 2\), got \(9, 7\); take a mean over the first axis",
        ),
        (np.full(SHAPE, 33.0), r"in \[0, 1\], got values from 33.0 to 33.0; take image / 255"),
        (np.full(SHAPE, np.nan), r"in \[0, 1\], got NaN"),
    ],
)
def test_refuses_another_first_image(mean, message):
    with pytest.raises(ValueError, match=f"image_logits: .*{message}"):
        draw.Generator(SHAPE, first_image=mean, rngs=nnx.Rngs(0))


def test_a_marginal_sample_has_each_pixels_own_distribution():
    rng = np.random.default_rng(0)
    images = (rng.random((500, 1, 40, 1)) < np.linspace(0, 1, 40)[:, None]).astype(np.uint8) * 255
    keys = jax.random.split(jax.random.key(0), 300)
    samples = np.stack([draw.marginal_sample(k, images) for k in keys])
    assert set(np.unique(samples)) == {0, 1}
    shares = images.mean(0) / 255
    np.testing.assert_allclose(samples.mean(0), shares, atol=0.12)
    # Not one whole image: a row with shares of a half would be the same in all its places.
    middle = samples[:, 0, 18:22, 0] - shares[0, 18:22, 0]
    assert np.abs(np.corrcoef(middle.T) - np.eye(4)).max() < 0.25
    copied = np.repeat(rng.integers(0, 256, (50, 1, 1, 1)), 16, 1).astype(np.uint8)
    assert len(np.unique(draw.marginal_sample(keys[0], copied))) > 5
    np.testing.assert_array_equal(
        draw.marginal_sample(keys[0], images), draw.marginal_sample(keys[0], images / 255)
    )
    with pytest.raises(ValueError, match=r"marginal_sample: images must be uint8.*got int64"):
        draw.marginal_sample(keys[0], images.astype(np.int64))
    with pytest.raises(
        ValueError, match=r"marginal_sample: images must be \[B, H, W, C\], at least one"
    ):
        draw.marginal_sample(keys[0], images[0])


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "relu"}, "unknown cell 'relu'; use one of sigmoid, tanh, gru, lstm"),
        ({"points": 8}, "points must lie between 1 and the image's shorter side, 7, got 8; paper"),
        ({"points": 0}, "points must lie between 1 .* got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"units": 0}, "units must be at least 1, got 0"),
        ({"image_shape": (28, 28)}, r"image_shape must be \(H, W, C\), got \(28, 28\); MNIST's is"),
        ({"image_shape": (28, 0, 1)}, r"image_shape must be \(H, W, C\), got \(28, 0, 1\)"),
    ],
)
def test_refuses_options(options, message):
    for network in (draw.Generator, draw.Discriminator):
        with pytest.raises(ValueError, match=f"draw.{network.__name__}: {message}"):
            network(**{"image_shape": SHAPE, **options}, rngs=nnx.Rngs(0))


def test_refuses_a_latent_vector_of_no_length():
    with pytest.raises(ValueError, match=r"draw.Generator: latent must be at least 1, got 0"):
        draw.Generator(latent=0, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(4, 5), (1, 3, 5), (1, 4, 6)])
def test_names_the_expected_shape_of_latent_vectors(shape):
    with pytest.raises(ValueError, match=r"draw.Generator: z must be \[B, 4, 5\].*z\[None\]"):
        generator()(jnp.zeros(shape))


@pytest.mark.parametrize("shape", [(9, 7, 2), (1, 9, 7, 1), (1, 7, 9, 2)])
def test_names_the_expected_shape_of_images(shape):
    expected = r"draw.Discriminator: images must be \[B, 9, 7, 2\], got \(.*images\[None\]"
    with pytest.raises(ValueError, match=expected):
        discriminator()(jnp.zeros(shape))
