"""The scripts that show what Gauss-Newton can do, each at its smallest, on the shipped digit classifier."""

import json

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import outgen_jax as og
from experiments.common import tables
from experiments.exactness import ablation_table, changes, time_figure
from outgen_jax.data import sources
from outgen_jax.solvers.gauss_newton import GaussNewton

NUMBER = 6
CLASSIFIER = "--classifier=mnist_lenet"


@pytest.fixture
def digits(tmp_path) -> str:
    """Scikit-learn's first digits, drawn out to MNIST's 28×28 pixels."""
    found = sources.digits(size=(28, 28), limit=12)
    path = tmp_path / "digits.npz"
    names = np.array(found.class_names)
    np.savez(path, images=found.images, labels=found.labels, class_names=names)
    return str(path)


def results_of(run_script, script: str, out, *options: str) -> dict:
    finished = run_script(f"exactness/{script}", CLASSIFIER, f"--out={out}", *options)
    assert finished.returncode == 0, finished.stderr
    assert (out / "table.md").read_text() in finished.stdout
    return json.loads((out / "results.json").read_text())


def test_exact_targets_resumes_and_keeps_its_promise(run_script, digits, tmp_path):
    options = (f"--dataset={digits}", f"--number={NUMBER}", "--batch_size=3")
    out = tmp_path / "run"
    found = results_of(run_script, "exact_targets.py", out, *options)
    assert len(found["per_image"]) == len(found["seconds"]) == 6
    for numbers in found["per_image"].values():
        assert all(len(values) == NUMBER for values in numbers.values())
        assert max(numbers["total_variation"]) <= 1e-5
        # Rounding costs something, and the correction brings most of it back.
        assert np.median(numbers["total_variation_png"]) <= 5e-3
    assert (out / "table.md").read_text().count("| 0.9 / 0.1 |") == 2
    again = results_of(run_script, "exact_targets.py", out, *options)
    assert again["per_image"] == found["per_image"]
    assert again["seconds"] == found["seconds"]


def test_exact_targets_needs_the_classifiers_classes(run_script, tmp_path):
    np.savez(tmp_path / "unnamed.npz", images=np.zeros((4, 28, 28, 1), np.uint8))
    data = f"--dataset={tmp_path / 'unnamed.npz'}"
    finished = run_script(
        "exactness/exact_targets.py", CLASSIFIER, data, f"--out={tmp_path / 'run'}"
    )
    assert finished.returncode != 0
    assert "must have the classifier's classes: 0, 1, 2" in finished.stderr


@pytest.mark.slow
def test_file_formats(run_script, digits, tmp_path):
    options = (f"--dataset={digits}", f"--number={NUMBER}")
    found = results_of(run_script, "file_formats.py", tmp_path / "run", *options)
    for formats in found["per_image"].values():
        worst = {name: max(distances) for name, distances in formats.items()}
        assert worst["float32"] <= 1e-5
        assert worst["PNG, og.quantize"] <= worst["PNG, nearest level"] < 0.5
        assert worst["float16"] < np.median(formats["JPEG, quality 75"])


def test_ordered_top_k(run_script, digits, tmp_path):
    options = (f"--source={digits}", f"--number={NUMBER}", "--k=2")
    found = results_of(run_script, "ordered_top_k.py", tmp_path / "run", *options)
    assert np.mean(found["k"]["2"]["in_order"]) == 1
    assert np.mean(np.array(found["k"]["2"]["total_variation"]) <= 1e-5) >= 0.8
    assert min(found["k"]["2"]["steps"]) > 1
    out = f"--out={tmp_path / 'other'}"
    finished = run_script("exactness/ordered_top_k.py", CLASSIFIER, "--k=10", out)
    assert finished.returncode != 0
    assert "--k must lie in 1..9" in finished.stderr


@pytest.mark.slow
def test_change_by_tolerance(run_script, digits, tmp_path):
    options = (f"--dataset={digits}", f"--number={NUMBER}", "--tolerances=0.05")
    few = ("--search_number=1", "--search_updates=300")
    found = results_of(run_script, "change_by_tolerance.py", tmp_path / "run", *options, *few)
    for methods in (m for by_tolerance in found["found"].values() for m in by_tolerance.values()):
        plain, newton = methods["plain call"], methods["Gauss-Newton"]
        assert all(plain["within"])
        assert np.median(plain["l2"]) <= np.median(newton["l2"])
        assert len(methods["search"]["l2"]) == 1
    loose = found["found"]["0.9 / 0.1"]["0.05"]
    assert all(loose["search"]["within"])
    assert loose["plain call"]["l2"][0] <= 1.1 * loose["search"]["l2"][0]
    table = (tmp_path / "run" / "table.md").read_text()
    assert "1 of 1" in table


