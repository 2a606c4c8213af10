"""`generate_dataset`: what is stored is what was made, and always the same bytes."""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import yaml
from conftest import ROOT, flags_of_devices
from toy_dataset import COUNT, NAMES, SHARD, SOLVER, SOURCE, TOLERANCE, Streamed, contents, make
from toy_synthesis import APPLY, CLASSES, WEIGHTS, sources, targets

import outgen_jax as og
from outgen_jax.data import random_access
from outgen_jax.data import sources as readers
from outgen_jax.generation import data_card, dataset, shard
from outgen_jax.synthesis import request
from outgen_jax.synthesis.programs import Network

WORKER = ROOT / "tests" / "toy_dataset.py"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The data set as a run without interruption makes it."""
    directory = tmp_path_factory.mktemp("whole") / "set"
    report = make(directory)
    assert report == (directory, COUNT, report.converged, report.within, 3, 3)
    return directory


@pytest.fixture
def copy(whole, tmp_path):
    """One's own copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.fixture
def worker(tmp_path_factory):
    """`worker(directory, *arguments, **environment)` makes the set in another process."""
    started = []
    cache = tmp_path_factory.getbasetemp() / "programs"

    def start(directory, *arguments, **environment):
        settings = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}
        settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(WORKER), str(directory), *map(str, arguments)],
            env=os.environ | settings | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if not process.stdout.closed:
            process.kill()
            process.communicate()


def assert_ends_well(process):
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


# --- what is stored ---


def read(directory):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    return builder.info, list(builder.as_data_source(split="train"))


def test_tfds_reads_what_synthesize_makes(whole):
    info, examples = read(whole)
    expected = og.synthesize(
        APPLY, WEIGHTS, SOURCE.images, targets(COUNT), solver=SOLVER, tolerance=TOLERANCE
    )
    # Slots were refilled: images of one shard leave at different times, some converged, some not.
    assert len(set(expected.steps[:SHARD])) > 3
    assert 0 < expected.converged.sum() < COUNT
    stored = {key: np.stack([e[key] for e in examples]) for key in examples[0] if key != "id"}
    assert [e["id"].decode() for e in examples] == list(SOURCE.ids)
    np.testing.assert_array_equal(stored["label"], SOURCE.labels)
    np.testing.assert_array_equal(stored["image"], og.data.to_uint8(expected.images))
    np.testing.assert_array_equal(stored["steps"], expected.steps)
    np.testing.assert_array_equal(stored["converged"], expected.converged)
    np.testing.assert_allclose(stored["target"], targets(COUNT), rtol=1e-6)
    probs = og.predict(APPLY, WEIGHTS, stored["image"])  # of the rounded images
    np.testing.assert_allclose(stored["probs"], probs, atol=1e-6)
    distance = np.abs(probs - targets(COUNT)).sum(-1) / 2
    np.testing.assert_allclose(stored["total_variation"], distance, atol=1e-6)
    assert info.features["label"].names == list(NAMES)
    assert info.splits["train"].shard_lengths == [10, 10, 3]


def test_grain_reads_it(whole):
    grain = pytest.importorskip("grain")
    import tensorflow_datasets as tfds

    examples = tfds.builder_from_directory(whole).as_data_source(split="train")
    assert isinstance(examples, grain.sources.RandomAccessDataSource)
    batches = list(grain.MapDataset.source(examples).batch(8))
    assert [len(batch["image"]) for batch in batches] == [8, 8, 7]
    images = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(images, [e["image"] for e in examples])


def test_a_generated_set_is_a_source_again(whole):
    import tensorflow_datasets as tfds

    examples = tfds.builder_from_directory(whole).as_data_source(split="train")
    spec = random_access.spec(examples, caller="test")
    assert spec == (COUNT, SOURCE.images.shape[1:], "uint8", NAMES)
    assert random_access.read(examples, spec, 3, 5, caller="test").ids == SOURCE.ids[3:5]


def test_the_package_reads_it_as_a_source(whole):
    source = readers.load(whole, split="train")
    assert source.ids == SOURCE.ids
    assert source.class_names == NAMES


