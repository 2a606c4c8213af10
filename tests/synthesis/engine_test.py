"""The engine: images do not mix, slots are refilled and given up, batches bound the memory."""

import contextlib
import os
import re
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import toy_synthesis
from conftest import flags_of_devices
from toy_synthesis import APPLY, FAST, SHAPE, WEIGHTS, assert_same, rows_of, sources, targets

import outgen_jax as og
from outgen_jax.solvers.momentum import Momentum
from outgen_jax.synthesis import batch_sizes, engine, slot_sizes, stream, synthesize
from outgen_jax.synthesis import slots as device
from outgen_jax.synthesis.bound import Bound
from outgen_jax.synthesis.request import Meaning

# --- neighbours, places and batches ---


@pytest.fixture(scope="module")
def batch_of_64() -> og.Result:
    return og.synthesize(
        APPLY, WEIGHTS, sources(64), targets(64), solver=FAST, tolerance=0.05, batch_size=64
    )


def test_an_image_alone_gives_what_it_gives_among_64(batch_of_64):
    for i in (0, 17, 63):
        one = slice(i, i + 1)
        alone = og.synthesize(
            APPLY, WEIGHTS, sources(64)[one], targets(64)[one], solver=FAST, tolerance=0.05
        )
        assert_same(alone, rows_of(batch_of_64, one))


def test_order_does_not_matter(batch_of_64):
    reverse = slice(None, None, -1)
    reversed_ = og.synthesize(
        APPLY, WEIGHTS, sources(64)[reverse], targets(64)[reverse], solver=FAST, tolerance=0.05
    )
    assert_same(rows_of(reversed_, reverse), batch_of_64)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_does_not_matter(batch_of_64, batch_size):
    result = og.synthesize(
        APPLY,
        WEIGHTS,
        sources(64),
        targets(64),
        solver=FAST,
        tolerance=0.05,
        batch_size=batch_size,
    )
    assert_same(result, batch_of_64)


def test_a_convolutional_network_does_not_mix_images(small_vgg16):
    apply_fn, variables = og.models.from_nnx(small_vgg16())
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    rows = rng.dirichlet(np.ones(3), 5)
    expected = og.synthesize(apply_fn, variables, images, rows, solver=FAST)
    assert np.abs(expected.images - images / 255).max() > 0.02
    for chosen in (slice(2, 3), slice(None, None, -1)):
        result = og.synthesize(
            apply_fn, variables, images[chosen], rows[chosen], solver=FAST, batch_size=1
        )
        assert_same(result, rows_of(expected, chosen), atol=1e-4)


def test_the_mapped_network_equals_the_loop_over_images(small_vgg16):
    apply_fn, variables = og.models.from_nnx(small_vgg16())
    images = np.random.default_rng(4).random((3, 32, 32, 3), np.float32)
    loop = [np.asarray(apply_fn(variables, image[None])[0]) for image in images]
    probs = og.predict(apply_fn, variables, images, batch_size=2)
    np.testing.assert_allclose(probs, scipy.special.softmax(loop, -1), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_restarts_and_hand_overs_do_not_mix_images_either(batch_size):
    """Noise, momentum, Jacobians that are kept: all of it is an image's own."""
    solver = og.restarted(
        og.then(FAST, og.gauss_newton(steps=3), at=0.1),
        times=2,
        from_source=True,
        via=Momentum(steps=5),
    )
    rows = np.concatenate([targets(4), np.eye(5, dtype=np.float32)[:1]])
    options = {"solver": solver, "tolerance": 1e-4}
    expected = og.synthesize(APPLY, WEIGHTS, sources(5), rows, **options)
    assert len(set(expected.steps)) > 1
    for chosen in (slice(4, 5), slice(None, None, -1)):
        found = og.synthesize(
            APPLY, WEIGHTS, sources(5)[chosen], rows[chosen], batch_size=batch_size, **options
        )
        assert_same(found, rows_of(expected, chosen), atol=1e-4)


def test_about_as_many_images_run_the_same_programs():
    """Else every other number of images would compile for seconds to minutes."""
    traced = []

    def apply_fn(variables, images):
        traced.append(images.shape)
        return APPLY(variables, images)

    def call(count):
        solver = og.then(FAST, og.gauss_newton(steps=3), at=0.1)
        result = og.synthesize(
            apply_fn, WEIGHTS, sources(count), targets(count), solver=solver, tolerance=0.05
        )
        og.quantize(apply_fn, WEIGHTS, result.images, targets(count))
        og.predict(apply_fn, WEIGHTS, result.images)
        return result

    found, programs = call(9), len(traced)
    assert programs > 0
    assert_same(rows_of(call(10), slice(9)), found)
    assert len(traced) == programs
    call(11)
    assert len(traced) > programs


def test_four_devices_give_what_one_gives(tmp_path):
    """Synthesis by several solvers, quantisation and predictions, in a process of its own."""
    settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags_of_devices(4)}
    command = [sys.executable, "-W", "error", toy_synthesis.__file__, str(tmp_path / "four.npz")]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "devices"]
    expected = toy_synthesis.examples()
    with np.load(tmp_path / "four.npz") as found:
        assert set(found) == set(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=3e-5, err_msg=name)


