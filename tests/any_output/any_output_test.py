"""The study of any output: its images, its networks, and each script at its smallest."""

import json

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from steady_clock import steady_clock

from experiments.any_output import digits, measures, networks, peers
from outgen_jax.data import sources
from outgen_jax.models import LeNet, pretrained
from outgen_jax.studio import networks as studio_networks

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def short_attacks(monkeypatch):
    """Attacks look at the clock twenty times: else they would take as long as `og.synthesize` takes to compile.

    What they find is the subject of peers_test.
    """
    monkeypatch.setattr(measures, "time", steady_clock(looks_a_second=10))
    monkeypatch.setattr(peers, "time", steady_clock(looks_a_second=200))


@pytest.fixture
def small_digits(tmp_path) -> str:
    """Scikit-learn's digits, 8×8 pixels; canvases have 16×16."""
    found = sources.digits(limit=200)
    path = tmp_path / "small.npz"
    np.savez(
        path, images=found.images, labels=found.labels, class_names=np.array(found.class_names)
    )
    return str(path)


@pytest.fixture
def digits28(tmp_path) -> str:
    """The same, drawn out to 28×28 pixels."""
    found = sources.digits(size=(28, 28), limit=40)
    path = tmp_path / "digits.npz"
    np.savez(
        path, images=found.images, labels=found.labels, class_names=np.array(found.class_names)
    )
    return str(path)


def untrained(path, kind: str) -> str:
    card = {
        "kind": kind,
        "names": networks.output_names(kind),
        "mean": [0.0, 3.0, 13.5, 13.5] if kind == "numbers" else [0.0],
        "std": [30.0, 1.0, 2.0, 2.0] if kind == "numbers" else [1.0],
    }
    pretrained.save(path, networks.empty(kind), card)
    return f"--network={path}"


def results_of(run_script, script: str, out, *options: str) -> dict:
    finished = run_script(f"any_output/{script}.py", f"--out={out}", *options)
    assert finished.returncode == 0, finished.stderr
    assert (out / "table.md").read_text() in finished.stdout
    return json.loads((out / "results.json").read_text())