def test_the_manifest_says_what_it_was_made_from(whole):
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["made_from"]["num_rows"] == COUNT
    assert manifest["made_from"]["tolerance"] == TOLERANCE
    assert manifest["counts"]["examples"] == COUNT
    _, examples = read(whole)
    assert manifest["counts"]["converged"] == sum(e["converged"] for e in examples)
    assert manifest["versions"]["jax"] == jax.__version__
    assert len(manifest["sha256"]) == 3


def test_the_quantize_stage_corrects_the_stored_images(tmp_path, whole):
    make(tmp_path / "set", quantize=True)
    (_, corrected), (_, rounded) = read(tmp_path / "set"), read(whole)
    expected = og.synthesize(
        APPLY, WEIGHTS, SOURCE.images, targets(COUNT), solver=SOLVER, tolerance=TOLERANCE
    )
    images = og.quantize(APPLY, WEIGHTS, expected.images, targets(COUNT))
    np.testing.assert_array_equal(np.stack([e["image"] for e in corrected]), images)
    probs = og.predict(APPLY, WEIGHTS, images)
    np.testing.assert_allclose([e["probs"] for e in corrected], probs, atol=1e-6)
    before, after = (np.array([e["total_variation"] for e in es]) for es in (rounded, corrected))
    assert (after <= before).all()
    assert np.median(after) < 0.9 * np.median(before)


def test_the_float_images_are_stored_where_asked_for(tmp_path, whole):
    make(tmp_path / "set", save_float=True)
    (_, examples), (_, rounded) = read(tmp_path / "set"), read(whole)
    exact = og.synthesize(
        APPLY, WEIGHTS, SOURCE.images, targets(COUNT), solver=SOLVER, tolerance=TOLERANCE
    )
    assert examples[0]["image_float"].dtype == np.float32
    # Another batch size: equal up to rounding.
    np.testing.assert_allclose([e["image_float"] for e in examples], exact.images, atol=1e-6)
    np.testing.assert_array_equal([e["image"] for e in examples], [e["image"] for e in rounded])
    with pytest.raises(FileExistsError, match="save_float True, now None"):
        make(tmp_path / "set")


def test_the_card_tells_what_a_reader_needs(tmp_path, whole):
    text = (whole / "README.md").read_text()
    _, examples = read(whole)
    distances = np.array([e["total_variation"] for e in examples])
    made_from = json.loads((whole / "manifest.json").read_text())["made_from"]
    assert f"| images | {COUNT} |" in text
    assert f"| converged before rounding | {sum(e['converged'] for e in examples)} |" in text
    assert f"`{made_from['classifier']}`" in text
    assert "| solver | GradientDescent, at most 12 steps |" in text
    assert f"| tolerance | {TOLERANCE:g} |" in text
    for level in ("0.01", "0.1", "1"):
        count = (distances <= float(level)).sum()
        assert f"| {level} | {count} | {count / COUNT:.1%} |" in text
    for entry in examples[0]:
        assert f"| `{entry}` |" in text
    assert text.startswith('---\nlicense: "other"\n---\n')
    assert "give `about={'license': ...}`" in text
    about = {"source": "toy | images", "license": "cc-by-4.0: 'as is' # é"}
    make(tmp_path / "set", about=about, solver=og.gradient_descent(optax.sgd(1.0), steps=0))
    text = (tmp_path / "set" / "README.md").read_text()
    header = text.split("---\n")[1]
    assert yaml.safe_load(header) == {"license": about["license"]}
    assert "| source | toy / images |" in text
    assert "holds for them: cc-by-4.0: 'as is' # é." in text


def test_every_entry_of_several_outputs_is_described():
    entries = data_card._described(["target_kind", "outputs_size_x", "image_float", "image"])
    assert [name for name, _ in entries] == [
        "`target_kind`", "`outputs_size_x`", "`image_float`", "`image`",
    ]  # fmt: skip
    assert "(part `size_x`)" in entries[1][1]
    assert "before rounding" in entries[2][1]


def test_streamed_rows_and_targets_by_function(tmp_path):
    asked = []

    def wanted(rows, labels):
        np.testing.assert_array_equal(labels, rows % CLASSES)
        asked.append((len(rows), threading.get_ident()))
        return og.targets.dirichlet(3, len(rows), CLASSES, image_ids=rows)

    make(tmp_path / "set", source=Streamed(COUNT), targets=wanted)
    _, examples = read(tmp_path / "set")
    np.testing.assert_allclose(
        [e["target"] for e in examples], og.targets.dirichlet(3, COUNT, CLASSES), rtol=1e-6
    )
    # In the caller's thread: settings of jax such as `with jax.enable_x64(True)` hold there alone.
    assert asked == [(count, threading.get_ident()) for count in (10, 10, 3)]


