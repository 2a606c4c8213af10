"""Gradient descent against plain float64 reimplementations, by hand and in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from toy_synthesis import problem

import outgen_jax as og
from outgen_jax import losses
from outgen_jax.solvers import descent

PAPER_PRESETS = ("sgd", "momentum", "momentum_printed", "momentum_lowpass")

# Each preset in the terms of the papers.
SETTINGS = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "momentum_printed": {"momentum": 0.9, "printed": True},
    "momentum_lowpass": {"momentum": 0.9, "radius": 10},
}
SHAPE = (24, 32, 3)
WEIGHTS = reference.perceptron(SHAPE)


def sources(count: int, *shape: int) -> np.ndarray:
    """Random 8-bit images with pure black and pure white in them."""
    images = np.random.default_rng(2).integers(0, 256, (count, *shape), np.uint8)
    images[:, :2], images[:, 2:4] = 0, 255
    return images


def targets(count: int, classes: int) -> np.ndarray:
    rows = np.random.default_rng(3).dirichlet(np.ones(classes), count)
    rows[0] = np.eye(classes)[0]  # entries of zero
    return rows


def assert_agrees(result: og.Result, network, images, rows, *, moved: float, **settings) -> None:
    """Holds `result` against the reference, image by image."""
    for i, (image, row) in enumerate(zip(images, rows, strict=True)):
        expected = reference.descend(network, image / 255, row, **settings)
        np.testing.assert_allclose(result.history[i], expected.history, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(result.images[i], expected.image, atol=1e-4)
        np.testing.assert_allclose(result.kl[i], expected.kl, rtol=1e-3, atol=1e-5)
        assert result.steps[i] == expected.steps
        # The comparison means something: the image has moved, and to its target.
        assert np.abs(expected.image - image / 255).max() > moved
        assert expected.kl < 0.9 * expected.history[0]


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_presets_equal_the_papers_rules_in_float64(name):
    images, rows = sources(3, *SHAPE), targets(3, 5)
    result = og.synthesize(
        reference.perceptron_logits, WEIGHTS, images, rows, solver=og.preset(name), history=True
    )
    network = reference.perceptron_gradient(WEIGHTS)
    assert_agrees(result, network, images, rows, moved=0.01, **SETTINGS[name])


def torch_network(torch, model) -> reference.Network:
    """VGG16 with the weights of `model` by PyTorch's functions, float64."""
    functional = torch.nn.functional

    def tensor(array):
        return torch.from_numpy(np.array(array[...], np.float64))

    convolutions = [[layer for layer in block] for block in model.blocks]

    def logits_of(image):
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        x = ((image - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]
        for block in convolutions:
            for layer in block:
                x = functional.conv2d(x, tensor(layer.kernel).permute(3, 2, 0, 1), padding=1)
                norm = layer.norm
                statistics = (norm.mean, norm.var, norm.scale, norm.bias)
                x = functional.batch_norm(x, *map(tensor, statistics), eps=1e-5).relu()
            x = functional.max_pool2d(x, 2)
        return x.mean((2, 3))[0] @ tensor(model.head.kernel) + tensor(model.head.bias)

    def network(image, target):
        leaf = torch.tensor(image, requires_grad=True)
        logits = logits_of(leaf)
        loss = -(torch.from_numpy(target) * functional.log_softmax(logits, 0)).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        return logits.detach().numpy(), gradient.numpy()

    return network


@pytest.mark.parametrize("name", ["sgd", "momentum_lowpass"])
def test_a_convolutional_network_equals_torch(small_vgg16, name):
    torch = pytest.importorskip("torch")
    model = small_vgg16()
    model.head.kernel.set_value(5 * model.head.kernel[...])  # so that pixels matter
    # No areas of one colour: where pooling meets equal values, each framework has its own gradient.
    images = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    # None that saturates: float32 sees a KL of 0 where float64 still falls.
    rows = targets(3, 3)[1:]
    apply_fn, variables = og.models.from_nnx(model)
    result = og.synthesize(apply_fn, variables, images, rows, solver=og.preset(name), history=True)
    network = torch_network(torch, model)
    assert_agrees(result, network, images, rows, moved=0.01, **SETTINGS[name])


# --- the solver's functions ---


def posed(target, source, network=None):
    """The problem of one image; `network` maps it to its logits."""
    if network is None:
        return problem(reference.perceptron_logits, WEIGHTS, target, source)
    return problem(lambda _, images: network(images[0])[None], None, target, source)


def test_one_update_is_equation_a6():
    """W ← W − γ(∇L + λW), for any map; the logits are those before the update."""
    solver = og.gradient_descent(optax.sgd(0.3), weight_decay=0.2, steps=1, pixels=og.pixels.tanh())
    image, target = sources(1, *SHAPE)[0] / np.float32(255), np.float32(targets(1, 5)[0])
    one = posed(target, image)
    before = solver.init(one, image)
    after, (logits,) = solver.update(one, before)
    np.testing.assert_allclose(logits, one.network(solver.image(before))[0], rtol=1e-5)
    x = (np.tanh(np.float64(before.weights)) + 1) / 2
    _, slope = reference.perceptron_gradient(WEIGHTS)(x, target)
    gradient = slope * 2 * x * (1 - x)  # d tanh-map / dw = sech²(w)/2
    expected = before.weights - 0.3 * (gradient + 0.2 * before.weights)
    np.testing.assert_allclose(after.weights, expected, atol=1e-5)


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_update_under_jit_and_vmap_equals_the_loop(name):
    solver = og.preset(name)
    images = sources(3, *SHAPE) / np.float32(255)
    rows = targets(3, 5).astype(np.float32)

    def two_updates(image, row):
        one = posed(row, image)
        state, _ = solver.update(one, solver.init(one, image))
        state, (logits,) = solver.update(one, state)
        return solver.image(state), logits

    mapped = jax.jit(jax.vmap(two_updates))(images, rows)
    for i in range(3):
        image, logits = two_updates(images[i], rows[i])
        np.testing.assert_allclose(mapped[0][i], image, atol=1e-5)
        np.testing.assert_allclose(mapped[1][i], logits, atol=1e-5)


def test_updates_are_differentiable():
    """The loss after an update, as a function of the target, has the slope of its difference."""
    solver = og.preset("momentum")
    image = sources(1, *SHAPE)[0] / np.float32(255)

    def loss(shift):
        target = jnp.full(5, 0.2).at[0].add(shift).at[1].add(-shift)
        one = posed(target, image)
        state, _ = solver.update(one, solver.init(one, image))
        return losses.cross_entropy(one.network(solver.image(state))[0][0], target)

    slope = (loss(0.02) - loss(-0.02)) / 0.04
    np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=1e-2)