# --- slots ---

COUNT, TOLERANCE = 13, 0.15
SOLVER = og.gradient_descent(optax.sgd(1.0), steps=12)


def run(solver=SOLVER, apply_fn=APPLY, **options):
    return og.synthesize(
        apply_fn,
        WEIGHTS,
        sources(COUNT),
        targets(COUNT),
        solver=solver,
        tolerance=TOLERANCE,
        **options,
    )


@pytest.fixture
def watched(monkeypatch):
    """`watched(name)`: the arguments of all calls of a function of `slots`, as they come."""

    def watch(name):
        calls, function = [], getattr(device, name)

        def call(*args, **options):
            calls.append((args, options))
            return function(*args, **options)

        if hasattr(function, "program_of"):
            call.program_of = function.program_of
        monkeypatch.setattr(device, name, call)
        return calls

    return watch


@pytest.fixture
def heard(monkeypatch):
    """What a progress bar would hear, in images."""
    found = []

    @contextlib.contextmanager
    def bar(total, show):
        yield found.append

    monkeypatch.setattr(synthesize, "progress_bar", bar)
    return found


@pytest.mark.parametrize("num_slots", [1, 4, 16])
def test_any_number_of_slots_gives_the_same_and_the_bar_hears_of_all(num_slots, heard):
    expected = run()
    assert 0 < expected.converged.sum() < COUNT
    assert len(set(expected.steps)) > 3
    heard.clear()
    assert_same(run(batch_size=num_slots), expected, atol=1e-6)
    assert sum(heard) == pytest.approx(COUNT)
    assert min(heard) >= 0
    assert max(heard) < COUNT  # on the way too


def test_the_bar_reaches_its_total_with_any_solver(heard):
    slow = og.restarted(og.then(FAST, og.gauss_newton(steps=2), at=0.1), times=2)
    for solver in (slow, og.exact(), og.gradient_descent(optax.sgd(1.0), steps=0)):
        heard.clear()
        run(solver)
        assert sum(heard) == pytest.approx(COUNT)


def test_the_bar_counts_the_steps_that_a_solver_does_not_need(heard):
    """Else a bar would stand near its start until the last of several solvers."""
    first = og.gradient_descent(optax.sgd(1.0), steps=30)
    # All images that have not converged are handed over before the first of its steps.
    found = run(
        og.then(first, og.gradient_descent(optax.sgd(1.0), steps=10), at=10.0), batch_size=COUNT
    )
    assert max(heard) == pytest.approx((found.steps > 0).sum() * 30 / 40, rel=1e-4)


