"""Partial targets: their completion, their way through the solvers, and how they are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import outgen_jax as og
from outgen_jax import losses
from outgen_jax.targets import partial

SHAPE = (8, 8, 3)
WEIGHTS = reference.perceptron(SHAPE, steepness=2.8)
TARGET = np.array([0.5, np.nan, 0.2, np.nan, np.nan], np.float32)
LOGITS = np.array([0.3, -1.0, 2.0, 0.5, 0.0], np.float32)


def test_free_classes_share_the_remainder_in_the_proportions_of_the_output():
    found = partial.complete(TARGET, LOGITS)
    shares = np.exp(LOGITS[[1, 3, 4]])
    np.testing.assert_allclose(found[np.array([0, 2])], [0.5, 0.2])
    np.testing.assert_allclose(found[np.array([1, 3, 4])], 0.3 * shares / shares.sum(), rtol=1e-6)
    batch = partial.complete(
        np.stack([TARGET, np.full(5, 0.2, np.float32)]), np.tile(LOGITS, (2, 1))
    )
    np.testing.assert_allclose(batch, [found, np.full(5, 0.2)])


def test_divergence_and_gradient_are_those_with_the_free_classes_as_one():
    def grouped(logits):
        rest = jax.nn.logsumexp(logits[np.array([1, 3, 4])])
        return losses.kl_divergence(
            jnp.array([logits[0], logits[2], rest]), jnp.array([0.5, 0.2, 0.3])
        )

    completed = partial.complete(TARGET, LOGITS)
    np.testing.assert_allclose(losses.kl_divergence(LOGITS, completed), grouped(LOGITS), rtol=1e-5)
    slope = jax.jit(jax.grad(losses.kl_divergence))(LOGITS, completed)
    np.testing.assert_allclose(slope, jax.jit(jax.grad(grouped))(LOGITS), atol=1e-6)


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [(og.gauss_newton(), 1e-5), (og.preset("momentum"), 0.02)],
    ids=["all classes", "descent"],
)
def test_named_classes_are_met_and_the_others_left_alone(solver, tolerance):
    images = np.random.default_rng(2).integers(0, 256, (6, *SHAPE), np.uint8)
    rows = og.targets.parse("0=0.5,2=0.2,rest=0.3", num_classes=5, num_images=6)
    result = og.synthesize(
        reference.perceptron_logits, WEIGHTS, images, rows, solver=solver, tolerance=tolerance
    )
    assert result.converged.all()
    np.testing.assert_allclose(
        result.probs[:, [0, 2]], np.tile([0.5, 0.2], (6, 1)), atol=2 * tolerance
    )
    shares = result.probs[:, [1, 3, 4]] / 0.3
    assert shares.std(0).max() > 0.02  # each image has its own
    rounded = og.quantize(reference.perceptron_logits, WEIGHTS, result.images, rows)
    probs = og.predict(reference.perceptron_logits, WEIGHTS, rounded)
    np.testing.assert_allclose(probs[:, [0, 2]], np.tile([0.5, 0.2], (6, 1)), atol=0.02)


def test_completed_targets_tell_the_distance():
    rows = og.targets.parse("0=0.5,2=0.2,rest=0.3", num_classes=5, num_images=1)
    probs = np.float32([[0.4, 0.1, 0.3, 0.2, 0.0]])
    wanted = og.targets.completed(rows, probs)
    np.testing.assert_allclose(wanted, [[0.5, 0.1, 0.2, 0.2, 0.0]], atol=1e-6)
    full = np.float32([[0.2, 0.2, 0.2, 0.2, 0.2]])
    np.testing.assert_array_equal(og.targets.completed(full, probs), full)


@pytest.mark.parametrize("probs", [[[2.0, -1.0, 0.5]], [[0.5, np.nan, 0.5]], [[40.0, 50.0, 10.0]]])
def test_what_is_no_probability_is_named(probs):
    free = np.ma.masked_invalid([0.5, np.nan, np.nan])
    with pytest.raises(
        ValueError, match=r"targets\.completed: probs must lie in \[0, 1\].*not logits"
    ):
        og.targets.completed(free, probs)


@pytest.mark.parametrize("text", ["cat=0.5,dog=0.3,rest=0.2", "cat=0.5,random=0.3,rest=0.2"])
def test_rest_needs_a_class_that_is_left(text):
    with pytest.raises(ValueError, match="names every class for image '0'"):
        og.targets.parse(text, class_names=("cat", "dog"), num_images=1)
    found = og.targets.parse("cat=0.6,dog=0.4,rest=0", class_names=("cat", "dog"), num_images=1)
    np.testing.assert_allclose(found, [[0.6, 0.4]])


def test_rest_in_a_text_and_in_a_table(tmp_path):
    rows = og.targets.parse("cat=0.6,rest=0.4", class_names=("cat", "dog", "cow"), num_images=2)
    np.testing.assert_array_equal(rows.mask, [[False, True, True]] * 2)
    np.testing.assert_allclose(rows.data[:, 0], 0.6)
    (tmp_path / "targets.csv").write_text('target\n"cat=0.6,rest=0.4"\ndog\n')
    table = og.targets.from_csv(
        tmp_path / "targets.csv", class_names=("cat", "dog", "cow"), num_images=2
    )
    np.testing.assert_array_equal(table.mask, [[False, True, True], [False, False, False]])
    np.testing.assert_allclose(table.data[1], [0, 1, 0])
    with pytest.raises(ValueError, match="'uniform' names every class and leaves none for 'rest'"):
        og.targets.parse("uniform=0.5,rest=0.5", num_classes=3, num_images=1)


def test_validation_of_masked_rows():
    masked = np.ma.masked_array([[0.5, 9.0, 0.2]], [[False, True, False]])
    np.testing.assert_allclose(
        og.targets.validate(masked, num_images=1, num_classes=3), [[0.5, np.nan, 0.2]]
    )
    over = np.ma.masked_array([[0.9, 0.0, 0.2]], [[False, True, False]])
    with pytest.raises(
        ValueError, match=r"must not sum to more than 1; row 0 sums to 1\.1\. Leave"
    ):
        og.targets.validate(over, num_images=1, num_classes=3)
    with pytest.raises(ValueError, match="must be finite"):
        og.targets.validate(np.array([[0.5, np.nan, 0.5]]), num_images=1, num_classes=3)


def test_free_classes_without_any_probability_share_evenly():
    rows = np.ma.masked_invalid([0.6, np.nan, np.nan])
    wanted = og.targets.completed(rows, np.float32([[1, 0, 0]]))
    np.testing.assert_allclose(wanted, [[0.6, 0.2, 0.2]], rtol=1e-6)
