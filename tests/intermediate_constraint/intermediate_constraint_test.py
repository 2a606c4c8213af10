"""The study of paper D end to end at its smallest, its readers, its tests and its verdict."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.intermediate_constraint import (
    comparisons,
    data,
    figures,
    presets,
    study,
    tables,
)
from outgen_jax.data import distort
from outgen_jax.models import VGG16, efficientnet_lite, efficientnet_lite_imagenet, pretrained
from outgen_jax.training import finetuning_fit
from outgen_jax.training.finetuning_recipe import FinetuningRecipe, Penalty

SCRIPT = "intermediate_constraint/__main__.py"


class Tiny(nnx.Module):
    """Two hidden layers on digits: quick to compile."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(784, 8, rngs=rngs)
        self.fc2 = nnx.Linear(8, 6, rngs=rngs)
        self.head = nnx.Linear(6, 10, rngs=rngs)

    def activations(self, images):
        first = self.fc1(images.reshape(len(images), -1))
        second = self.fc2(jax.nn.relu(first))
        return self.head(jax.nn.relu(second)), {"fc1": first, "fc2": second}

    def __call__(self, images):
        return self.activations(images)[0]


@pytest.fixture
def run(run_script, monkeypatch, tmp_path):
    """The smoke preset with a tiny network; later flags win."""

    def load(name, **options):
        classes = tuple("0123456789")
        return pretrained.Pretrained(Tiny(rngs=nnx.Rngs(0)), classes, 28, {})

    monkeypatch.setattr(pretrained, "load", load)

    def call(*arguments: str):
        flags = ("--preset=smoke", "--network=tiny", f"--out={tmp_path / 'run'}")
        return run_script(SCRIPT, *flags, *arguments)

    return call