def test_the_network_sees_the_filtered_image_that_comes_out():
    solver = og.gradient_descent(optax.sgd(0.1), lowpass_radius=4)
    image = sources(1, *SHAPE)[0] / np.float32(255)
    # A network whose logits are pixels: five from the black and white rows, where the filter overshoots.
    one = posed(np.full(5, 0.2), image, lambda x: x[:5, 0, 0])
    state = solver.init(one, image)
    _, (logits,) = solver.update(one, state)
    half_level = 0.499 / 255
    inside = np.clip(image, half_level, 1 - half_level)
    filtered = np.clip(reference.lowpass(inside, 4), 0, 1)
    np.testing.assert_allclose(solver.image(state), filtered, atol=1e-5)
    np.testing.assert_allclose(logits[0], filtered[:5, 0, 0], atol=1e-5)


def test_an_optimiser_that_needs_the_loss_gets_it():
    """L-BFGS with its line search, in a few steps where plain descent is far from the target."""
    images, rows = sources(3, *SHAPE), targets(4, 5)[1:]
    solvers = [
        og.gradient_descent(optimizer, weight_decay=0.0, steps=10)
        for optimizer in (optax.lbfgs(), optax.sgd(0.05))
    ]
    found = [
        og.synthesize(reference.perceptron_logits, WEIGHTS, images, rows, solver=s) for s in solvers
    ]
    assert (found[0].kl < 0.1 * found[1].kl).all()
    assert found[0].finite.all()


# --- bad settings ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"steps": -1},
            r"gradient_descent: steps and weight_decay must not be negative, got -1 and 0.0005",
        ),
        ({"weight_decay": -0.5}, r"must not be negative, got 100 and -0.5; use 0 for none"),
        ({"weight_decay": np.nan}, r"must not be negative, got 100 and nan; use 0 for none"),
        (
            {"lowpass_radius": 0},
            r"^gradient_descent: radius must be positive, got 0; None in gradient_descent means no filter",
        ),
        ({"pixels": og.pixels.tanh}, r"pixels must be a PixelMap, got <function tanh"),
        ({"pixels": "tanh"}, r"pixels must be a PixelMap, got 'tanh'; pass one such as og\.pixels"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        og.gradient_descent(optax.sgd(0.1), **options)


@pytest.mark.parametrize(
    ("optimizer", "remedy"),
    [("adam", "pass one"), (0.05, "pass one"), (optax.adam, "call it with its settings")],
)
def test_what_is_no_optimiser_is_named(optimizer, remedy):
    message = (
        rf"^gradient_descent: optimizer must be .* got .*; {remedy}, as in optax\.sgd\(0\.05\)"
    )
    with pytest.raises(ValueError, match=message):
        og.gradient_descent(optimizer)


def test_the_defaults_are_the_papers():
    solver = og.gradient_descent(optax.sgd(0.1))
    assert (solver.steps, solver.weight_decay, solver.lowpass_radius) == (100, 5e-4, None)
    assert solver.steps == descent.STEPS
