"""The study of mixtures: its targets, its measures by hand, its figures, and the script at its smallest."""

import json

import numpy as np
import pytest
import scipy.special
from flax import nnx
from PIL import Image

import outgen_jax as og
from experiments.mixtures import figures, judging, starts, study, viewers
from experiments.mixtures.starts import Mixtures
from experiments.mixtures.table import views
from outgen_jax.data import sources
from outgen_jax.models import LeNet, pretrained

SCRIPT = "mixtures/__main__.py"
RNG = np.random.default_rng(0)
TWO = Mixtures(np.array([[2, 0], [1, 2]]), np.array([[0.75, 0.25], [0.4, 0.6]]))


# --- targets ---


def test_targets_hold_the_shares_and_nothing_else():
    np.testing.assert_allclose(TWO.targets(3), [[0.25, 0, 0.75], [0, 0.4, 0.6]])


def test_random_mixtures_name_other_classes_in_all_proportions():
    labels = RNG.integers(0, 6, 3000)
    found = starts.random_mixtures(3000, 2, 6, seed=0, other_than=labels)
    assert found.classes.shape == found.shares.shape == (3000, 2)
    assert not (found.classes == labels[:, None]).any()
    assert (found.classes[:, 0] != found.classes[:, 1]).all()
    np.testing.assert_allclose(found.shares.sum(1), 1)
    # Uniform over classes and proportions, within four standard errors.
    counts = np.bincount(found.classes.ravel(), minlength=6)
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(1000)
    assert abs(found.shares[:, 0].mean() - 0.5) < 4 * 0.289 / np.sqrt(3000)
    assert abs(found.shares[:, 0].std() - 0.289) < 0.02
    again = starts.random_mixtures(3000, 2, 6, seed=0, other_than=labels)
    np.testing.assert_array_equal(found.classes, again.classes)


def test_a_mixture_of_all_classes_is_possible():
    found = starts.random_mixtures(4, 3, 3, seed=0)
    np.testing.assert_array_equal(np.sort(found.classes, 1), np.tile(np.arange(3), (4, 1)))


def test_noise_has_its_mean_and_deviation():
    images = starts.noise(20, (16, 16, 3), mean=0.4, std=0.05, seed=0) / 255
    assert images.shape == (20, 16, 16, 3)
    assert abs(images.mean() - 0.4) < 0.005
    assert abs(images.std() - 0.05) < 0.005


# --- measures ---


def test_shares_among_the_named_survive_an_underflow():
    said = np.array([[-1000.0 + np.log(0.25), 5.0, -1000.0 + np.log(0.75)], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(judging.among_named(said, TWO), [[0.75, 0.25], [0.5, 0.5]])


def test_mass_and_top_by_hand():
    said = np.log([[0.3, 0.2, 0.5], [0.5, 0.3, 0.2]])
    np.testing.assert_allclose(judging.named_mass(said, TWO), [0.8, 0.5])
    np.testing.assert_array_equal(judging.named_on_top(said, TWO), [True, False])


def test_rank_correlation_ends_and_interval():
    shares = RNG.dirichlet(np.ones(2), 60)
    assert judging.rank_correlation(shares, shares**3) == pytest.approx(1)
    assert judging.rank_correlation(shares, -shares) == pytest.approx(-1)
    noisy = shares + RNG.normal(0, 0.3, shares.shape)
    estimate, low, high = judging.correlation_interval(shares, noisy)
    assert -1 < low < estimate < high < 1
    assert estimate == judging.rank_correlation(shares, noisy)


def test_the_numbers_of_a_job_are_those_of_its_judges():
    said = np.log([[0.3, 0.2, 0.5], [0.5, 0.3, 0.2]])
    arrays = {**TWO._asdict(), "l2": np.ones(2), "distance": np.zeros(2)}
    found = study.judged(arrays | {"judge other": said})
    assert set(found.said) == {"other"}
    numbers = study.numbers(found)
    assert numbers["judges"]["other"]["named_mass"][0] == pytest.approx(0.65)
    assert numbers["judges"]["other"]["named_on_top"][0] == 0.5
    assert numbers["images"] == 2


# --- viewers ---

VIEWED = viewers.Viewed(
    RNG.integers(0, 256, (3, 8, 8, 1), np.uint8),
    np.array([0, 1, 1]),
    np.array([[0, 1], [1, 2], [0, 2]]),
    np.array([0.001, 0.002, 0.003]),
)
NAMES = ("cat", "dog", "ship")


def write_answers(directory, **answers):
    directory.mkdir(parents=True, exist_ok=True)
    for name, of in answers.items():
        (directory / f"{name}.json").write_text(json.dumps(of))


def test_answers_are_counted_by_network(tmp_path):
    write_answers(tmp_path, a={"2": ["ship", "dog"], "1": ["ship"], "3": ["cat", "dog"]})
    answers = viewers.read_answers(tmp_path, NAMES, 3)
    found = viewers.numbers(VIEWED, answers, NAMES)
    assert found["counts"]["a"] == {"ordinary": [0, 0, 1], "robust": [1, 1, 0]}
    assert found["network"] == ["ordinary", "robust", "robust"]
    assert found["classes"][1] == ["dog", "ship"]
    (text,) = views({"viewers": found, "viewers_from_noise": {"counts": {}}})
    of_images = [
        "| test images | a | ordinary | 1 | 0 | 0 | 1 |",
        "| test images | a | robust | 2 | 1 | 1 | 0 |",
    ]
    assert text.splitlines()[-2:] == of_images
    (text,) = views({"viewers": found, "viewers_from_noise": found})
    assert text.splitlines()[-1] == "| noise | a | robust | 2 | 1 | 1 | 0 |"
    assert views({"viewers": {"counts": {}}}) == []


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"1": [], "2": []}, "each of the numbers 1 to 3"),
        ({"1": [], "2": ["cow"], "3": []}, r"image 2 has the answer \['cow'\]"),
        ({"1": [], "2": [], "3": list(NAMES)}, "at most two of cat, dog, ship"),
        ({"1": [], "2": [], "3": "cat"}, "image 3 has the answer cat"),
        ({"1": [], "2": [], "3": [["cat"]]}, r"image 3 has the answer \[\['cat'\]\]"),
        ({"1": [], "2": [], "3": None}, "image 3 has the answer None"),
        ({"1": [], "2": [], "x": []}, "each of the numbers 1 to 3"),
        ([[], [], []], "each of the numbers 1 to 3"),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path, answers, message):
    write_answers(tmp_path, a=answers)
    with pytest.raises(ValueError, match=rf"a\.json: .*{message}"):
        viewers.read_answers(tmp_path, NAMES, 3)


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_answers_that_are_no_json_are_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is no JSON"):
        viewers.read_answers(tmp_path, NAMES, 3)


