"""The deep convolutional GAN: its sizes, its first images, its gradients, and one update of the game."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from outgen_jax.models import dcgan
from outgen_jax.training import gan

SMALL = {"size": 16, "width": 2}  # two layers each way, few channels: quick to compile


def built(build):
    """What `build` returns, by one compiled program instead of one for each initial value."""
    graphdef, _ = nnx.split(nnx.eval_shape(build))
    return nnx.merge(graphdef, jax.jit(lambda: nnx.state(build()))())


@functools.cache
def generator() -> dcgan.Generator:
    return built(lambda: dcgan.Generator(**SMALL, latent=5, rngs=nnx.Rngs(0)))


@functools.cache
def discriminator() -> dcgan.Discriminator:
    return built(lambda: dcgan.Discriminator(**SMALL, rngs=nnx.Rngs(1)))


def latents(n: int = 6, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 5)), jnp.float32)


def images(n: int = 6, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).random((n, 16, 16, 3), np.float32))


@functools.cache
def compiled(graphdef: nnx.GraphDef):
    """One program for each network in each mode: `(variables, x) -> output, variables`."""

    def call(variables, x):
        model = nnx.merge(graphdef, variables, copy=True)
        return model(x), nnx.state(model)

    return jax.jit(call)


def run(model: nnx.Module, x: jax.Array):
    graphdef, variables = nnx.split(model)
    return compiled(graphdef)(variables, x)


def evaluating(model: nnx.Module) -> nnx.Module:
    model = nnx.clone(model)
    model.eval()
    return model


# --- sizes ---


@pytest.mark.parametrize(
    ("size", "width", "up", "down"),
    [
        # The paper's generator at 64×64, and paper B's size.
        (64, 128, (1024, 512, 256, 128), (128, 256, 512, 1024)),
        (128, 64, (1024, 512, 256, 128, 64), (64, 128, 256, 512, 1024)),
        (256, 64, (1024, 1024, 512, 256, 128, 64), (64, 128, 256, 512, 1024, 1024)),
        (16, 3, (6, 3), (3, 6)),
    ],
)
def test_layers(size, width, up, down):
    def build(network):
        return network(size=size, width=width, channels=1, rngs=nnx.Rngs(0))

    g, d = (nnx.eval_shape(lambda n=n: build(n)) for n in (dcgan.Generator, dcgan.Discriminator))
    assert g.project.kernel.shape == (100, 16 * up[0])
    assert [u.kernel.shape for u in (*g.hidden, g.pixels)] == [
        (3, 3, c, 4 * k) for c, k in zip(up, (*up[1:], 1), strict=True)
    ]
    assert [u.kernel.shape for u in d.hidden] == [
        (4, 4, c, k) for c, k in zip((1, *down), down, strict=False)
    ]
    assert d.logit.kernel.shape == (16 * down[-1], 1)
    x = jax.eval_shape(lambda z: build(dcgan.Generator)(z), jnp.zeros((2, 100)))
    assert x.shape == (2, size, size, 1)
    assert jax.eval_shape(lambda x: build(dcgan.Discriminator)(x), x).shape == (2,)


def test_no_batch_normalisation_next_to_the_image_and_in_the_logit():
    g, d = generator(), discriminator()
    norms = [isinstance(u.finish, nnx.BatchNorm) for u in (*g.hidden, g.pixels)]
    assert norms == [True, False]
    assert [isinstance(u.finish, nnx.BatchNorm) for u in d.hidden] == [False, True]


def test_initial_values():
    g, d = generator(), discriminator()
    kernels = [g.project.kernel, d.logit.kernel, *(layer.kernel for layer in d.hidden)]
    kernels += [layer.kernel[..., : layer.kernel.shape[-1] // 4] for layer in (*g.hidden, g.pixels)]
    drawn = np.concatenate([np.ravel(kernel) for kernel in kernels])
    assert abs(drawn.mean()) < 3 * 0.02 / len(drawn) ** 0.5
    np.testing.assert_allclose(drawn.std(), 0.02, rtol=0.1)
    scales = np.concatenate([n.scale for n in (g.norm, g.hidden[0].finish, d.hidden[1].finish)])
    assert 0.01 < np.abs(scales - 1).max() < 0.08
    for bias in (g.pixels.finish.bias, d.hidden[0].finish.bias, d.logit.bias):
        np.testing.assert_array_equal(bias[...], 0)


# --- values ---


def test_images_and_logits():
    out, _ = run(generator(), latents())
    assert out.shape == (6, 16, 16, 3)
    assert out.dtype == jnp.float32
    assert 0 <= out.min() < 0.5 < out.max() <= 1
    assert float(jnp.std(out, axis=0).min()) > 0  # each z has its own image
    logits, _ = run(discriminator(), images())
    assert logits.shape == (6,)
    assert len(np.unique(logits)) == 6


def test_both_networks_equal_torch():
    """In training: 3×3 convolutions and `pixel_shuffle`, 4×4 convolutions of stride 2, the batch's statistics."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional

    def tensor(array):
        return torch.from_numpy(np.array(array))

    def norm(x, finish):
        scale, bias = (tensor(v[...]) for v in (finish.scale, finish.bias))
        return f.batch_norm(x, None, None, scale, bias, training=True, eps=1e-5)

    def conv(x, kernel, stride):
        return f.conv2d(x, tensor(kernel[...]).permute(3, 2, 0, 1), stride=stride, padding=1)

    def doubled(x, kernel):
        n = kernel.shape[-1] // 4  # PyTorch's channels of one output channel lie together
        order = [i * n + c for c in range(n) for i in range(4)]
        return f.pixel_shuffle(conv(x, kernel, 1)[:, order], 2)

    g, d = generator(), discriminator()
    z = latents()
    x = (tensor(z) @ tensor(g.project.kernel[...])).reshape(6, 4, 4, -1).permute(0, 3, 1, 2)
    x = f.relu(norm(x, g.norm))
    for layer in g.hidden:
        x = f.relu(norm(doubled(x, layer.kernel), layer.finish))
    bias = tensor(g.pixels.finish.bias[...])[:, None, None]
    expected = (torch.tanh(doubled(x, g.pixels.kernel) + bias) + 1) / 2
    np.testing.assert_allclose(run(g, z)[0], expected.permute(0, 2, 3, 1), atol=1e-5)

    x = 2 * tensor(images()).permute(0, 3, 1, 2) - 1
    first, second = d.hidden
    x = f.leaky_relu(conv(x, first.kernel, 2) + tensor(first.finish.bias[...])[:, None, None], 0.2)
    x = f.leaky_relu(norm(conv(x, second.kernel, 2), second.finish), 0.2)
    x = x.permute(0, 2, 3, 1).reshape(6, -1)
    expected = x @ tensor(d.logit.kernel[...]) + tensor(d.logit.bias[...])
    np.testing.assert_allclose(run(d, images())[0], expected[:, 0], atol=1e-5)


