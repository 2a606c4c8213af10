"""The campaign on an accelerator runs on CPU in small, keeps what it measured, and counts by hand."""

import json

import jax
import numpy as np
import pytest

from benchmarks.accelerator import campaign, parts, roofline
from benchmarks.accelerator.campaign import Part
from benchmarks.accelerator.figure import figure
from benchmarks.accelerator.table import table
from benchmarks.harness.workload import Workload, bytes_per_pass, flops_per_update, layers
from benchmarks.synthesis import ours
from outgen_jax.data.image_source import ImageSource

SCRIPT = "../benchmarks/accelerator/__main__.py"
SMALL = [
    *("--width=0.015625", "--batch_size=4", "--other_batch_sizes=8,2", "--first_images=4"),
    *("--set_images=5", "--set_updates=2", "--updates=1", "--matrix=16", "--vector_mib=1"),
]
PEAKS = {
    "product_bfloat16": {"flops": 8e12, "seconds": [0.02, 0.01]},  # 800 TFLOP/s
    "stream": {"bytes": 4e12, "seconds": [1.0, 1.25]},  # 4 TB/s
}
STEP = {"images": 100, "flops": 4e11, "bytes": 4e9, "temporary": 3 * 2**20, "compile_seconds": 7}
CALL = {"images": 10, "flops": 6e12, "seconds": 2.0, "steps": 40, "converged": 1, "distance": 0.1}


QUICK = ["--only=product_b,stream,first_call,sgd_4_b"]  # the others take long to compile


@pytest.mark.parametrize("only", [QUICK, pytest.param([], marks=pytest.mark.slow)])
def test_the_campaign_runs_in_small(only, five_layers, run_script, tmp_path):
    found = run_script(SCRIPT, *SMALL, *only, f"--out={tmp_path}")
    assert found.returncode == 0, found.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["left_out"]
    assert len(results["parts"]) == (4 if only else 13)
    for name, part in results["parts"].items():
        assert part["seconds"], name
        assert part.get("flops", part.get("bytes")) > 0
    steps = [part["images"] for part in results["parts"].values() if "temporary" in part]
    assert steps == ([4] if only else [4, 4, 4, 8, 2, 4])
    assert results["parts"]["first_call"]["steps"] == 4 * 100
    assert "of the roofline" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_other_batch_sizes_may_be_none_and_are_numbers(run_script, tmp_path):
    out = tmp_path / "run"
    options = ["--matrix=16", "--only=product_bfloat16", f"--out={out}"]
    refused = run_script(SCRIPT, *options, "--other_batch_sizes=many")
    assert refused.returncode == 2
    assert "--other_batch_sizes: 'many' must be a number of images" in refused.stderr
    assert not out.exists()
    found = run_script(SCRIPT, *options, "--other_batch_sizes=")
    assert found.returncode == 0, found.stderr


def test_a_set_has_no_more_images_than_its_data(five_layers, monkeypatch):
    """As with --data_dir and a workload that is larger than CIFAR-10."""
    data = ImageSource(np.zeros((3, 32, 32, 3), np.uint8), None, None, tuple("abc"))
    monkeypatch.setattr(ours.sources, "load", lambda *args, **options: data)
    monkeypatch.setattr(ours.WholeSet, "seconds", lambda self, updates: 2.0)
    workload = Workload(width=1 / 64, batch_size=5)
    found = parts.whole_set(workload, updates=4, data_dir="somewhere")
    flops = 3 * 4 * flops_per_update(1 / 64)
    assert found == {"images": 3, "steps": 12, "flops": flops, "seconds": 2.0}
    assert parts.whole_set(workload, updates=4, data_dir=None)["images"] == 5


def test_parts_are_kept_left_out_and_taken_up_again(tmp_path, monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(campaign.time, "perf_counter", lambda: clock[0])

    def part(name: str, error: Exception | None = None) -> Part:
        def measure() -> dict[str, float]:
            calls.append(name)
            clock[0] += 30
            if error is not None:
                raise error
            return {"seconds": 30.0}

        return Part(name, measure, reserve=20)

    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nmore")
    todo, told = [part("a"), part("b", full), part("c"), part("d")], []
    found = campaign.run(todo, tmp_path, 100, lambda found: told.append(len(found.parts)))
    assert found.parts == {"a": {"seconds": 30.0}, "c": {"seconds": 30.0}}
    assert found.left_out == {
        "b": "RESOURCE_EXHAUSTED: out of memory",
        "d": "10 s left, 20 s needed",
    }
    assert told == [1, 1, 2, 2]
    calls.clear()
    again = campaign.run(todo, tmp_path, 100, lambda found: None)
    assert calls == ["b", "d"]
    assert list(again.parts) == ["a", "c", "d"]


def test_the_bytes_of_a_pass_by_hand():
    first = 5 * (3 + 1) * 32**2 + 9 * 3  # five images, a first layer of one channel
    assert next(iter(layers(1 / 64)))[0] == (3, 1, 32)
    others = [layer for block in layers(1 / 64) for layer in block][1:]
    rest = sum(5 * (c + k) * size**2 + 9 * c * k for c, k, size in others)
    assert bytes_per_pass(1 / 64, 5, itemsize=2) == 2 * (first + rest)


def test_the_roofline_by_hand():
    device = {"peak": 100.0, "bandwidth": 10.0}
    assert roofline.attainable(5, 1, **device) == 50  # the memory
    assert roofline.attainable(20, 1, **device) == 100  # the products
    assert roofline.share(2.0, 20, 4, **device) == 0.2


def test_tables_by_hand():
    results = {
        "parts": {**PEAKS, "sgd_100_bfloat16": STEP | {"seconds": [0.002]}, "exact": CALL},
        "left_out": {"whole_set": "3 s left, 45 s needed"},
    }
    lines = [line for line in table(results).splitlines() if line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[2] == ["product, bfloat16", "800", ""]
    assert cells[3] == ["stream", "", "4e+03"]
    step = dict(zip(cells[4], cells[6], strict=True))
    assert (step["image-steps/s"], step["TFLOP/s"]) == ("50,000", "200")
    # 100 FLOP a byte at 4 TB/s are 400 TFLOP/s.
    assert (step["of the peak"], step["of the roofline"]) == ("25.0%", "50.0%")
    assert (step["FLOP/byte"], step["temporary MiB"]) == ("100", "3")
    call = dict(zip(cells[7], cells[9], strict=True))
    assert (call["images/s"], call["steps of an image"], call["TFLOP/s"]) == ("5", "4.0", "3")
    assert cells[12] == ["whole_set", "3 s left, 45 s needed"]
    assert figure(results) is not None
    assert figure({"parts": {}, "left_out": {}}) is None