@pytest.mark.slow
def test_ablation_runs_the_chosen_variants_beside_all_parts(run_script, digits, tmp_path):
    out = tmp_path / "run"
    options = (f"--dataset={digits}", f"--number={NUMBER}", "--split=all", "--tolerances=0.001")
    few = "smallest_change/ends at the tolerance"
    found = results_of(run_script, "ablation.py", out, *options, f"--only={few}")["found"]
    assert list(found) == ["smallest_change"]
    for by_tolerance in found["smallest_change"].values():
        parts, early = by_tolerance["0.001"].values()
        both = np.array(parts["within"]) & np.array(early["within"])
        assert both.sum() >= NUMBER - 1  # one pass alone does not meet every target
        assert np.median(early["steps"]) < np.median(parts["steps"])
        assert np.array(early["l2"])[both].mean() > np.array(parts["l2"])[both].mean()
    # Another variant joins those that are kept.
    more = "gauss_newton/one trial for each J"
    again = results_of(run_script, "ablation.py", out, *options, f"--only={more}")["found"]
    assert again["smallest_change"] == found["smallest_change"]
    assert list(again["gauss_newton"]["0.9 / 0.1"]["0.001"]) == [
        "all parts",
        "one trial for each J",
    ]
    assert f"| ends at the tolerance | {NUMBER} |" in (out / "table.md").read_text()


def test_the_ratio_of_an_ablation_is_the_geometric_mean_of_images_that_both_solve():
    reference = {"within": [True, True, True, False], "l2": [1.0, 2.0, 1.0, 1.0]}
    variant = {"within": [True, True, False, True], "l2": [2.0, 1.0, 9.0, 9.0]}
    shared = {"steps": [1, 2, 3, 4], "seconds": 4.0}
    variants = {"all parts": reference | shared, "a part less": variant | shared}
    text = ablation_table.table({"found": {"solver": {"kind": {"0.1": variants}}}})
    # ln 2 and −ln 2: the standard error is ln 2, and t 12.706 with one degree of freedom.
    assert text.splitlines()[-1].endswith("| 1.00 (0.00 to 6682.65) | 1.00 |")
    variants["a part less"]["within"] = [False, True, False, True]
    assert "| - | 1.00 |" in ablation_table.table(
        {"found": {"solver": {"kind": {"0.1": variants}}}}
    )


def test_full_targets(run_script, digits, tmp_path):
    options = (f"--source={digits}", f"--number={NUMBER}", "--updates=30", "--steps=15")
    found = results_of(run_script, "full_targets.py", tmp_path / "run", *options)["solvers"]
    assert len(found) == 2
    descent, newton = (np.median(numbers["kl"]) for numbers in found.values())
    assert newton < 1e-3 < 0.1 < descent


@pytest.mark.slow
def test_norm_choices_hold_what_they_name(run_script, digits, tmp_path):
    options = (f"--dataset={digits}", f"--number={NUMBER}", "--max_change=0.2", "--shown=2")
    found = results_of(run_script, "norm_choices.py", tmp_path / "run", *options)["per_image"]
    assert list(found) == ["no limit", "middle only", "L∞ ≤ 0.2", "smooth"]
    assert max(found["L∞ ≤ 0.2"]["linf"]) <= 0.2 + 1e-5
    assert np.mean(found["smooth"]["fine_share"]) < np.mean(found["no limit"]["fine_share"])
    with Image.open(tmp_path / "run" / "norm_choices.png") as image:
        assert image.width > 200


@pytest.mark.slow
def test_what_exact_leaves_is_searched_from_every_start(run_script, digits, tmp_path, monkeypatch):
    # One step of Gauss-Newton leaves images.
    monkeypatch.setattr(og, "exact", lambda: GaussNewton(steps=1))
    out = tmp_path / "run"
    few = ("--number=3", "--split=all", "--updates=300", "--iterations=3", "--tolerance=0.01")
    found = results_of(run_script, "out_of_reach.py", out, f"--dataset={digits}", *few)
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


def test_solver_comparison_tabulates_every_preset_and_resumes(run_script, digits, tmp_path):
    out = tmp_path / "run"
    options = (f"--dataset={digits}", "--steps=2", "--number=12")
    results = results_of(run_script, "solver_comparison.py", out, *options)
    assert set(results["per_image"]) == {"sgd", "momentum", "momentum_lowpass"}
    assert all(len(numbers["kl"]) == 12 for numbers in results["per_image"].values())
    assert len((out / "table.md").read_text().splitlines()) == 5
    assert (out / "fig_a3_a5.png").stat().st_size > 1000
    (out / "cache" / "sgd.npz").unlink()
    repeated = results_of(run_script, "solver_comparison.py", out, *options)["per_image"]
    assert repeated["sgd"] == results["per_image"]["sgd"]


def test_solver_comparison_takes_partial_targets(run_script, digits, tmp_path):
    options = (f"--dataset={digits}", "--steps=1", "--number=12", "--targets=true=0.9,rest=0.1")
    found = results_of(run_script, "solver_comparison.py", tmp_path / "run", *options)["per_image"]
    for numbers in found.values():  # 8 bits round one step away by little
        np.testing.assert_allclose(
            numbers["total_variation_8bit"], numbers["total_variation"], atol=0.05
        )


