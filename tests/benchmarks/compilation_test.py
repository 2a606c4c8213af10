"""The compilation benchmark fills a cache in one process and uses it in the next."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks.compilation.table import table


def test_the_table_has_a_row_for_each_cache():
    text = table({"processor_seconds": {"empty": [9.04, 0.31], "filled": [4, 0.3]}})
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["|", "empty", "|", "9.0", "|", "0.3", "|"],
        ["|", "filled", "|", "4.0", "|", "0.3", "|"],
    ]


@pytest.mark.slow
def test_the_cache_is_filled_by_the_first_process(tmp_path):
    command = ["-m", "benchmarks.compilation", "--images=2", f"--out={tmp_path / 'run'}"]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    found = json.loads((tmp_path / "run" / "results.json").read_text())["processor_seconds"]
    assert found["filled"][0] < found["empty"][0]
    assert all(second < first for first, second in found.values())
