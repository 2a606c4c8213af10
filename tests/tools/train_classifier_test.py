"""The scripts that train classifiers: from images to weights, through interruptions and errors."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from outgen_jax.models import pretrained, vgg
from outgen_jax.training import classifier, classifier_fit, updates
from outgen_jax.training.checkpoints import Checkpoints

SCRIPT = "train_classifier.py"


@pytest.fixture
def data_set(tmp_path) -> str:
    """Red, green and blue images, as an .npz file."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = rng.integers(0, 120, (24, 32, 32, 3))
    images[np.arange(24), :, :, labels] += 100
    path = tmp_path / "colours.npz"
    names = np.array(["red", "green", "blue"])
    np.savez(path, images=images.astype(np.uint8), labels=labels, class_names=names)
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
    excluded.write_text("3\n5\n")
    options = (f"--exclude_ids={excluded}", "--seed=3")
    finished = train(*options)
    assert finished.returncode == 0, finished.stderr
    assert "of 22 test images" in finished.stdout
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
    assert loaded.card["test_images"] == 22
    with np.load(data_set) as arrays:
        keep = np.array([i for i in range(24) if i not in (3, 5)])
        logits = jax.jit(loaded.model)(arrays["images"][keep].astype(np.float32) / 255)
        accuracy = (np.argmax(logits, 1) == arrays["labels"][keep]).mean()
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


def test_a_divergence_is_named_and_keeps_the_checkpoint(train, tmp_path, monkeypatch):
    @jax.jit
    def diverging(state, images, labels, rows):
        losses = jnp.where(state.step, jnp.inf, 1.0)[None]
        return state._replace(step=state.step + 1), classifier.Metrics(losses, jnp.zeros(1))

    monkeypatch.setattr(updates, "compile_updates", lambda update: diverging)
    monkeypatch.setattr(
        classifier, "make_apply", lambda graphdef: lambda state, images: images[:, 0, 0]
    )
    finished = train("--batch_size=24", "--train_images=24")
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
        (["--dataset=nothing.npz"], "no file 'nothing.npz'"),
        (["--exclude_ids=EXCLUDED"], "1 ids are not in the test split, e.g. 99"),
        (["--epochs=0"], "epochs"),
        (["--learning_rat=1"], "learning_rat"),
        (["epochs=3"], r"unexpected arguments \['epochs=3'\]"),
    ],
)
def test_user_errors_are_one_line(train, tmp_path, arguments, message):
    (tmp_path / "excluded.txt").write_text("99")
    finished = train(*(a.replace("EXCLUDED", str(tmp_path / "excluded.txt")) for a in arguments))
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"{SCRIPT}: ")
    assert finished.stderr.count("\n") == 1
    assert re.search(message, finished.stderr)


def test_images_without_labels_are_refused(run_script, tmp_path):
    path = tmp_path / "bare.npz"
    np.savez(path, images=np.zeros((4, 32, 32, 3), np.uint8))
    finished = run_script(SCRIPT, f"--dataset={path}", f"--out={tmp_path / 'run'}")
    assert finished.returncode == 2
    assert "has no labels" in finished.stderr


def test_the_lenet_is_trained_on_digits_and_exported(run_script, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 60, (40, 28, 28, 1))
    images[labels == 1, 8:20] += 150
    path, out = tmp_path / "bars.npz", tmp_path / "run"
    names = np.array(["none", "bar"])
    np.savez(path, images=images.astype(np.uint8), labels=labels, class_names=names)
    finished = run_script(
        *("train_lenet.py", f"--dataset={path}", f"--out={out}", "--epochs=4", "--batch_size=10")
    )
    assert finished.returncode == 0, finished.stderr
    loaded = pretrained.load(out / "weights.npz")
    assert loaded.class_names == ("none", "bar")
    logits = jax.jit(loaded.model)(images.astype(np.float32) / 255)
    accuracy = (np.argmax(logits, 1) == labels).mean()
    np.testing.assert_allclose(loaded.card["test_accuracy"], accuracy)
    history = json.loads((out / "results.json").read_text())["history"]
    assert history[-1]["loss"] < history[0]["loss"]