@pytest.mark.slow
def test_smoke_preset_runs_resumes_and_reports(run, tmp_path, monkeypatch):
    # Ctrl-C in the fourth of the six jobs, then the same command.
    original, calls = finetuning_fit.finetune, []

    def interrupted(*arguments, **options):
        calls.append(options["key"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning_fit, "finetune", interrupted)
        stopped = run()
        assert stopped.returncode == 130
        finished = run()
    assert finished.returncode == 0, finished.stderr
    assert len(calls) == 7  # three jobs were kept

    out = tmp_path / "run"
    results = json.loads((out / "results.json").read_text())
    jobs = results["jobs"]
    assert [(j["variant"], j["seed"]) for j in jobs] == [
        (name, seed) for seed in (1, 2) for name in ("plain", "MSE", "proposed")
    ]
    assert len(results["conditions"]) == 11
    assert all(len(j["accuracy"]) == len(j["agreement"]) == 11 for j in jobs)
    assert results["before"]["agreement"][0] == 1  # of the untouched network on clean images
    assert results["images"] == {"train": 128, "validation": 64, "test": 64}
    assert {(c["a"], c["b"]) for c in results["comparisons"]} == {
        ("MSE", "plain"), ("proposed", "plain"), ("proposed", "MSE"),
    }  # fmt: skip
    text = (out / "table.md").read_text()
    assert text in finished.stdout
    assert text == tables.table(results)
    with np.load(out / "correct.npz") as bits:
        first = np.unpackbits(bits["final_plain_0_both_1"], axis=-1, count=64)
    np.testing.assert_allclose(first.mean(-1), jobs[0]["accuracy"], atol=1e-6)
    assert "| both | constraint | 0.1 | 2 |" in text
    assert "| the paper's order | clean | noise | blur |" in text
    with Image.open(out / "levels.png") as image:
        assert min(image.size) > 500
    _, gain, _ = figures.levels_figure(results).axes[:3]  # of noise
    plain, mse = ([j["accuracy"][1] for j in jobs if j["variant"] == n] for n in ("plain", "MSE"))
    interval, mean = gain.lines[2:4]  # MSE at the first level after clean images
    np.testing.assert_allclose(mean.get_ydata(), 100 * (np.mean(mse) - np.mean(plain)), atol=1e-9)
    assert interval.get_ydata()[0] <= mean.get_ydata()[0] <= interval.get_ydata()[1]
    assert not list((out / "checkpoints").iterdir())

    refused = run("--epochs=2")
    assert refused.returncode == 2
    assert "holds a run with other flags (epochs=None)" in refused.stderr


def test_each_arm_of_a_grid_drops_its_programs(run, tmp_path, monkeypatch):
    """Or the process runs out of mappings."""
    original, events = finetuning_fit.finetune, []

    def noted(*arguments, **options):
        events.append(arguments[4].kind)
        return original(*arguments, **options)

    monkeypatch.setattr(finetuning_fit, "finetune", noted)
    monkeypatch.setattr(jax, "clear_caches", lambda: events.append("dropped"))
    finished = run("--weights=0.1,0.2", "--seeds=1", "--epochs=0.25")
    assert finished.returncode == 0, finished.stderr
    grid = ["none", "mse", "mse", "constraint", "constraint"]
    assert [kind for kind in events if kind != "dropped"] == [*grid, "none", "mse", "constraint"]
    assert "".join(kind[0] for kind in events) == "dndmmdccdnmc"


def test_where_nothing_is_chosen_all_arms_take_part(run, tmp_path):
    finished = run("--variants=no dropout,inference", "--seeds=1", "--epochs=0.25")
    assert finished.returncode == 0, finished.stderr
    jobs = json.loads((tmp_path / "run" / "results.json").read_text())["jobs"]
    assert [job["variant"] for job in jobs] == [
        "plain",
        "MSE",
        "proposed",
        "no dropout",
        "inference",
    ]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--layers=fc9", "no layer 'fc9'; Tiny has 'fc1', 'fc2'"),
        ("--weights=-0.1", "λ must be finite and not negative, got -0.1"),
        ("--weights=0.1,many", "--weights=0.1,many: λ must be numbers"),
        ("--learning_rate=0", "learning_rate must be positive"),
        ("--kinds=fog", r"--kinds: unknown \['fog'\]"),
        ("--variants=beta", "unknown variant 'beta'; there are AugMix-style"),
        ("--dataset=nothing.npz", "no file 'nothing.npz'"),
        ("--preset=tiny", "preset"),
        ("--batch_size=129", "--batch_size=129 must be at most the number of training images, 128"),
        ("--targeted_images=129", "--targeted_images=129 must be from --batch_size=32 to .* 128;"),
        ("--targeted_images=31", "--targeted_images=31 must be from --batch_size=32 to "),
    ],
)
def test_user_errors_are_one_line(run, flag, message):
    finished = run(flag)
    assert finished.returncode == 2
    last = finished.stderr.strip().splitlines()[-1]  # progress bars before it
    assert last.startswith("experiments.intermediate_constraint: ")
    assert re.search(message, last)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--weights=0.1,0.2", "MSE, proposed, .* inference: .*; give --weights one value, or use"),
        ("--variants=AugMix-style", "AugMix-style: .*; leave AugMix-style out of --variants, or"),
    ],
)
def test_nothing_is_chosen_where_no_images_are_held_out(run, flag, message):
    """The data are not read either: there are no such."""
    finished = run("--preset=cifar10", "--data_dir=nowhere", flag)
    assert finished.returncode == 2
    assert re.search(message, finished.stderr.splitlines()[-1])


@pytest.mark.parametrize("flag", ["--layers=fc9", "--kinds=fog", "--dataset=nothing.npz"])
def test_flags_that_do_not_fit_leave_an_earlier_run_as_it_is(run, tmp_path, flag):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "results.json").write_text("precious")
    assert run("--overwrite", flag).returncode == 2
    assert (tmp_path / "run" / "results.json").read_text() == "precious"


# --- data and networks ---