def test_too_few_sources_for_the_viewers():
    options = study.Options(tolerance=0.1, noise_mean=0.5, noise_std=0.1, seed=0)
    with pytest.raises(ValueError, match="--viewed=2 takes 4 sources"):
        viewers.viewed_job({"a": None, "b": None}, VIEWED.images, None, 2, 3, options)


def test_sheets_number_their_images():
    figures_of = viewers.sheets(RNG.uniform(size=(23, 8, 8, 3)))
    assert [len(figure.axes) for figure in figures_of] == [20, 3]
    assert [axes.texts[0].get_text() for axes in figures_of[1].axes] == ["21", "22", "23"]


# --- figures ---


def test_figures_have_an_image_for_each_target_and_source():
    images = RNG.uniform(size=(3, 2, 8, 8, 1))
    panels = [figures.Panel("ordinary", images), figures.Panel("robust", images)]
    figure = figures.mixtures_figure(images[0], panels, [["a"], ["b 50%", "c 50%"], ["d"]])
    assert len(figure.axes) == 2 * 2 * (1 + 3)  # networks, sources, rows
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"ordinary", "robust", "source", "b 50%", "c 50%"} <= texts

    mixtures = starts.path(0, 1, 4)
    rows = {"ordinary": RNG.uniform(size=(5, 8, 8, 1)), "robust": RNG.uniform(size=(5, 8, 8, 1))}
    notes = {name: np.linspace(0, 1, 5) ** 2 for name in rows}
    strip = figures.strip_figure(rows, notes, mixtures, ("cat", "dog"))
    assert len(strip.axes) == 10
    long = {name: np.repeat(row, 5, 0) for name, row in rows.items()}
    wide = figures.strip_figure(
        long, {name: np.zeros(25) for name in rows}, starts.path(0, 1, 24), ("cat", "dog")
    )
    assert strip.get_size_inches()[0] <= wide.get_size_inches()[0] <= 9
    texts = {text.get_text() for axes in strip.axes for text in axes.texts}
    assert {"dog, rest cat", "75%", "judge finds dog", "56%"} <= texts


def test_classifiers_agree_on_the_image_and_on_its_mirror_image():
    rng = np.random.default_rng(4)
    images, targets = rng.uniform(size=(2, 8, 8, 1)), np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])

    def linear(variables, images):
        return images.reshape(len(images), -1) @ variables

    classifiers = [(linear, rng.normal(size=(64, 3)).astype(np.float32)) for _ in range(2)]
    network = study.together(classifiers, mirrored=True, steps=40)
    options = study.Options(tolerance=0.01, noise_mean=0.5, noise_std=0.1, seed=0)
    found, distance = study.made(network, np.float32(images), np.float32(targets), options)
    assert max(distance) <= 0.01
    for apply_fn, variables in classifiers:
        for seen in (found, found[:, :, ::-1]):
            probs = scipy.special.softmax(apply_fn(variables, seen), -1)
            assert og.metrics.total_variation(probs, targets).max() <= 0.0101
    assert study.together(classifiers[:1]) == (*classifiers[0], 0, None)