def test_a_second_run_in_the_same_directory_is_refused(tmp_path, whole):
    """While the first one goes on."""

    def wanted(rows, labels):
        if rows[0] == SHARD:
            with pytest.raises(BlockingIOError, match="generate_dataset: another run is writing"):
                make(tmp_path / "set")
        return targets(COUNT)[rows]

    make(tmp_path / "set", targets=wanted)
    assert contents(tmp_path / "set") == contents(whole)


def several(weights, images):
    """A classifier, and numbers by name of which one is free."""
    logits = APPLY(weights, images)
    return {"kind": logits, "size/x": logits[:, None, 3:]}


def test_several_outputs_have_their_fields(tmp_path):
    kinds = {"kind": og.outputs.softmax(), "size/x": og.outputs.values(scale=2.0)}
    sizes = np.ma.masked_array([[0.5, 0.0]], mask=[[False, True]])
    wanted = {"kind": targets(COUNT), "size/x": sizes}
    solver, directory = og.gauss_newton(steps=2), tmp_path / "set"
    options = {"apply_fn": several, "targets": wanted, "output": kinds, "solver": solver}
    report = make(directory, source=SOURCE.images, tolerance=0.1, shard_size=20, **options)
    info, examples = read(directory)
    assert set(info.features) == {
        *("id", "image", "label", "target_kind", "target_size_x"),
        *("outputs_kind", "outputs_size_x", "distance", "steps", "converged"),
    }
    assert info.features["target_size_x"].shape == (1, 2)
    stored = {key: np.stack([e[key] for e in examples]) for key in examples[0] if key != "id"}
    np.testing.assert_allclose(stored["target_kind"], targets(COUNT), rtol=1e-6)
    np.testing.assert_array_equal(stored["target_size_x"], np.tile([[0.5, np.nan]], (COUNT, 1, 1)))
    said = og.predict(several, WEIGHTS, stored["image"], output=kinds)
    np.testing.assert_allclose(stored["outputs_kind"], said["kind"], atol=1e-6)
    np.testing.assert_allclose(stored["outputs_size_x"], said["size/x"], atol=1e-5)
    variation = np.abs(said["kind"] - targets(COUNT)).sum(-1) / 2
    size = np.abs(said["size/x"][:, 0, 0] - 0.5) / 2
    np.testing.assert_allclose(stored["distance"], np.maximum(variation, size), atol=1e-5)
    assert report.converged == stored["converged"].sum()
    made_from = json.loads((directory / "manifest.json").read_text())["made_from"]
    assert made_from["kinds"] == ["Softmax()", "Values(scale=2.0)"]
    # Another scale is another data set.
    options["output"] = kinds | {"size/x": og.outputs.values(scale=3.0)}
    with pytest.raises(FileExistsError, match="kinds"):
        make(directory, source=SOURCE.images, tolerance=0.1, shard_size=20, **options)


def test_a_target_for_each_view_is_no_target_for_each_image():
    views = og.views(APPLY, (lambda image: image, lambda image: image[:, ::-1]))
    of_network = request.meaning(Network(views), WEIGHTS, SOURCE.images, None, caller="test")
    of_views = targets(2)
    of_rows = dataset._target_function(of_views, of_network, COUNT)
    for number in (1, 2, 3):  # of images in a shard
        found = of_rows(np.arange(number), np.zeros(number, int))
        (rows,) = request.checked_targets(of_network, found, number, caller="test")
        np.testing.assert_allclose(rows, np.tile(of_views, (number, 1, 1)), rtol=1e-6)


def test_a_function_gives_targets_of_rows_also_of_as_many_as_there_are_views(tmp_path):
    views = og.views(APPLY, (lambda image: image, lambda image: image[:, ::-1]))
    make(
        tmp_path / "set",
        apply_fn=views,
        source=SOURCE.images[:5],
        targets=lambda rows, _: targets(5)[rows],
        shard_size=3,  # the last one has two images
        solver=og.gradient_descent(optax.sgd(1.0), steps=0),
    )
    _, examples = read(tmp_path / "set")
    stored = np.stack([example["target"] for example in examples])
    np.testing.assert_allclose(stored, np.stack([targets(5)] * 2, 1), rtol=1e-6)


