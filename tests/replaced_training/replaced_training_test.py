"""The script of paper A's experiment: the whole table in one command, through interruptions and errors."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from toy_dataset import COUNT, SOURCE, make

import outgen_jax as og
from experiments.replaced_training import (
    arms,
    data,
    jobs,
    measures,
    paired,
    presets,
    report,
    sets,
)
from outgen_jax.models import vgg
from outgen_jax.training import classifier, objectives
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


@pytest.mark.slow
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
    probs = np.stack([example["probs"] for example in stored])
    median = np.median(np.abs(probs - targets).sum(1) / 2)
    assert found["generated"].keys() == {"sgd"}
    assert found["generated"]["sgd"]["images"] == 32
    assert found["generated"]["sgd"]["median"] == pytest.approx(median, rel=1e-4)

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
            "no method 'exakt' in 'exakt:0.3'; use one of sgd, exact, during, own, pgd, fgsm, noise, heo, boundary",
        ),
        ("--arms=sgd:1.5", r"'sgd:1.5': fraction must lie in \[0, 1\], got 1.5"),
        ("--arms=during", "'during' takes a fraction, such as during:0.3; got 'during'"),
        ("--arms=mixup:0.5", "'mixup' takes no fraction"),
        ("--arms=own:0", "'own:0' generates nothing; use plain"),
        ("--arms=pgd", "'pgd' takes a fraction, such as pgd:0.3; got 'pgd'"),
        ("--arms=plain@0", "multiple after @ must be positive"),
        ("--arms=plain@x", "'plain@x' holds something that is no number"),
        ("--arms=plain,plain", "names one twice"),
        ("--only=plain/7", "no job 'plain/7'; this run's are plain/0, plain/1, sgd:0.5/0"),
        ("--targets=true=0.9,rnadom=0.1", "rnadom"),
        ("--own_targets=true=0.9,rest=0.1", "'rest' cannot be used here, every class needs"),
        ("--targets=true=0.6,confused=0.3,rest=0.1", "'rest' cannot be used here, every class"),
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
    for name, seeds in (("table_a1", 5), ("small", 30)):
        preset = presets.PRESETS[name]
        parsed = [arms.parse(arm) for arm in preset["arms"]]
        assert [arm.name for arm in parsed[:2]] == ["plain", "sgd:0.3"]  # what decides comes first
        assert sorted(arm.fraction for arm in parsed[:6]) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
        assert {arm.method for arm in parsed[:6]} == {"plain", "sgd"}
        assert (preset["seeds"], preset["network"]) == (seeds, "whitened_cnn")


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


@pytest.mark.parametrize(("method", "length"), [("pgd", 0.1), ("fgsm", 0.1), ("noise", 0.1)])
def test_controls_change_their_share_within_the_radius(toy_classifier, method, length):
    apply_fn, variables = toy_classifier
    objective = arms.objective(
        arms.parse(f"{method}:0.5"),
        frozen=None,
        own=None,
        as_trained=apply_fn,
        steering={},
        radius=0.1,
    )
    assert objective.apart == 0.5
    images = jnp.asarray(np.random.default_rng(0).uniform(0.3, 0.7, (4, 8, 8, 3)), jnp.float32)
    given = objectives.Supervision(jnp.arange(4))
    moved, labels = objective.prepare(jax.random.key(0), variables, images, given)
    lengths = np.linalg.norm(np.asarray(moved - images).reshape(4, -1), axis=1)
    assert lengths.max() <= length * 1.001
    assert lengths[:2].min() > 0.5 * length
    assert lengths[2:].max() == 0
    losses = [
        objectives.plain().loss(apply_fn(variables, x)[:2], labels[:2]) for x in (images, moved)
    ]
    if method != "noise":
        assert losses[1] > losses[0]


def gaps(logits):
    """Between the two largest probabilities: [n]."""
    top = np.sort(jax.nn.softmax(logits), 1)
    return top[:, -1] - top[:, -2]


def test_boundary_arms_move_their_share_to_the_frozen_boundary(toy_classifier):
    apply_fn, variables = toy_classifier
    bank = np.zeros((10, 1, 10), np.float32)
    bank[np.arange(10), 0, np.arange(10)] = bank[np.arange(10), 0, (np.arange(10) + 1) % 10] = 0.5
    solver = og.gauss_newton(steps=5, trials=3, stride=None)
    steering = {"boundary": arms.Steering(solver, 2, jnp.asarray(bank))}
    options = {"frozen": apply_fn, "own": None, "as_trained": None, "radius": 0.1}
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 8, 8, 3)), jnp.float32)
    labels = apply_fn(variables, images).argmax(1)
    given = objectives.Supervision(labels, frozen=variables)
    before = gaps(apply_fn(variables, images))
    for name, most in (("boundary:0.5", 1e-3), ("heo:0.5", np.inf)):
        objective = arms.objective(arms.parse(name), steering=steering, **options)
        moved, _ = objective.prepare(jax.random.key(0), None, images, given)
        after = gaps(apply_fn(variables, moved))
        assert (after < before)[:3].all(), name
        assert np.median(after[:3]) < most, name
        np.testing.assert_array_equal(moved[3:], images[3:])


def test_the_network_of_table_a1_has_one_first_layer_for_all_seeds():
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    source = og.data.sources.ImageSource(images, np.arange(16) % 2, ("a", "b"), ())
    chosen = ("network", "optimizer", "learning_rate", "momentum", "schedule", "precision")
    settings = jobs.Settings(
        **{name: presets.PRESETS["table_a1"][name] for name in chosen},
        width=1 / 16,
        epochs=2,
        batch_size=8,
        crop_padding=1,
        radius=0.1,
    )
    model, other = jobs.build_model(source, settings, 0), jobs.build_model(source, settings, 1)
    np.testing.assert_array_equal(model.whitening[...], other.whitening[...])
    assert np.abs(model.whitening[...]).max() > 0
    graphdef, _ = jobs.network(source, settings)
    program = jobs.compile_program(graphdef, settings, 16, objective=None, multiple=1.0)
    assert program.epochs == 2
    _, state = classifier.create(model, program.optimizer)
    assert "whitening" not in state.params
    given = objectives.Supervision(jnp.asarray(source.labels), key=jax.random.key(0))
    # Traced only: compiling takes most of a minute.
    after, metrics = jax.eval_shape(program.update, state, images, given, jnp.arange(8)[None])
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics.loss.shape == (1,)


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
    unknown = report.summarise(jobs, {"sgd": None})
    assert unknown["sgd:0.3"]["cost"] is None
    assert unknown["plain"]["cost"] == 1
    assert "| sgd:0.3 | 2 | 10 |  | 54.50 " in report.table({"arms": unknown, "jobs": jobs})
    assert found["plain@2"]["cost"] == pytest.approx(2)
    test = found["sgd:0.3"]["against"]["plain"]["accuracy"]
    assert test["difference"] == pytest.approx((0.03 + 0.02) / 2)  # seeds 0 and 2, paired
    assert test["p_value"] == pytest.approx(2 * 0.0628, abs=1e-3)  # t = 5 with one degree
    assert found["plain@2"]["measures"]["accuracy"] == {"mean": 0.6, "low": None, "high": None}
    assert found["sgd:0.3"]["against"].keys() == {"plain"}  # no two seeds with plain@2
    text = report.table({"arms": found, "jobs": jobs})
    assert "| plain | 3 | 10 | 1.00 | 52.00 ± 4.97 |" in text
    assert "| sgd:0.3 | plain | +2.50 (p 0.13) |" in text
    sets = {"sgd": {"images": 1000, "median": 0.25, "95th percentile": 0.5}}
    with_sets = report.table({"arms": found, "jobs": jobs, "generated": sets})
    assert with_sets.startswith(text)
    assert with_sets.endswith("| sgd | 1,000 | 0.25 | 0.5 |\n")
    json.dumps(found, allow_nan=False)


def test_what_generating_took_is_not_known_without_a_record(tmp_path):
    """As after a process that ended between the last image and the record."""
    assert sets.seconds_an_image(tmp_path / "sgd") is None
    (tmp_path / "sgd_seconds.txt").write_text("0.25\n")
    assert sets.seconds_an_image(tmp_path / "sgd") == 0.25


def test_a_figure_of_one_seed_and_without_plain():
    jobs = [job("mixup", 0, 0.5)]
    found = report.summarise(jobs, {})
    assert found["mixup"]["cost"] is None
    assert len(report.figure(found, jobs).axes) == 6
    assert report.table({"arms": found, "jobs": jobs}).count("\n") == 3


def test_arms_are_sorted_by_fraction_and_what_is_not_measured_has_no_column():
    accuracy = {"measures": {"accuracy": 0.5, "nll": 1.0, "ece": 0.1}, "frozen_accuracy": 0.25}
    names = ("plain", "sgd:0.3", "sgd:0.1", "exact:0.3", "exact:0.2", "plain@2")
    jobs_ = [job(name, seed, 0.5) | accuracy for name in names for seed in (0, 1)]
    found = report.summarise(jobs_, {})
    assert list(found) == ["plain", "sgd:0.1", "sgd:0.3", "exact:0.2", "exact:0.3", "plain@2"]
    text = report.table({"arms": found, "jobs": jobs_})
    first, second, third = text.split("\n\n")
    assert first.startswith("| arm | seeds | epochs | cost | accuracy, % | NLL, nats | ECE, % |\n")
    assert first.endswith("| frozen network | 1 |  |  | 25.00 |  |  |")
    pairs, of_plain = second.splitlines(), third.splitlines()
    assert len(pairs) == len(of_plain) + 4  # those with plain@2
    assert len(report.figure(found, jobs_).axes) == 3


def test_images_at_boundaries_are_compared_with_distillation_and_those_of_heo():
    names = ("plain", "distillation", "distillation@2", "heo:0.5", "boundary:0.5")
    jobs_ = [job(name, seed, 0.5) for name in names for seed in (0, 1)]
    found = report.summarise(jobs_, {})
    against = {name: list(arm["against"]) for name, arm in found.items()}
    assert against == {
        "plain": [],
        "distillation": ["plain"],
        "distillation@2": ["plain"],
        "heo:0.5": ["plain", "distillation", "distillation@2"],
        "boundary:0.5": ["plain", "distillation", "distillation@2", "heo:0.5"],
    }
    text = report.table({"arms": found, "jobs": jobs_}).split("\n\n")[2]
    assert "| boundary:0.5 | heo:0.5 | 2 | +0.00 |" in text


def test_what_accuracies_exclude_by_hand():
    a, b = (0.50, 0.52, 0.54, 0.50), (0.51, 0.52, 0.56, 0.53)
    jobs_ = [job("plain", seed, value) for seed, value in enumerate(a)]
    jobs_ += [job("sgd:0.3", seed, value) for seed, value in enumerate(b)] + [job("sgd:0.1", 0, 1)]
    np.testing.assert_allclose(
        paired.differences(jobs_, "sgd:0.3", "plain"), [0.01, 0, 0.02, 0.03], atol=1e-12
    )
    text = paired.table(jobs_, [("sgd:0.1", "plain"), ("sgd:0.3", "plain")])
    row = text.strip().split("\n")[-1].split(" | ")
    # Mean 1.5 points, deviation √(5/3), three degrees: t is 3.182 at 95 % and 2.353 at 90 %.
    assert row[3:5] == ["+1.50", "-0.55 to +3.55"]
    assert row[6:8] == ["-0.02 to +3.02", "1.29"]
    # ((1.96 + 0.84)·1.29 / 0.084)² = 1854 with a known deviation, and two more.
    assert row[8] == "1,856 |"
    assert text.count("\n") == 3  # one seed has no row


def test_the_test_images_may_be_a_part_of_the_training_split(tmp_path):
    make(tmp_path / "set")
    options = {"test_dataset": None, "data_dir": None, "side": 8, "train_images": 10}
    split = f"train[{COUNT - 5}:]"
    train, test = data.load(str(tmp_path / "set"), test_split=split, test_images=COUNT, **options)
    assert train.ids == SOURCE.ids[:10]
    assert test.ids == SOURCE.ids[-5:]
    with pytest.raises(ValueError, match=r"--test_split=.*: 5 of the 5 test images are trained on"):
        data.load(
            str(tmp_path / "set"),
            test_split=split,
            test_images=COUNT,
            **(options | {"train_images": 0}),
        )


def test_sources_that_are_sorted_by_class_give_both_sets_every_class(tmp_path):
    labels = np.repeat(np.arange(4), 20)
    images = np.broadcast_to(labels[:, None, None, None], (80, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "sorted.npz", images=images, labels=labels)
    options = {"test_dataset": None, "data_dir": None, "side": 8, "train_images": 40}
    train, test = data.load(str(tmp_path / "sorted.npz"), test_images=16, **options)
    assert set(train.labels) == set(test.labels) == set(range(4))
    assert not set(train.ids) & set(test.ids)
    assert (len(train.ids), len(test.ids)) == (40, 16)
    np.testing.assert_array_equal(train.images[:, 0, 0], np.repeat(train.labels[:, None], 3, 1))
