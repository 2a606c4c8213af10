"""The script makes a data set that tfds knows, goes on where it ended, and refuses bad input."""

import json

import numpy as np
import pytest
from PIL import Image

import outgen_jax as og
from outgen_jax.data import sharded_set
from outgen_jax.models import pretrained

CLASSES = ("cat", "dog", "ship")


@pytest.fixture
def run(run_script, tmp_path, small_vgg16):
    """`run("steps=2", ...)`: the script over twelve images of three classes."""
    rng = np.random.default_rng(0)
    for row in range(12):
        path = tmp_path / "images" / CLASSES[row % 3] / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    card = {"network": "VGG16", "width_multiplier": 1 / 16, "hidden": None}
    weights = tmp_path / "weights.npz"
    pretrained.save(weights, small_vgg16(), card | {"class_names": list(CLASSES)})

    def call(*changed):
        flags = {
            "source": str(tmp_path / "images"),
            "classifier": str(weights),
            "targets": "true=0.6,random=0.4",
            "solver": "momentum",
            "steps": "3",
            "quantize": "false",
            "batch_size": "2",
            "shard_size": "5",
            "out": str(tmp_path / "out"),
        }
        flags |= dict(flag.split("=", 1) for flag in changed)
        return run_script("generate_dataset.py", *(f"--{k}={v}" for k, v in flags.items()))

    return call


def contents(directory):
    return {p.name: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_data_set_is_made_resumed_and_never_mixed(run, tmp_path):
    import tensorflow_datasets as tfds

    done = run()
    assert done.returncode == 0, done.stderr
    assert "12 images in 3 shards (3 made now" in done.stdout
    assert "12/12" in done.stderr  # the progress bar
    out = tmp_path / "out"
    made = out / "generated" / "1.0.0"
    stored = list(tfds.data_source("generated", split="train", data_dir=out))
    target = np.stack([e["target"] for e in stored])
    labels = np.array([e["label"] for e in stored])
    np.testing.assert_allclose(target[np.arange(12), labels], 0.6, rtol=1e-6)
    np.testing.assert_allclose(np.sort(target, -1)[:, 1], 0.4, rtol=1e-6)
    model = og.models.from_nnx(pretrained.load(tmp_path / "weights.npz").model)
    probs = og.predict(*model, np.stack([e["image"] for e in stored]))
    np.testing.assert_allclose([e["probs"] for e in stored], probs, atol=1e-5)
    assert json.loads((out / "results.json").read_text())["examples"] == 12
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["made_from"]["about"]["flags"]["seed"] == 0

    before = contents(made)
    (made / sharded_set.records.shard_name("generated", "train", 1, 3)).write_bytes(b"torn")
    again = run()
    assert again.returncode == 0, again.stderr
    assert "(1 made now" in again.stdout
    assert contents(made) == before

    refused = run("steps=2")
    assert refused.returncode == 2
    assert "steps=3" in refused.stderr
    assert contents(made) == before
    replaced = run("targets=dirichlet", "overwrite=true")
    assert replaced.returncode == 0, replaced.stderr
    stored = list(tfds.data_source("generated", split="train", data_dir=out))
    ids = [e["id"].decode() for e in stored]
    expected = og.targets.dirichlet(0, 12, 3, image_ids=ids)
    np.testing.assert_allclose([e["target"] for e in stored], expected, rtol=1e-6)


def test_labels_are_stored_with_their_distance(run, tmp_path):
    import tensorflow_datasets as tfds

    done = run("output=sigmoid", "targets=cat=0.7,random=0.2")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    assert results["output"] == "Sigmoid()"
    assert results["distance"] == "largest error of a probability"
    for example in tfds.data_source("generated", split="train", data_dir=out):
        target, named = example["target"], ~np.isnan(example["target"])
        assert (target[0], named.sum()) == (np.float32(0.7), 2)
        gap = np.abs(target - example["outputs"])[named].max()
        np.testing.assert_allclose(example["distance"], gap, atol=1e-5)


def test_dirichlet_is_for_distributions(run, tmp_path):
    done = run("output=sigmoid", "targets=dirichlet")
    assert done.returncode == 2
    assert "--targets=dirichlet draws distributions" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("targets=catt=1", "did you mean 'cat'"),
        ("targets=missing.csv", "missing.csv"),
        ("classifier=runs/none.npz", "expected one of"),
        ("source=no_such_set", "no_such_set"),
        ("shard_size=0", "shard_size"),
        ("tolerance=0", "tolerance"),
        ("solver=adamw", "solver"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(run, tmp_path, flag, message):
    done = run(flag)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_unwritable_directory_is_one_line_and_exit_code_2(run, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(f"out={tmp_path / 'file' / 'out'}")
    assert done.returncode == 2
    assert "Not a directory" in done.stderr