def test_pixel_shuffle_by_hand():
    x = jnp.arange(16).reshape(1, 1, 2, 8)  # two pixels of 4 × 2 channels
    upper, lower = [[0, 1], [2, 3], [8, 9], [10, 11]], [[4, 5], [6, 7], [12, 13], [14, 15]]
    np.testing.assert_array_equal(dcgan.pixel_shuffle(x), [[upper, lower]])


# --- checkerboards ---


def nyquist(x: jax.Array) -> np.ndarray:
    """The largest amplitude of the three checkerboards of period 2 in images [B, H, W, C]."""
    x = np.asarray(x, np.float64)
    rows, columns = ((-1.0) ** np.arange(n) for n in x.shape[1:3])
    signs = [rows[:, None] + 0 * columns, 0 * rows[:, None] + columns, rows[:, None] * columns]
    return np.max([np.abs((x * s[..., None]).mean((1, 2))) for s in signs])


@functools.cache
def fresh_upsampling() -> dcgan.Upsampling:
    return built(lambda: dcgan.Upsampling(4, 6, norm=False, rngs=nnx.Rngs(0)))


def test_fresh_upsampling_of_a_constant_map_is_constant_but_for_the_border():
    x = jnp.broadcast_to(jnp.arange(4.0), (1, 8, 8, 4))
    y, _ = run(fresh_upsampling(), x)
    inside = y[:, 2:-2, 2:-2]
    np.testing.assert_allclose(inside, np.broadcast_to(inside[:, :1, :1], inside.shape), atol=1e-6)
    assert nyquist(y) < 1e-7
    assert float(jnp.abs(inside).min()) > 1e-3


