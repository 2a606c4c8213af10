"""The searches for targets that `og.exact` leaves, at their smallest, and their table."""

import json

import numpy as np
import pytest

import outgen_jax as og
from outgen_jax.data import sources
from outgen_jax.solvers.gauss_newton import GaussNewton


@pytest.fixture
def digits(tmp_path) -> str:
    """Scikit-learn's first digits, drawn out to MNIST's 28×28 pixels."""
    found = sources.digits(size=(28, 28), limit=3)
    path = tmp_path / "digits.npz"
    names = np.array(found.class_names)
    np.savez(path, images=found.images, labels=found.labels, class_names=names)
    return str(path)


@pytest.mark.slow
def test_what_is_left_is_searched_from_every_start(run_script, digits, tmp_path, monkeypatch):
    # One step of Gauss-Newton leaves images.
    monkeypatch.setattr(og, "exact", lambda: GaussNewton(steps=1))
    out = tmp_path / "run"
    options = (
        *("--classifier=mnist_lenet", f"--dataset={digits}", "--split=all", f"--out={out}"),
        *("--updates=300", "--iterations=3", "--tolerance=0.01"),
    )
    finished = run_script("exactness/out_of_reach.py", *options)
    assert finished.returncode == 0, finished.stderr
    assert (out / "table.md").read_text() in finished.stdout
    found = json.loads((out / "results.json").read_text())
    left = np.sum(np.array(found["exact"]["total_variation"]) > 0.01)
    assert left > 0
    assert list(found["searches"]) == ["Adam, rate 0.003", "Adam, rate 0.03", "L-BFGS"]
    for by_start in found["searches"].values():
        assert list(by_start) == ["source", "source with noise", "another image", "noise"]
        assert all(len(numbers["total_variation"]) == left for numbers in by_start.values())
    assert max(found["searches"]["Adam, rate 0.03"]["source"]["total_variation"]) <= 0.01
    # The L2 is from the source, wherever a search starts.
    assert min(found["searches"]["L-BFGS"]["noise"]["l2"]) > 3
    of_all = [n["total_variation"] for s in found["searches"].values() for n in s.values()]
    *_, last = (out / "table.md").read_text().strip().split("\n")
    assert f"| best of all searches | all | {left} |" in last
    assert float(last.split("|")[-3]) == pytest.approx(np.min(of_all, axis=0).max(), rel=0.06)
