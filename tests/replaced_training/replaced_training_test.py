"""The script of paper A's experiment: the whole table in one command, through interruptions and errors."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

import outgen_jax as og
from experiments.replaced_training import arms, measures, presets, report, sets
from outgen_jax.models import vgg
from outgen_jax.training.checkpoints import Checkpoints

SCRIPT = "replaced_training/__main__.py"


@pytest.fixture
def write_data(tmp_path):
    """Red, green and blue images in an .npz file: 64 to train on, then 32 for the test."""

    def write(seed: int = 0) -> str:
        rng = np.random.default_rng(seed)
        labels = np.arange(96) % 3
        images = rng.integers(0, 120, (96, 32, 32, 3))
        images[np.arange(96), :, :, labels] += 100
        names = np.array(["red", "green", "blue"])
        path = tmp_path / "colours.npz"
        np.savez(path, images=images.astype(np.uint8), labels=labels, class_names=names)
        return str(path)

    return write


@pytest.fixture
def study(run_script, monkeypatch, write_data, tmp_path):
    """The script with its smoke preset on those images; of the network only the last layer is left."""
    monkeypatch.setattr(vgg, "BLOCKS", ())
    data = f"--dataset={write_data()}"

    def call(*arguments: str):
        return run_script(SCRIPT, "--preset=smoke", data, f"--out={tmp_path / 'run'}", *arguments)

    return call


def results(directory):
    return json.loads((directory / "results.json").read_text())


def measures_of_jobs(directory):
    return {f"{job['arm']}/{job['seed']}": job["measures"] for job in results(directory)["jobs"]}


def test_smoke_resumes_and_never_mixes(study, tmp_path, monkeypatch, write_data):
    """The preset from end to end: Ctrl-C in the middle, one job made again, other images refused."""
    out, saves = tmp_path / "run", []

    def interrupted(self, step, state, notes, save=Checkpoints.save):
        save(self, step, state, notes)
        saves.append(step)
        if len(saves) == 3:  # the frozen classifier, plain/0, plain/1
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        stopped = study()
    assert stopped.returncode == 130
    assert [path.parent.name for path in out.glob("jobs/plain/*/result.json")] == ["0"]
    done = study()
    assert done.returncode == 0, done.stderr
    assert "plain/0: " not in done.stdout
    assert "6 of 6 jobs" in done.stdout

    found = results(out)
    assert found["flags"]["epochs"] == 1  # the preset's
    assert [(job["arm"], job["seed"]) for job in found["jobs"]] == [
        (arm, seed) for arm in ("plain", "sgd:0.5", "during:0.5") for seed in (0, 1)
    ]
    assert [job["replaced_images"] for job in found["jobs"]] == [0, 0, 32, 32, 0, 0]
    accuracies = [job["measures"]["accuracy"] for job in found["jobs"]]
    assert found["arms"]["plain"]["measures"]["accuracy"]["mean"] == np.mean(accuracies[:2])
    against = found["arms"]["sgd:0.5"]["against"]["plain"]["accuracy"]
    assert against["difference"] == pytest.approx(
        np.mean(accuracies[2:4]) - np.mean(accuracies[:2])
    )
    assert found["arms"]["plain"]["cost"] == 1
    assert found["arms"]["sgd:0.5"]["cost"] > 1
    assert (out / "figure.png").stat().st_size > 10_000
    assert not list(out.glob("jobs/*/*/checkpoints"))
    stored = list(tfds.builder_from_directory(out / "generated" / "sgd").as_data_source("train"))
    assert len({example["id"] for example in stored}) == 32
    labels = np.array([example["label"] for example in stored])
    np.testing.assert_array_equal(labels, [int(example["id"]) % 3 for example in stored])
    targets = np.stack([example["target"] for example in stored])
    np.testing.assert_allclose(targets[np.arange(32), labels], 0.9, rtol=1e-6)

    before = measures_of_jobs(out)
    (out / "jobs" / "during-0.5" / "1" / "result.json").unlink()
    nothing = study("--only=plain/1")
    assert "5 of 6 jobs" in nothing.stdout
    again = study("--only=during:0.5/1")
    assert re.findall(r"^\S+/\d: ", again.stdout, re.MULTILINE) == ["during:0.5/1: "]
    assert measures_of_jobs(out) == before

    refused = study("--epochs=2")
    assert refused.returncode == 2
    assert "holds a run with other flags (epochs=1)" in refused.stderr

    write_data(seed=1)
    (out / "jobs" / "sgd-0.5" / "0" / "result.json").unlink()
    refused = study()
    assert refused.returncode == 2
    assert "was made from another source" in refused.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--arms=exakt:0.3",
            "no method 'exakt' in 'exakt:0.3'; use one of sgd, exact, during, own",
        ),
        ("--arms=sgd:1.5", r"'sgd:1.5': fraction must lie in \[0, 1\], got 1.5"),
        ("--arms=during", "'during' takes a fraction, such as during:0.3; got 'during'"),
        ("--arms=mixup:0.5", "'mixup' takes no fraction"),
        ("--arms=own:0", "'own:0' generates nothing; use plain"),
        ("--arms=plain@0", "multiple after @ must be positive"),
        ("--arms=plain@x", "'plain@x' holds something that is no number"),
        ("--arms=plain,plain", "names one twice"),
        ("--only=plain/7", "no job 'plain/7'; this run's are plain/0, plain/1, sgd:0.5/0"),
        ("--targets=true=0.9,rnadom=0.1", "rnadom"),
        ("--batch_size=65", "--batch_size=65 exceeds the 64 images"),
        ("--test_images=96", "has 96 images, of which --test_images=96"),
        ("--classifier=cifar10_vgg16_half", "knows other classes"),
        ("--dataset=none.npz", "no file 'none.npz'"),
        ("--preset=gpu", "preset"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(study, tmp_path, monkeypatch, flag, message):
    if "cifar10" in flag:
        monkeypatch.undo()  # the shipped weights are the whole network's
    done = study(flag)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


# --- pieces ---


def test_every_preset_says_what_it_runs():
    assert len({tuple(sorted(preset)) for preset in presets.PRESETS.values()}) == 1
    for preset in presets.PRESETS.values():
        parsed = [arms.parse(name) for name in preset["arms"]]
        assert parsed[0].name == "plain"
    paper = presets.PRESETS["paper"]
    assert [arms.parse(name).fraction for name in paper["arms"]] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert (paper["epochs"], paper["seeds"]) == (300, 5)


def test_the_generator_reaches_targets_of_its_label(toy_classifier):
    apply_fn, variables = toy_classifier
    bank = np.zeros((10, 2, 10), np.float32)
    bank[np.arange(10), :, np.arange(10)] = 0.7
    bank[np.arange(10), 0, (np.arange(10) + 1) % 10] += 0.3
    bank[np.arange(10), 1, (np.arange(10) + 2) % 10] += 0.3
    solver = og.gauss_newton(steps=3, trials=3, stride=None)
    generate = jax.jit(arms.generator(apply_fn, arms.Steering(solver, 2, jnp.asarray(bank))))
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(12, 8, 8, 3)), jnp.float32)
    labels = jnp.arange(12) % 10
    new, logits = generate(jax.random.key(0), None, variables, images, labels)
    assert new.min() >= 0
    assert new.max() <= 1
    np.testing.assert_allclose(logits, apply_fn(variables, new), rtol=1e-5)
    probs = np.asarray(jax.nn.softmax(logits))
    distance = np.abs(probs[:, None] - bank[labels]).sum(-1) / 2  # to both targets of the label
    assert np.median(distance.min(1)) < 1e-3
    assert distance.min(1).max() < 0.1
    assert set(distance.argmin(1)) == {0, 1}


def test_the_generator_asks_the_frozen_network_or_the_one_in_training():
    nothing = arms.Steering(og.gauss_newton(steps=0), 2, jnp.full((2, 1, 2), 0.5))
    images, labels = jnp.zeros((1, 2, 2, 3)), jnp.zeros(1, int)
    for own, expected in ((False, 2.0), (True, 1.0)):
        generate = arms.generator(lambda v, images: v * jnp.ones((1, 2)), nothing, own=own)
        _, logits = generate(jax.random.key(0), 1.0, 2.0, images, labels)
        np.testing.assert_array_equal(logits, [[expected, expected]])


def test_the_second_class_is_drawn_from_the_confusion():
    confusion = np.array([[0, 0.75, 0.25], [1, 0, 0], [0.5, 0.5, 0]])
    frozen = sets.Frozen(None, None, ("red", "green", "blue"), confusion)
    labels = np.repeat([0, 1, 2], 400)
    ids = [str(row) for row in range(1200)]
    found = sets.targets("true=0.8,confused=0.2", frozen, labels, ids, seed=0)
    np.testing.assert_allclose(found[np.arange(1200), labels], 0.8, rtol=1e-6)
    second = (found == np.float32(0.2)).reshape(3, 400, 3).mean(1)
    np.testing.assert_allclose(second, confusion, atol=0.07)
    some = sets.targets("true=0.8,confused=0.2", frozen, labels[5:9], ids[5:9], seed=0)
    np.testing.assert_array_equal(some, found[5:9])  # a row's draw is its own
    bank = sets.bank("true=0.9,random=0.1", frozen, seed=0)
    assert bank.shape == (3, sets.BANK_DRAWS, 3)
    np.testing.assert_allclose(bank[1, :, 1], 0.9, rtol=1e-6)
    assert {tuple(row.argsort()) for row in bank[0]} == {(1, 2, 0), (2, 1, 0)}


def test_confusion_is_the_mean_output_beside_the_label():
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.1, 0.4], [0.2, 0.8, 0]], np.float32)
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    source = og.data.sources.ImageSource(images, np.array([0, 0, 1]), ("a", "b", "c"), tuple("012"))

    def look_up(variables, images):
        row = jnp.round(images[:, 0, 0, 0] * 255).astype(int)
        return jnp.log(jnp.maximum(variables, 1e-9))[row]

    found = sets.confusion(look_up, jnp.asarray(probs), source)
    expected = [[0, 0.3 / 0.8, 0.5 / 0.8], [1, 0, 0], [0.5, 0.5, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_measures_of_a_network_that_is_known(toy_classifier):
    apply_fn, variables = toy_classifier
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    probs = og.predict(apply_fn, variables, images)
    labels = probs.argmax(1).astype(np.int32)
    labels[:10] = (labels[:10] + 1) % 10
    source = og.data.sources.ImageSource(images, labels, None, ())
    exam = measures.prepare(source, apply_fn, variables, distorted=16, attacked=20)
    numbers = measures.measure(apply_fn, variables, exam)
    assert numbers["accuracy"] == 0.75
    assert numbers["agreement"] == numbers["boundary_agreement"] == 1
    nll = -np.log(probs[np.arange(40), labels]).mean()
    assert numbers["nll"] == pytest.approx(nll, rel=1e-5)
    assert len(numbers["noise_levels"]) == len(numbers["blur_levels"]) == 5
    assert numbers["noise"] == pytest.approx(np.mean(numbers["noise_levels"]))
    assert numbers["robust"] <= 0.5  # the first ten are wrong to begin with
    top = np.sort(probs, 1)
    swapped = exam._replace(frozen_probs=np.roll(probs, 1, axis=1))
    assert measures.measure(apply_fn, variables, swapped)["agreement"] == 0
    near = np.argsort(top[:, -1] - top[:, -2])[:10]
    others = np.where(np.isin(np.arange(40), near)[:, None], np.roll(probs, 1, 1), probs)
    mixed = measures.measure(apply_fn, variables, exam._replace(frozen_probs=others))
    assert (mixed["agreement"], mixed["boundary_agreement"]) == (0.75, 0)


def job(arm, seed, accuracy, seconds=2.0, **changes):
    found = {"arm": arm, "method": arm.split(":")[0].split("@")[0], "seed": seed, "epochs": 10}
    found |= {"replaced_images": 0, "seconds_per_epoch": seconds}
    return (
        found | {"measures": dict.fromkeys(report.MEASURES, 0.5) | {"accuracy": accuracy}} | changes
    )


def test_summary_by_hand():
    jobs = [
        *(job("plain", seed, a) for seed, a in enumerate((0.50, 0.52, 0.54))),
        *(job("sgd:0.3", s, a, replaced_images=30) for s, a in ((0, 0.53), (2, 0.56))),
        job("plain@2", 1, 0.6, epochs=20),
    ]
    found = report.summarise(jobs, {"sgd": 0.5})
    plain = found["plain"]["measures"]["accuracy"]
    assert plain["mean"] == pytest.approx(0.52)
    assert plain["high"] - 0.52 == pytest.approx(4.302653 * 0.02 / 3**0.5)  # t of two degrees
    # 20 s of training, and 15 s for 30 images.
    assert found["sgd:0.3"]["cost"] == pytest.approx(35 / 20)
    assert found["plain@2"]["cost"] == pytest.approx(2)
    test = found["sgd:0.3"]["against"]["plain"]["accuracy"]
    assert test["difference"] == pytest.approx((0.03 + 0.02) / 2)  # seeds 0 and 2, paired
    assert test["p_value"] == pytest.approx(2 * 0.0628, abs=1e-3)  # t = 5 with one degree
    assert found["plain@2"]["measures"]["accuracy"] == {"mean": 0.6, "low": None, "high": None}
    assert found["sgd:0.3"]["against"].keys() == {"plain"}  # no two seeds with plain@2
    text = report.table({"arms": found})
    assert "| plain | 3 | 10 | 1.00 | 52.00 ± 4.97 |" in text
    assert "| sgd:0.3 | plain | +2.50 (p 0.13) |" in text
    json.dumps(found, allow_nan=False)


def test_a_figure_of_one_seed_and_without_plain():
    jobs = [job("mixup", 0, 0.5)]
    found = report.summarise(jobs, {})
    assert found["mixup"]["cost"] is None
    assert len(report.figure(found, jobs).axes) == 6
    assert report.table({"arms": found}).count("\n") == 3
