"""Paper C's study from images to tables, at its smallest."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.draw_gan import comparisons, presets, scores, table, training
from outgen_jax.training import gan_samples
from outgen_jax.training.checkpoints import Checkpoints

SCRIPT = "draw_gan/__main__.py"


@pytest.fixture
def colours(tmp_path) -> str:
    """Forty colour images of 9×8 pixels, without labels."""
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "colours.npz", images=images)
    return str(tmp_path / "colours.npz")


@pytest.mark.slow
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
    names = ("samples", "fig_c6_smoke", "fig_c8_c9_smoke", "fig_c10_smoke")
    for name in names:
        with Image.open(out / f"{name}.png") as image:
            assert image.width > 200
    with Image.open(out / "drawing_smoke.gif") as image:
        assert image.n_frames == 2 + 1
    text = (out / "table.md").read_text()
    assert "| smoke (1 seeds) |" in text
    assert "40 generated against 40 real test images" in text
    assert "| share of samples whose digit changes |" in text
    assert text in finished.stdout
    assert run["settings"]["first_canvas"] == "sample"
    assert run["seed"] == 0

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
    check_more_samples(run_script, tmp_path / "run", tmp_path)


def check_more_samples(run_script, run, tmp_path) -> None:
    """The generator is the trained one; other seeds give other images, a larger number more of the same."""
    found = json.loads((run / "smoke" / "seed0" / "scores.json").read_text())
    generator = training.trained(run / "smoke" / "seed0", found["settings"])
    key_z, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 3))
    z = jax.random.normal(key_z, (40, *generator.latent_shape))
    again = gan_samples.sample(generator, z, generate=lambda model, z: model(z).images)
    with np.load(run / "smoke" / "seed0" / "samples.npz") as kept:
        assert np.abs(again - kept["images"].astype(int)).max() <= 1

    def more(name: str, *options: str) -> np.ndarray:
        out = tmp_path / f"{name}.npz"
        done = run_script(
            "draw_gan/sample.py", f"--run={run}", "--job=smoke/0", f"--out={out}", *options
        )
        assert done.returncode == 0, done.stderr
        with Image.open(out.with_suffix(".png")) as sheet:
            assert sheet.width > 100
        return np.load(out)["images"]

    seven, nine, other = more("a", "--number=7"), more("b", "--number=9"), more("c", "--seed=1")
    assert seven.shape == (7, 28, 28, 1)
    assert other.shape == (64, 28, 28, 1)
    np.testing.assert_array_equal(seven, nine[:7])
    assert (seven != other[:7]).any()
    for options, message in (
        (["--job=smoke/1"], "no finished job 'smoke/1' in --run; finished are smoke/0"),
        (["--job=smoke/0", f"--out={tmp_path / 'a.npz'}"], "is there already; name another file"),
        (["--job=smoke/0", f"--out={tmp_path / 'a.png'}"], "must end in .npz; the sheet takes the"),
    ):
        wrong = run_script("draw_gan/sample.py", f"--run={run}", *options)
        assert wrong.returncode == 2
        assert message in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--presets=smok"], "no preset 'smok'; use some of attention, attention_n4, baseline"),
        (["--presets=smoke+gru"], "'smoke+gru' has no change 'gru'; use some of glance, cell, r1"),
        (["--only=smoke/3"], "no job 'smoke/3'; this run's are smoke/0, smoke/1, smoke/2"),
        (["--points=9"], "points must lie between 1 and the image's shorter side, 8, got 9"),
        (["--steps=0"], "steps must be at least 1, got 0"),
        (["--train_images=15"], "batch_size 16 exceeds the 15 images"),
        (["--dataset=digits", "--size=28", "--samples=29"], "29 images; the scores need at least"),
        (["--dataset=digits", "--size=28"], "--train_images=50000 leaves 0 of its 1797 images"),
        (["--dataset=nothing.npz"], "no file 'nothing.npz'"),
    ],
)
def test_user_errors_are_one_line(run_script, colours, tmp_path, arguments, message):
    base = ("--presets=smoke", f"--dataset={colours}", f"--out={tmp_path / 'run'}")
    finished = run_script(SCRIPT, *base, *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run").exists()


def test_without_a_test_split_scores_rest_on_images_that_are_not_trained_on(
    run_script, tmp_path, monkeypatch
):
    labels, seen = np.arange(200), []
    images = np.broadcast_to(labels[:, None, None, None], (200, 28, 28, 1)).astype(np.uint8)
    digits = {"labels": labels % 10, "class_names": list("0123456789")}
    np.savez(tmp_path / "digits.npz", images=images, **digits)

    def reference(test, train):
        seen.extend({int(image[0, 0, 0]) for image in part} for part in (test, train))
        raise ValueError("seen enough")

    monkeypatch.setattr(scores, "reference", reference)
    options = ("--train_images=80", "--samples=50", f"--out={tmp_path / 'run'}")
    dataset = f"--dataset={tmp_path / 'digits.npz'}"
    finished = run_script(SCRIPT, "--presets=smoke", dataset, *options)
    assert "seen enough" in finished.stderr
    test, train = seen
    assert (len(test), len(train)) == (50, 80)
    assert not test & train


def test_attention_learns_more_slowly_and_all_at_the_preset_rate_in_the_end():
    preset = dataclasses.replace(presets.PRESETS["attention_plus"], end=0.0)
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
    preset = dataclasses.replace(presets.PRESETS["attention_plus"], end=0.2)
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


def test_all_changes_together_are_the_preset_found_here():
    every = "attention+" + "+".join(presets.CHANGES)
    assert presets.preset(every) == presets.PRESETS["attention_plus_49"]
    one = dataclasses.replace(presets.PRESETS["attention"], cell="tanh")
    assert presets.preset("attention+cell") == one
    names = presets.names_of(["ablation", "attention", "aids"])
    assert names[:3] == ["attention", "attention+glance", "attention+cell"]
    assert names[-3:] == ["attention_plus_49", "baseline_plus", "attention_plus"]
    assert all(presets.preset(name).epochs in (49, 117) for name in names)


def test_the_baseline_with_aids_has_those_of_the_attention_and_no_others():
    plain, aided, plus = (
        presets.PRESETS[name] for name in ("baseline", "baseline_plus", "attention_plus")
    )
    shared = (
        *("epochs", "average_decay", "penalty", "grown_penalty", "end", "end_penalty"),
        *("last_rate", "learning_rate", "beta1"),
    )
    assert all(getattr(aided, name) == getattr(plus, name) for name in shared)
    back = {name: getattr(plain, name) for name in shared}
    assert dataclasses.replace(aided, **back) == plain


def test_the_baseline_with_aids_trains_under_the_penalty():
    aided = dataclasses.replace(presets.PRESETS["baseline_plus"], units=8, batch_size=4)
    without = dataclasses.replace(aided, penalty=0.0, grown_penalty=None)
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1)).astype(np.uint8)
    ends = []
    for preset in (aided, without):
        first = training.first_image(preset, images, jax.random.key(0))
        game = training.game(preset, first, updates=9, seed=0, key=jax.random.key(1))
        state, metrics = game.update(game.state, images, np.arange(4)[None])
        assert np.isfinite(metrics.discriminator_loss).all()
        ends.append(state.discriminator.params["maxout_1"]["linear"]["kernel"][...])
    assert (np.asarray(ends[0]) != np.asarray(ends[1])).any()


def test_canvases_begin_with_a_sample_or_the_mean():
    images = np.random.default_rng(0).integers(0, 2, (9, 8, 8, 1)).astype(np.uint8) * 255
    sampled = presets.PRESETS["smoke"]
    mean = dataclasses.replace(sampled, first_canvas="mean")
    key = jax.random.key(0)
    assert set(np.unique(training.first_image(sampled, images, key))) == {0, 1}
    np.testing.assert_allclose(training.first_image(mean, images, key), images.mean(0) / 255)
    first = training.first_image(sampled, images, key)
    generator, discriminator = training.networks(sampled, first, 0)
    assert generator.image_shape == discriminator.image_shape == (8, 8, 1)
    np.testing.assert_allclose(jax.nn.sigmoid(generator.c_0[...]), first, atol=0.51 / 255)


def run_with(histogram, fid=2.0, loss=1.3, **more):
    names = ("density", "recall", "laplacian_variance")
    scores = {"digit_histogram": histogram, "digits": sum(n > 0 for n in histogram)}
    scores |= {name: {"estimate": 0.5} for name in names} | {"fid": {"estimate": fid}}
    return {"scores": scores, "history": [{"discriminator_loss": loss}], **more}


def test_kinds_of_digit_are_counted_by_their_entropy_and_compared_over_seeds():
    assert comparisons.kinds([7] * 10) == pytest.approx(10)
    assert comparisons.kinds([0, 40] + [0] * 8) == 1
    half = comparisons.kinds_interval([50, 50] + [0] * 8)
    assert half.low < half.estimate == pytest.approx(2)
    even, uneven = [10] * 10, [50] + [10] * 5 + [0] * 4
    found = comparisons.comparisons(
        {
            "attention": [run_with(uneven), run_with([51, 10, 11, 10, 9, 10, 0, 0, 0, 0])],
            "attention_n4": [run_with(even), run_with([11, 9] + [10] * 8)],
            "baseline": [run_with(even)],  # one seed: not compared
        }
    )
    assert {(c.a, c.b, c.measure) for c in found} == {
        ("attention_n4", "attention", "kinds of digit")
    }
    assert found[0].low > 4
    assert found[0].p_corrected == found[0].p_value < 0.02


def test_the_ablation_counts_seeds_that_draw_digits():
    even, lost = [10] * 10, [100] + [0] * 9
    named = {"settings": {}}
    results = {
        "real": None,
        "presets": {
            "attention": [run_with(lost, 80.0, **named)] * 2,
            "attention+cell": [run_with(even, 3.0, **named), run_with(even, 30.0, **named)],
            "attention+r1": [run_with(even, **named)] * 2,
        },
    }
    (text,) = table._ablation(results)
    assert "| attention | 0 of 2 | 80.00 (80.00 to 80.00) |" in text
    assert "| attention+cell | 1 of 2 |" in text
    assert "| attention+r1 | 2 of 2 |" in text
    assert table._ablation({"presets": {"attention": results["presets"]["attention"]}}) == []
    # Before settings were noted, c_0 was the mean.
    assert table.name_of("attention", [{}]) == "attention+mean"
    assert table.name_of("attention", [named]) == "attention"
