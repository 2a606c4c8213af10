"""Paper C's study from images to tables, at its smallest."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.draw_gan import training
from outgen_jax.training.checkpoints import Checkpoints

SCRIPT = "draw_gan/__main__.py"


@pytest.fixture
def colours(tmp_path) -> str:
    """Forty colour images of 9×8 pixels, without labels."""
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "colours.npz", images=images)
    return str(tmp_path / "colours.npz")


def test_from_digits_to_tables(run_script, tmp_path):
    options = (
        *("--presets=smoke", "--seeds=1", "--dataset=digits", "--size=28", "--train_images=64"),
        *("--samples=40", "--resamples=10", f"--out={tmp_path / 'run'}"),
    )
    finished = run_script(SCRIPT, *options)
    assert finished.returncode == 0, finished.stderr
    out = tmp_path / "run"
    results = json.loads((out / "results.json").read_text())
    (run,) = results["presets"]["smoke"]
    scores = run["scores"]
    assert [row["epoch"] for row in run["history"]] == [1, 2]
    assert scores["images"] == scores["real_images"] == 40
    assert sum(scores["digit_histogram"]) == 40
    assert 1 <= scores["classifier_score"]["estimate"] <= 10
    assert len(scores["realism_by_step"]) == 2
    assert scores["fid"]["estimate"] > results["real"]["fid"]["estimate"] > 0
    assert all(v["low"] <= v["high"] for v in scores.values() if isinstance(v, dict))
    latent = run["latent"]
    assert len(latent["spread_alone"]) == len(latent["change_redrawn"]) == 2
    assert latent["spread_zero"] < 1e-6 < latent["spread_random"]
    assert set(latent["change_wild"]) == {"1", "2"}
    names = ("c3", "c4_smoke", "c6_smoke", "c8_smoke", "c9_smoke", "c10_smoke")
    for name in names:
        with Image.open(out / f"fig_{name}.png") as image:
            assert image.width > 200
    with Image.open(out / "drawing_smoke.gif") as image:
        assert image.n_frames == 2 + 1
    table = (out / "table.md").read_text()
    assert "| smoke (1 seeds) |" in table
    assert "40 generated against 40 real test images" in table
    assert "| share of samples whose digit changes |" in table
    assert table in finished.stdout

    # The same command again: what is finished is kept, to the byte.
    kept = (out / "smoke" / "seed0" / "scores.json").read_bytes()
    again = run_script(SCRIPT, *options)
    assert again.returncode == 0
    assert "epoch" not in again.stderr
    assert (out / "smoke" / "seed0" / "scores.json").read_bytes() == kept


def test_other_images_get_samples_and_an_interrupted_run_goes_on(run_script, tmp_path, monkeypatch):
    # As many pixels and images as above, so that the compiled programs serve twice.
    images = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", images=images)
    options = (
        *("--presets=smoke", "--seeds=1", f"--dataset={tmp_path / 'noise.npz'}", "--samples=40"),
        f"--out={tmp_path / 'run'}",
    )

    def interrupted(self, step, state, notes, save=Checkpoints.save):
        save(self, step, state, notes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        assert run_script(SCRIPT, *options).returncode == 130
    assert Checkpoints(tmp_path / "run" / "smoke" / "seed0" / "checkpoints").latest == 2
    finished = run_script(SCRIPT, *options)
    assert finished.returncode == 0, finished.stderr
    assert "no digits of 28×28 grey pixels: no scores" in finished.stdout
    (run,) = json.loads((tmp_path / "run" / "results.json").read_text())["presets"]["smoke"]
    assert "scores" not in run
    assert "digit_changes_wild" not in run["latent"]
    with np.load(tmp_path / "run" / "smoke" / "seed0" / "samples.npz") as kept:
        assert kept["images"].shape == (40, 28, 28, 1)
    assert "change of the image when z_t alone is redrawn" in finished.stdout
    assert "digits that become others" not in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--presets=smok"], "no preset 'smok'; use some of attention, attention_n4, baseline"),
        (["--points=9"], "points must lie between 1 and the image's shorter side, 8, got 9"),
        (["--steps=0"], "steps must be at least 1, got 0"),
        (["--train_images=15"], "batch_size 16 exceeds the 15 images"),
        (["--dataset=digits", "--size=28", "--samples=29"], "29 images; the scores need at least"),
        (["--dataset=nothing.npz"], "no file 'nothing.npz'"),
    ],
)
def test_user_errors_are_one_line(run_script, colours, tmp_path, arguments, message):
    base = ("--presets=smoke", f"--dataset={colours}", f"--out={tmp_path / 'run'}")
    finished = run_script(SCRIPT, *base, *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_attention_learns_more_slowly_and_all_at_the_preset_rate_in_the_end():
    preset = dataclasses.replace(training.PRESETS["attention_plus"], end=0.0)
    optimizer = training.optimizer(preset, updates=4)
    params = {"attention": {"kernel": jnp.ones(3)}, "patch": {"kernel": jnp.ones(3)}}
    state, steps = optimizer.init(params), []
    for _ in range(5):
        step, state = optimizer.update(params, state, params)
        steps.append(jax.tree.map(lambda x: float(x[0]), step))
    rate, last = preset.learning_rate, preset.last_rate
    np.testing.assert_allclose(steps[0]["patch"]["kernel"], -rate, rtol=1e-3)
    np.testing.assert_allclose(steps[0]["attention"]["kernel"], -0.1 * rate, rtol=1e-3)
    np.testing.assert_allclose(steps[2]["patch"]["kernel"], -rate * (1 + last) / 2, rtol=1e-3)
    np.testing.assert_allclose(steps[4]["patch"]["kernel"], -rate * last, rtol=1e-3)


def test_the_penalty_grows_and_is_small_again_in_the_end_while_the_rate_stays():
    preset = dataclasses.replace(training.PRESETS["attention_plus"], end=0.2)
    penalty = training.penalty(preset, 10)
    assert callable(penalty)
    grown = [0.5 + 2.5 * update / 8 for update in range(8)]
    np.testing.assert_allclose([penalty(update) for update in range(10)], [*grown, 1, 1], rtol=1e-5)
    assert training.penalty(dataclasses.replace(preset, grown_penalty=None), 10) == 0.5

    optimizer = training.optimizer(preset, 10)
    params = {"patch": jnp.ones(1)}
    state, steps = optimizer.init(params), []
    for _ in range(10):
        step, state = optimizer.update(params, state, params)
        steps.append(-float(step["patch"][0]) / preset.learning_rate)
    assert steps[7] > 0.21
    np.testing.assert_allclose(steps[8:], preset.last_rate, rtol=1e-3)
