"""What the studies share: flags that are the script's own, jobs that are chosen by name, results with their table."""

import json

import pytest
from absl import flags

from experiments.common import flags as common_flags
from experiments.common import jobs, tables
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