# --- the script ---


def shape_of(path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_the_script_at_its_smallest(run_script, tmp_path):
    digits = sources.digits(size=(28, 28), limit=20)
    data, judge, out = tmp_path / "digits.npz", tmp_path / "judge.npz", tmp_path / "run"
    names = np.array(digits.class_names)
    np.savez(data, images=digits.images, labels=digits.labels, class_names=names)
    card = {"network": "LeNet", "channels": [4, 8], "class_names": list(digits.class_names)}
    pretrained.save(judge, LeNet(10, (4, 8), rngs=nnx.Rngs(1)), card)
    options = (
        *(f"--dataset={data}", f"--judges={judge},mnist_lenet", f"--out={out}"),
        *("--robust=mnist_lenet", "--tolerance=0.01", "--parts=2"),
        # Four images in every part, so that the solver is compiled for one shape.
        *("--number=4", "--viewed=2", "--steps=1", "--shown=3=0.5,8=0.5"),
    )
    finished = run_script(SCRIPT, *options)
    assert finished.returncode == 0, finished.stderr
    results = json.loads((out / "results.json").read_text())
    assert len(results["jobs"]) == 2 * 2  # starts, networks
    for job in results["jobs"]:
        assert max(job["distance"]) <= 0.01
        # The images were made for this judge, which finds what was asked for up to the tolerance.
        assert job["judges"]["mnist_lenet"]["rank_correlation"][0] > 0.9
        assert job["judges"]["mnist_lenet"]["named_mass"][0] > 0.98
    assert "| test images | 2 | robust | judge | 4 |" in finished.stdout
    assert (out / "table.md").read_text() in finished.stdout
    shapes = {name: shape_of(out / f"{name}.png") for name in ("mixtures", "strip")}
    assert all(min(shape) > 300 for shape in shapes.values())

    assert shape_of(out / "viewers" / "sheet_1.png")[0] > 300
    assert results["viewers"]["counts"] == {}

    before = (out / "results.json").read_text()
    write_answers(out / "viewers" / "answers", someone={str(i + 1): [] for i in range(4)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(og, "synthesize", None)  # everything is kept
        assert run_script(SCRIPT, *options).returncode == 0
    after = json.loads((out / "results.json").read_text())
    assert json.loads(before)["jobs"] == after["jobs"]
    assert after["viewers"]["counts"]["someone"] == {"ordinary": [0, 0, 2], "robust": [0, 0, 2]}
    assert after["viewers_from_noise"]["counts"] == {}
    assert shape_of(out / "viewers_from_noise" / "sheet_1.png")[0] > 300
    assert "| test images | someone | robust | 2 | 0 | 0 | 2 |" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--ends=3,nine", "--ends=3,nine must be two of the classes 0, 1, 2"),
        ("--ends=3", "--ends=3 must be two of the classes"),
        ("--ends=3,3", "--ends=3,3 must be two of the classes"),
        ("--judges=", "--judges names nothing"),
        ("--shown=3=0.5,rest=0.5", "'rest' cannot be used here"),
        ("--parts=10", "--parts=10 must be below the number of classes, 10"),
        ("--viewed=11", "--viewed=11 takes 22 sources"),
        ("--shown=3=0.5,nine=0.5", "nine"),
        ("--judges=mnist_lenet,mnist_lenet", "--judges names one twice"),
    ],
)
def test_flags_that_do_not_fit_are_one_line_and_write_nothing(run_script, tmp_path, flag, message):
    digits = sources.digits(size=(28, 28), limit=20)
    names = np.array(digits.class_names)
    np.savez(tmp_path / "d.npz", images=digits.images, labels=digits.labels, class_names=names)
    finished = run_script(
        SCRIPT,
        *(f"--dataset={tmp_path / 'd.npz'}", "--judges=mnist_lenet", "--robust=mnist_lenet"),
        *("--viewed=2", "--number=20", f"--out={tmp_path / 'run'}", flag),
    )
    assert finished.returncode == 2
    assert message in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_images_of_other_classes_are_refused(run_script, tmp_path):
    data = tmp_path / "two.npz"
    images = RNG.integers(0, 256, (8, 28, 28, 1), np.uint8)
    np.savez(data, images=images, labels=np.arange(8) % 2, class_names=np.array(["cat", "dog"]))
    finished = run_script(
        SCRIPT, f"--dataset={data}", "--robust=mnist_lenet", f"--out={tmp_path / 'run'}"
    )
    assert finished.returncode == 2
    assert "must have the classifier's classes: 0, 1, 2" in finished.stderr
    assert not (tmp_path / "run").exists()
