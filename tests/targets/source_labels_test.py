"""Labels of a source with its own list of classes, matched to the classifier's by name."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outgen_jax import targets
from outgen_jax.data.sources import ImageSource

CLASSES = ("airplane", "bird", "cat", "dog", "ship")


def source(labels: Any, class_names: Any = ("cat", "ship"), ids: Any = None) -> ImageSource:
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    ids = tuple("abcdefgh"[: len(labels)]) if ids is None else ids
    return ImageSource(images, np.array(labels, np.int32), class_names, ids)


def classes_of(found: np.ndarray) -> list[int]:
    np.testing.assert_array_equal(found.sum(1), 1)
    return np.argmax(found, axis=1).tolist()


@pytest.mark.parametrize(
    ("own", "labels", "expected"),
    [
        (("cat", "ship"), [0, 1, 0], [2, 4, 2]),
        (("Cat", "SHIP"), [0, 1, 0], [2, 4, 2]),
        (CLASSES, [3, 0], [3, 0]),
        (None, [3, 0], [3, 0]),
        (("frog", "dog"), [1, 1], [3, 3]),  # no image of a frog: no matter
    ],
)
def test_labels_are_matched_by_name(own: Any, labels: list[int], expected: list[int]) -> None:
    found = targets.parse("true", source=source(labels, own), class_names=CLASSES)
    assert classes_of(found) == expected


def test_accents_may_be_written_either_way() -> None:
    pictures = source([0], ("cafe\u0301",))
    assert classes_of(targets.parse("true", source=pictures, class_names=("a", "caf\u00e9"))) == [1]


def test_a_name_in_its_own_case_comes_first() -> None:
    names = ("crane", "Crane")
    pictures = source([1, 0], ("crane", "Crane"))
    assert classes_of(targets.parse("true", source=pictures, class_names=names)) == [1, 0]
    with pytest.raises(ValueError, match=r"'CRANE' is the name of classes 0 and 1\. Give labels"):
        targets.parse("true", source=source([0], ("CRANE",)), class_names=names)
    # Two cranes among the classes are no matter where both lists are the same.
    twice = ("crane", "crane")
    assert classes_of(targets.parse("true", source=source([1, 0], twice), class_names=twice)) == [
        1,
        0,
    ]


def test_a_class_that_the_classifier_lacks_is_named_and_the_remedies_work() -> None:
    pictures = source([0, 1, 2, 0], ("frog", "cat", "horse"))
    message = "it lacks the source's 'frog', 'horse'. Rename them with source._replace(class_names="
    with pytest.raises(ValueError, match=re.escape(message)):
        targets.parse("true=0.9,dog=0.1", source=pictures, class_names=CLASSES)
    renamed = pictures._replace(class_names=("bird", "cat", "dog"))
    assert classes_of(targets.parse("true", source=renamed, class_names=CLASSES)) == [1, 2, 3, 1]
    kept = pictures.take([1])
    assert classes_of(targets.parse("true", source=kept, class_names=CLASSES)) == [2]
    probs = np.eye(5)[[0, 1, 2, 3]]
    found = targets.parse("top", source=pictures, class_names=CLASSES, source_probs=probs)
    assert classes_of(found) == [0, 1, 2, 3]


def test_an_image_without_a_label_is_named() -> None:
    pictures = source([0, -1], ("cat", "ship"))
    with pytest.raises(ValueError, match="label of every image; 'b' has none"):
        targets.parse("true", source=pictures, class_names=CLASSES)
    assert classes_of(targets.parse("true", source=pictures.take([0]), class_names=CLASSES)) == [2]
    unlabelled = pictures._replace(labels=None)
    with pytest.raises(ValueError, match="'true' needs labels and there are none"):
        targets.parse("true", source=unlabelled, class_names=CLASSES)


def test_random_and_runnerup_where_the_class_is_not_there() -> None:
    count = 400
    ids = tuple(map(str, range(count)))
    pictures = source([0, 1] * (count // 2), ("cat", "frog"), ids)
    found = targets.parse("random", source=pictures, class_names=CLASSES)
    drawn = np.argmax(found, axis=1)
    assert set(drawn[::2]) == {0, 1, 3, 4}  # never a cat for a cat
    assert set(drawn[1::2]) == {0, 1, 2, 3, 4}  # anything for a frog
    probs = np.tile([0.0, 0.1, 0.6, 0.3, 0.0], (count, 1))
    found = targets.parse("runnerup", source=pictures, class_names=CLASSES, source_probs=probs)
    assert set(np.argmax(found, axis=1)) == {3}  # for a frog other than the first, a cat
    labelled = targets.parse("random", labels=[2], image_ids=["0"], class_names=CLASSES)
    np.testing.assert_array_equal(
        targets.parse("random", source=pictures.take([0]), class_names=CLASSES), labelled
    )


def test_a_table_is_read_by_the_ids_of_the_source(tmp_path: Path) -> None:
    path = tmp_path / "targets.csv"
    path.write_text("id,target\nb,true\na,dog\n")
    pictures = source([1, 0])
    found = targets.from_csv(path, source=pictures, class_names=CLASSES)
    assert classes_of(found) == [3, 2]
    path.write_text("id,target\nb,true\na,dog\n")
    with pytest.raises(
        ValueError, match=r"row 2: 'true' needs classes .* lacks the source's 'frog'"
    ):
        targets.from_csv(path, source=source([1, 0], ("frog", "cat")), class_names=CLASSES)


def test_ids_that_repeat_among_the_images_are_told_from_those_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "targets.csv"
    path.write_text("id,target\na,cat\na,dog\n")
    pictures = source([0, 0], ids=("a", "a"))
    with pytest.raises(ValueError, match=r"'a', in row 2, is the id of several images"):
        targets.from_csv(path, source=pictures, class_names=CLASSES)
    path.write_text("id,target\na,cat\n")
    with pytest.raises(ValueError, match="is the id of several images"):
        targets.from_csv(path, source=pictures, class_names=CLASSES)
    path.write_text("target\ncat\ndog\n")  # what the message asks for
    found = targets.from_csv(path, source=pictures, class_names=CLASSES)
    assert classes_of(found) == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"labels": [2, 3]},
            "labels and source contradict each other: .*3.* and .*4.* image 1 .'b'",
        ),
        (
            {"image_ids": ["a", "c"]},
            r"image_ids and source .*'c' and 'b' for image 1.*Leave image_ids out",
        ),
        ({"num_images": 3}, "agree on the number of images; found num_images 3, source 2"),
        ({"labels": [1]}, "agree on the number of images; found labels 1, source 2"),
        ({"source_probs": np.ones((3, 5))}, "found source_probs 3, source 2"),
        (
            {"class_names": None, "num_classes": 5},
            "number its own classes .'cat', ....*Give class_names",
        ),
        ({"source": np.zeros((2, 4, 4, 3))}, "must be an ImageSource, .* it is a ndarray"),
        ({"source": source([0, 2])}, r"must be 0 to 1, or -1 for none; image 'b' has 2"),
        ({"source": source([0, 5], None)}, r"must be 0 to 4, or -1 for none; image 'b' has 5"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"source": source([0, 1]), "class_names": CLASSES} | arguments
    with pytest.raises(ValueError, match=rf"^targets\.parse: .*{message}"):
        targets.parse("true", **given)


def test_arguments_that_agree_are_taken() -> None:
    found = targets.parse(
        "true",
        source=source([0, 1]),
        class_names=CLASSES,
        labels=[2, 4],
        image_ids=["a", "b"],
        num_images=2,
        num_classes=5,
    )
    assert classes_of(found) == [2, 4]


def test_class_names_may_be_an_array() -> None:
    own = np.array(["cat", "ship"])
    for names in (own, np.array(CLASSES)):
        for class_names in (own, None):
            images = source([1, 0], class_names)
            found = targets.parse("true", source=images, class_names=names)
            place = list(names).index
            wanted = [1, 0] if class_names is None else [place("ship"), place("cat")]
            assert classes_of(found) == wanted


def test_a_source_with_fewer_ids_than_images_is_refused():
    pictures = source([0, 1], ("cat", "dog"))._replace(ids=("a",))
    with pytest.raises(ValueError, match="source has 2 images, 2 labels and 1 ids"):
        targets.parse("true", source=pictures, class_names=("cat", "dog"))
