"""The benchmarks' sides compute the same things, and their clock counts what it says."""

import importlib
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from benchmarks.convolution import measure as convolution
from benchmarks.convolution import sides as convolution_sides
from benchmarks.harness import alternation, comparison, workload
from benchmarks.synthesis import ours
from benchmarks.training import sides as training_sides


@pytest.fixture
def torch_peers() -> ModuleType:
    pytest.importorskip("torch", reason="compares with PyTorch")
    return importlib.import_module("benchmarks.synthesis.torch_peers")


@pytest.fixture
def small(five_layers: None) -> Any:
    return workload.Workload(width=1 / 16, batch_size=3)


def test_pytorch_computes_the_images_of_synthesize(torch_peers, small):
    timed = ours.outgen(small)
    our_images = timed.images(2)
    for options in ({}, {"channels_last": True}):
        theirs = torch_peers.pytorch(small, **options).images(2)
        # Weight decay moves the images by 1e-5 at most; it must not hide in the tolerance.
        np.testing.assert_allclose(theirs, our_images, atol=5e-7)
    assert np.abs(our_images - small.images()).max() > 5e-3
    # At the least, the images and their gradient.
    assert timed.memory()["temporary"] > 2 * our_images.nbytes


def test_pytorch_agrees_on_logits_and_keeps_the_best_images(torch_peers, small):
    import torch

    from benchmarks.harness import torch_synthesis

    apply_fn, variables = ours.network(small, "float32")
    logits = apply_fn(variables, small.images())
    device, layout = torch.device("cpu"), torch.contiguous_format
    images = torch.from_numpy(small.images()).permute(0, 3, 1, 2)
    theirs = torch_peers.network(small, device, layout)(images)
    np.testing.assert_allclose(theirs, logits, atol=1e-4, rtol=1e-4)

    def climb(weights: torch.Tensor) -> torch.Tensor:
        """An update that only worsens the logits."""
        weights.data += 1
        return torch.stack([-weights.data.mean((1, 2, 3)), weights.data.mean((1, 2, 3))], 1)

    start = torch.zeros((3, 3, 32, 32))
    targets = torch.tensor([[1.0, 0.0]] * 3)
    np.testing.assert_allclose(torch_synthesis.best_images(climb, start, targets, 2), 0.5)


@pytest.mark.parametrize("library", ["foolbox", "torchattacks"])
def test_attacks_take_the_steps_they_are_timed_for(torch_peers, small, library, monkeypatch):
    pytest.importorskip(library)
    calls = []
    forward = torch_peers.Normalize.forward
    monkeypatch.setattr(
        torch_peers.Normalize,
        "forward",
        lambda self, images: calls.append(images.requires_grad) or forward(self, images),
    )
    attack = getattr(torch_peers, library)(small)
    counts = []
    for updates in (2, 5):
        calls.clear()
        attack._run(updates)
        counts.append(sum(calls))
    assert counts == [2, 5]


def test_update_time_leaves_out_what_happens_once_a_call(monkeypatch):
    clock = [0.0]

    def run(updates: int) -> None:
        clock[0] += 10 + 2 * updates

    monkeypatch.setattr(alternation.time, "perf_counter", lambda: clock[0])
    timed = alternation.Updates(run, device="cpu")
    assert timed.seconds(7, 2) == 2
    assert timed.prepare(7, 2) == 0  # nothing to compile
    assert timed.images(2) is False


def test_operations_are_timed_by_the_call(monkeypatch):
    clock, waited = [0.0], []

    def work() -> float:
        clock[0] += 0.03
        return clock[0]

    monkeypatch.setattr(alternation.time, "perf_counter", lambda: clock[0])
    operations = alternation.Operations({"work": work}, wait=waited.append, to_array=np.asarray)
    assert operations.seconds("work") == pytest.approx(0.03)
    assert len(waited) == 1 + 4  # one to warm up


