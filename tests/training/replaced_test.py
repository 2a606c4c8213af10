"""Generated images take the rows they were made from, or are refused."""

import json

import numpy as np
import optax
import pytest
import toy_dataset
from toy_synthesis import APPLY, WEIGHTS

import outgen_jax as og
from outgen_jax.data.image_source import ImageSource
from outgen_jax.generation import provenance
from outgen_jax.training import replaced

COUNT, NAMES = 10, ("ant", "bee", "cow")
RNG = np.random.default_rng(0)
SOURCE = ImageSource(
    RNG.integers(0, 200, (COUNT, 4, 4, 3), np.uint8),
    (np.arange(COUNT) % 3).astype(np.int32),
    NAMES,
    tuple(f"row{row}" for row in range(COUNT)),
)
ORDER = np.array([7, 2, 9, 0, 4])
PROBS = RNG.dirichlet(np.ones(3), len(ORDER)).astype(np.float32)
GENERATED = replaced.GeneratedSet(
    SOURCE.images[ORDER] + np.uint8(50),
    SOURCE.labels[ORDER],
    tuple(SOURCE.ids[row] for row in ORDER),
    PROBS,
    NAMES,
    "a1b2c3",
)


def test_rows_are_found_by_id():
    rows = replaced.rows_of(GENERATED, SOURCE, classifier="a1b2c3")
    np.testing.assert_array_equal(rows, ORDER)


@pytest.mark.parametrize(("fraction", "count"), [(0, 0), (0.2, 2), (0.34, 3), (0.5, 5)])
def test_the_right_rows_are_replaced(fraction, count):
    found = replaced.replace(SOURCE, GENERATED, ORDER, fraction)
    chosen = ORDER[:count]
    others = np.setdiff1d(np.arange(COUNT), chosen)
    np.testing.assert_array_equal(np.flatnonzero(found.generated), np.sort(chosen))
    np.testing.assert_array_equal(found.images[chosen], SOURCE.images[chosen] + 50)
    np.testing.assert_array_equal(found.images[others], SOURCE.images[others])
    probs = np.exp(found.teacher_logits[chosen])
    np.testing.assert_allclose(probs, PROBS[:count], rtol=1e-6)
    np.testing.assert_array_equal(found.teacher_logits[others], 0)
    assert found.images is not SOURCE.images


def test_a_probability_of_0_stays_finite():
    certain = GENERATED._replace(probs=np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]])
    logits = replaced.replace(SOURCE, certain, ORDER, 0.5).teacher_logits
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(np.exp(logits[ORDER]), certain.probs, atol=1e-30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier": "ffff"}, r"made with another classifier \(ffff..., not a1b2c3"),
        ({"class_names": ("ant", "bee", "dog")}, "other classes .*ant, bee, dog"),
        ({"ids": ("row7", "row2", "x9", "row0", "x4")}, "another data set: 2 of its 5 ids .*'x9'"),
        ({"labels": SOURCE.labels[[7, 2, 8, 0, 4]]}, "'row9' has 2 there and 0 .*1 differ"),
        ({"images": np.zeros((5, 8, 8, 3), np.uint8)}, r"images of \[8, 8, 3\], .* of \[4, 4, 3\]"),
    ],
    ids=["classifier", "classes", "data set", "labels", "size"],
)
def test_a_set_made_otherwise_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replaced.rows_of(GENERATED._replace(**change), SOURCE, classifier="a1b2c3")


def test_a_training_set_without_labels_is_refused():
    with pytest.raises(ValueError, match="has no labels"):
        replaced.rows_of(GENERATED, SOURCE._replace(labels=None), classifier="a1b2c3")


def test_too_few_generated_images_are_refused():
    with pytest.raises(ValueError, match=r"0.6 of 10 images needs 6 generated ones; there are 5"):
        replaced.replace(SOURCE, GENERATED, ORDER, 0.6)


@pytest.mark.parametrize("fraction", [-0.1, 1.2, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match=r"replace: fraction must lie in \[0, 1\]"):
        replaced.replace(SOURCE, GENERATED, ORDER, fraction)


def test_generated_images_of_another_size_are_refused():
    small = GENERATED._replace(images=GENERATED.images[:, :3])
    with pytest.raises(ValueError, match=r"are \[3, 4, 3\] and those of the source \[4, 4, 3\]"):
        replaced.replace(SOURCE, small, ORDER, fraction=0.1)


def test_a_set_that_was_made_is_loaded(tmp_path):
    directory = tmp_path / "set"
    toy_dataset.make(directory)
    found = replaced.load(str(directory))
    source = toy_dataset.SOURCE
    assert found.ids == source.ids
    assert found.class_names == source.class_names
    np.testing.assert_array_equal(found.labels, source.labels)
    np.testing.assert_allclose(found.probs, og.predict(APPLY, WEIGHTS, found.images), atol=1e-6)
    assert (found.images != source.images).any()
    rows = replaced.rows_of(found, source, classifier=provenance.classifier_hash(WEIGHTS))
    np.testing.assert_array_equal(rows, np.arange(len(source.ids)))

    manifest = directory / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({"made_from": whole["made_from"]}))
    with pytest.raises(FileNotFoundError, match=r"unfinished data set .*same call again"):
        replaced.load(directory)
    whole["made_from"]["kinds"] = ["Sigmoid()"]
    manifest.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"kind Sigmoid\(\); .*softmax\(\)"):
        replaced.load(directory)


@pytest.mark.parametrize(("names", "labelled"), [(toy_dataset.NAMES, False), (None, True)])
def test_a_set_of_images_without_names_or_labels_is_loaded(tmp_path, names, labelled):
    source = toy_dataset.SOURCE._replace(class_names=names)
    source = source if labelled else source._replace(labels=None)
    solver = og.gradient_descent(optax.sgd(1.0), steps=1)
    target = np.full(5, 1 / 5)
    og.generate_dataset(APPLY, WEIGHTS, source, target, tmp_path / "set", solver=solver)
    found = replaced.load(tmp_path / "set")
    assert found.class_names == names
    expected = source.labels if labelled else np.full(len(source.ids), -1)
    np.testing.assert_array_equal(found.labels, expected)


def test_a_folder_without_a_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no data set of og\.generate_dataset"):
        replaced.load(tmp_path)
