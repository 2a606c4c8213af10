"""The scripts that train classifiers: from images to weights, through interruptions and errors."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import outgen_jax as og
from outgen_jax.data import splits
from outgen_jax.models import WhitenedCNN, pretrained, vgg
from outgen_jax.training import adversarial_examples, classifier, classifier_fit, updates
from outgen_jax.training.checkpoints import Checkpoints

SCRIPT = "train_classifier.py"
TRAINED_ON = 0  # a row that is not held out


@pytest.fixture
def data_set(tmp_path) -> str:
    """Red, green and blue images, as an .npz file."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = rng.integers(0, 120, (24, 32, 32, 3))
    images[np.arange(24), :, :, labels] += 100
    path = tmp_path / "colours.npz"
    names = np.array(["red", "green", "blue"])
    ids = np.array([f"image {row}" for row in range(24)])
    np.savez(path, images=images.astype(np.uint8), labels=labels, class_names=names, ids=ids)
    return str(path)


@pytest.fixture
def train(run_script, monkeypatch, data_set, tmp_path):
    """The script on that data set with a network of two layers; later flags win."""
    monkeypatch.setattr(vgg, "BLOCKS", ((64,), (64,)))
    monkeypatch.setattr(classifier_fit, "CHECKPOINT_SECONDS", 0)

    def call(*arguments: str):
        return run_script(
            SCRIPT,
            f"--dataset={data_set}",
            f"--out={tmp_path / 'run'}",
            "--width=0.0625",
            "--epochs=2",
            "--batch_size=8",
            *arguments,
        )

    return call


def test_trains_exports_and_resumes_to_the_same_bits(train, data_set, tmp_path, monkeypatch):
    excluded = tmp_path / "excluded.txt"
    held_out = splits.train_and_test(data_set, held_out=0.25).test
    excluded.write_text(f" {held_out.ids[0]}\n\n{held_out.ids[3]}\nimage {TRAINED_ON}\n")
    options = (f"--exclude_ids={excluded}", "--seed=3", "--held_out=0.25")
    finished = train(*options)
    assert finished.returncode == 0, finished.stderr
    assert "of 4 held-out images" in finished.stdout
    assert "epoch 2/2" in finished.stderr
    out = tmp_path / "run"
    results = json.loads((out / "results.json").read_text())
    assert results["script"] == SCRIPT
    assert results["flags"]["epochs"] == 2
    assert results["flags"]["seed"] == 3
    assert [row["epoch"] for row in results["history"]] == [1, 2]
    assert results["history"][0]["loss"] < 3  # it is a cross-entropy of three classes
    assert all(0 <= row["measured"]["test_accuracy"] <= 1 for row in results["history"])
    assert list((out / "logs").iterdir())

    loaded = pretrained.load(out / "weights.npz")
    assert loaded.class_names == ("red", "green", "blue")
    assert loaded.card["recipe"]["batch_size"] == 8
    assert (loaded.card["test_images"], loaded.card["held_out"]) == (4, 0.25)
    kept = held_out.take([1, 2, 4, 5])
    logits = jax.jit(loaded.model)(kept.images.astype(np.float32) / 255)
    accuracy = (np.argmax(logits, 1) == kept.labels).mean()
    np.testing.assert_allclose(loaded.card["test_accuracy"], accuracy)

    # Ctrl-C after the first epoch, then the same command.
    def interrupted(self, step, state, notes, save=Checkpoints.save):
        save(self, step, state, notes)
        raise KeyboardInterrupt

    again = (*options, f"--out={tmp_path / 'again'}")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        stopped = train(*again)
    assert stopped.returncode == 130
    assert "the same command resumes" in stopped.stderr
    assert not (tmp_path / "again" / "weights.npz").exists()
    resumed = train(*again)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch 1" in resumed.stdout
    assert "epoch 1/2" not in resumed.stderr
    weights = [(tmp_path / name / "weights.npz").read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]
    history = json.loads((tmp_path / "again" / "results.json").read_text())["history"]
    for ours, theirs in zip(history, results["history"], strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}

    refused = train(*options, "--epochs=3")
    assert refused.returncode == 2
    assert "holds a run with other flags (epochs=2)" in refused.stderr
    assert "--overwrite" in refused.stderr


def test_trains_the_whitened_network(train, tmp_path):
    finished = train(
        "--network=whitened_cnn",
        "--optimizer=normalized_muon",
        "--schedule=linear",
        "--precision=bfloat16",
        "--momentum=0.6",
        "--epochs=1",
    )
    assert finished.returncode == 0, finished.stderr
    loaded = pretrained.load(tmp_path / "run" / "weights.npz")
    assert isinstance(loaded.model, WhitenedCNN)
    assert np.abs(loaded.model.whitening[...]).max() > 0
    assert (
        loaded.card["recipe"] | {"optimizer": "normalized_muon", "momentum": 0.6}
        == (loaded.card["recipe"])
    )
    assert loaded.card["precision"] == "bfloat16"
    assert "hidden" not in loaded.card


