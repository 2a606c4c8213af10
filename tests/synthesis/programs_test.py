"""Compiled programs: made once for a network and an equal solver, and gone with the network."""

import dataclasses
import functools
import gc
import types
import weakref

import jax
import numpy as np
import optax
import pytest
from toy_synthesis import APPLY, FAST, WEIGHTS, compilations, sources, targets

import outgen_jax as og
from outgen_jax.synthesis import predict, slots
from outgen_jax.synthesis.programs import Network

OPTIMIZER = optax.sgd(0.5)


def network(weights, images):
    return APPLY(weights, images)


class Model:
    """A network that is a method of an object."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def logits(self, weights, images):
        return self.gain * APPLY(weights, images)

    def other(self, weights, images):
        return -self.logits(weights, images)

    def __call__(self, weights, images):
        return self.logits(weights, images)


def compiled(solver, apply_fn=network, seed=0, **options) -> list[str]:
    """What a call compiles; other weights, images and targets of the same shapes for each seed."""
    variables = jax.tree.map(lambda w: w + np.float32(0.01 * seed), WEIGHTS)
    # Without a tolerance all images leave their slots together, whatever the weights.
    options = {"batch_size": 2, "tolerance": None} | options
    with compilations() as found:
        og.synthesize(
            apply_fn, variables, sources(5, seed), targets(5, seed), solver=solver, **options
        )
    return found


# --- solvers are values ---

SOLVERS = {
    "descent": lambda **o: og.gradient_descent(OPTIMIZER, **{"steps": 12} | o),
    "gauss_newton": lambda **o: og.gauss_newton(**{"steps": 4} | o),
    "masked": lambda **o: og.gauss_newton(mask=np.eye(8, 6), **{"steps": 4} | o),
    "cg": lambda **o: og.gauss_newton_cg(**{"steps": 4, "iterations": 3} | o),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_an_equal_solver_and_other_steps_compile_nothing(name):
    build = SOLVERS[name]
    first = compiled(build())
    assert sum("advance" in message for message in first) >= 1
    assert compiled(build(), seed=1) == []
    for steps in (3, 40, 73):  # fewer and more than a call makes updates
        assert compiled(build(steps=steps), seed=2) == []


def test_combinators_and_presets_compile_nothing_either():
    def build():
        return og.restarted(
            og.then(og.preset("sgd", steps=3), og.gauss_newton(steps=4), at=0.2), times=1
        )

    compiled(build())
    assert compiled(build(), seed=0) == []


def test_another_mask_is_other_data_and_another_option_another_program():
    compiled(SOLVERS["masked"]())
    assert compiled(og.gauss_newton(steps=4, mask=1 - np.eye(8, 6))) == []
    assert compiled(SOLVERS["masked"](stride=2.0)) != []


def test_equality_and_hash_are_by_options():
    for build in SOLVERS.values():
        assert build() == build()
        assert hash(build()) == hash(build())
        assert build() != build(steps=5)
    assert og.gradient_descent(OPTIMIZER) == og.gradient_descent(OPTIMIZER)
    assert og.gradient_descent(OPTIMIZER) != og.gradient_descent(optax.sgd(0.5))
    assert og.gradient_descent(OPTIMIZER) != og.gradient_descent(OPTIMIZER, weight_decay=0.0)
    assert og.gauss_newton(stride=None) != og.gauss_newton()
    assert og.gauss_newton(lowpass_radius=3) != og.gauss_newton()
    assert len({build() for build in SOLVERS.values()}) == 4


# --- programs live as long as their network ---


def used(apply_fn) -> list[weakref.ref]:
    """The network was used by all of the package; references to it and to its programs."""
    options = {"solver": FAST, "tolerance": 0.05}
    og.synthesize(apply_fn, WEIGHTS, sources(3), targets(3), **options)
    og.quantize(apply_fn, WEIGHTS, sources(3), targets(3), rounds=1)
    og.predict(apply_fn, WEIGHTS, sources(3))
    key = Network(apply_fn)
    programs = (slots.advance, slots.start, slots.leave, predict._outputs)
    return [weakref.ref(program.program_of(key)) for program in programs]


def test_a_network_that_is_gone_takes_its_programs_along():
    def local(weights, images):
        return APPLY(weights, images)

    references = [weakref.ref(local), *used(local)]
    assert all(reference() is not None for reference in references)
    del local
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_bound_methods_are_networks_that_go_with_their_object():
    model = Model(1.0)
    references = [weakref.ref(model), *used(model.logits)]
    assert compiled(FAST, model.logits, batch_size=None) != []
    assert (
        compiled(FAST, model.logits, seed=1, batch_size=None) == []
    )  # another bound method, the same network
    assert compiled(FAST, model.other, batch_size=None) != []
    first, second = (og.predict(f, WEIGHTS, sources(1)) for f in (model.logits, model.other))
    assert np.abs(first - second).max() > 0.1
    del model
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_methods_of_the_same_name_are_different_networks():
    model = Model(1.0)

    def bound(gain):
        def logits(self, weights, images):
            return gain * APPLY(weights, images)

        return types.MethodType(logits, model)

    first, second = bound(1.0), bound(5.0)
    og.predict(first, WEIGHTS, sources(2))
    expected = og.predict(lambda w, x: 5.0 * APPLY(w, x), WEIGHTS, sources(2))
    np.testing.assert_allclose(og.predict(second, WEIGHTS, sources(2)), expected, rtol=1e-5)
    del first, second
    np.testing.assert_allclose(og.predict(bound(5.0), WEIGHTS, sources(2)), expected, rtol=1e-5)


def test_objects_that_are_called_and_partial_functions_are_networks():
    model = Model(2.0)
    assert compiled(FAST, model) != []
    assert compiled(FAST, model, seed=1) == []
    part = functools.partial(lambda gain, weights, images: gain * APPLY(weights, images), 3.0)
    assert compiled(FAST, part) != []
    assert compiled(FAST, part, seed=1) == []
    expected = og.predict(Model(3.0).logits, WEIGHTS, sources(2))
    np.testing.assert_allclose(og.predict(part, WEIGHTS, sources(2)), expected, atol=1e-6)


def test_views_are_a_network_like_any_other():
    seen = og.views(network, [lambda x: x, lambda x: x[:, ::-1]])
    assert compiled(FAST, seen) != []
    assert compiled(FAST, seen, seed=1) == []


def test_precisions_have_programs_of_their_own():
    compiled(FAST)
    assert compiled(FAST, precision=None) != []
    assert compiled(FAST, precision=None, seed=1) == compiled(FAST, seed=1) == []


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Equal to any other of its kind, though it is another network."""

    scale: float = dataclasses.field(compare=False)

    def __call__(self, weights, images):
        return self.scale * APPLY(weights, images)


def test_networks_that_compare_equal_have_programs_of_their_own():
    one, three = Scaled(1.0), Scaled(3.0)
    assert one == three
    found = [og.predict(network, WEIGHTS, sources(3)) for network in (one, three, three.__call__)]
    images = np.float32(sources(3)) / 255
    wanted = [jax.nn.softmax(scale * APPLY(WEIGHTS, images)) for scale in (1, 3, 3)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
