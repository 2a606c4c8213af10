"""Slots: whoever passes through them, and in whatever company, comes out as `synthesize` has it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_synthesis import APPLY, CLASSES, WEIGHTS, sources, targets

import outgen_jax as og
from outgen_jax.generation import provenance
from outgen_jax.synthesis import slots

COUNT, TOLERANCE = 13, 0.15
SOLVER = og.gradient_descent(optax.sgd(1.0), steps=12)


def run(solver=SOLVER, apply_fn=APPLY, *, count=COUNT, num_slots=4, heard=None):
    mesh = slots.local_mesh()
    return slots.run(
        apply_fn,
        solver,
        mesh,
        slots.on_all_devices(mesh, WEIGHTS),
        sources(COUNT),
        targets(COUNT),
        count=count,
        num_slots=num_slots,
        tolerance=TOLERANCE,
        advance=(lambda images: None) if heard is None else heard.append,
    )


def reference(solver=SOLVER, apply_fn=APPLY):
    return og.synthesize(
        apply_fn, WEIGHTS, sources(COUNT), targets(COUNT), solver=solver, tolerance=TOLERANCE
    )


def assert_agree(ended, expected, count=COUNT):
    np.testing.assert_allclose(ended.images[:count], expected.images[:count], atol=1e-6)
    np.testing.assert_array_equal(ended.steps[:count], expected.steps[:count])
    np.testing.assert_array_equal(ended.converged[:count], expected.converged[:count])


@pytest.mark.parametrize(("num_slots", "count"), [(1, 13), (4, 13), (4, 9), (4, 1), (16, 13)])
def test_any_number_of_slots_gives_what_synthesize_gives(num_slots, count):
    expected = reference()
    assert 0 < expected.converged.sum() < COUNT
    assert len(set(expected.steps)) > 3
    heard = []
    assert_agree(run(num_slots=num_slots, count=count, heard=heard), expected, count)
    assert sum(heard) == count
    assert max(heard) <= num_slots


def test_a_stream_needs_neither_a_mesh_nor_a_number_of_slots():
    given = (APPLY, WEIGHTS, sources(COUNT), targets(COUNT))
    heard = []
    ended = slots.stream(*given, solver=SOLVER, tolerance=TOLERANCE, advance=heard.append)
    assert_agree(ended, reference())
    assert sum(heard) == COUNT
    assert_agree(slots.stream(*given, solver=SOLVER, tolerance=TOLERANCE, num_slots=3), reference())


def test_a_stream_takes_partial_targets_and_refuses_what_synthesize_refuses():
    rows = np.ma.masked_all((COUNT, CLASSES), np.float32)
    rows[:, 0] = 0.5
    given = dict(solver=og.gauss_newton(steps=9, classes=1), tolerance=1e-4)
    ended = slots.stream(APPLY, WEIGHTS, sources(COUNT), rows, num_slots=4, **given)
    assert ended.converged.all()
    probs = og.predict(APPLY, WEIGHTS, ended.images)
    np.testing.assert_allclose(probs[:, 0], 0.5, atol=2e-4)
    with pytest.raises(ValueError, match=r"slots\.stream"):
        slots.stream(APPLY, WEIGHTS, sources(COUNT), np.full(CLASSES, 0.9), **given)


def test_free_slots_are_taken_at_once():
    """The turns are those of the best possible queue: every image takes the slot that is free first."""
    steps, heard = reference().steps, []
    run(heard=heard)
    ends = np.zeros(4, int)  # of the slots, in turns
    for used in steps:
        # An image is looked at once more than it is updated.
        ends[ends.argmin()] += used + 1
    assert len(heard) == ends.max() + 1  # the host hears of a turn one turn later


def test_no_updates_leave_the_source():
    ended = run(og.gradient_descent(optax.sgd(1.0), steps=0))
    np.testing.assert_array_equal(og.pixels.to_uint8(ended.images), sources(COUNT))
    assert ended.steps.tolist() == [0] * COUNT


def test_an_image_that_fails_leaves_alone():
    threshold = np.sort(sources(COUNT)[:, 0, 0, 0])[2] / 255

    def fails(weights, images):
        return jnp.where(images[:, 0, 0, :1] <= threshold, jnp.nan, APPLY(weights, images))

    expected = reference(apply_fn=fails)
    assert (~expected.finite).sum() >= 3
    assert expected.converged.any()
    assert_agree(run(apply_fn=fails), expected)


def test_probabilities_are_those_of_predict():
    mesh = slots.local_mesh()
    variables = slots.on_all_devices(mesh, WEIGHTS)
    probs = slots.probabilities(APPLY, mesh, variables, sources(8))
    np.testing.assert_allclose(probs, og.predict(APPLY, WEIGHTS, sources(8)), atol=1e-6)


# --- telling programs and classifiers apart ---


def test_hashes_tell_programs_and_classifiers_apart():
    image = sources(1)[0]

    def program(solver=SOLVER, apply_fn=APPLY, image=image):
        return provenance.program_hash(apply_fn, solver, WEIGHTS, image, CLASSES)

    found = [
        program(),
        program(og.gradient_descent(optax.sgd(0.9), steps=12)),
        program(og.gradient_descent(optax.sgd(1.0), steps=12, lowpass_radius=2)),
        program(og.gradient_descent(optax.sgd(1.0), steps=12, pixels=og.pixels.tanh())),
        program(apply_fn=lambda weights, images: 2 * APPLY(weights, images)),
        program(image=image / np.float32(255)),
    ]
    assert len(set(found)) == len(found)
    assert program(og.gradient_descent(optax.sgd(1.0), steps=12)) == found[0]  # built anew

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