@pytest.fixture
def class_folders(tmp_path):
    """train/ and val/ with three of ImageNet's classes, as the network names them."""
    names = efficientnet_lite_imagenet.imagenet_classes()[:3]
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for name in names:
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (80, 100, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "images"


def test_class_folders_train_an_efficientnet(class_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "_STAGES", ((1, 3, 1, 1, 8), (1, 3, 2, 2, 8)))
    names = efficientnet_lite_imagenet.imagenet_classes()
    train, test, classes = data.load_splits(str(class_folders), None, names, 32, lambda: tmp_path)
    assert classes == names
    assert (len(train.images), len(test.images)) == (6, 3)
    assert sorted(train.labels) == [0, 0, 1, 1, 2, 2]
    network = efficientnet_lite.EfficientNetLite0(rngs=nnx.Rngs(0))
    penalty = Penalty(kind="constraint", weight=0.1, layers=("block2_depthwise", "head"))
    recipe = FinetuningRecipe(updates=2, batch_size=3)
    result = finetuning_fit.finetune(
        network,
        train.images,
        train.labels,
        recipe,
        penalty,
        distort=lambda key, images: distort.gaussian_blur(images, 1.0),
        key=jax.random.key(0, impl="unsafe_rbg"),
    )
    assert result.history[0]["penalty"] > 0
    assert np.isfinite(result.history[-1]["loss"])
    with pytest.raises(
        ValueError, match="no layer 'fc1'; EfficientNetLite0 has 'stem', 'block1_dep"
    ):
        finetuning_fit.finetune(
            network,
            train.images,
            train.labels,
            recipe,
            dataclasses.replace(penalty, layers=("fc1",)),
            distort=lambda key, images: images,
            key=jax.random.key(0),
        )


@pytest.mark.slow
def test_the_published_efficientnet_on_class_folders_at_full_size(class_folders, tmp_path):
    network = pretrained.load("efficientnet_lite0")
    train, *_ = data.load_splits(
        str(class_folders), None, network.class_names, network.image_size, lambda: tmp_path
    )
    assert train.images[np.array([0, 5])].shape == (2, 224, 224, 3)
    result = finetuning_fit.finetune(
        network.model,
        train.images,
        train.labels,
        FinetuningRecipe(updates=1, batch_size=2),
        Penalty(kind="constraint", weight=0.1, layers=("block16_depthwise", "head")),
        distort=lambda key, images: distort.random_distortion(key, images, distort.PAPER),
        key=jax.random.key(0),
    )
    assert np.isfinite(result.history[0]["loss"])


def test_images_are_cut_as_torchvision_cuts_them():
    pixels = np.zeros((256, 400, 3), np.uint8)
    pixels[16:240, 88:312] = 200  # the centre 224 of a picture whose shorter side is 256
    crop = data.centre_crop(Image.fromarray(pixels), 224)
    assert crop.shape == (224, 224, 3)
    assert (crop == 200).all()


def test_classes_are_matched_by_name_or_by_all_wordnet_ids():
    match = data.matching_classes
    np.testing.assert_array_equal(match(["dog", "cat"], ["ant", "cat", "dog"]), [2, 1])
    ids = [f"n{i:08d}" for i in range(1000)]
    names = [f"class {i}" for i in range(1000)]
    np.testing.assert_array_equal(match(ids[::-1], names), np.arange(1000)[::-1])
    for found in (ids[:999], ["fog", "dog"]):
        with pytest.raises(
            ValueError, match=r"are not the network's, e\.g\. .*all 1,000 of ImageNet"
        ):
            match(found, names)


def test_class_folders_without_splits_have_no_image_in_both_sets(class_folders):
    (train, names), (test, test_names) = data.memory_splits(str(class_folders / "train"), None, 32)
    assert names == test_names
    assert len(test.labels) == (len(train.labels) + len(test.labels) + 4) // 5
    seen = {image.tobytes() for image in train.images}
    assert not seen & {image.tobytes() for image in test.images}


def test_sources_that_are_sorted_by_class_give_both_sets_every_class(tmp_path):
    labels = np.repeat(np.arange(5), 20)
    images = np.broadcast_to(labels[:, None, None, None], (100, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "sorted.npz", images=images, labels=labels, class_names=list("abcde"))
    (train, _), (test, _) = data.memory_splits(str(tmp_path / "sorted.npz"), None, 8)
    assert set(train.labels) == set(test.labels) == set(range(5))
    for split in (train, test):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels)


def test_damaged_and_missing_images_are_named(class_folders):
    victim = next((class_folders / "val").rglob("*.png"))
    victim.write_bytes(b"no image")
    split, _ = data.folder_split(class_folders / "val", 32)
    with pytest.raises(ValueError, match=f"{victim.name} cannot be read"):
        split.images[np.arange(3)]
    with pytest.raises(FileNotFoundError, match="expected train/ and val/"):
        data.folder_split(class_folders / "test", 32)


def test_parts_of_readers_and_arrays_agree(class_folders):
    split, _ = data.folder_split(class_folders / "train", 32)
    whole = data.Split(split.images[np.arange(6)], split.labels)
    for a, b in ((split.part(2, 6).part(1, 3), whole.part(2, 6).part(1, 3)),):
        np.testing.assert_array_equal(a.labels, b.labels)
        assert len(a.images) == len(b.images) == 2
        np.testing.assert_array_equal(a.images[np.array([1, 0])], b.images[np.array([1, 0])])


def test_a_network_begins_with_the_convolutions_of_another():
    model = VGG16(10, 0.5, hidden=8, rngs=nnx.Rngs(0))
    data.begin_with_convolutions(model, "cifar10_vgg16_half")
    shipped = pretrained.load("cifar10_vgg16_half").model
    ours, theirs = (nnx.to_pure_dict(nnx.state(m.blocks)) for m in (model, shipped))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert model.hidden[1].kernel[...].shape == (8, 8)


# --- evaluation, tests and verdict ---


def job(variant: str, seed: int, *, kind: str = "both", stage: str = "final", weight: float = 0.1):
    return study.Job(stage, variant, weight, kind, seed)


def results(shares: dict[str, tuple[float, float, float]], seeds: int = 4, count: int = 600):
    """Made-up jobs: variant -> accuracy on clean, noise and blur, equal draws for every variant."""
    found, table = {}, made_up_conditions()
    for name, accuracy in shares.items():
        for seed in range(1, seeds + 1):
            rng = np.random.default_rng(seed)
            draws = rng.random((5, count))
            limits = [accuracy[("clean", "noise", "blur").index(c.group)] for c in table]
            limits = np.array(limits) + rng.normal(0, 1e-3)
            found[job(name, seed)] = {
                "correct": draws < limits[:, None],
                "agreement": np.full((5, 3), 0.9),
            }
    return found


def made_up_conditions():
    make, scale = study.Condition, distort.PAPER
    return [
        make("clean", 0.0, 0.0, scale),
        *(make("noise", s, 0.0, scale) for s in (1.0, 2.0)),
        *(make("blur", 0.0, s, scale) for s in (1.0, 2.0)),
    ]


def test_the_verdict_confirms_refutes_and_leaves_open():
    table = made_up_conditions()
    names = ("plain", "MSE", "proposed")

    def said(shares):
        tests = comparisons.comparisons(results(shares), table)
        return comparisons.verdict(comparisons.corrected(tests), names)

    text = said({"plain": (0.6, 0.4, 0.4), "MSE": (0.6, 0.5, 0.5), "proposed": (0.6, 0.6, 0.6)})
    assert "| constraint > MSE | open | confirmed | confirmed |" in text
    assert "| constraint > plain | open | confirmed | confirmed |" in text
    assert "with no significant loss of clean accuracy | MSE, constraint |" in text
    text = said({"plain": (0.7, 0.6, 0.6), "MSE": (0.6, 0.5, 0.5), "proposed": (0.5, 0.6, 0.6)})
    assert "| MSE > plain | refuted | refuted | refuted |" in text
    assert "none of those tried" in text


def test_the_paper_s_tests_are_corrected_apart_from_all_others():
    make = comparisons.Comparison
    tests = [
        make("proposed", "plain", "both", "noise", 0.01, 0.0, 0.02, 0.01, 0.001),
        make("MSE", "plain", "both", "blur", 0.01, 0.0, 0.02, 0.03, 0.001),
        make("MSE", "plain", "noise", "blur", 0.01, 0.0, 0.02, 0.01, 0.001),
        make("MSE", "plain", "blur", "blur", 0.01, 0.0, 0.02, None, 0.001),
        make("no dropout", "plain", "both", "blur", 0.01, 0.0, 0.02, 0.02, 0.001),
    ]
    assert [c.primary for c in tests] == [True, True, False, False, False]
    found = [c.p_corrected for c in comparisons.corrected(tests)]
    assert found == [0.02, 0.03, 0.02, None, 0.02]
    text = tables.table_tests(comparisons.corrected(tests))
    assert (
        "| both | constraint − plain | noise | +1.00% | +0.00% to +2.00% | +1.09% | 0.01 | 0.02 |"
        in text
    )
    assert "numbers for (2) and for all others (3)" in text


def test_levels_are_compared_one_by_one():
    arms = {"plain": (0.6, 0.4, 0.4), "MSE": (0.6, 0.4, 0.4), "proposed": (0.6, 0.5, 0.4)}
    jobs = [
        j._asdict() | {"accuracy": r["correct"].mean(-1).tolist()} for j, r in results(arms).items()
    ]
    conditions = [tuple(c)[:3] for c in made_up_conditions()]
    made = {"jobs": jobs, "conditions": conditions, "before": {"accuracy": [0.9] * 5}}
    _, text = tables.table_levels(made)
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:]
        for line in text.splitlines()
        if line.startswith("|") and "%" in line
    }
    assert list(rows) == [
        "clean",
        "noise 1",
        "noise 2",
        "blur 1",
        "blur 2",
    ]
    difference = float(rows["noise 2"][2].split("%")[0])
    assert 8 < difference < 12
    assert rows["blur 1"][2].strip() == "+0.00% (+0.00% to +0.00%)"
    assert rows["noise 1"][0].strip() == "90.00%"
    alone = [job for job in jobs if job["seed"] == 1]
    assert tables.table_levels(made | {"jobs": alone}) == []


