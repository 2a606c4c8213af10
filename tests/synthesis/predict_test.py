"""What a network says, in the terms of its outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from toy_synthesis import APPLY, WEIGHTS, sources

import outgen_jax as og
from outgen_jax.synthesis import predict

LOGITS = np.asarray(APPLY(WEIGHTS, sources(5) / np.float32(255)))


@pytest.mark.parametrize("batch_size", [None, 1, 2, 100])
def test_probabilities_of_a_classifier_in_batches_of_any_size(batch_size):
    found = og.predict(APPLY, WEIGHTS, sources(5), batch_size=batch_size)
    np.testing.assert_allclose(found, scipy.special.softmax(LOGITS, -1), atol=1e-6)
    assert found.dtype == np.float32


def test_the_devices_hold_two_batches_at_most(monkeypatch):
    outputs, held = predict._outputs, []

    def watched(*args, **options):
        held.append(sum(array.shape == (1, 1, 5) for array in jax.live_arrays()))
        return outputs(*args, **options)

    monkeypatch.setattr(predict, "_outputs", watched)
    og.predict(APPLY, WEIGHTS, sources(5), batch_size=1)
    assert len(held) == 5
    assert max(held) - held[0] == 1  # and the one that is called for


def test_outputs_are_read_a_few_rows_at_a_time(monkeypatch):
    whole, readout, calls = (
        og.predict(APPLY, WEIGHTS, sources(5)),
        type(og.outputs.softmax()).readout,
        [],
    )

    def watched(kind, output):
        calls.append(output)
        return readout(kind, output)

    monkeypatch.setattr(predict, "_NUMBERS_AT_ONCE", 10)
    monkeypatch.setattr(type(og.outputs.softmax()), "readout", watched)
    found = og.predict(APPLY, WEIGHTS, sources(5))
    assert len(calls) == 3  # two rows of five numbers, twice, and one
    np.testing.assert_allclose(found, whole, rtol=1e-6)


def test_every_kind_of_output_in_the_networks_own_tree():
    def network(weights, images):
        logits = APPLY(weights, images)
        return {"a": logits, "b": [logits[:, None, :2].astype(jnp.bfloat16), logits]}

    kinds = {"a": og.outputs.softmax(), "b": [og.outputs.sigmoid(), og.outputs.values(scale=9)]}
    found = og.predict(network, WEIGHTS, sources(5), output=kinds)
    np.testing.assert_allclose(found["a"], scipy.special.softmax(LOGITS, -1), atol=1e-6)
    labels = scipy.special.expit(LOGITS[:, None, :2])
    np.testing.assert_allclose(found["b"][0], labels, atol=1e-2)
    np.testing.assert_allclose(found["b"][1], LOGITS, rtol=1e-5, atol=1e-5)  # not in units of scale
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


def test_the_network_is_traced_at_the_precision_asked_for():
    """At full precision, as on accelerators outputs are not exact otherwise; None leaves it to the user."""

    def precision_of(**options):
        seen = []

        def network(weights, images):
            seen.append(jax.config.jax_default_matmul_precision)
            return APPLY(weights, images)

        og.predict(network, WEIGHTS, sources(1), **options)
        return seen[-1]

    assert precision_of() == "highest"
    assert precision_of(precision="bfloat16") == "bfloat16"
    with jax.default_matmul_precision("tensorfloat32"):
        assert precision_of(precision=None) == "tensorfloat32"
        assert precision_of() == "highest"
    seen = []

    def network(weights, images):
        seen.append(jax.config.jax_default_matmul_precision)
        return APPLY(weights, images)

    solver = og.gauss_newton(steps=1)
    rows = np.full(5, 0.2)
    for call in (
        lambda: og.synthesize(network, WEIGHTS, sources(1), rows, solver=solver),
        lambda: og.quantize(network, WEIGHTS, sources(1), rows, rounds=1),
    ):
        seen.clear()
        call()
        # What only looks at shapes may be traced as the user has it.
        assert seen.count("highest") >= len(seen) - 2 > 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (sources(1)[0], r"predict: images must be \[B, H, W, C\], at least one"),
        (np.full((1, 8, 6, 3), 2.0), r"predict: float images must lie in \[0, 1\]"),
        (sources(0), r"predict: images must be .*, at least one, got \[0, "),
        (sources(1)[:, :4], "predict: apply_fn.* fails on images of shape"),
    ],
)
def test_bad_images_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        og.predict(APPLY, WEIGHTS, images)


def test_a_bad_precision_is_named():
    with pytest.raises(
        ValueError, match=r"^predict: precision must be .* got 'full'; pass 'highest'"
    ):
        og.predict(APPLY, WEIGHTS, sources(1), precision="full")


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [(-1, "must be at least 1, got -1"), (2.5, "must be an integer, got")],
)
def test_bad_batch_sizes_are_named(batch_size, message):
    with pytest.raises(ValueError, match=rf"^predict: batch_size {message}"):
        og.predict(APPLY, WEIGHTS, sources(2), batch_size=batch_size)