def test_a_solver_without_a_tolerance_makes_all_its_steps_as_in_synthesize(tmp_path):
    solver = og.gradient_descent(optax.sgd(1.0), steps=40)
    expected = og.synthesize(APPLY, WEIGHTS, SOURCE.images[:5], targets(5), solver=solver)
    assert (expected.distance < 0.01).any()
    made = make(
        tmp_path / "set",
        source=SOURCE.images[:5],
        targets=targets(5),
        solver=solver,
        tolerance=None,
    )
    _, examples = read(tmp_path / "set")
    assert [example["steps"] for example in examples] == [40] * 5
    assert made.converged == expected.converged.sum()
    assert "| tolerance | none |" in (tmp_path / "set" / "README.md").read_text()


def test_a_function_that_gives_a_target_for_each_view_must_say_so(tmp_path):
    views = og.views(APPLY, (lambda image: image, lambda image: image[:, ::-1]))
    of_views = targets(2)
    options = {
        "apply_fn": views,
        "source": SOURCE.images[:5],
        "shard_size": 3,  # the last shard has as many images as there are views
        "solver": og.gradient_descent(optax.sgd(1.0), steps=0),
    }
    message = r"must return \[3, 5\] for 3 rows; it returned \[2, 5\].* return targets\[None\], \[1, 2, 5\]"
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "refused", targets=lambda rows, _: of_views, **options)
    make(tmp_path / "set", targets=lambda rows, _: of_views[None], **options)
    _, examples = read(tmp_path / "set")
    stored = np.stack([example["target"] for example in examples])
    np.testing.assert_allclose(stored, np.stack([of_views] * 5), rtol=1e-6)


def test_targets_of_dense_outputs_are_understood_as_those_of_all_images():
    """Whatever the number of images in a shard."""
    dense = request.Meaning(jax.tree.structure(0), ((2, 3, CLASSES),), (og.outputs.softmax(),))
    with pytest.raises(ValueError, match=r"one of the shapes .*\[2, 5\]. Give one row"):
        dataset._target_function(targets(2), dense, 4)  # two rows of targets, and shards of two
    with pytest.raises(ValueError, match=r"one of the shapes .*\[4, 3, 5\]. Give one row"):
        dataset._target_function(targets(12).reshape(4, 3, CLASSES), dense, 4)
    one_for_all = targets(6).reshape(2, 3, CLASSES)
    of_rows = dataset._target_function(one_for_all, dense, 2)  # as many images as rows of outputs
    (found,) = request.checked_targets(dense, of_rows(np.arange(2), None), 2, caller="test")
    np.testing.assert_allclose(found, [one_for_all.reshape(6, CLASSES)] * 2, rtol=1e-6)
    of_rows = dataset._target_function(targets(4), dense, 4)  # for all places of an image
    (found,) = request.checked_targets(dense, of_rows(np.array([3]), None), 1, caller="test")
    np.testing.assert_allclose(found[0], [targets(4)[3]] * 6, rtol=1e-6)


def test_stored_images_keep_the_limits_of_the_solver(tmp_path):
    limits = {"max_change": 20 / 255, "mask": np.eye(*SOURCE.images.shape[1:3])}
    solver = og.restarted(og.gauss_newton(steps=4, **limits), times=1)
    chosen = {"source": SOURCE.images[:4], "targets": targets(4), "quantize": True, "shard_size": 4}
    make(tmp_path / "set", solver=solver, **chosen)
    _, examples = read(tmp_path / "set")
    stored = np.stack([example["image"] for example in examples]).astype(int)
    change = np.abs(stored - SOURCE.images[:4])
    assert change.max() == 20
    assert (change[:, limits["mask"] == 0] == 0).all()
    on_record = json.loads((tmp_path / "set" / "manifest.json").read_text())["made_from"]["limits"]
    assert on_record["max_change"] == 20 / 255
    assert on_record["mask"]["free"] == limits["mask"].sum()
    card = (tmp_path / "set" / "README.md").read_text()
    assert "at most 0.0784314 a pixel" in card
    assert f"a mask, {int(limits['mask'].sum())} of {limits['mask'].size} entries free" in card


