"""What tells networks, solvers and classifiers apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from toy_synthesis import APPLY, WEIGHTS, sources

import outgen_jax as og
from outgen_jax.generation import provenance
from outgen_jax.synthesis import request
from outgen_jax.synthesis.programs import Network

IMAGE = sources(1)[0]


def asked(apply_fn=APPLY, output=None):
    network = Network(apply_fn)
    return network, request.meaning(network, WEIGHTS, IMAGE[None], output, caller="test"), WEIGHTS


def test_programs_of_networks_are_told_apart():
    def program(apply_fn=APPLY, image=IMAGE, output=None):
        return provenance.program_hash(*asked(apply_fn, output), image)

    found = [
        program(),
        program(lambda weights, images: 2 * APPLY(weights, images)),
        program(lambda weights, images: APPLY(weights, images)[:, :4]),
        program(lambda weights, images: images[:, 0, 0]),
    ]
    assert len(set(found)) == len(found)
    assert program(lambda weights, images: APPLY(weights, images)) == found[0]  # written anew
    assert program(image=IMAGE / np.float32(255)) == found[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Brightened(og.Solver):
    """A solver with an option that only `image` uses."""

    steps: int = 1
    by: float = 0.1

    def init(self, problem, image):
        return image

    def update(self, problem, state):
        return state, problem.network(state)

    def image(self, state):
        return state + self.by


def test_solvers_are_told_apart_by_their_options_and_programs():
    def record(solver):
        return str(provenance.solver_record(solver, *asked(), IMAGE))

    solvers = [
        og.gradient_descent(optax.sgd(1.0), steps=12),
        og.gradient_descent(optax.sgd(0.9), steps=12),
        og.gradient_descent(optax.sgd(1.0), steps=13),
        og.gradient_descent(optax.sgd(1.0), steps=12, lowpass_radius=2),
        og.gradient_descent(optax.sgd(1.0), steps=12, pixels=og.pixels.tanh()),
        og.gauss_newton(),
        og.gauss_newton(mask=np.eye(8, 6)),
        og.gauss_newton(mask=1 - np.eye(8, 6)),
        og.then(og.gauss_newton(steps=2), og.gauss_newton(), at=0.1),
        og.then(og.gauss_newton(steps=2), og.gauss_newton(), at=0.2),
        og.then(og.gauss_newton(), og.gauss_newton(steps=2), at=0.1),
        og.restarted(og.gauss_newton(), times=1),
        og.restarted(og.gauss_newton(), times=1, from_source=True),
        og.smallest_change(),
        dataclasses.replace(og.smallest_change(), patience=10),  # of `is_done`
        Brightened(),
        Brightened(by=0.2),  # of `image`
    ]
    found = [record(solver) for solver in solvers]
    assert len(set(found)) == len(found)
    assert record(og.gradient_descent(optax.sgd(1.0), steps=12)) == found[0]  # built anew


def test_equal_parts_of_a_solver_are_lowered_once(monkeypatch):
    hashed = []
    monkeypatch.setattr(provenance, "_hash", lambda function, *args: str(hashed.append(function)))
    twice = og.then(og.gauss_newton(steps=2), og.gauss_newton(steps=2), at=0.1)
    record = provenance.solver_record(twice, *asked(), IMAGE)
    assert len(hashed) == 1
    assert record["parts"][0] == record["parts"][1]


def test_a_solver_may_hold_an_array():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Still(og.Solver):
        offset: jax.Array
        steps = 1

        def init(self, problem, image):
            return image + self.offset

        def update(self, problem, state):
            return state, problem.network(state)

        def image(self, state):
            return state

    def record(offset):
        return provenance.solver_record(Still(jnp.float32([offset])), *asked(), IMAGE)

    assert record(0.1) == record(0.1) != record(0.2)


def test_classifiers_are_told_apart():
    tree = {"a": np.arange(4.0, dtype=np.float32), "key": jax.random.key(0)}
    changed = [
        tree,
        tree | {"a": np.float32([0, 1, 2, 4])},
        tree | {"a": tree["a"].reshape(2, 2)},
        tree | {"a": tree["a"].view(np.int32)},
        tree | {"key": jax.random.key(1)},
        {"b": tree["a"], "key": tree["key"]},
    ]
    hashes = [provenance.classifier_hash(variables) for variables in changed]
    assert len(set(hashes)) == len(hashes)
    on_device = jax.tree.map(jnp.asarray, tree)
    assert provenance.classifier_hash(on_device) == hashes[0]


def test_versions_are_named():
    assert provenance.versions()["numpy"] == np.__version__
