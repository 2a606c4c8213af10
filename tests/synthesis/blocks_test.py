"""Images of a batch that are updated in blocks: how many in one, and that nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_synthesis import assert_same

import outgen_jax as og
from outgen_jax.synthesis import blocks, slots
from outgen_jax.synthesis.programs import Network

SIZE, CHANNELS = 16, 8
# What a network of one convolution writes: its output and the gradient to the image, and both of the linear layer.
WRITTEN = (4 * SIZE**2 * CHANNELS, 4 * SIZE**2 * 3, 4 * 2, 4 * CHANNELS)


def apply_fn(weights, images):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        images - 0.5, weights["kernel"], (1, 1), "SAME", dimension_numbers=numbers
    )
    return jax.nn.relu(x).mean((1, 2)) @ weights["linear"]


def weights(unused: int = 0):
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.normal(size=(3, 3, 3, CHANNELS)).astype(np.float32),
        "linear": 5 * rng.normal(size=(CHANNELS, 2)).astype(np.float32),
        "unused": np.zeros(unused, np.float32),
    }


def least(cache: int, monkeypatch, *, unused: int = 0, passes: int = 1) -> int:
    monkeypatch.setattr(blocks, "CACHE_BYTES", cache // 2)
    monkeypatch.setattr(blocks.devices, "processors", lambda: 2)
    gradient = slots.gradient.program_of(Network(apply_fn))
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    return blocks.least_images(gradient, weights(unused), image, passes=passes)


@pytest.mark.parametrize(("passes", "expected"), [(1, 12), (4, 3), (100, 1)])
def test_the_largest_output_of_as_many_images_fills_the_cache(monkeypatch, passes, expected):
    assert least(12 * WRITTEN[0] + 100, monkeypatch, passes=passes) == expected


def test_weights_are_not_read_more_often_than_outputs_are_written(monkeypatch):
    own = sum(w.nbytes for w in weights().values())
    unused = (20 * sum(WRITTEN) - own) // 4
    assert least(WRITTEN[0], monkeypatch, unused=unused) == 20
    assert least(30 * WRITTEN[0], monkeypatch, unused=unused) == 30


def test_a_network_without_layers_is_not_cut(monkeypatch):
    def brightness(scale, images):
        mean = images.mean((1, 2, 3))
        return scale * jnp.stack([mean, -mean], -1)

    gradient = slots.gradient.program_of(Network(brightness))
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    found = blocks.least_images(gradient, jnp.float32(1), image, passes=1)
    assert blocks.even_block(10**6, found) == 10**6


@pytest.mark.parametrize(
    "solver", [og.preset("sgd", steps=25), og.gauss_newton(steps=4)], ids=["sgd", "gauss_newton"]
)
def test_blocks_do_not_change_the_images(monkeypatch, solver):
    images = np.random.default_rng(1).uniform(size=(12, SIZE, SIZE, 3)).astype(np.float32)
    found = []
    for size in (12, 4):
        monkeypatch.setattr(blocks, "least_images", lambda *_, size=size, **__: size)
        found.append(
            og.synthesize(apply_fn, weights(), images, [0.8, 0.2], solver=solver, batch_size=12)
        )
    assert found[0].steps.max() > 1
    assert_same(*found)


def test_a_step_in_blocks_takes_less_memory():
    network, solver, mesh = Network(apply_fn), og.preset("sgd"), slots.local_mesh()
    images = np.full((16, SIZE, SIZE, 3), 0.5, np.float32)
    targets = np.full((16, 1, 2), 0.5, np.float32)
    threshold = np.float32(0.1)
    begun = slots.start(
        *(network, solver, weights(), threshold),
        *(slots.Entry(images, images, (targets,)), np.ones(16, bool)),
        kinds=(og.outputs.softmax(),),
        counts=(None,),
        mesh=mesh,
    )
    arguments = (solver, weights(), threshold, np.int32(16), begun)
    bytes_of = {
        at_once: slots.advance.program_of(network)
        .lower(*arguments, updates=2, at_once=at_once, mesh=mesh)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for at_once in (None, 2)
    }
    assert bytes_of[2] < bytes_of[None] / 2