def test_free_slots_are_taken_at_once(monkeypatch, watched):
    """As many calls as the best possible queue has: every image takes the slot that is free first."""
    monkeypatch.setattr(stream.chunking, "updates_per_call", lambda *_: 1)
    steps, calls = run().steps, watched("advance")
    run(batch_size=4)
    ends = np.zeros(4, int)  # of the slots, in calls
    for used in steps:
        # An image is looked at once more than it is updated.
        ends[ends.argmin()] += used + 1
    assert len(calls) == ends.max()


@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_several_updates_a_call_equal_one(monkeypatch, tolerance):
    def call():
        options = {"solver": FAST, "tolerance": tolerance, "history": True, "batch_size": 3}
        return og.synthesize(APPLY, WEIGHTS, sources(5), targets(5), **options)

    monkeypatch.setattr(stream.chunking, "updates_per_call", lambda *_: 1)
    expected = call()
    for updates in (5, 12, 100):
        monkeypatch.setattr(stream.chunking, "updates_per_call", lambda *_, n=updates: n)
        assert_same(call(), expected, atol=1e-6)


@pytest.mark.parametrize("tolerance", [None, 1e-12])
def test_a_call_makes_several_updates_with_and_without_a_tolerance(watched, tolerance):
    calls = watched("advance")
    og.synthesize(APPLY, WEIGHTS, sources(3), targets(3), solver=FAST, tolerance=tolerance)
    assert {options["updates"] for _, options in calls} == {10}
    # Twelve updates, and the look after the last.
    assert len(calls) <= 3


def test_a_device_ends_a_call_early_where_others_wait(monkeypatch, watched):
    """With one slot, none is wasted: an image that is done makes room at once."""
    monkeypatch.setattr(stream.chunking, "updates_per_call", lambda *_: 12)
    finished = watched("leave")
    expected = run()
    finished.clear()
    assert_same(run(batch_size=1), expected, atol=1e-6)
    assert len(finished) == COUNT


def test_the_tail_moves_into_fewer_slots_and_ends_where_it_would(monkeypatch, watched):
    """Thirty images are on their targets; two take all their steps, in four slots in the end."""
    monkeypatch.setattr(stream.chunking, "updates_per_call", lambda *_: 1)
    monkeypatch.setattr(slot_sizes, "_WORTH_ON_CPU", 24)  # an update of the slots that are saved
    images, rows = sources(32), og.predict(APPLY, WEIGHTS, sources(32))
    rows[[3, 30]] = np.eye(5)[[0, 1]]
    solver = og.gradient_descent(_SMALL_STEPS, steps=12)
    options = {"solver": solver, "tolerance": 0.02, "history": True}
    moved, calls = watched("fewer"), watched("advance")
    found = og.synthesize(APPLY, WEIGHTS, images, rows, **options)
    assert len(moved) >= 1
    sizes = [len(args[-1].steps) for args, _ in calls]
    assert sizes[0] == 32
    assert sizes[-1] == 4
    assert sizes == sorted(sizes, reverse=True)
    assert found.steps[[3, 30]].tolist() == [12, 12]
    monkeypatch.setattr(slot_sizes, "_WORTH_ON_CPU", 10**6)
    moved.clear()
    assert_same(og.synthesize(APPLY, WEIGHTS, images, rows, **options), found, atol=1e-6)
    assert not moved


_SMALL_STEPS = optax.sgd(0.01)


def test_no_updates_leave_the_source():
    ended = run(og.gradient_descent(optax.sgd(1.0), steps=0))
    np.testing.assert_array_equal(og.data.to_uint8(ended.images), sources(COUNT))
    assert ended.steps.tolist() == [0] * COUNT
    nothing = og.restarted(og.gauss_newton(steps=0), times=2, from_source=True)
    np.testing.assert_array_equal(og.data.to_uint8(run(nothing).images), sources(COUNT))


