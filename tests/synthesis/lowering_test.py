"""Programs lower for GPU and TPU too, from a machine that has neither."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from toy_synthesis import APPLY, CLASSES, SHAPE, WEIGHTS

import outgen_jax as og
from outgen_jax.solvers.momentum import Momentum
from outgen_jax.synthesis import predict, programs, quantize, slots
from outgen_jax.synthesis.programs import Network

PLATFORMS = ("cuda", "tpu")
NETWORK, KINDS, COUNTS = Network(APPLY), (og.outputs.softmax(),), (None,)
IMAGES = np.full((2, *SHAPE), 0.5, np.float32)
TARGETS = (np.full((2, 1, CLASSES), 0.2, np.float32),)
SOLVERS = {
    "gradient_descent": og.gradient_descent(optax.adam(0.1), lowpass_radius=3),
    "gauss_newton": og.gauss_newton(mask=np.eye(8, 6), lowpass_radius=3),
    "gauss_newton_cg": og.gauss_newton_cg(),
    "smallest_change": og.smallest_change(mask=np.eye(8, 6)),
    "momentum": Momentum(),
}


def lowered(function, platform: str, *args, **options) -> str:
    with programs.relaxed():
        traced = function.program_of(NETWORK).trace(*args, **options)
        return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_advance_of_every_solver(name, platform):
    solver, mesh = SOLVERS[name], slots.local_mesh()
    entries, present = slots.Entry(IMAGES, IMAGES, TARGETS), np.ones(2, bool)
    begun = slots.start(
        *(NETWORK, solver, WEIGHTS, np.float32(1e-5), entries, present),
        kinds=KINDS,
        counts=COUNTS,
        mesh=mesh,
    )
    threshold, quota = np.float32(1e-5), np.int32(1)
    text = lowered(
        slots.advance, platform, solver, WEIGHTS, threshold, quota, begun, updates=10, mesh=mesh
    )
    assert "stablehlo.while" in text
    assert "HIGHEST" in text  # products at full precision


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", SOLVERS)
def test_what_stands_around_the_updates(name, platform):
    """Slots are filled, exchanged, read and made fewer."""
    solver, mesh = SOLVERS[name], slots.local_mesh()
    entries, present = slots.Entry(IMAGES, IMAGES, TARGETS), np.ones(2, bool)
    options = {"kinds": KINDS, "counts": COUNTS, "mesh": mesh}
    begins = (solver, WEIGHTS, np.float32(1e-5), entries, present)
    lowered(slots.start, platform, *begins, **options)
    begun = slots.start(NETWORK, *begins, **options)
    places = np.array([1, 0])
    assert "scatter" in lowered(slots.enter, platform, begun, places, begun, mesh=mesh)
    assert "gather" in lowered(slots.leave, platform, solver, begun, places, mesh=mesh)
    assert "gather" in lowered(slots.fewer, platform, begun, places[:1], mesh=mesh)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_predictions(platform):
    """The network runs at the precision that was asked for."""
    options = {"kinds": KINDS, "mesh": slots.local_mesh()}
    assert "HIGHEST" in lowered(predict._outputs, platform, WEIGHTS, IMAGES, **options)
    program = predict._outputs.program_of(Network(APPLY, None))
    with programs.relaxed():
        traced = program.trace(WEIGHTS, IMAGES, **options)
        assert "HIGHEST" not in traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_networks_with_the_packages_convolutions(platform, small_vgg16):
    """They take XLA's convolution there, not the CPU's forms, at full precision."""
    model = small_vgg16()
    graphdef, variables = nnx.split(model)

    def apply_fn(variables, images):
        return nnx.merge(graphdef, variables)(images)

    images = np.zeros((2, 32, 32, 3), np.float32)
    program = slots.gradient.program_of(Network(apply_fn))
    with programs.relaxed():
        traced = program.trace(variables, images[:1])
        text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") >= 9  # five layers, and their gradients but one
    assert "HIGHEST" in text


@pytest.mark.parametrize("platform", PLATFORMS)
def test_quantisation(platform):
    mesh = slots.local_mesh()
    options = {"kinds": KINDS, "counts": COUNTS, "mesh": mesh}
    levels = np.full((2, *SHAPE), 128, np.uint8)
    begun = quantize._start(NETWORK, WEIGHTS, levels, TARGETS, **options)
    text = lowered(quantize._round, platform, WEIGHTS, np.float32(1e-3), TARGETS, begun, **options)
    assert "HIGHEST" in text


@pytest.mark.parametrize("platform", PLATFORMS)
def test_float64_appears_nowhere_with_x64(platform):
    """On accelerators it would cost, on TPU fail."""
    with jax.enable_x64(True):
        solver, mesh = SOLVERS["gauss_newton"], slots.local_mesh()
        entries, present = slots.Entry(IMAGES, IMAGES, TARGETS), np.ones(2, bool)
        begun = slots.start(
            *(NETWORK, solver, WEIGHTS, np.float32(1e-5), entries, present),
            kinds=KINDS,
            counts=COUNTS,
            mesh=mesh,
        )
        args = (solver, WEIGHTS, np.float32(1e-5), np.int32(1), begun)
        text = lowered(slots.advance, platform, *args, updates=10, mesh=mesh)
    assert "f32>" in text
    assert "xf64>" not in text
