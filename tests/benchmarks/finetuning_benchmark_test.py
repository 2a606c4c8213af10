"""The fine-tuning benchmark: PyTorch's twin takes the same updates; what the table says."""

import importlib

import numpy as np
import pytest

from benchmarks.finetuning import ours, table
from benchmarks.harness.workload import Workload


def test_pytorch_takes_the_same_constrained_updates(five_layers):
    pytest.importorskip("torch", reason="compares with PyTorch")
    workload = Workload(width=1 / 16, batch_size=4)
    options = {"hidden": 8, "updates": 2}
    own = ours.outgen(workload, **options)
    theirs = importlib.import_module("benchmarks.finetuning.torch_side").pytorch(
        workload, **options
    )
    losses = [side.output("constraint") for side in (own, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert losses[0][0] != losses[0][1]  # the second loss is after an update


def test_the_table_shows_ratios_agreement_and_failures():
    def side(loss, seconds, failure=None):
        return {"first_loss": loss, "seconds": seconds, "failure": failure}

    found = {
        "plain": {"outgen_jax": side(2.0, [0.1, 0.2, 0.3]), "PyTorch": side(2.0, [0.3])},
        "constraint": {"outgen_jax": side(4.0, [0.3]), "PyTorch": side(5.0, [0.15])},
        "AugMix-style": {"outgen_jax": side(4.0, [0.5])},
        "MSE": {"outgen_jax": side(None, [], "failed: why"), "PyTorch": side(1.0, [0.1])},
        "later": {"outgen_jax": side(1.0, [0.2]), "PyTorch": side(1.0, [0.1], "failed: why")},
        "nan": {"outgen_jax": side(1.0, [0.2]), "PyTorch": side(float("nan"), [0.1])},
    }
    plain, constraint, augmix, mse, later, nan = table.rows(found)
    assert (plain["× plain"], plain["× PyTorch's speed"]) == ("1.00", "1.50")
    assert plain["first losses"] == "agree by 0"
    assert (constraint["× plain"], constraint["× PyTorch's speed"]) == ("1.50", "0.50")
    assert constraint["first losses"] == "differ by 0.2"
    assert (augmix["× plain"], augmix["PyTorch ms"], augmix["first losses"]) == ("2.50", "", "")
    assert mse["first losses"] == "outgen_jax failed: why"
    assert mse["ms/update"] == ""
    # It failed after a turn: what it took is not shown.
    assert (later["PyTorch ms"], later["× PyTorch's speed"]) == ("", "")
    assert later["first losses"] == "PyTorch failed: why"
    assert nan["first losses"] == "differ by nan"