def test_canvases_say_which_digits_their_halves_hold():
    patterns = np.zeros((10, 8, 8, 1), np.uint8)
    for digit in range(10):
        patterns[digit] = 20 * (digit + 1)
    images, wanted = digits.canvases(patterns, np.arange(10), 30, seed=3)
    assert images.shape == (30, 16, 16, 1)
    assert wanted.shape == (30, 20)
    for image, row in zip(images[..., 0], wanted, strict=True):
        for half, side in enumerate((image[:, :8], image[:, 8:])):
            held = {int(level) // 20 - 1 for level in np.unique(side) if level}
            assert held == set(np.flatnonzero(row[10 * half :][:10]))
    np.testing.assert_array_equal(
        digits.anywhere(wanted), wanted[:, :10].astype(bool) | wanted[:, 10:].astype(bool)
    )
    np.testing.assert_array_equal(
        digits.canvases(patterns, np.arange(10), 30, seed=3).images, images
    )


def test_poses_are_what_they_say():
    bar = np.zeros((1, 28, 28, 1), np.uint8)
    bar[0, 6:22, 12:16] = 255  # 16 × 4 pixels, upright
    images, wanted = digits.posed(bar, 40, seed=0)
    rows, columns = np.mgrid[:28, :28]
    for image, (angle, thickness, row, column) in zip(images[..., 0] / 255, wanted, strict=True):
        total = image.sum()
        assert (image * rows).sum() / total == pytest.approx(row, abs=1e-3)
        assert (image * columns).sum() / total == pytest.approx(column, abs=1e-3)
        assert 3 < thickness < 5
        y, x = rows - row, columns - column
        slant = 0.5 * np.arctan2(2 * (image * x * y).sum(), (image * (y**2 - x**2)).sum())
        assert abs(np.degrees(slant)) == pytest.approx(abs(angle), abs=2)
    assert len(set(np.sign(wanted[:, 0]))) == 2


def test_thickness_grows_with_the_stroke():
    thin, thick = np.zeros((2, 28, 28))
    thin[4:24, 13:15] = 1
    thick[4:24, 11:17] = 1
    found = digits.thickness(np.stack([thin, thick]))
    np.testing.assert_allclose(found, [2, 6], rtol=0.35)
    assert found[1] > 2 * found[0]


def test_the_canvas_network_sees_each_half_alone():
    model = networks.CanvasNetwork(2, rngs=nnx.Rngs(0))
    model.eval()
    left, right = RNG.random((2, 1, 16, 16, 1)).astype(np.float32)
    both = np.concatenate([left, right], 2)
    changed = np.concatenate([left, 1 - right], 2)
    before, after = np.asarray(model(both)), np.asarray(model(changed))
    assert before.shape == (1, 20)
    assert np.abs(after - before)[0, 10:].min() > 0
    # But for the receptive fields that cross the middle.
    assert np.abs(after - before)[0, :10].mean() < np.abs(after - before)[0, 10:].mean()


@pytest.mark.parametrize("kind", networks.KINDS)
def test_training_leaves_a_network_that_loads(run_script, small_digits, digits28, tmp_path, kind):
    data = digits28 if kind == "numbers" else small_digits
    options = (f"--kind={kind}", f"--dataset={data}", "--images=60", "--test_images=20")
    out = tmp_path / "run"
    finished = run_script(
        "any_output/train.py", f"--out={out}", *options, "--batch_size=20", "--epochs=2"
    )
    assert finished.returncode == 0, finished.stderr
    found = networks.load(str(out / "weights.npz"))
    assert found.card["kind"] == kind
    assert len(found.names) == {"ten": 10, "twenty": 20, "numbers": 4}[kind]
    if kind == "numbers":  # a LeNet, which the studio loads
        studio = studio_networks.load(str(out / "weights.npz"), output="values")
        assert studio.class_names == digits.NUMBERS
        assert studio.unit == 1
        assert all(bar.low < 0 < bar.high for bar in studio.ranges)
    history = json.loads((out / "results.json").read_text())["history"]
    assert len(history) == 2
    assert all(0 <= row["train_accuracy"] <= 1 for row in history)


def test_a_network_of_another_script_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    pretrained.save(path, networks.empty("numbers"), {"network": "LeNet"})
    with pytest.raises(ValueError, match="must hold a network of this study"):
        networks.load(str(path))


@pytest.mark.slow
def test_labels(run_script, small_digits, tmp_path):
    out, network = tmp_path / "run", untrained(tmp_path / "ten.npz", "ten")
    options = (network, f"--dataset={small_digits}", "--number=2", "--tolerance=0.45")
    found = results_of(run_script, "labels", out, *options)
    for task in ("random probabilities", "random 0 and 1"):
        assert list(found["prescribed"][task]) == [
            "og.synthesize",
            "Carlini-Wagner's map, Adam",
            "PGD",
        ]
        assert len(found["prescribed"][task]["og.synthesize"]["distance"]) == 2
    assert list(found["flips"]["all labels"]) == ["og.synthesize", "JMA", "Carlini-Wagner"]
    assert len((out / "table.md").read_text().split("\n\n")) == 3
    with Image.open(out / "labels.png") as image:
        assert image.width > 200
    again = results_of(run_script, "labels", out, *options)
    assert again["prescribed"] == found["prescribed"]
    wrong = run_script("any_output/labels.py", untrained(tmp_path / "n.npz", "numbers"))
    assert wrong.returncode == 2
    assert "must have labels; it has numbers" in wrong.stderr


def test_values(run_script, digits28, tmp_path):
    network = untrained(tmp_path / "numbers.npz", "numbers")
    options = (network, f"--dataset={digits28}", "--number=2", "--tolerance=0.01")
    found = results_of(run_script, "values", tmp_path / "run", *options)["tasks"]
    assert len(found) == 3
    ours = found["another angle alone"]["og.synthesize"]
    assert max(ours["distance"]) <= 0.01
    assert max(ours["l2"]) < 5


def test_embedding(run_script, digits28, tmp_path):
    options = ("--network=mnist_lenet", f"--source={digits28}", "--number=2", "--tolerance=0.25")
    found = results_of(run_script, "embedding", tmp_path / "run", *options)["tasks"]
    ours = found["another image's features"]["og.synthesize"]
    assert max(ours["distance"]) <= 0.25


@pytest.mark.slow
def test_networks_at_once(run_script, digits28, tmp_path):
    other = tmp_path / "other.npz"
    names = [str(digit) for digit in range(10)]
    card = {"network": "LeNet", "channels": [16, 32], "class_names": names}
    pretrained.save(other, LeNet(rngs=nnx.Rngs(1)), card)
    options = (
        *(f"--networks=mnist_lenet,{other}", "--asked=mnist_lenet", f"--source={digits28}"),
        *("--side=32", "--classes=2", "--number=2", "--tolerance=0.01"),
    )
    found = results_of(run_script, "networks_at_once", tmp_path / "run", *options)["tasks"]
    same = found["the same for all"]["og.synthesize"]
    assert max(same["distance"]) <= 0.01
    # The network that is asked is one of those that took part.
    assert max(same["asked mnist_lenet: TV after"]) <= 0.01
    assert min(same["asked mnist_lenet: TV before"]) > 0.05
    assert "| the same for all | mnist_lenet |" in (tmp_path / "run" / "table.md").read_text()


def test_networks_at_once_needs_a_network_and_each_only_once(run_script, tmp_path):
    for given, message in (("", "names nothing"), ("mnist_lenet,mnist_lenet", "names one twice")):
        options = (f"--networks={given}", f"--out={tmp_path / 'run'}")
        finished = run_script("any_output/networks_at_once.py", *options)
        assert finished.returncode == 2
        assert f"--networks {message}" in finished.stderr
    assert not (tmp_path / "run").exists()


def test_several_views(run_script, digits28, tmp_path):
    options = (
        *("--classifier=mnist_lenet", f"--dataset={digits28}", "--number=2", "--shifts=0"),
        *("--crop=1", "--tolerance=0.01"),
    )
    found = results_of(run_script, "several_views", tmp_path / "run", *options)["tasks"]
    methods = found["true=0.9,random=0.1"]
    with_views, without = methods["og.synthesize"], methods["without views"]
    assert max(with_views["distance"]) <= 0.01 < max(without["distance"])
    assert np.mean(with_views["mean_after"]) < np.mean(without["mean_after"])


def test_a_picture_says_the_error_and_the_change_of_each_image():
    source = np.zeros((measures.SHOWN, 4, 4, 1), np.uint8)
    captions = {"task": [measures.error_caption(0.000472, 2.289)] * measures.SHOWN}
    figure = measures.figure(source, {"task": source + 9}, captions)
    last = figure.axes[-1]
    assert [text.get_text() for text in last.texts] == ["error 5e-04, L2 2.3"]
    assert measures.side_caption(0.31, 1.63) == "succeeds, L2 1.6"
    assert measures.side_caption(0.51, 1.63) == "fails, L2 1.6"
