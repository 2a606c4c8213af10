"""Target texts and tables for labels and numbers."""

import numpy as np
import pytest
from toy_synthesis import linear, linear_weights, sources

import outgen_jax as og

NAMES = ("cat", "dog", "person", "car")
LABELS = {"class_names": NAMES, "output": og.outputs.sigmoid()}
NUMBERS = {"class_names": ("angle", "row"), "output": og.outputs.values(), "num_images": 2}


def shown(targets: np.ndarray) -> list:
    return np.ma.filled(targets.astype(np.float64).round(6), np.nan).tolist()


def test_labels_have_values_of_their_own_and_others_are_free():
    found = og.targets.parse("cat=0.9, person=0.2", num_images=2, **LABELS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(shown(found), [[0.9, np.nan, 0.2, np.nan]] * 2)


def test_rest_is_all_that_is_not_named():
    found = og.targets.parse("dog=1,rest=0.25", num_images=1, **LABELS)
    assert shown(found) == [[0.25, 1, 0.25, 0.25]]
    assert not np.ma.is_masked(found)


def test_words_stand_for_labels_of_the_image():
    options = {"labels": [1, 3], "source_probs": [[0.9, 0.1, 0, 0], [0, 0.2, 0.7, 0.8]], **LABELS}
    found = og.targets.parse("true=0.5,runnerup=0", **options)
    np.testing.assert_array_equal(
        shown(found), [[0, 0.5, np.nan, np.nan], [np.nan, np.nan, 0, 0.5]]
    )
    drawn = og.targets.parse("random=1,random=0.5", **options)
    for row, label in zip(drawn, options["labels"], strict=True):
        assert sorted(row.compressed()) == [0.5, 1]
        assert np.ma.getmaskarray(row)[label]


def test_numbers_may_be_negative():
    found = og.targets.parse("angle=-1.5", **NUMBERS)
    np.testing.assert_array_equal(shown(found), [[-1.5, np.nan]] * 2)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("cat=1.2", LABELS, r"must lie in \[0, 1\]; 'cat' has 1.2"),
        ("cat=-0.1", LABELS, r"must lie in \[0, 1\]; 'cat' has -0.1"),
        ("cat=0.5,cat=0.6", LABELS, "'cat' is named twice"),
        ("cat=0.5,0=0.6", LABELS, "two names of .* mean entry 0 on image '0'"),
        ("uniform", LABELS, "'uniform' is a word for distributions"),
        ("bird=1", LABELS, "no class 'bird'"),
        ("angle=inf", NUMBERS, "numbers must be finite in float32; 'angle' has inf"),
        ("angle=1e39", NUMBERS, "numbers must be finite in float32; 'angle' has 1e\\+39"),
        ("top=1", NUMBERS, "'top' is a word for distributions"),
        ("cat=0.9,person=0.2", {"class_names": NAMES}, r"output=og.outputs.sigmoid\(\)"),
    ],
)
def test_texts_that_cannot_be_are_refused(text, options, message):
    with pytest.raises(ValueError, match=rf"^targets.parse: .*{message}"):
        og.targets.parse(text, **{"num_images": 2, **options})


def test_a_table_cell_that_is_no_number_is_not_a_free_one(tmp_path):
    path = tmp_path / "targets.csv"
    path.write_text("car,cat\n0.7,\nnan,1\n")
    with pytest.raises(ValueError, match="row 3 has nan for entry 3"):
        og.targets.from_csv(path, num_images=2, **LABELS)


def test_a_table_may_hold_texts_or_a_column_a_label(tmp_path):
    path = tmp_path / "targets.csv"
    path.write_text('id,target\nb,"cat=1,rest=0"\na,person=0.5\n')
    options = {"image_ids": ["a", "b"], **LABELS}
    np.testing.assert_array_equal(
        shown(og.targets.from_csv(path, **options)), [[np.nan, np.nan, 0.5, np.nan], [1, 0, 0, 0]]
    )
    path.write_text("car,cat\n0.7,\n0,1\n")
    np.testing.assert_array_equal(
        shown(og.targets.from_csv(path, **options)),
        [[np.nan, np.nan, np.nan, 0.7], [1, np.nan, np.nan, 0]],
    )
    path.write_text("car,cat\n0.7,\n0,1.5\n")
    with pytest.raises(ValueError, match=r"targets.from_csv: .* row 3 has 1.5 for entry 0"):
        og.targets.from_csv(path, **options)


def test_a_table_of_values_is_always_masked(tmp_path):
    """Also where all of its texts name all entries."""
    path = tmp_path / "targets.csv"
    path.write_text("target\nrest=0.5\nrest=0\n")
    found = og.targets.from_csv(path, num_images=2, **LABELS)
    assert isinstance(found, np.ma.MaskedArray)
    np.testing.assert_array_equal(shown(found), [[0.5] * 4, [0] * 4])


class Grades(type(og.outputs.values())):
    """Numbers in a range of their own."""

    bounds = (0, 5)


def test_the_bounds_of_a_kind_of_ones_own_are_named(tmp_path):
    options = {"class_names": NAMES, "output": Grades(), "num_images": 1}
    found = og.targets.parse("cat=5", **options)
    np.testing.assert_array_equal(shown(found), [[5, np.nan, np.nan, np.nan]])
    with pytest.raises(ValueError, match=r"numbers must lie in \[0, 5\]; 'cat' has 7"):
        og.targets.parse("cat=7", **options)
    path = tmp_path / "targets.csv"
    path.write_text("cat\n7\n")
    with pytest.raises(ValueError, match=r"must lie in \[0, 5\]; row 2 has 7 for entry 0. Correct"):
        og.targets.from_csv(path, **options)


@pytest.mark.parametrize("output", [og.outputs.sigmoid, "sigmoid", {"a": og.outputs.sigmoid()}])
def test_what_is_no_kind_of_output_is_named(output):
    with pytest.raises(ValueError, match=r"output must be one of og\.outputs, such as .* Call it"):
        og.targets.parse("cat=1", class_names=NAMES, num_images=1, output=output)


def test_such_targets_go_through_synthesize():
    targets = og.targets.parse("cat=0.9,person=0.2", num_images=1, **LABELS)
    weights, images = linear_weights(4), sources(1)
    result = og.synthesize(linear, weights, images, targets, output=og.outputs.sigmoid())
    assert result.converged.all()
    np.testing.assert_allclose(1 / (1 + np.exp(-result.outputs[0, [0, 2]])), [0.9, 0.2], atol=2e-5)