def test_fresh_upsampling_has_no_energy_at_the_nyquist_frequency():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 4)), jnp.float32)
    layer = nnx.clone(fresh_upsampling())
    assert nyquist(run(layer, x)[0]) < 1e-8
    # Sub-kernels drawn apart make checkerboards.
    apart = np.random.default_rng(1).normal(0, 0.02, layer.kernel.shape)
    layer.kernel.set_value(jnp.asarray(apart, jnp.float32))
    assert nyquist(run(layer, x)[0]) > 1e-3


def test_first_images_have_no_checkerboards():
    out, _ = run(generator(), latents())
    assert nyquist(jnp.arctanh(2 * out - 1)) < 1e-7
    assert float(jnp.std(out, axis=(1, 2)).min()) > 1e-5


# --- modes and gradients ---


def test_training_uses_the_batch_and_remembers_it():
    for model, x in ((generator(), latents()), (discriminator(), images())):
        out, after = run(model, x)
        again, _ = run(model, jnp.concatenate([x[:3], 2 * x[3:]]))
        assert not np.allclose(out[:3], again[:3], rtol=1e-6, atol=0)
        before = nnx.state(model, nnx.BatchStat)
        statistics = nnx.filter_state(after, nnx.BatchStat)
        assert not any(
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(statistics), strict=True)
        )


def test_evaluation_sees_one_image_at_a_time_and_changes_nothing():
    for model, x in ((generator(), latents()), (discriminator(), images())):
        model = evaluating(model)
        out, after = run(model, x)
        alone, _ = run(model, jnp.roll(x, 1, 0))
        np.testing.assert_allclose(jnp.roll(out, 1, 0), alone, rtol=1e-5, atol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, nnx.state(model), after)


def test_one_update_of_a_gan_moves_every_parameter():
    """Adam's first step is the rate, wherever there is a gradient; and both remember the batches."""
    adam = optax.adam(2e-4, b1=0.5)
    g, g_state = gan.from_nnx(generator(), lambda model, z, key: model(z), adam)
    d, d_state = gan.from_nnx(discriminator(), lambda model, x, key: model(x), adam)
    update = gan.make_update(g, d, latent_shape=generator().latent_shape, key=jax.random.key(0))
    data = jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8))
    before = gan.create(g_state, d_state)
    after, metrics = jax.jit(update)(before, data, jnp.arange(6))
    for old, new in zip(before[:2], after[:2], strict=True):
        for a, b in zip(jax.tree.leaves(old[:2]), jax.tree.leaves(new[:2]), strict=True):
            assert not np.array_equal(a, b)
        steps = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), old.params, new.params)
        np.testing.assert_allclose(jax.tree.leaves(steps), 2e-4, rtol=0.01)
    assert all(np.isfinite(m) for m in metrics)
    np.testing.assert_allclose(metrics.discriminator_loss, 2 * np.log(2), atol=0.3)


# --- refusals ---


@pytest.mark.parametrize("network", [dcgan.Generator, dcgan.Discriminator])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 96}, r"size must be a power of two from 16 on, got 96; resize .* 64 or 128"),
        ({"size": 8}, r"size must .* got 8"),
        ({"size": 0}, r"size must .* got 0"),
        ({"width": 0}, r"width must be from 1 to 1024 and channels at least 1, got 0 and 3"),
        ({"width": 2048}, r"got 2048 and 3; 64 and 3 are usual"),
        ({"channels": 0}, r"got 64 and 0"),
    ],
)
def test_refuses_sizes(network, options, message):
    with pytest.raises(ValueError, match=rf"^dcgan.{network.__name__}: .*{message}"):
        network(**options, rngs=nnx.Rngs(0))


def test_refuses_no_latents_and_other_shapes():
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        dcgan.Generator(latent=0, rngs=nnx.Rngs(0))
    for shape in ((5,), (2, 4), (2, 1, 5)):
        with pytest.raises(ValueError, match=r"z must be \[B, 5\], got \[.*z\[None\]"):
            generator()(jnp.zeros(shape))
    for shape in ((16, 16, 3), (1, 32, 32, 3), (1, 16, 16, 1)):
        with pytest.raises(ValueError, match=r"images must be \[B, 16, 16, 3\], got \[.*resize"):
            discriminator()(jnp.zeros(shape))