def test_a_divergence_is_named_and_keeps_the_checkpoint(train, tmp_path, monkeypatch):
    @jax.jit
    def diverging(state, images, labels, rows):
        losses = jnp.where(state.step, jnp.inf, 1.0)[None]
        return state._replace(step=state.step + 1), classifier.Metrics(losses, jnp.zeros(1))

    monkeypatch.setattr(updates, "compile_updates", lambda update: diverging)
    monkeypatch.setattr(
        classifier, "make_apply", lambda graphdef, **_: lambda state, images: images[:, 0, 0]
    )
    finished = train("--batch_size=22", "--train_images=22")
    assert finished.returncode == 2
    assert "the loss diverged at update 2, in epoch 2" in finished.stderr
    assert "the checkpoint of epoch 1 is kept" in finished.stderr
    assert "lower learning rate" in finished.stderr
    assert Checkpoints(tmp_path / "run" / "checkpoints").latest == 1
    assert not (tmp_path / "run" / "weights.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size=25"], "2 epochs of 0 updates .* batch no larger than the data set"),
        (["--dataset=WIDE.npz"], r"images are 32x40 \(height x width\), .*; pass --size=32 or"),
        (["--dataset=nothing.npz"], "no file 'nothing.npz'"),
        (["--exclude_ids=EXCLUDED"], "1 ids are not in the test split, e.g. 99"),
        (["--epochs=0"], "epochs"),
        (["--network=whitened_cnn", "--hidden=8"], "has no hidden linear layers"),
        (["--robust_steps=5"], "--robust_steps=5 needs --robust_radius"),
        (
            ["--network=whitened_cnn", "--optimizer=normalized_muon", "--weight_decay=0.1"],
            "decay of --optimizer=normalized_muon is its own",
        ),
        (["--learning_rat=1"], "learning_rat"),
        (["epochs=3"], r"unexpected arguments \['epochs=3'\]"),
    ],
)
def test_user_errors_are_one_line(train, tmp_path, arguments, message):
    (tmp_path / "excluded.txt").write_text("99")
    wide = np.zeros((10, 32, 40, 3), np.uint8)
    np.savez(tmp_path / "wide.npz", images=wide, labels=np.zeros(10, int), class_names=["a"])
    files = {"EXCLUDED": "excluded.txt", "WIDE": "wide"}
    for word, name in files.items():
        arguments = [a.replace(word, str(tmp_path / name)) for a in arguments]
    finished = train(*arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"{SCRIPT}: ")
    assert finished.stderr.count("\n") == 1
    assert re.search(message, finished.stderr)
    assert not (tmp_path / "run").exists()  # the corrected command finds no other run there


def test_images_without_labels_are_refused(run_script, tmp_path):
    path = tmp_path / "bare.npz"
    np.savez(path, images=np.zeros((4, 32, 32, 3), np.uint8))
    finished = run_script(SCRIPT, f"--dataset={path}", f"--out={tmp_path / 'run'}")
    assert finished.returncode == 2
    assert "has no labels" in finished.stderr


@pytest.mark.parametrize("robust", [False, True], ids=["ordinary", "robust"])
def test_the_lenet_is_trained_on_digits_and_exported(run_script, tmp_path, robust):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 60, (40, 28, 28, 1))
    images[labels == 1, 8:20] += 150
    path, out = tmp_path / "bars.npz", tmp_path / "run"
    names = np.array(["none", "bar"])
    coloured = np.repeat(images.astype(np.uint8), 3, -1)  # as class folders are read
    np.savez(path, images=coloured, labels=labels, class_names=names)
    options = ("--robust_radius=0.25", "--robust_steps=1") if robust else ()
    finished = run_script(
        *("train_lenet.py", f"--dataset={path}", f"--out={out}", "--epochs=4", "--batch_size=10"),
        *options,
    )
    assert finished.returncode == 0, finished.stderr
    loaded = pretrained.load(out / "weights.npz")
    assert loaded.class_names == ("none", "bar")
    held_out = splits.train_and_test(path).test
    assert loaded.card["test_images"] == len(held_out.ids) == 4
    assert "of the held-out images" in finished.stdout
    logits = jax.jit(loaded.model)(held_out.images[..., :1].astype(np.float32) / 255)
    accuracy = (np.argmax(logits, 1) == held_out.labels).mean()
    np.testing.assert_allclose(loaded.card["test_accuracy"], accuracy)
    history = json.loads((out / "results.json").read_text())["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    recipe = loaded.card["recipe"]
    asked = (recipe["robust_radius"], recipe["robust_steps"])
    assert asked == ((0.25, 1) if robust else (None, None))
    if robust:
        expected = adversarial_examples.robustness(
            *og.models.from_nnx(loaded.model),
            held_out.images[..., :1],
            held_out.labels,
            radius=0.25,
        )
        assert loaded.card["robustness"] == expected._asdict()
    assert ("robustness" in loaded.card) == robust


def test_the_lenet_names_the_size_that_it_takes(run_script, tmp_path):
    finished = run_script("train_lenet.py", "--dataset=digits", f"--out={tmp_path / 'run'}")
    assert finished.returncode == 2
    assert (
        "images are 8x8 (height x width), and LeNet takes 28x28; pass --size=28" in finished.stderr
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_of_mixed_sizes_is_brought_to_one(train, tmp_path):
    rng = np.random.default_rng(0)
    for row in range(20):
        folder = tmp_path / "pets" / ("cat", "dog")[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + row, 70, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    options = (f"--dataset={tmp_path / 'pets'}", "--epochs=1")
    refused = train(*options)
    assert refused.returncode == 2
    assert "pass size=" in refused.stderr
    finished = train(*options, "--size=64")
    assert finished.returncode == 0, finished.stderr
    loaded = pretrained.load(tmp_path / "run" / "weights.npz")
    assert loaded.image_size == 64
    assert "of 2 held-out images" in finished.stdout
