"""Programs lower for GPU and TPU too, from a machine that has neither."""

from typing import Any

import jax
import lowered
import numpy as np
import optax
import pytest
from flax import nnx
from toy_synthesis import APPLY, CLASSES, SHAPE, WEIGHTS

import outgen_jax as og
from outgen_jax.solvers.limits import Restriction
from outgen_jax.solvers.momentum import Momentum
from outgen_jax.synthesis import predict, programs, rounds, slots
from outgen_jax.synthesis.programs import Network

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
# Precisions of the products that a solver itself makes.
NEEDED = {name: {"HIGHEST"} for name in SOLVERS} | {"gradient_descent": set(), "momentum": set()}


def texts(function: Any, *args: Any, network: Network = NETWORK, **options: Any) -> list[str]:
    """The program of a function of the engine for each platform."""
    with programs.relaxed():
        return list(lowered.texts(function.program_of(network).trace(*args, **options)))


def everywhere(wanted: str, found: list[str]) -> bool:
    return all(wanted in text for text in found)


@pytest.mark.parametrize("name", SOLVERS)
def test_advance_of_every_solver(name):
    solver, mesh = SOLVERS[name], slots.local_mesh()
    entries, present = slots.Entry(IMAGES, IMAGES, TARGETS), np.ones(2, bool)
    begun = slots.start(
        *(NETWORK, solver, WEIGHTS, np.float32(1e-5), entries, present),
        kinds=KINDS,
        counts=COUNTS,
        mesh=mesh,
    )
    threshold, quota = np.float32(1e-5), np.int32(1)
    found = texts(slots.advance, solver, WEIGHTS, threshold, quota, begun, updates=10, mesh=mesh)
    assert everywhere("stablehlo.while", found)
    for text in found:
        assert lowered.precisions(text) <= {"HIGHEST"}  # the solver's products, too
    # Only the network's are below it where that was asked for.
    network = Network(APPLY, "bfloat16")
    args = (solver, WEIGHTS, threshold, quota, begun)
    for text in texts(slots.advance, *args, network=network, updates=10, mesh=mesh):
        assert lowered.precisions(text) == {"DEFAULT", *NEEDED[name]}


def test_the_backward_pass_of_a_custom_derivative_is_as_precise_as_the_network():
    """JAX traces it later, when the network has returned."""

    @jax.custom_vjp
    def product(images, weights):
        return images @ weights

    def backward(kept, cotangent):
        images, weights = kept
        return cotangent @ weights.T, images.T @ cotangent

    product.defvjp(lambda images, weights: (images @ weights, (images, weights)), backward)

    def apply_fn(weights, images):
        return product(images.reshape(len(images), -1), weights)

    weights = np.zeros((int(np.prod(SHAPE)), CLASSES), np.float32)
    for precision, expected in (("highest", "HIGHEST"), ("bfloat16", "DEFAULT")):
        network = Network(apply_fn, precision)
        for text in texts(slots.gradient, weights, IMAGES[:1], network=network):
            assert lowered.precisions(text) == {expected}


@pytest.mark.parametrize("name", SOLVERS)
def test_what_stands_around_the_updates(name):
    """Slots are filled, exchanged, read and made fewer."""
    solver, mesh = SOLVERS[name], slots.local_mesh()
    entries, present = slots.Entry(IMAGES, IMAGES, TARGETS), np.ones(2, bool)
    options = {"kinds": KINDS, "counts": COUNTS, "mesh": mesh}
    begins = (solver, WEIGHTS, np.float32(1e-5), entries, present)
    texts(slots.start, *begins, **options)
    begun = slots.start(NETWORK, *begins, **options)
    places = np.array([1, 0])
    assert everywhere("scatter", texts(slots.enter, begun, places, begun, mesh=mesh))
    assert everywhere("gather", texts(slots.leave, solver, begun, places, mesh=mesh))
    assert everywhere("gather", texts(slots.fewer, begun, places[:1], mesh=mesh))


def test_predictions():
    """The network runs at the precision that was asked for."""
    options = {"kinds": KINDS, "mesh": slots.local_mesh()}
    assert everywhere("HIGHEST", texts(predict._outputs, WEIGHTS, IMAGES, **options))
    found = texts(predict._outputs, WEIGHTS, IMAGES, network=Network(APPLY, None), **options)
    assert not any("HIGHEST" in text for text in found)


def test_networks_with_the_packages_convolutions(small_vgg16):
    """They take XLA's convolution there, not the CPU's forms, at full precision."""
    model = small_vgg16()
    graphdef, variables = nnx.split(model)

    def apply_fn(variables, images):
        return nnx.merge(graphdef, variables)(images)

    images = np.zeros((2, 32, 32, 3), np.float32)
    for text in texts(slots.gradient, variables, images[:1], network=Network(apply_fn)):
        assert text.count("stablehlo.convolution") >= 9  # five layers, and their gradients but one
        assert "HIGHEST" in text


def test_quantisation():
    mesh = slots.local_mesh()
    options = {"kinds": KINDS, "counts": COUNTS, "mesh": mesh}
    levels = np.full((2, *SHAPE), 128, np.uint8)
    limit = np.float32(1e-3)
    free = Restriction()
    begun = rounds.begun(NETWORK, WEIGHTS, limit, free, levels, levels, TARGETS, **options)
    found = texts(rounds.next_round, WEIGHTS, limit, TARGETS, begun, **options)
    assert everywhere("HIGHEST", found)


def test_float64_appears_nowhere_with_x64():
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
        assert everywhere("f32>", texts(slots.advance, *args, updates=10, mesh=mesh))
