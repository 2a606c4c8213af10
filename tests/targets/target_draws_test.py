"""Random targets: what they avoid, how they are distributed, whose they are."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from outgen_jax import targets
from outgen_jax.targets.draws import ImageIds

SMALL = settings(max_examples=30, deadline=None)


def one_hot(*classes: int, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[list(classes)]


@SMALL
@given(st.data())
def test_random_avoids_every_class_in_use(data: st.DataObject) -> None:
    classes = data.draw(st.integers(5, 12))
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=40)))
    named = data.draw(st.integers(0, classes - 1))
    seed = data.draw(st.integers(-(2**70), 2**70))
    found = targets.parse(
        f"true=0.4,random=0.3,{named}=0,random=0.2,random=0.1",
        num_classes=classes,
        labels=labels,
        seed=seed,
    )
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[np.arange(len(labels)), labels], 0.4, rtol=1e-6)
    assert (found[labels != named, named] == 0).all()
    # Three distinct draws: no two weights met in one class.
    np.testing.assert_allclose(np.sort(found, axis=1)[:, -4:], [[0.1, 0.2, 0.3, 0.4]] * len(labels))


def test_random_takes_the_last_free_class_and_then_fails() -> None:
    probs = [[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.0, 0.7]]
    found = targets.parse("top=0,runnerup=0,0=0,random=1", num_classes=4, source_probs=probs[:1])
    assert set(np.flatnonzero(found)) <= {2, 3}
    found = targets.parse("top=0,runnerup=0,0=0,random=1", num_classes=4, source_probs=probs[1:])
    np.testing.assert_array_equal(found, one_hot(2, num_classes=4))
    with pytest.raises(ValueError, match=r"no class is left for 'random' number 2 on image '1'"):
        targets.parse("top=0,runnerup=0,0=0,random=1,random=0", num_classes=4, source_probs=probs)


@SMALL
@given(st.permutations(range(20)), st.integers(1, 20), st.integers(0, 2**32))
def test_random_belongs_to_the_image_not_to_its_place(order: list[int], n: int, seed: int) -> None:
    labels = np.arange(20) % 7
    ids = np.array([f"train_{i:05d}" for i in range(20)])
    text = "true=0.8,random=0.15,random=0.05"
    whole = targets.parse(text, num_classes=7, labels=labels, image_ids=ids, seed=seed)
    part = order[:n]
    found = targets.parse(text, num_classes=7, labels=labels[part], image_ids=ids[part], seed=seed)
    np.testing.assert_array_equal(found, whole[part])


def test_random_is_uniform_over_the_free_classes_and_changes_with_the_seed() -> None:
    labels = np.full(9000, 3)
    draws = [targets.parse("random", num_classes=10, labels=labels, seed=seed) for seed in (0, 1)]
    for drawn in draws:
        counts = np.delete(drawn.sum(axis=0), 3)
        assert counts.sum() == 9000
        assert stats.chisquare(counts).pvalue > 1e-4
    # Independent seeds agree on one image in nine.
    assert abs(np.sum(draws[0] * draws[1]) / 9000 - 1 / 9) < 0.015


def test_random_is_the_same_on_every_machine_and_for_every_kind_of_id() -> None:
    digest = hashlib.blake2b(b"5:random 0:7", digest_size=16).digest()
    free = [c for c in range(10) if c != 2]
    expected = one_hot(free[int.from_bytes(digest[:8], "little") % 9], num_classes=10)
    kinds: tuple[ImageIds, ...] = ([7], ["7"], [b"7"], np.array([7]))
    for ids in kinds:
        found = targets.parse("random", num_classes=10, labels=[2], image_ids=ids, seed=5)
        np.testing.assert_array_equal(found, expected)
    default = targets.parse("random", num_classes=10, labels=[2] * 8, seed=np.int64(5))  # type: ignore[arg-type]
    np.testing.assert_array_equal(default[7:], expected)


def test_ids_may_be_file_names_that_are_not_utf8() -> None:
    ids: list[str | int | bytes] = ["caf\udce9.png", b"caf\xe9.png"]
    found = targets.parse("random", num_classes=100, image_ids=ids)
    np.testing.assert_array_equal(found[0], found[1])


@SMALL
@given(st.permutations(range(12)), st.integers(0, 99), st.sampled_from([1e-5, 0.1, 1.0, 50.0]))
def test_dirichlet_rows_are_distributions_of_their_image(
    order: list[int], seed: int, alpha: float
) -> None:
    whole = targets.dirichlet(seed, 12, 5, alpha=alpha)
    assert whole.dtype == np.float32
    assert (whole >= 0).all()
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-6)
    part = targets.dirichlet(seed, 4, 5, alpha=alpha, image_ids=order[:4])
    np.testing.assert_array_equal(part, whole[order[:4]])
    assert len(np.unique(targets.dirichlet(seed, 12, 5, alpha=50.0), axis=0)) == 12


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_dirichlet_marginals_are_beta(alpha: float) -> None:
    drawn = targets.dirichlet(3, 2000, 4, alpha=alpha)
    for column in drawn.T:
        assert stats.kstest(column, stats.beta(alpha, 3 * alpha).cdf).pvalue > 1e-4


def test_a_large_concentration_is_uniform() -> None:
    np.testing.assert_allclose(targets.dirichlet(0, 2, 3, alpha=1e308), 1 / 3, rtol=1e-6)


def test_dirichlet_names_what_is_wrong() -> None:
    for alpha in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^targets.dirichlet: alpha and num_classes must be"):
            targets.dirichlet(0, 2, 3, alpha=alpha)
    with pytest.raises(ValueError, match=r"alpha must be one number for all classes, got .*\[3\]"):
        targets.dirichlet(0, 2, 3, alpha=np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_images must not be negative; it is -1"):
        targets.dirichlet(0, -1, 3)
    with pytest.raises(ValueError, match=r"num_classes must be an integer, got 2\.5"):
        targets.dirichlet(0, 2, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds 1 for 2 images"):
        targets.dirichlet(0, 2, 3, image_ids=["a"])
    with pytest.raises(ValueError, match="seed must be an integer; it is a float"):
        targets.dirichlet(0.5, 2, 3)  # type: ignore[arg-type]