def test_steps_are_counted_over_all_parts():
    never = og.restarted(
        og.then(og.gradient_descent(_SMALL_STEPS, steps=3), og.gauss_newton(steps=2), at=1e-9),
        times=2,
        via=Momentum(steps=4),
    )

    def bounded(weights, images):
        return jnp.tanh(APPLY(weights, images))

    found = og.synthesize(
        bounded, WEIGHTS, sources(2), np.eye(5)[:2], solver=never, tolerance=1e-6, history=True
    )
    assert never.steps == 5 + 2 * (4 + 5)
    assert found.steps.tolist() == [never.steps] * 2
    # One value before every update and one at the end of each of eight runs.
    assert found.history.shape == (2, never.steps + 8)
    np.testing.assert_allclose(found.history.min(1), found.divergence, rtol=1e-4)


# --- how it runs ---


def test_device_memory_follows_the_batch_size(watched):
    def network(weights, images):
        return APPLY(weights, images)

    in_use = []
    leave = device.leave

    def watched_leave(*args, **options):
        in_use.append(sum(array.nbytes for array in jax.live_arrays()))
        return leave(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "leave", watched_leave)
        solver = og.gradient_descent(optax.sgd(0.5), steps=2)
        peaks = []
        for count in (200, 2000):
            before = sum(array.nbytes for array in jax.live_arrays())
            in_use.clear()
            og.synthesize(
                network, WEIGHTS, sources(count), targets(count), solver=solver, batch_size=50
            )
            peaks.append(max(in_use) - before)
    batch = 50 * np.prod(SHAPE) * 4
    assert batch < peaks[0] < 12 * batch
    assert peaks[1] <= 1.1 * peaks[0]


def test_logits_of_other_types_are_measured_in_float32():
    def short(weights, images):
        return APPLY(weights, images).astype(jnp.bfloat16)

    result = og.synthesize(short, WEIGHTS, sources(4), targets(4), solver=FAST)
    kl = scipy.special.rel_entr(targets(4).astype(np.float64), result.probs).sum(-1)
    np.testing.assert_allclose(result.kl, kl, rtol=1e-3, atol=1e-6)
    assert result.outputs.dtype == np.float32


def test_a_progress_bar_estimates_no_time_before_an_image_is_done(capsys):
    with synthesize.progress_bar(10, show=True, done=4) as advance:
        advance(0.1)
        time.sleep(0.6)  # longer than the bar waits before it shows more
        advance(0.1)
        assert set(re.findall(r"<([^]]+)", capsys.readouterr().err)) == {"?"}
        advance(1)
        time.sleep(0.6)
        advance(1)
        assert re.findall(r"<\d\d:\d\d", capsys.readouterr().err)


def test_a_progress_bar_says_that_the_first_call_compiles(capsys):
    with synthesize.progress_bar(3, show=True) as advance:
        assert capsys.readouterr().err.strip("\r").startswith("compiling:   0%")
        time.sleep(0.6)
        advance(1)
        assert "compiling" not in capsys.readouterr().err.rpartition("\r")[2]
    with synthesize.progress_bar(3, show=True, done=3):
        assert "compiling" not in capsys.readouterr().err


def test_a_progress_bar_counts_images(capsys):
    og.synthesize(APPLY, WEIGHTS, sources(5), targets(5), solver=FAST, batch_size=2, progress=True)
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "5/5" in shown


@pytest.mark.parametrize(
    ("passes", "size"), [(1, 128), (32, 4), (1000, 1)], ids=["descent", "rows", "many rows"]
)
def test_batches_are_smaller_where_a_solver_makes_many_passes_at_once(passes, size):
    images = np.zeros((1, 32, 32, 3), np.uint8)
    assert batch_sizes.default_batch_size(images, device.local_mesh(), passes=passes) == size


