"""Targets: values, the grammar of the text and every way either can be wrong."""

import re
from typing import Any

import numpy as np
import pytest

from outgen_jax import targets

PETS = ("cat", "dog", "tiger cat", "ship", "Crane", "crane")


def one_hot(*classes: int, num_classes: int = len(PETS)) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[list(classes)]


# validate


def test_validate_spreads_one_row_over_all_images() -> None:
    found = targets.validate([0.9, 0.1], num_images=3, num_classes=2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[0.9, 0.1]] * 3, np.float32))


def test_validate_divides_by_the_sum_of_each_row() -> None:
    found = targets.validate([[0.333, 0.333, 0.333], [1.0009, 0, 0]], num_images=2, num_classes=3)
    np.testing.assert_allclose(found, np.array([[1 / 3] * 3, [1, 0, 0]]), rtol=1e-7)


def test_validate_returns_a_copy() -> None:
    given_rows = one_hot(0, 1)
    targets.validate(given_rows, num_images=2, num_classes=6)[:] = 0
    np.testing.assert_array_equal(given_rows, one_hot(0, 1))


def test_validate_accepts_no_images() -> None:
    assert targets.validate(np.empty((0, 2)), num_images=0, num_classes=2).shape == (0, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 0], [1, 0], [1, 0], [0.87, 0]], "row 3 sums to 0.87. Normalise them or use og"),
        ([[0.9985, 0]] * 4, "row 0 sums to 0.9985"),
        ([[1.0015, 0]] * 4, "row 0 sums to 1.0015"),
        ([[1, 0], [1.5, -0.5], [1, 0], [1, 0]], "row 1 has -0.5 for class 1"),
        ([[1, 0], [1, 0], [np.nan, 1], [1, 0]], "be finite; row 2 has nan for class 0"),
        ([[np.inf, 0]] * 4, "be finite; row 0 has inf"),
        ([1.0, 0, 0], r"shape \[2\] or \[4, 2\] for 4 images and 2 classes; they have \[3\]"),
        ([[1.0, 0]] * 3, r"they have \[3, 2\]"),
        ([[[1.0, 0]]] * 4, r"they have \[4, 1, 2\]"),
        ([[1.0, 0], [1.0]], "be an array of numbers .*inhomogeneous"),
        ("cat=1", "be an array of numbers .* Use og.targets.parse to turn text"),
    ],
)
def test_validate_names_what_is_wrong(rows: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^synthesize: targets must .*{message}"):
        targets.validate(rows, num_images=4, num_classes=2, caller="synthesize")  # type: ignore[arg-type]


# parse: names and weights


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat=0.6,dog=0.4", [0.6, 0.4, 0, 0, 0, 0]),
        (" cat = 0.6 ,\tdog=.4 ", [0.6, 0.4, 0, 0, 0, 0]),
        ("tiger cat=0.5,3=5e-1", [0, 0, 0.5, 0.5, 0, 0]),
        ("Crane=0.25,crane=0.75", [0, 0, 0, 0, 0.25, 0.75]),
        ("TIGER CAT=1", [0, 0, 1, 0, 0, 0]),
        ("uniform", [1 / 6] * 6),
        ("ship", [0, 0, 0, 1, 0, 0]),
        ("uniform=0.3,cat=0.7", [0.75, 0.05, 0.05, 0.05, 0.05, 0.05]),
        ("cat=0.5,dog=0.25,cat=0.25", [0.75, 0.25, 0, 0, 0, 0]),
        ("cat=0.333,dog=0.333,ship=0.333", [1 / 3, 1 / 3, 0, 1 / 3, 0, 0]),
    ],
)
def test_parse_reads_names_and_weights(text: str, expected: list[float]) -> None:
    found = targets.parse(text, class_names=PETS, num_images=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-6)


def test_true_is_each_label_and_adds_up_with_the_class_of_that_name() -> None:
    found = targets.parse("true=0.5,cat=0.5", class_names=PETS, labels=[0, 3])
    np.testing.assert_allclose(found, 0.5 * (one_hot(0, 3) + one_hot(0, 0)))


def test_a_class_name_goes_before_the_index_and_the_index_before_another_case() -> None:
    found = targets.parse("2=0.5,0=0.5", class_names=("1", "2", "3"), num_images=1)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0]])


def test_a_class_called_like_a_word_is_reached_by_its_index() -> None:
    context = {"class_names": ("false", "true"), "labels": [0]}
    np.testing.assert_array_equal(targets.parse("true", **context), [[1, 0]])  # type: ignore[arg-type]
    np.testing.assert_array_equal(targets.parse("1", **context), [[0, 1]])  # type: ignore[arg-type]


PROBS = [[0.1, 0.6, 0.3], [0.7, 0.1, 0.2]]


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("top", None, [1, 0]),
        ("top", [2, 2], [1, 0]),
        ("runnerup", None, [2, 2]),
        ("runnerup", [1, 2], [2, 0]),  # the second image is misclassified: the rival is its top
        ("runnerup=1,top=0", [1, 2], [2, 2]),
    ],
)
def test_top_and_runnerup(text: str, labels: list[int] | None, expected: list[int]) -> None:
    found = targets.parse(text, num_classes=3, labels=labels, source_probs=PROBS)
    np.testing.assert_array_equal(found, one_hot(*expected, num_classes=3))