def test_a_message_about_another_solver_lists_the_differences_alone(tmp_path):
    # As many as in the next test, so that the programs of the exact solver are compiled once.
    few = {"source": SOURCE.images[:4], "targets": targets(4), "shard_size": 4}
    make(tmp_path / "set", solver=og.restarted(og.gauss_newton(steps=1), times=1), **few)
    other = og.restarted(og.gauss_newton(steps=2), times=1)
    with pytest.raises(FileExistsError) as caught:
        make(tmp_path / "set", solver=other, **few)
    message = str(caught.value)
    assert "steps 2, now 4; solver.parts[0].steps 1, now 2)" in message
    assert "program" not in message  # which steps do not change
    make(tmp_path / "set", solver=og.exact(), overwrite=True, **few)
    with pytest.raises(FileExistsError, match=r"and [0-9]+ more") as caught:
        make(tmp_path / "set", solver=other, **few)
    assert len(str(caught.value)) < 700


def test_the_exact_solver_is_the_default_and_on_record(tmp_path):
    directory = tmp_path / "set"
    chosen = {"source": SOURCE.images[:4], "targets": targets(4), "quantize": True, "shard_size": 4}
    report = make(directory, solver=None, tolerance=None, **chosen)
    assert report.converged == report.examples == 4
    stored = np.array([example["total_variation"] for example in read(directory)[1]])
    assert report.within == {level: (stored <= level).sum() for level in data_card.LEVELS}
    assert len(set(report.within.values())) > 1
    made_from = json.loads((directory / "manifest.json").read_text())["made_from"]
    assert made_from["solver"]["name"] == "Exact"
    assert made_from["tolerance"] == made_from["solver"]["tolerance"] == 1e-5
    assert make(directory, solver=og.exact(), tolerance=1e-5, **chosen).made == 0
    with pytest.raises(FileExistsError, match="solver"):
        make(directory, solver=og.exact(max_change=0.5), tolerance=None, **chosen)


# --- the same bytes ---


def test_a_finished_data_set_is_left_alone(copy, whole):
    assert make(copy).made == 0
    assert contents(copy) == contents(whole)


@pytest.mark.parametrize("stop", [0, 9, 10, 21])
def test_interrupted_and_resumed_is_as_uninterrupted(tmp_path, whole, stop):
    class Interrupted(Streamed):
        def __getitem__(self, row):
            if row == stop and self.count < 0:
                raise KeyboardInterrupt
            return SOURCE.images[row], int(SOURCE.labels[row]), SOURCE.ids[row]

        def __len__(self):
            return COUNT

    source = Interrupted(-1)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set", source=source)
    source.count = COUNT
    assert not any(name.endswith(".tmp") for name in contents(tmp_path))
    make(tmp_path / "set", source=source)
    assert contents(tmp_path / "set") == contents(whole)


def kill_when(process, condition):
    while not condition() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_and_resumed_is_as_uninterrupted(tmp_path, whole, worker):
    process = worker(tmp_path / "set")
    kill_when(process, (tmp_path / "set" / "shards" / "00000.json").exists)
    assert process.returncode == -signal.SIGKILL
    assert make(tmp_path / "set").made < 3
    assert contents(tmp_path / "set") == contents(whole)


@pytest.mark.slow
def test_twenty_kills(tmp_path, whole, worker):
    start = time.monotonic()
    assert_ends_well(worker(tmp_path / "warm"))
    usual = time.monotonic() - start
    for moment in np.random.default_rng(0).random(20):
        directory = tmp_path / f"{moment:.6f}"
        end = time.monotonic() + moment * usual
        kill_when(worker(directory), lambda end=end: time.monotonic() > end)
        assert_ends_well(worker(directory))
        assert contents(directory) == contents(whole)


def one_of(directory, name):
    return directory / (name if "json" in name else f"generated-train.array_record-{name}")