def test_comparisons_are_paired_and_need_equal_seeds():
    table = made_up_conditions()
    found = results({"plain": (0.6, 0.4, 0.4), "MSE": (0.6, 0.5, 0.4)})
    (noise,) = (c for c in comparisons.comparisons(found, table) if c.group == "noise")
    by_seed = [
        found[job("MSE", s)]["correct"][1:3].mean() - found[job("plain", s)]["correct"][1:3].mean()
        for s in range(1, 5)
    ]
    np.testing.assert_allclose(noise.difference, np.mean(by_seed))
    half = 3.182446 * np.std(by_seed, ddof=1) / 2  # Student's t of three degrees of freedom
    expected = np.mean(by_seed) + np.array([-half, half])
    np.testing.assert_allclose((noise.low, noise.high), expected, rtol=1e-5)
    assert max(noise.p_seeds, noise.p_images) < 0.01
    (blur,) = (c for c in comparisons.comparisons(found, table) if c.group == "blur")
    assert blur.p_images == 1
    found.pop(job("plain", 4))
    assert comparisons.comparisons(found, table) == []
    one = results({"plain": (0.6, 0.4, 0.4), "MSE": (0.6, 0.5, 0.4)}, seeds=1)
    (noise,) = (c for c in comparisons.comparisons(one, table) if c.group == "noise")
    assert noise.p_seeds is None
    assert noise.low == noise.high == noise.difference
    assert noise.p_images < 0.01


