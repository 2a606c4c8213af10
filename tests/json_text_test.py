"""Every JSON parser reads the results."""

import json
import math

import numpy as np
import pytest

from outgen_jax import runs
from outgen_jax.json_text import to_json


def test_numpy_numbers_are_written_as_numbers():
    found = to_json({"a": np.float32(1), "b": [np.int64(2), np.float64("nan")], "c": np.True_})
    assert json.loads(found) == {"a": 1, "b": [2, None], "c": True}


def test_numbers_that_are_not_finite_become_null(tmp_path):
    run = runs.open_run(tmp_path, flags={"limit": math.inf})
    numbers = {"p": math.nan, "rows": [(1.5, -math.inf)], "inner": {"x": np.float64("nan")}}
    text = run.write_results(numbers).read_text()

    def no_constant(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    found = json.loads(text, parse_constant=no_constant)
    assert (found["p"], found["rows"], found["inner"]) == (None, [[1.5, None]], {"x": None})
    assert found["flags"] == {"limit": None}