@pytest.mark.parametrize("name", ["00001-of-00003", "shards/00001.json"])
@pytest.mark.parametrize("damage", ["altered", "truncated", "removed"])
def test_a_damaged_shard_is_made_anew(copy, whole, name, damage):
    path = one_of(copy, name)
    data = bytearray(path.read_bytes())
    if damage == "altered":
        data[len(data) // 3] ^= 1
    path.write_bytes(data if damage == "altered" else data[: len(data) // 2])
    if damage == "removed":
        path.unlink()
    made = make(copy).made
    assert contents(copy) == contents(whole)
    assert made == 1


def test_four_devices_make_the_same(tmp_path, whole, worker):
    process = worker(tmp_path / "set", XLA_FLAGS=flags_of_devices(4))
    assert_ends_well(process)
    assert contents(tmp_path / "set") == contents(whole)


@pytest.fixture
def three_places(monkeypatch):
    """A process with three devices, which are one."""
    monkeypatch.setattr(shard, "on_each_device", lambda plan: [plan] * 3)


def test_shards_that_are_made_at_once_are_the_same(tmp_path, whole, three_places, monkeypatch):
    change_images, seen = shard.change_images, []

    def recorded(*arguments):
        seen.append((threading.current_thread().name, jax.config.jax_enable_x64))
        return change_images(*arguments)

    monkeypatch.setattr(shard, "change_images", recorded)
    assert make(tmp_path / "set").made == 3
    assert contents(tmp_path / "set") == contents(whole)
    assert threading.current_thread().name not in {name for name, _ in seen}
    seen.clear()
    with jax.enable_x64(True):  # a setting of the caller's thread
        make(tmp_path / "wide")
    assert [wide for _, wide in seen] == [True] * 3


def test_an_error_in_one_of_several_threads_ends_the_call(tmp_path, three_places, monkeypatch):
    def fail(plan, inputs, advance):
        if inputs.block.rows[0] == 0:
            raise RuntimeError("out of memory")
        while True:  # until another thread has failed
            advance(0)

    monkeypatch.setattr(shard, "change_images", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        make(tmp_path / "set")


@pytest.mark.slow
def test_two_processes_make_the_same(tmp_path, whole, worker):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [worker(tmp_path / "set", process, 2, port) for process in range(2)]
    for process in both:
        assert_ends_well(process)
    assert contents(tmp_path / "set") == contents(whole)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_source(tmp_path):
    psutil = pytest.importorskip("psutil")
    resident = []

    class Watched(Streamed):
        def __getitem__(self, row):
            if row % 2000 == 0:
                resident.append(psutil.Process().memory_info().rss)
            return super().__getitem__(row)

    make(
        tmp_path / "set",
        source=Watched(200_000),
        targets=np.full(CLASSES, 1 / CLASSES),
        solver=og.gradient_descent(optax.sgd(1.0), steps=2),
        batch_size=500,
        shard_size=2000,
    )
    warm = np.array(resident[20:])
    assert warm.max() <= 1.05 * warm[0]


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"tolerance": 0.2}, "tolerance 0.15, now 0.2"),
        ({"solver": og.gradient_descent(optax.sgd(0.9), steps=12)}, "program"),
        ({"variables": jax.tree.map(lambda w: w * 2, WEIGHTS)}, "classifier"),
        ({"shard_size": 9}, "shard_size 10, now 9"),
        ({"source": SOURCE._replace(class_names=None)}, "class_names"),
        ({"about": {"seed": 1}}, "about"),
        ({"targets": targets(COUNT, seed=2)}, "rows 0 to 9 differ"),
        ({"source": SOURCE._replace(images=sources(COUNT, seed=5))}, "rows 0 to 9 differ"),
    ],
)
def test_a_data_set_made_otherwise_is_refused(copy, whole, changes, difference):
    with pytest.raises(FileExistsError, match=difference) as caught:
        make(copy, **changes)
    assert "overwrite" in str(caught.value)
    assert contents(copy) == contents(whole)


def test_overwrite_replaces_a_data_set_and_nothing_else(copy, whole):
    make(copy, tolerance=0.2, shard_size=12, batch_size=4, overwrite=True)
    assert not (copy / "generated-train.array_record-00000-of-00003").exists()
    make(copy, overwrite=True)
    assert contents(copy) == contents(whole)
    stranger = copy.parent / "photographs"
    stranger.mkdir()
    (stranger / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(FileExistsError, match=r"holds 'holiday.jpg' and no data set"):
        make(stranger, overwrite=True)
    assert contents(stranger) == {"holiday.jpg": b"dear"}


def test_a_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"generate_dataset: cannot write .*Not a directory.*same call"
    ):
        make(tmp_path / "file" / "set")


