"""The script that measures what crops and flips leave of the outputs of generated images."""

import json

import numpy as np
import pytest

from outgen_jax.data import sources


@pytest.fixture
def digits28(tmp_path):
    """Digits in the size of MNIST, in an .npz file."""
    digits = sources.digits(size=(28, 28), limit=3)
    path = tmp_path / "digits.npz"
    names = np.array(digits.class_names)
    np.savez(path, images=digits.images, labels=digits.labels, class_names=names)
    return path


@pytest.mark.slow
def test_generated_images_are_exact_until_they_are_augmented(run_script, digits28, tmp_path):
    out = tmp_path / "run"
    options = (
        *("--classifier=mnist_lenet", f"--dataset={digits28}", "--number=3", "--shifts=0"),
        *("--crop_padding=1", f"--out={out}"),
    )
    done = run_script("replaced_training/augmented_outputs.py", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "results.json").read_text())["methods"]
    stored = {method: np.array(numbers["stored"]) for method, numbers in found.items()}
    augmented = {method: np.array(numbers["augmented_mean"]) for method, numbers in found.items()}
    assert list(found) == ["original", "paper A's SGD", "exact", "exact under views"]
    assert found["original"]["l2"] == [0, 0, 0]
    assert stored["exact"].max() < 0.02 < augmented["exact"].min()
    assert augmented["exact under views"].mean() < augmented["exact"].mean()
    for numbers in found.values():
        largest, mean = numbers["augmented_largest"], numbers["augmented_mean"]
        assert np.all(np.array(largest) >= np.array(mean))
    assert "| exact | 3 |" in (out / "table.md").read_text()
    assert (out / "figure.png").stat().st_size > 10_000
    again = run_script("replaced_training/augmented_outputs.py", *options)
    assert "synthesi" not in again.stderr  # kept


def test_shifts_that_are_none_are_refused_before_anything_is_made(run_script, digits28, tmp_path):
    options = ("--classifier=mnist_lenet", f"--dataset={digits28}", "--number=2", "--shifts=")
    done = run_script(
        "replaced_training/augmented_outputs.py", *options, f"--out={tmp_path / 'run'}"
    )
    assert done.returncode == 2
    assert "views" in done.stderr
    assert not (tmp_path / "run").exists()