def test_workers_answer_or_say_why_not():
    worker = alternation.Worker("importlib.import_module", "math")
    assert worker.call("sqrt", 4.0) == 2
    assert worker.call("sqrt", -1.0) is None
    assert worker.failure.startswith("failed: ValueError: ")
    assert worker.call("sqrt", 4.0) is None  # no further turns
    worker.close()
    missing = alternation.Worker("no_such_peer.side")
    assert missing.failure == "not installed: no_such_peer"
    missing.close()
    dead = alternation.Worker("importlib.import_module", "os")
    assert dead.call("_exit", 3) is None
    assert dead.failure == "failed: exit code 3"
    dead.close()
    idle = alternation.Worker("importlib.import_module", "math")
    idle._process.kill()  # as the system does where memory is short
    idle._process.join()
    assert idle.call("sqrt", 4.0) is None
    assert idle.failure == "failed: exit code -9"
    idle.close()


class Recorder:
    """Stands for a worker; writes down whose turn it is."""

    failure = None

    def __init__(self, name: str, log: list[str], value: Any = 1.0) -> None:
        self.name, self.log, self.value = name, log, value

    def call(self, method: str, *args: Any) -> Any:
        self.log.append(self.name)
        return self.value


def test_sides_take_turns():
    log: list[str] = []
    sides = {"a": Recorder("a", log), "b": Recorder("b", log, None), "c": Recorder("c", log)}
    values = alternation.alternate(sides, 2, "seconds")
    assert log == list("abcabc")
    assert values == {"a": [1.0, 1.0], "b": [], "c": [1.0, 1.0]}


def test_sides_with_other_images_are_not_believed():
    start = np.zeros((1, 2, 2, 3))
    images = start + 0.1
    good, bad, attack = Recorder("good", []), Recorder("bad", []), Recorder("attack", [])
    assert comparison.judge(good, images * 1.0005, images, start, 1e-3) == pytest.approx(5e-4)
    assert good.failure is None
    comparison.judge(bad, images * 1.002, images, start, 1e-3)
    assert bad.failure == "failed: images differ from outgen_jax's by 0.002 of the way"
    comparison.judge(bad, images * np.nan, images, start, 1e-3)
    assert "nan" in bad.failure
    assert comparison.judge(attack, False, images, start, 1e-3) is None
    assert attack.failure is None
    assert comparison.judge(attack, images, images, None, 1e-3) is None  # the reference has failed


def test_convolutions_that_are_wrong_are_not_timed():
    one, log = np.ones((2, 2)), []

    class Side(Recorder):
        def call(self, method: str, *args: Any) -> Any:
            return super().call(method, *args) if method == "output" else 0.5

    sides = {
        "outgen_jax": Side("outgen_jax", log, np.full((2, 2), np.nan)),
        "jax.lax": Side("jax.lax", log, one),
        "PyTorch": Side("PyTorch", log, 1.001 * one),
        "far": Side("far", log, 1.01 * one),
    }
    found = convolution.measure(sides, "forward", rounds=2)
    assert found == {
        "outgen_jax": "differs by nan",
        "jax.lax": [0.5, 0.5],
        "PyTorch": [0.5, 0.5],
        "far": "differs by 0.01",
    }
    sides["PyTorch"] = Side("PyTorch", log, None)
    sides["PyTorch"].failure = "failed: why"
    assert convolution.measure(sides, "forward", rounds=2)["PyTorch"] == "failed: why"