def test_the_night_s_preset_has_the_paper_s_weights_and_all_its_arms(tmp_path):
    preset = presets.PRESETS["cifar10"]
    found = study.variants(("fc1", "fc2"), preset.variants)
    assert found["no dropout"].held_pass == found["MSE no dropout"].held_pass == "no_dropout"
    assert (found["inference"].kind, found["inference"].held_pass) == ("constraint", "inference")
    assert {n: presets.grid(n, preset.weights) for n in found} == {
        **{"plain": (0.0,), "MSE": (0.05,), "MSE no dropout": (0.05,)},
        **dict.fromkeys(("proposed", "no dropout", "inference"), (0.1,)),
    }
    np.testing.assert_allclose(
        preset.levels.blur, presets.BLUR_FACTOR * np.array(distort.PAPER.blur)
    )
    assert preset.levels.noise == distort.PAPER.noise


def test_without_a_grid_the_paper_s_weights_are_taken():
    grid = presets.grid
    assert (grid("MSE", ()), grid("proposed", ()), grid("plain", ())) == ((0.05,), (0.1,), (0.0,))
    assert grid("proposed", (0.2, 0.3)) == (0.2, 0.3)
    assert grid("AugMix-style", (0.2, 0.3)) == (12.0, 3.0, 1.0)


