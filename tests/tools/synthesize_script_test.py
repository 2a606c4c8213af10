"""The scripts that synthesize, end to end with a small network, and what bad input gets."""

import html
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import outgen_jax as og
from outgen_jax import files
from outgen_jax.models import pretrained

CLASSES = ("ship", "dog", "cat")


@pytest.fixture
def weights(tmp_path, small_vgg16):
    path = tmp_path / "weights.npz"
    card = {
        "network": "VGG16",
        "width_multiplier": 1 / 16,
        "hidden": None,
        "class_names": list(CLASSES),
    }
    pretrained.save(path, small_vgg16(), card)
    return path


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


@pytest.fixture
def run(run_script, tmp_path, weights, photographs):
    def call(*changed):
        flags = {
            "source": str(photographs),
            "classifier": str(weights),
            "targets": "ship=0.6,dog=0.4",
            "solver": "momentum",
            "steps": "3",
            "out": str(tmp_path / "out"),
        }
        flags |= dict(flag.split("=", 1) for flag in changed)
        return run_script("synthesize.py", *(f"--{k}={v}" for k, v in flags.items()))

    return call


def test_a_run_leaves_images_numbers_and_a_page(run, tmp_path):
    out = tmp_path / "my run"
    done = run(f"out={out}")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (out / "images").iterdir()) == ["a.png", "b.png", "c.png"]
    assert "broken.png" in done.stdout
    assert "1 unreadable file" in done.stdout
    results = json.loads((out / "results.json").read_text())
    assert [row["steps"] for row in results["images"]] == [3, 3, 3]
    assert results["images"][0]["wanted"] == pytest.approx({"ship": 0.6, "dog": 0.4})
    assert results["flags"]["steps"] == 3
    page = (out / "index.html").read_text()
    assert page.count("data:image/png") >= 6  # source and generated of each
    command = html.unescape(page.split("<pre><code>")[1].split("</code>")[0])
    program, *given = shlex.split(command)[2:]
    assert program == "outgen_jax.tools.synthesize"
    assert {"--targets=ship=0.6,dog=0.4", f"--out={out}"} <= set(given)
    assert (out / "figure.png").stat().st_size > 1000


def test_a_card_that_names_no_network_is_that_of_a_vgg16(run, tmp_path, weights):
    card = weights.with_suffix(".json")
    kept = {k: v for k, v in json.loads(card.read_text()).items() if k != "network"}
    card.write_text(json.dumps(kept))
    assert run("steps=1").returncode == 0
    assert "VGG16" in (tmp_path / "out" / "index.html").read_text()


def test_the_exact_images_are_written_where_asked_for(run, tmp_path):
    assert run("save_float=true").returncode == 0
    saved = files.load_arrays(tmp_path / "out" / "images.npz")
    assert saved["ids"].tolist() == [
        row["id"] for row in json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    ]
    assert saved["images"].dtype == np.float32
    for name, image in zip(saved["ids"], saved["images"], strict=True):
        png = np.asarray(Image.open(tmp_path / "out" / "images" / f"{Path(name).stem}.png"))
        assert np.abs(png / 255 - image).max() < 16 / 255  # quantize may take a level farther off
        assert not np.array_equal(og.data.to_uint8(image) / 255, image)


def test_reached_probabilities_are_those_of_the_saved_image(run, tmp_path, weights):
    run()
    saved = np.asarray(Image.open(tmp_path / "out" / "images" / "b.png"))
    apply_fn, variables = og.models.from_nnx(pretrained.load(weights).model)
    probs = og.predict(apply_fn, variables, saved[None])[0]
    row = json.loads((tmp_path / "out" / "results.json").read_text())["images"][1]
    assert row["reached_8bit"]["ship"] == pytest.approx(probs[0], abs=1e-5)
    expected = 0.5 * np.abs(probs - [0.6, 0.4, 0.0]).sum()
    assert row["total_variation_8bit"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("output", "kind", "distance"),
    [
        ("sigmoid", "Sigmoid()", "largest error of a probability"),
        ("values", "Values(scale=1.0)", "RMS error"),
    ],
)
def test_labels_and_numbers(run, tmp_path, weights, output, kind, distance):
    done = run(f"output={output}", "targets=ship=0.6,dog=0.4", "quantize=false")
    assert done.returncode == 0, done.stderr
    assert distance in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["output"], results["distance"]) == (kind, distance)
    row = results["images"][1]
    assert row["wanted"] == pytest.approx({"ship": 0.6, "dog": 0.4})
    import outgen_jax as og

    saved = np.asarray(Image.open(tmp_path / "out" / "images" / "b.png"))
    network = og.models.from_nnx(pretrained.load(weights).model)
    said = og.predict(*network, saved[None], output=getattr(og.outputs, output)())[0]
    assert list(row["reached_8bit"].values()) == pytest.approx(said[:2], abs=1e-5)
    gaps = np.abs(said[:2] - [0.6, 0.4])
    gap = gaps.max() if output == "sigmoid" else np.sqrt(np.mean(gaps**2))
    assert row["distance_8bit"] == pytest.approx(gap, abs=1e-5)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Images for which a network says what you asked" in page
    assert f"at most {1e-5:g}" in page


def test_numbers_need_a_target(run_script, tmp_path, weights, photographs):
    flags = f"--source={photographs}", f"--classifier={weights}", f"--out={tmp_path / 'out'}"
    done = run_script("synthesize.py", *flags, "--output=values")
    assert done.returncode == 2
    assert "--output=values needs --targets" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("targets=catt=1", "did you mean 'cat'"),
        ("targets=cat=0.5", "sum"),
        ("targets=true=1", "label"),
        ("targets=missing.csv", "missing.csv"),
        ("classifier=runs/none.npz", "expected one of cifar10_vgg16_half"),
        ("source=no_such_set", "no_such_set"),
        ("steps=-1", "steps"),
        ("solver=adamw", "solver"),
        ("tolerance=0", "tolerance"),
        ("output=logits", "output"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(run, tmp_path, flag, message):
    done = run(flag)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("side", "name"), [(32, "cifar10_vgg16_half"), (40, "efficientnet_lite0")])
def test_the_network_that_is_not_named_suits_the_images(
    run_script, tmp_path, monkeypatch, side, name
):
    Image.new("RGB", (side, side)).save(tmp_path / "mine.png")

    def load(name):
        raise ValueError(f"asked for {name}")

    monkeypatch.setattr(pretrained, "load", load)
    done = run_script("synthesize.py", f"--source={tmp_path}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 2
    assert f"asked for {name}" in done.stderr


def test_images_that_are_brought_to_another_size_are_told_of(run, photographs):
    for path in photographs.glob("?.png"):
        Image.open(path).convert("L").resize((50, 40)).save(path)
    done = run()
    assert done.returncode == 0, done.stderr
    assert (
        "images of 40x50 pixels (height x width) and 3 channels are brought to 32x32" in done.stdout
    )


def test_altered_weights_are_refused(run, weights):
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    done = run()
    assert done.returncode == 2
    assert "SHA-256" in done.stderr


def test_another_runs_directory_is_refused_unless_overwritten(run, tmp_path):
    assert run().returncode == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    refused = run("steps=2")
    assert refused.returncode == 2
    assert "steps=3" in refused.stderr
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    assert run("steps=2", "overwrite=true").returncode == 0
    flags = json.loads((tmp_path / "out" / "results.json").read_text())["flags"]
    assert flags["steps"] == 2