def test_parse_leaves_its_arguments_alone() -> None:
    probs, labels = np.array(PROBS, np.float32), np.array([1, 0])
    targets.parse("true=0.5,runnerup=0.5", num_classes=3, labels=labels, source_probs=probs)
    targets.parse("top=0.5,random=0.5", num_classes=3, labels=labels, source_probs=probs)
    np.testing.assert_array_equal(probs, np.array(PROBS, np.float32))
    np.testing.assert_array_equal(labels, [1, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("catt=1", "no class 'catt'; did you mean 'cat'? Classes: cat, dog, tiger cat, ship"),
        ("randon=1", "no class 'randon'; did you mean 'random'?"),
        ("zebu=1", "no class 'zebu'. Classes: cat, dog"),
        ("6=1", "no class '6'"),
        ("-1=1", "no class '-1'"),
        ("CRANE=1", "'CRANE' is the name of classes 4 and 5. Write the index"),
        ("", "expected name=weight, got ''. Write pairs such as"),
        ("cat=1,", "expected name=weight, got ''"),
        ("cat,dog", "expected name=weight, got 'cat'"),
        ("cat=1=1", "expected name=weight, got 'cat=1=1'"),
        ("cat=most", "expected name=weight, got 'cat=most'"),
        ("cat=60%,dog=40%", "expected name=weight, got 'cat=60%'. Write 0.6 for 60%"),
        ("cat=1.5,dog=-0.5", "weights must be 0 or more; 'dog' has -0.5"),
        ("cat=nan", "weights must be 0 or more; 'cat' has nan"),
        ("cat=inf", "weights must be 0 or more; 'cat' has inf"),
        ("cat=0.6,dog=0.3", "weights must sum to 1; those of 'cat=0.6,dog=0.3' sum to 0.9."),
        ("true=1", "'true' needs labels and there are none. Give labels, or write 'top'"),
        ("runnerup=1", "'runnerup' needs the classifier's output on the source images. Give"),
        ("top=1", "'top' needs the classifier's output on the source images. Give source_probs"),
    ],
)
def test_parse_names_what_is_wrong_in_the_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('targets.parse: ' + message)}"):
        targets.parse(text, class_names=PETS, num_images=2)


def test_long_lists_of_classes_are_cut_and_repeated_names_refused() -> None:
    names = [f"name {i}" for i in range(999)] + ["crane", "crane"]
    with pytest.raises(ValueError, match=r"name 0, .*, name 9, \.\.\. \(1000 in all\)$"):
        targets.parse("zebu", class_names=names, num_images=1)
    with pytest.raises(ValueError, match="'crane' is the name of classes 999 and 1000"):
        targets.parse("crane", class_names=names, num_images=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 3}, "the number of images is not known. Give num_images or labels or"),
        ({"num_images": 3}, "the number of classes is not known. Give class_names or num_classes"),
        (
            {"num_classes": 3, "class_names": ("a", "b"), "num_images": 1},
            "agree on the number of classes; found class_names 2, num_classes 3",
        ),
        (
            {"num_classes": 3, "labels": [0, 1], "image_ids": ["a", "b", "c"]},
            "agree on the number of images; found labels 2, image_ids 3",
        ),
        ({"class_names": (), "num_images": 1}, "there must be a class to name; there are 0"),
        ({"num_classes": 3, "labels": [0, 3]}, "labels must be 0 to 2; image 1 has 3"),
        ({"num_classes": 3, "labels": [-1, 0]}, "labels must be 0 to 2; image 0 has -1"),
        ({"num_classes": 3, "labels": [0.0]}, "labels must be int [B]; they are float64 [1]"),
        ({"num_classes": 3, "labels": [[0], [1]]}, "labels must be int [B]; they are int64 [2, 1]"),
        (
            {"num_classes": 3, "source_probs": [[0.5, 0.5]]},
            "source_probs must be [B, 3] and finite; they are [1, 2] with 0 values",
        ),
        (
            {"num_classes": 2, "source_probs": [[np.nan, 0.5]]},
            "source_probs must be [B, 2] and finite; they are [1, 2] with 1 values not finite",
        ),
        (
            {"num_classes": 3, "num_images": 1, "seed": 0.5},
            "seed must be an integer; it is a float",
        ),
        ({"class_names": "cat", "num_images": 1}, "class_names must be a sequence of names, got"),
        ({"num_classes": 3, "num_images": -1}, "num_images must not be negative; it is -1"),
        ({"num_classes": 3, "num_images": 1.5}, "num_images must be an integer, got 1.5"),
        ({"num_classes": 3.5, "num_images": 1}, "num_classes must be an integer, got 3.5"),
    ],
)
def test_parse_names_what_is_wrong_with_the_arguments(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^targets.parse: .*{re.escape(message)}"):
        targets.parse("random", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [["cat=1", "dog=1"], 0.5, {"cat": 1.0}, None])
def test_what_is_no_text_is_named(text: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^targets\.parse: text must be one text .* got a .*from_csv"
    ):
        targets.parse(text, class_names=("cat", "dog"), num_images=2)


def test_names_without_class_names_ask_for_them() -> None:
    with pytest.raises(ValueError, match="Write an index from 0 to 2, or give class_names"):
        targets.parse("cat=1", num_classes=3, num_images=1)
