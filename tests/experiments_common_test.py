"""What the studies share: flags that are the script's own, jobs that are chosen by name, results with their table."""

import json

import numpy as np
import pytest
from absl import flags

from experiments.common import cells, crops, distances, jobs, tables, target_text
from experiments.common import flags as common_flags
from outgen_jax import runs


def test_a_shared_flag_belongs_to_the_module_that_asks_for_it():
    holder = common_flags.data_dir()
    try:
        # By this, --help lists it and results.json records it.
        assert flags.FLAGS.find_module_defining_flag(holder.name) == __name__
    finally:
        delattr(flags.FLAGS, holder.name)


def test_jobs_are_chosen_in_the_order_of_the_run():
    names = ["plain/0", "plain/1", "sgd/0"]
    assert jobs.selected(names, []) == names
    assert jobs.selected(names, ["sgd/0", "plain/0"]) == ["plain/0", "sgd/0"]
    with pytest.raises(
        ValueError, match=r"--only: no job 'sgd/1'; this run's are plain/0, plain/1"
    ):
        jobs.selected(names, ["sgd/1"])
    with pytest.raises(ValueError, match="--arms names one twice: a, b, a"):
        jobs.check_names(["a", "b", "a"], flag="arms")
    with pytest.raises(ValueError, match="--arms names nothing; give at least one"):
        jobs.check_names([], flag="arms")


def test_jobs_without_a_file_are_not_finished(tmp_path):
    (tmp_path / "0.json").write_text('{"seed": 0}')
    assert jobs.finished([tmp_path / "0.json", tmp_path / "1.json"]) == [{"seed": 0}]


def test_a_table_is_made_of_what_results_json_holds(tmp_path):
    run = runs.open_run(tmp_path / "run", flags={"number": 3})

    def table(results):
        return f"| {results['flags']['number']} | {results['best']} |\n"

    shown = tables.write(run, {"best": 0.5}, table)
    assert shown == (run.directory / "table.md").read_text() == "| 3 | 0.5 |\n"
    assert table(json.loads((run.directory / "results.json").read_text())) == shown


def test_free_classes_count_by_what_the_others_leave_them():
    """The targets are 0.9 for the first class: each view is off by how far its first class is."""
    partial = np.ma.masked_invalid(np.float32([[0.9, np.nan, np.nan]]))
    said = np.float32([[[0.5, 0.3, 0.2], [0.9, 0.0, 0.1], [0.95, 0.05, 0.0]]])  # [N, V, K]
    np.testing.assert_allclose(distances.variation(said[:, 0], partial), [0.4], atol=1e-6)
    np.testing.assert_allclose(crops.variations(said, partial), [[0.4, 0, 0.05]], atol=1e-6)
    np.testing.assert_allclose(crops.largest(said, partial), [0.4], atol=1e-6)
    full = np.float32([[0.5, 0.5, 0]])
    np.testing.assert_allclose(crops.variations(said, full), [[0.2, 0.5, 0.45]], atol=1e-6)


def test_a_text_with_free_classes_is_refused_where_all_are_needed():
    names = {"class_names": ("cat", "dog", "ship"), "num_images": 1}
    np.testing.assert_allclose(
        target_text.parse_full("cat=0.4,dog=0.6", **names), [[0.4, 0.6, 0]], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"targets 'cat=0.4,rest=0.6': 'rest' cannot be used"):
        target_text.parse_full("cat=0.4,rest=0.6", **names)


def test_percentiles_of_nothing_are_dashes():
    assert cells.percentiles([], 50, 95) == ["-", "-"]
    assert cells.percentiles([1.0, 2.0, 4.0], 50, 100) == ["2", "4"]
