"""Networks in other frameworks and their PyTorch twins compute the same, and the table counts what it says."""

import importlib
import json
from types import ModuleType

import jax
import numpy as np
import pytest

from benchmarks.harness.comparison import REFERENCE
from benchmarks.networks import ours, table
from benchmarks.networks.workload import EFFICIENTNET, NETWORKS, RESNET20, VGG16, Workload

SCRIPT = "../benchmarks/networks/__main__.py"
EAGER, COMPILED = "PyTorch eager", "PyTorch compile"


@pytest.fixture
def torch_twins() -> ModuleType:
    pytest.importorskip("torch", reason="compares with PyTorch")
    return importlib.import_module("benchmarks.networks.torch_twins")


def workload(network: str, batch_size: int = 2) -> Workload:
    return Workload(network, batch_size, small=True)


def test_vgg16_is_the_same_in_all_frameworks(five_layers):
    small = workload(VGG16)
    found = {}
    for written_in in NETWORKS[VGG16].written.values():
        apply_fn, variables = ours.network(small, written_in)
        found[written_in] = jax.jit(apply_fn)(variables, small.images())
    reference = found.pop("the package's")
    assert np.ptp(reference, axis=1).min() > 1
    for written_in, logits in found.items():
        np.testing.assert_allclose(logits, reference, rtol=1e-4, atol=1e-4, err_msg=written_in)


def test_resnet20_has_the_parameters_of_its_paper():
    weights = Workload(RESNET20, 1).resnet20()
    assert len(weights.blocks) == 9
    parameters = (
        weights._replace(stem=None, blocks=None),
        [
            layer._replace(mean=None, var=None)
            for layer in (weights.stem, *(a for block in weights.blocks for a in block[:2]))
        ],
    )
    # He et al. count 0.27 million; they have no 1×1 convolutions.
    assert sum(a.size for a in jax.tree.leaves(parameters)) == 269_722
    shortcuts = [block.shortcut.kernel.shape for block in weights.blocks if block.shortcut]
    assert shortcuts == [(1, 1, 16, 32), (1, 1, 32, 64)]


@pytest.mark.parametrize(
    "network", [VGG16, RESNET20, pytest.param(EFFICIENTNET, marks=pytest.mark.slow)]
)
def test_pytorch_computes_the_same_images(network, torch_twins, five_layers):
    small = workload(network)
    written_in = NETWORKS[network].written[REFERENCE]
    images = ours.outgen(small, written_in=written_in).images(2)
    moved = np.linalg.norm(images - small.images())
    assert moved > 0
    for options in ({}, {"channels_last": True}):
        theirs = torch_twins.pytorch(small, **options).images(2)
        assert np.linalg.norm(theirs - images) < 0.01 * moved


def test_images_alone_are_compared_with_their_own_row(monkeypatch):
    side = ours.Alone(workload(RESNET20, 3), written_in="jax.lax")
    asked = []

    def synthesize(rows: slice, updates: int) -> np.ndarray:
        asked.append((rows, updates))
        images = np.arange(3.0).reshape(3, 1, 1, 1) * np.ones((3, 4, 4, 3))
        images[1, 2, 2, 0] += 0.25 if rows == slice(None) else 0
        return images[rows]

    monkeypatch.setattr(side, "_synthesize", synthesize)
    np.testing.assert_array_equal(side.differences(7, 2), [0, 0.25])
    assert asked == [(slice(None), 7), (slice(0, 1), 7), (slice(1, 2), 7)]


def test_an_image_does_not_depend_on_the_batch():
    side = ours.Alone(workload(RESNET20, 3), written_in="jax.lax")
    assert side.differences(2, 2).max() < 1e-5
    moved = np.abs(side._synthesize(slice(None), 2) - side._images).max((1, 2, 3))
    assert moved.min() > 1e-4


def side(*seconds: float, failure: str | None = None) -> dict[str, object]:
    measured = {"compile_seconds": 1.0, "memory": {}, "difference": 0.001}
    return {"seconds_per_update": list(seconds), "failure": failure, **measured}


def cells(part: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines()]


def test_ratios_are_taken_within_rounds():
    sides = {
        REFERENCE: side(1.0, 2.0, 4.0),
        EAGER: side(1.0, 9.0, 9.0),
        COMPILED: side(2.0, 3.0, 4.0),
        "PyTorch compile channels_last": side(0.1, failure="failed: exit code 1"),
    }
    results = {
        "flags": {"rounds": 3},
        "cases": {"a": {"network": RESNET20, "batch_size": 6, "sides": sides}},
        "alone": {"batch_size": 256, "updates": 100, "differences": [1e-6, 2e-4]},
    }
    speeds, goals, title, shown = table.table(results).split("\n\n")
    assert cells(speeds)[2] == [
        *("ResNet-20, jax.lax", "6", "3.0", "1.50", "1.00 to 2.00", "2.0", "compile")
    ]
    speed, alone = cells(goals)[2:]
    assert speed[1:] == ["≥ 1.0", "1.50", "1.00 to 2.00", "yes"]
    assert alone[1:] == ["≤ 1e-04", "2.0e-04", "", "no"]
    assert title == "ResNet-20, batch of 6:"
    assert [row[0] for row in cells(shown)[2:]] == list(sides)


def test_networks_of_users_are_compared_with_the_package():
    sides = {
        REFERENCE: side(1.0, 1.0),
        "flax.nnx": side(1.0, 1.25),
        "Equinox": side(failure="failed: images differ"),
        EAGER: side(failure="not installed: torch"),
    }
    results = {
        "flags": {"rounds": 2},
        "cases": {"a": {"network": VGG16, "batch_size": 4, "sides": sides}},
        "alone": None,
    }
    speeds, goals, *_ = table.table(results).split("\n\n")
    assert [row[2:4] for row in cells(speeds)[2:]] == [
        ["4.0", ""],
        ["3.6", ""],
        ["failed: images differ", ""],
    ]
    assert {row[-1] for row in cells(speeds)[2:]} == {"none"}
    nnx, equinox = cells(goals)[2:]
    assert nnx[1:] == ["≥ 0.9", "0.90", "0.80 to 1.00", "yes"]
    assert equinox[1:] == ["≥ 0.9", "failed", "", "no"]


@pytest.mark.slow
def test_the_script_keeps_what_it_has_measured(torch_twins, five_layers, run_script, tmp_path):
    options = ["--small", "--rounds=2", "--updates=1", f"--out={tmp_path}"]
    for only in ("resnet20", "vgg16"):
        found = run_script(SCRIPT, *options, f"--only={only}")
        assert found.returncode == 0, found.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["cases"]) == ["vgg16_128", "resnet20_256"]
    for case in results["cases"].values():
        for name, of in case["sides"].items():
            assert of["failure"] is None, name
            assert len(of["seconds_per_update"]) == 2
    assert len(results["alone"]["differences"]) == 2
    assert results["processor"]["instructions"]
    assert "Equinox" in (tmp_path / "table.md").read_text()
