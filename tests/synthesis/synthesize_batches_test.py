"""How `synthesize` runs: images do not mix, batches bound the memory, nothing compiles twice."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from toy_synthesis import APPLY, FAST, SHAPE, WEIGHTS, assert_same, rows_of, sources, targets

import outgen_jax as og
from outgen_jax.synthesis import batch as module

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


# --- how it runs ---


def test_a_second_call_compiles_nothing(caplog):
    def network(weights, images):
        return APPLY(weights, images)

    def call(seed):
        changed = jax.tree.map(lambda w: w + np.float32(0.01 * seed), WEIGHTS)
        images, rows = sources(5, seed), targets(5, seed)
        caplog.clear()
        with jax.log_compiles():
            og.synthesize(network, changed, images, rows, solver=FAST, batch_size=2, tolerance=0.05)
        return [
            record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()
        ]

    assert sum("_advance" in message for message in call(1)) == 1
    assert call(2) == []


@pytest.mark.parametrize("tolerance", [None, 0.05])
def test_updates_in_one_call_equal_the_host_loop(monkeypatch, tolerance):
    def run():
        return og.synthesize(
            APPLY,
            WEIGHTS,
            sources(5),
            targets(5),
            solver=FAST,
            tolerance=tolerance,
            history=True,
        )

    expected = run()
    for chunks in ([12], [5, 5, 2], [4, 4, 4]):
        monkeypatch.setattr(module, "_chunks", lambda *_, chunks=chunks: chunks)
        assert_same(run(), expected, atol=1e-6)


def test_only_without_a_tolerance_does_a_call_make_several_updates_on_cpu(monkeypatch):
    calls = []
    advance = module._advance

    def watched(apply_fn, solver, updates, *args):
        calls.append(updates)
        return advance(apply_fn, solver, updates, *args)

    watched.lower = advance.lower
    monkeypatch.setattr(module, "_advance", watched)
    for tolerance, expected in ((None, [6, 6]), (1e-12, [1] * 12)):
        calls.clear()
        og.synthesize(APPLY, WEIGHTS, sources(3), targets(3), solver=FAST, tolerance=tolerance)
        assert calls == expected


def test_device_memory_follows_the_batch_size(monkeypatch):
    def network(weights, images):
        return APPLY(weights, images)

    in_use = []
    advance = module._advance

    def watched(*args):
        out = advance(*args)
        in_use.append(sum(array.nbytes for array in jax.live_arrays()))
        return out

    watched.lower = advance.lower
    monkeypatch.setattr(module, "_advance", watched)
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


def test_logits_of_other_types_are_measured_in_float32(monkeypatch):
    def short(weights, images):
        return APPLY(weights, images).astype(jnp.bfloat16)

    result = og.synthesize(short, WEIGHTS, sources(4), targets(4), solver=FAST)
    kl = scipy.special.rel_entr(targets(4).astype(np.float64), result.probs).sum(-1)
    np.testing.assert_allclose(result.kl, kl, rtol=1e-3, atol=1e-6)
    monkeypatch.setattr(module, "_chunks", lambda *_: [4, 4, 4])
    expected = og.synthesize(APPLY, WEIGHTS, sources(4), targets(4), solver=FAST)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, WEIGHTS)
        result = og.synthesize(APPLY, wide, sources(4), targets(4), solver=FAST)
    assert result.images.dtype == np.float32
    assert_same(result, expected)


def test_a_progress_bar_counts_image_updates(capsys):
    pytest.importorskip("tqdm")
    og.synthesize(APPLY, WEIGHTS, sources(5), targets(5), solver=FAST, batch_size=2, progress=True)
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "60.0/60.0" in shown