def test_the_weight_of_the_best_validation_accuracy_is_chosen():
    table = made_up_conditions()
    found = {
        job("MSE", 0, stage="grid", weight=w): {
            "correct": np.arange(100) < 100 * np.full((5, 1), a)
        }
        for w, a in ((0.1, 0.5), (0.05, 0.7), (0.025, 0.6))
    }
    weight, score = comparisons.chosen_weights(found, table)["MSE"]
    assert weight == 0.05
    np.testing.assert_allclose(score, 0.7)
    jobs = [j._asdict() | {"accuracy": r["correct"].mean(-1).tolist()} for j, r in found.items()]
    text = tables.table_grid({"conditions": [tuple(c) for c in table], "jobs": jobs})
    assert "| MSE | 0.05 | 70.00% | 70.00% | 70.00% | 70.00% |" in text


def settings_of(*, updates, variants=None):
    return study.Settings(
        levels=distort.PAPER_32,
        compared=None,
        recipe=FinetuningRecipe(updates=updates),
        layers=("fc1",),
        variants=variants or {},
        weights=(),
        kinds=(),
        seeds=1,
        targeted_images=0,
        hardness_images=0,
        batch_size=4,
    )


def test_agreement_counts_neurons_on_and_off_as_before(monkeypatch):
    """A network whose neurons are all turned over agrees nowhere."""
    model = Tiny(rngs=nnx.Rngs(0))
    turned = nnx.clone(model)
    for layer in (turned.fc1,):
        layer.kernel.set_value(-layer.kernel[...])
        layer.bias.set_value(-layer.bias[...])
    images = np.random.default_rng(0).integers(0, 256, (10, 28, 28, 1), np.uint8)
    split = data.Split(images, np.zeros(10, np.int32))
    settings = settings_of(updates=1)
    made = study.Study(model, split, split, split, settings, None)
    same, other = (study.evaluate(m, made, "final") for m in (model, turned))
    np.testing.assert_array_equal(same["agreement"][0], 1)
    np.testing.assert_allclose(other["agreement"][0], 0, atol=1e-6)
    logits = model(jnp.asarray(images, jnp.float32) / 255)
    np.testing.assert_array_equal(same["correct"][0], np.asarray(logits).argmax(-1) == 0)
    assert same["correct"].shape == (11, 10)
    assert (same["agreement"][5] < 1).any()  # strong noise


def test_augmix_gets_the_updates_that_its_passes_leave():
    settings = settings_of(updates=90, variants=study.variants(("fc1",), ("AugMix-style",)))
    assert study.recipe_of(job("AugMix-style", 1), settings).updates == 40
    assert study.recipe_of(job("proposed", 1), settings).updates == 90


def test_targeted_images_are_distortions_half_of_the_time():
    pairs = np.concatenate([np.zeros((400, 2, 2, 3)), np.ones((400, 2, 2, 3))], -1)
    distorted = study.distortion("targeted", distort.PAPER_32)
    changed = np.asarray(distorted(jax.random.key(0), jnp.asarray(pairs)))
    assert changed.shape == (400, 2, 2, 3)
    means = changed.mean((1, 2, 3))
    assert set(means) == {0.0, 1.0}
    assert abs(means.mean() - 0.5) < 0.1
