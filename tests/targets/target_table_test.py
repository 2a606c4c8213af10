"""Targets from a CSV table: order, ids, both layouts and every way the table can be wrong."""

import re
from pathlib import Path

import numpy as np
import pytest

from outgen_jax import targets

PETS = ("cat", "dog", "tiger cat", "ship", "Crane", "crane")
PROBS = [[0.1, 0.6, 0.3], [0.7, 0.1, 0.2]]


def one_hot(*classes: int, num_classes: int = len(PETS)) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[list(classes)]


def write(directory: Path, text: str, encoding: str = "utf-8") -> Path:
    path = directory / "targets.csv"
    path.write_text(text, encoding=encoding, newline="")
    return path


def test_from_csv_reads_a_column_per_class(tmp_path: Path) -> None:
    path = write(tmp_path, "dog,0, TIGER CAT\r\n0.25,,0.75\r\n\r\n0,1,0\r\n", "utf-8-sig")
    found = targets.from_csv(path, class_names=PETS, num_images=2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[0, 0.25, 0.75, 0, 0, 0], one_hot(0)[0]]))


def test_a_table_may_lie_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "0,1\n0.25,0.75\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = targets.from_csv("~/targets.csv", num_classes=2, num_images=1)
    np.testing.assert_array_equal(found, [[0.25, 0.75]])


def test_from_csv_reads_a_column_of_text_in_the_order_of_the_ids(tmp_path: Path) -> None:
    text = '"true=0.9,random=0.1"'
    path = write(tmp_path, f"ID,target\n12,{text}\n11,dog\n10,{text}\n")
    ids, labels = [10, 11, 12], [3, 0, 1]
    found = targets.from_csv(path, class_names=PETS, labels=labels, image_ids=ids, seed=4)
    expected = targets.parse(
        text.strip('"'), class_names=PETS, labels=labels, image_ids=ids, seed=4
    )
    expected[1] = one_hot(1)
    np.testing.assert_array_equal(found, expected)


def test_from_csv_gives_each_row_its_own_source_probabilities(tmp_path: Path) -> None:
    path = write(tmp_path, "id,target\n1,top\n0,runnerup\n")
    found = targets.from_csv(path, num_classes=3, source_probs=PROBS)
    np.testing.assert_array_equal(found, one_hot(2, 0, num_classes=3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target\ncat\n", "one row per image below its header; it has 1 for 2 images"),
        ("id,target\na,cat\na,dog\n", "ids must not repeat; 'a' is in rows 2 and 3"),
        ("id,target\na,cat\n", "every image must have a row; there is none for 'b'. Add"),
        ("id,target\na,cat\nb,cat\nc,dog\n", "no image has 'c' (row 4). Remove"),
        ("target\ncat\n\ncatt\n", "row 4: no class 'catt'; did you mean 'cat'?"),
        ("target\ncat\ncat=0.5\n", "row 3: weights must sum to 1; those of 'cat=0.5' sum to 0.5"),
        ("id,target\nb,dgo\na,dgo\n", "row 2: no class 'dgo'; did you mean 'dog'?"),
        ("target\ntrue=0.9,random=0.1\ncat\n", "row 2 must have 1 cells like the header; it has 2"),
        ("target,note\ncat,x\ndog,y\n", "only 'id' may stand before a column 'target'"),
        ("cat,dgo\n1,0\n0,1\n", "no class 'dgo'; did you mean 'dog'?"),
        ("random,dog\n1,0\n0,1\n", "no class 'random'"),
        ("cat,0\n1,0\n0,1\n", "must have one column; '0' and 'cat' are both class 0"),
        ("cat,dog\n1,0\n\n0.8,0.1\n", "targets must sum to 1 per row; row 4 sums to 0.9."),
        ("id,cat,dog\nb,1,0\na,2,-1\n", "not be negative; row 3 has -1 for class 1"),
        ("cat,dog\n1,0\n90%,0\n", "expected a number in row 3, column 'cat'; it holds '90%'"),
        ("cat,dog\n1,0\nnan,0\n", "be finite; row 3 has nan"),
        ('cat,dog\n1,0\n"0,1\n', "must be CSV in UTF-8 (unexpected end of data). Save"),
        ("", "is empty. Write a header and one row per image"),
        ("\n ,\n", "is empty. Write a header"),
    ],
)
def test_from_csv_names_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^targets.from_csv: .*{re.escape(message)}"):
        targets.from_csv(path, class_names=PETS, image_ids=["a", "b"])


def test_from_csv_refuses_another_encoding_and_a_missing_file(tmp_path: Path) -> None:
    path = write(tmp_path, "target\ncafé\n", "cp1252")
    with pytest.raises(ValueError, match=r"must be CSV in UTF-8 .* Save the table as 'CSV UTF-8"):
        targets.from_csv(path, num_classes=2, num_images=1)
    with pytest.raises(FileNotFoundError, match=r"^targets.from_csv: no file '.*none.csv'"):
        targets.from_csv(tmp_path / "none.csv", num_classes=2, num_images=1)


def test_names_and_ids_match_in_either_unicode_form(tmp_path: Path) -> None:
    one, two = "caf\u00e9", "cafe\u0301"  # é as one code point, and as two
    for classes, written in ((one, two), (two, one)):
        path = write(tmp_path, f"id,target\n{written},{written}\n")
        found = targets.from_csv(path, class_names=("tea", classes), image_ids=[classes])
        np.testing.assert_array_equal(found, one_hot(1, num_classes=2))
        path = write(tmp_path, f"{written}\n1\n")
        found = targets.from_csv(path, class_names=("tea", classes.upper()), num_images=1)
        np.testing.assert_array_equal(found, one_hot(1, num_classes=2))
    path = write(tmp_path, f"id,target\n{two},tea\n{one},{one}\n")  # two files of a Linux folder
    found = targets.from_csv(path, class_names=("tea", one), image_ids=[one, two])
    np.testing.assert_array_equal(found, one_hot(1, 0, num_classes=2))


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_than_commas_are_named(tmp_path: Path, mark: str, word: str) -> None:
    text = "id,cat,dog\na,0.25,0.75\n"
    path = write(tmp_path, text.replace(",", mark).replace(".", ","))
    message = rf"cells must be separated by commas; those of the header .* are separated by {word}"
    with pytest.raises(ValueError, match=message):
        targets.from_csv(path, class_names=PETS, image_ids=["a"])
    found = targets.from_csv(write(tmp_path, text), class_names=PETS, image_ids=["a"])
    assert found[0, 1] == 0.75