def test_table_compares_with_the_best_of_pytorch():
    side = {
        "compile_seconds": 1.5,
        "memory": {"resident_growth": 3 * 2**20, "temporary": 2**20},
        "difference": 1e-7,
    }
    found = {
        "outgen_jax": {**side, "seconds_per_update": [0.3, 0.5, 0.4]},
        "PyTorch eager": {**side, "seconds_per_update": [0.8] * 3},
        "PyTorch compile": {**side, "seconds_per_update": [0.6] * 3},
        "Foolbox": {"seconds_per_update": [], "failure": "not installed: foolbox"},
        "PyTorch compile channels_last": {
            **side,
            "seconds_per_update": [0.1],  # the best so far, before it failed in its second turn
            "failure": "failed: exit code -9",
        },
    }
    flops = workload.flops_per_update(1.0)
    rows = comparison.rows(found, 128, rounds=3, flops=flops, peak_tflops=1.0)
    assert [row["image-updates/s"] for row in rows] == ["320.0", "160.0", "213.3", "", ""]
    assert [row["× PyTorch's best"] for row in rows] == ["1.50", "0.75", "1.00", "", ""]
    assert rows[0]["GFLOP/s"] == "401"
    assert rows[0]["of peak"] == "40.1%"
    assert (rows[0]["RSS growth, MiB"], rows[0]["own count, MiB"]) == ("3", "1")
    assert rows[3]["relative difference"] == "not installed: foolbox"
    assert rows[4]["relative difference"] == "failed: exit code -9"
    lines = alternation.table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_flops_are_those_of_vgg16():
    # 313.2 million products forward at 32×32, as many back to the image.
    assert workload.flops_per_update(1.0) == pytest.approx(2 * 2 * 313.2e6, rel=1e-4)
    assert [len(block) for block in workload.layers(0.5)] == [2, 2, 3, 3, 3]
    assert list(workload.layers(0.5))[-1][-1] == (256, 256, 2)


def test_convolutions_agree(torch_peers):
    sides = convolution_sides
    layers = [sides.Layer(2, 4, 5, 6), sides.Layer(2, 6, 4, None, 5)]
    ours, xla, pytorch = (make(layers) for make in (sides.outgen, sides.xla, sides.pytorch))
    shapes = {
        "forward": [(2, 4, 4, 6), (2, 6, 6, 4)],
        "input gradient": [(2, 4, 4, 5), (2, 6, 6, 4)],
        "kernel gradient": [(3, 3, 5, 6), (5, 5, 4)],
    }
    for operation, expected in shapes.items():
        for layer, shape in zip(layers, expected, strict=True):
            name = f"{layer.name}: {operation}"
            reference = xla.output(name)
            assert reference.shape == shape
            np.testing.assert_allclose(ours.output(name), reference, atol=1e-4, err_msg=name)
            np.testing.assert_allclose(pytorch.output(name), reference, atol=1e-4, err_msg=name)


def test_pytorch_trains_as_the_package_does(torch_peers, five_layers):
    sides = training_sides
    small = workload.Workload(width=1 / 16, batch_size=6)
    start = sides.kernels(small)
    ours = sides.outgen(small)
    trained = ours.images(2)
    for options in ({}, {"channels_last": True}):
        theirs = sides.pytorch(small, **options).images(2)
        moved = np.linalg.norm(trained - start)
        assert np.linalg.norm(theirs - trained) < 1e-3 * moved
    # Momentum and decay of the kernels are in it: without them the second update would go another way.
    assert moved > 0.1
    assert ours.seconds(2, 1) != 0
    np.testing.assert_array_equal(ours.images(2), trained)  # from the start, every time


def test_flops_of_training_are_three_passes():
    assert training_sides.flops_per_image(1.0) == pytest.approx(
        6 * 313.2e6 - 2 * 9 * 3 * 64 * 32**2, rel=1e-4
    )


@pytest.mark.slow
def test_pieces_of_synthesis_run(small):
    network = ours.gradients(small)
    batched, mapped = (network.output(name) for name in ("batched", "mapped"))
    np.testing.assert_allclose(mapped, batched, atol=1e-5)
    assert np.abs(batched).max() > 1e-3
    assert ours.WholeSet(small, dtype="bfloat16", data_dir=None).seconds(2) > 0


@pytest.mark.slow
@pytest.mark.parametrize("script", ["synthesis", "convolution", "training"])
def test_scripts_print_a_table_and_write_their_numbers(script, torch_peers, tmp_path):
    options = {
        "synthesis": ["--width=0.0625", "--batch_sizes=2", "--updates=1", "--rounds=1"],
        "convolution": ["--width=0.0625", "--batch_size=16", "--rounds=1"],
        "training": ["--width=0.0625", "--batch_sizes=4", "--updates=1", "--rounds=1"],
    }
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", f"--out={tmp_path}"] + options[script],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "outgen_jax" in done.stdout
    assert (tmp_path / "results.json").exists()