def test_a_full_disk_loses_no_finished_shard(tmp_path, whole, monkeypatch):
    fsync, synced = os.fsync, []

    def full(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if len(synced) == 4:  # manifest, shard, note, and now the second shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device. Finished shards are kept"):
            make(tmp_path / "set")
    first = "generated-train.array_record-00000-of-00003"
    assert sorted(contents(tmp_path / "set")) == [first, "manifest.json", "shards/00000.json"]
    assert make(tmp_path / "set").made == 2
    assert contents(tmp_path / "set") == contents(whole)


ABOUT = "about must be a mapping of names to what JSON can hold"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": 0}, "tolerance must be a positive, finite number, got 0"),
        ({"precision": "full"}, "precision must be .*, got 'full'"),
        ({"about": {"rate": np.nan}}, ABOUT),
        ({"about": "a text"}, ABOUT),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shard_size": -1}, "shard_size must be at least 1, got -1"),
        ({"targets": targets(COUNT - 1)}, r"for 23 images and 5 outputs; they have \[22, 5\]"),
        ({"targets": targets(COUNT) * 2}, r"rows 0 to 9: targets must sum to 1 per row; row 0"),
        ({"targets": np.full(4, 0.25)}, r"must have one of the shapes .*\[5\]"),
        ({"source": sources(0)}, "no rows"),
        ({"source": np.zeros((3, 8, 6), np.uint8)}, r"\[8, 6\]"),
        ({"source": np.zeros((3, 8, 8, 3), np.uint8)}, "Check the image size"),
        ({"apply_fn": lambda w, x: jax.nn.softmax(APPLY(w, x))}, "logits"),
        ({"about": {"key": jax.nn.softmax}}, ABOUT),
        (
            {
                "apply_fn": lambda w, x: {"size x": APPLY(w, x), "size/x": APPLY(w, x)},
                "targets": {"size x": targets(COUNT), "size/x": targets(COUNT)},
            },
            "names that differ in letters or digits; several become 'size_x'. Rename",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "set", **changes)
    assert list(tmp_path.iterdir()) == []


def test_options_of_numpy_are_as_those_of_python(copy):
    """They are on record as JSON has numbers, and the same set is continued."""
    options = {"batch_size": np.int64(4), "shard_size": np.int64(10), "quantize": np.bool_(False)}
    assert make(copy, tolerance=np.float64(TOLERANCE), **options).made == 0


def test_another_number_of_restarts_is_another_data_set(tmp_path):
    def restarted(times):
        return og.restarted(og.gauss_newton(steps=1), times=times)

    few = {"source": SOURCE.images[:2], "targets": targets(2)}
    make(tmp_path / "set", solver=restarted(np.int64(1)), **few)
    assert make(tmp_path / "set", solver=restarted(1), **few).made == 0
    with pytest.raises(FileExistsError, match="solver"):
        make(tmp_path / "set", solver=restarted(np.int64(2)), **few)


def test_bad_rows_on_the_way_are_named(tmp_path):
    images = sources(COUNT).astype(np.float32) / 255
    images[13, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="row 13 of the source: float image must lie in"):
        make(tmp_path / "set", source=images)
    # The shard before was finished, and is kept.
    assert one_of(tmp_path / "set", "00000-of-00003").exists()
    images[13] = 0
    assert make(tmp_path / "set", source=images).made == 2


def test_a_progress_bar_counts_images(copy, capsys):
    pytest.importorskip("tqdm")
    one_of(copy, "00000-of-00003").unlink()
    make(copy, progress=True)
    shown = capsys.readouterr().err
    assert "13/23" in shown  # there from the start
    assert "23/23" in shown


def test_a_memory_map_of_targets_stays_on_disk(tmp_path):
    count = 500_000
    mapped = np.memmap(tmp_path / "targets", np.float32, "w+", shape=(count, CLASSES))
    mapped[count - 1] = np.eye(CLASSES)[2]
    of_network = request.meaning(Network(APPLY), WEIGHTS, SOURCE.images, None, caller="test")
    tracemalloc.start()
    try:
        of_rows = dataset._target_function(mapped, of_network, count)
        rows = of_rows(np.array([0, count - 1]), np.zeros(2, int))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mapped.nbytes / 10
    (checked,) = request.checked_targets(of_network, rows[1:], 1, caller="test")
    np.testing.assert_array_equal(checked[0, 0], np.eye(CLASSES)[2])
