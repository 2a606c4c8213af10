"""The model of scale against counts by hand, and what it takes from this machine."""

import dataclasses
import types

import pytest

from benchmarks.scale import measure, model, scenarios
from benchmarks.scale.table import _BATCH, duration, kept, table
from outgen_jax.synthesis import batch_sizes

WORK = model.Work(
    images=1000,
    values=3072,
    passes=10,
    flops=2e9,
    host_seconds=0.001,
    writer_seconds=0.002,
    stored=4096,
)
MACHINE = model.Machine(
    accelerators=16, per_host=8, peak=1e13, sustained=0.5, link=1.2e9, disk=1.024e6
)


def test_times_by_hand():
    found = model.times(WORK, MACHINE)
    # 2e13 FLOP at 16 · 5e12 a second; 4 images of 12,288 bytes over 16 links.
    assert found.link == pytest.approx(1000 * 4 * 12_288 / (16 * 1.2e9))
    assert found.device == pytest.approx(0.25 + found.link)
    assert found.host == 0.5  # two processes
    assert found.writer == 1
    assert found.disk == 2
    assert found.limit == "disk"
    assert model.times(dataclasses.replace(WORK, passes=1e4), MACHINE).limit == "device"


@pytest.mark.parametrize(("accelerators", "hosts"), [(1, 1), (8, 1), (9, 2), (64, 8)])
def test_every_eight_accelerators_have_a_host(accelerators, hosts):
    assert dataclasses.replace(MACHINE, accelerators=accelerators).hosts == hosts


def test_memory_by_hand():
    assert model.kept_for_backward([(2, 4), (3, 2)]) == 4 * (2 * 16 + 3 * 4)
    maps = 2 * 64 * 32**2 + 2 * 128 * 16**2 + 3 * 256 * 8**2 + 3 * 512 * (4**2 + 2**2)
    assert kept(32) == 4 * maps
    assert kept(224) == 49 * kept(32)


def test_work_scales_with_the_size_of_the_images():
    measured = {
        "flops_of_pass": 1e9,
        "exact_steps": 20,
        "exact_passes": 16,
        "writing": {size: {"seconds": 1.0, "bytes": 2.0} for size in ("32", "224")},
        "handing": {"32": 3.0, "224": 5.0},
        "calling": 0.5,
    }
    exact, sgd = (
        scenarios.work(next(s for s in scenarios.SCENARIOS if s.method == method), measured)
        for method in ("exact", "SGD")
    )
    assert (exact.passes, sgd.passes) == (320, 200)
    assert (exact.host_seconds, sgd.host_seconds) == (3 + 0.4, 3 + 2)  # 4 calls of 25 updates
    large = scenarios.work(scenarios.SCENARIOS[-1], measured)
    assert (large.flops, large.values) == (49e9, 3 * 224**2)
    check = {"flops_of_step": 1e9, "flops_per_second": 1e10, "targets": {}}
    check["targets"]["uniform"] = {"steps": 20.0, "seconds": 4.0}
    memory = {"images": 128, "temporary": 2 * 128 * kept(32)}
    text = table({"measured": measured, "check": check, "memory": memory})
    assert "| uniform |        20.0 |            2.00 |        4.00 |             2.00 |" in text
    assert "times the 2.0 of the CPU" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.14, "3.1 s"), (90, "1.5 min"), (7200, "2 h"), (864_000, "10 d"), (1e8, "1,157 d")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_this_machine_is_measured():
    small, large = (measure.writing(24, size) for size in (32, 64))
    assert small["seconds"] > 0
    assert 3072 / 2 < small["bytes"] < large["bytes"] < 2 * 3 * 64**2  # noise hardly compresses
    assert measure.photographs(3, 32).std() > 20
    assert measure.handing(2, 8) > 0


def test_the_default_batch_of_an_h200_is_the_engines():
    memory = {"bytes_limit": int(0.75 * 141e9)}  # what JAX takes of it
    h200 = types.SimpleNamespace(platform="gpu", memory_stats=lambda: memory)
    assert batch_sizes._batch_pixels(h200) == _BATCH * 32**2