def test_of_results_within_the_tolerance_the_smaller_change_stays():
    """Though one outside it, or one with a larger change, has less divergence."""
    meaning = Meaning(jax.tree.structure(0), ((2,),), (og.outputs.softmax(),))
    arrays = np.zeros((1, 1, 1, 1), np.float32), (np.zeros((1, 1, 2), np.float32),)
    bound = Bound(None, None, meaning, None)
    pool = engine.Pool(bound, *arrays, [(None,)], total_steps=2, tolerance=1e-3)

    def found(value, divergence, distance, converged):
        image, outputs = np.full((1, 1, 1, 1), value), (np.full((1, 1, 2), value),)
        numbers = (np.float32([divergence]), np.float32([distance]), np.int32([1]))
        return device.Exit(image, image, outputs, *numbers, np.array([converged]), np.array([True]))

    pool.seen([0], found(1.0, 2e-6, 9e-4, True), 1e-3)
    pool.seen([0], found(2.0, 1e-6, 1.1e-3, False), 1e-3)
    assert (pool.images.item(), pool.distance.item()) == (1.0, pytest.approx(9e-4))
    pool.seen([0], found(2.0, 1e-6, 8e-4, True), 1e-3)
    assert (pool.images.item(), pool.distance.item()) == (1.0, pytest.approx(9e-4))
    pool.seen([0], found(0.5, 3e-6, 9.5e-4, True), 1e-3)
    assert (pool.images.item(), pool.distance.item()) == (0.5, pytest.approx(9.5e-4))
    pool.seen([0], found(0.1, 3e-6, 2e-3, True), 0.1)  # of a solver that hands over
    assert (pool.images.item(), pool.distance.item()) == (0.5, pytest.approx(9.5e-4))
    pool.seen([0], found(0.75, 2e-6, 9.2e-4, False), 9e-4)  # of one that aims below the tolerance
    assert (pool.images.item(), pool.distance.item()) == (0.75, pytest.approx(9.2e-4))
    pool.seen([0], found(0.875, 1e-6, 1.1e-3, False), 9e-4)
    assert (pool.images.item(), pool.distance.item()) == (0.75, pytest.approx(9.2e-4))
    pool.seen([0], found(0.875, 3e-6, 8e-4, True), 9e-4)
    assert (pool.images.item(), pool.distance.item()) == (0.875, pytest.approx(8e-4))

    without = engine.Pool(bound, *arrays, [(None,)], total_steps=2, tolerance=-1.0)
    without.seen([0], found(1.0, 2e-6, 9e-4, True), 1e-3)
    without.seen([0], found(0.5, 1e-6, 1.1e-3, False), 1e-3)
    assert (without.images.item(), without.distance.item()) == (1.0, pytest.approx(9e-4))
    without.seen([0], found(0.5, 1e-6, 1.1e-3, False), 1e-5)  # of a solver that goes on
    assert without.images.item() == 0.5


def test_a_tolerance_of_numpy_is_the_number_that_the_device_compares_with():
    """Zero weights leave every label at 1/2: a distance of float32(0.4)."""
    found = og.synthesize(
        APPLY,
        jax.tree.map(jnp.zeros_like, WEIGHTS),
        sources(2),
        np.full(5, 0.1),
        output=og.outputs.sigmoid(),
        solver=og.restarted(og.gauss_newton(steps=2), times=1),
        tolerance=np.float64(0.4),
    )
    assert found.converged.all()


def test_a_default_device_is_the_only_one_used(monkeypatch):
    here = jax.devices()[0]
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: [here] * 2)
    assert device.local_mesh().size == 2
    for chosen in (here, "cpu"):
        with jax.default_device(chosen):
            assert device.local_mesh().devices.tolist() == [here]


@pytest.mark.parametrize(
    ("memory", "pixels"),
    [(None, 2**21), ({}, 2**21), ({"bytes_limit": 18e9}, 2**21), ({"bytes_limit": 105e9}, 2**23)],
)
def test_batches_are_as_large_as_the_memory_of_an_accelerator_allows(memory, pixels):
    if memory:
        memory = {"bytes_limit": int(memory["bytes_limit"])}
    found = types.SimpleNamespace(platform="gpu", memory_stats=lambda: memory)
    assert batch_sizes._batch_pixels(found) == pixels