def test_time_to_target_refuses_partial_targets_before_it_begins(run_script, digits, tmp_path):
    options = (f"--dataset={digits}", "--number=2", "--targets=dirichlet,true=0.9;rest=0.1")
    out = tmp_path / "run"
    finished = run_script("exactness/time_to_target.py", CLASSIFIER, f"--out={out}", *options)
    assert finished.returncode == 2
    assert "'rest' cannot be used here" in finished.stderr
    assert not out.exists()


def table_of(script: str, results: dict, tmp_path) -> str:
    directory = f"experiments/exactness/results/{script}"
    (tmp_path / directory).mkdir(parents=True)
    (tmp_path / directory / "results.json").write_text(json.dumps(results))
    return tables.made(directory, tmp_path)


def test_a_method_without_a_hit_has_dashes(tmp_path):
    hit = {"within": [False, True], "l2": [1.0, 2.0], "steps": [3, 4], "seconds": 1.0}
    none = hit | {"within": [False, False]}
    methods = {"plain call": hit, "Gauss-Newton": none, "search": none}
    found = {"found": {"0.9 / 0.1": {"0.01": methods}}}
    text = table_of("change_by_tolerance", found, tmp_path)
    assert "| 0.9 / 0.1 | 0.01 | plain call | 50.0% | 2 | 2 | 2 | 4 | 0.50 |" in text
    assert "| 0.9 / 0.1 | 0.01 | Gauss-Newton | 0.0% | - | - | - | 4 | 0.50 |" in text
    assert "| 0.9 / 0.1 | 0.01 | search | 0 of 2 | - | - | - | - |" in text


def test_changes_are_compared_on_the_images_that_both_methods_reach(tmp_path):
    plain = {"within": [True, True, True, True], "l2": [1.0, 3.0, 5.0, 7.0]}
    search = {"within": [True, True, False], "l2": [2.0, 2.0, 1.0]}
    rest = {"steps": [1], "seconds": 1.0}
    methods = {"plain call": plain | rest, "search": search | rest}
    found = {"found": {"0.9 / 0.1": {"0.01": methods}}}
    text = table_of("change_by_tolerance", found, tmp_path)
    assert "| 0.9 / 0.1 | 0.01 | plain call | 3 of 3 | 3 | 5 | 1.00 | 1.50 |" in text
    assert "| 0.9 / 0.1 | 0.01 | search | 2 of 3 | 2 | 2 | 1.00 | 1.00 |" in text


def test_images_count_as_within_the_tolerance_that_was_asked_for(tmp_path):
    names = ("in_order", "in_order_8bit", "total_variation_8bit", "l2", "steps")
    numbers = {name: [0.0, 1.0] for name in names} | {"total_variation": [0.005, 0.05]}
    numbers["seconds"] = 1.0
    found = {"flags": {"tolerance": 0.01}, "k": {"5": numbers}}
    text = table_of("ordered_top_k", found, tmp_path)
    assert "| K | images | in order | within 0.01 |" in text
    assert "| 5 | 2 | 50% | 50% |" in text


def test_a_figure_of_changes_says_what_was_asked_and_what_was_reached():
    source = np.full((2, 4, 4, 3), 100, np.uint8)
    moved = source.copy()
    moved[1, 0, 0] += 5
    targets = np.array([[0.9, 0.0, 0.1], [0.0, 1.0, 0.0]])
    reached = np.array([[0.8814, 0.0, 0.1186], [0.0, 0.5, 0.5]])
    ways = {"SGD": changes.Changed(moved, reached)}
    figure = changes.changes_figure(source, targets, ("cat", "dog", "ship"), ways)
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[0] == ["source", "cat 0.9", "ship 0.1"]
    assert texts[1] == ["dog 1"]  # a class without a share is not named
    assert texts[2][-1:] + texts[3] == ["0.881, 0.119", "0.500"]
    assert texts[4][-1:] + texts[5] == ["L2 0.00", f"L2 {5 * 3**0.5 / 255:.2f}"]
    shown = np.asarray(figure.axes[5].images[0].get_array())
    np.testing.assert_allclose(shown[0, 0], 0.5 + 10 * 5 / 255, atol=1e-6)
    np.testing.assert_allclose(shown[1:], 0.5, atol=1e-6)


def test_the_figure_of_times_shows_curves_and_rounded_images():
    kept = ROOT / "experiments" / "exactness" / "results" / "time_to_target" / "results.json"
    results = json.loads(kept.read_text())["targets"]
    figure = time_figure.time_figure(results)
    saved, tail, median = figure.axes[:3]  # of the first target, from the bottom
    first = next(iter(results.values()))
    assert len(tail.lines) == len(median.lines) == len(first) == 5
    for line, found in zip(median.lines, first.values(), strict=True):
        assert line.get_ydata()[-1] == pytest.approx(np.median(found["total_variation"]), rel=0.3)
    places = [line.get_xdata()[0] for line in saved.lines[:4]]  # SGD: a bar and three markers
    rounded = first["SGD"]["total_variation_8bit"]
    assert places[2:] == [np.median(rounded["quantize"]), np.median(rounded["nearest"])]
