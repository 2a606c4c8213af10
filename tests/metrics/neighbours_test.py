"""Realism scores and nearest neighbours against scikit-learn and scipy, and their limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from outgen_jax.metrics import generative, neighbours


@functools.cache
def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Real rows far from the origin, and fakes near some of them."""
    rng = np.random.default_rng(0)
    real = rng.normal(50, 1, (40, 6)) * rng.uniform(0.2, 2, (40, 1))
    return real, real[:15] + rng.normal(0, 0.5, (15, 6))


def expected_realism(real: np.ndarray, fake: np.ndarray, k: int) -> np.ndarray:
    real, fake = np.float64(real), np.float64(fake)
    neighbours = NearestNeighbors(n_neighbors=k + 1, algorithm="kd_tree").fit(
        real
    )  # by differences
    radii = neighbours.kneighbors(real)[0][:, k]  # the first is the row itself
    kept = radii <= np.median(radii)
    return (radii[kept] / cdist(fake, real[kept])).max(1)


@pytest.mark.parametrize("k", [1, 3])
def test_realism_equals_scikit_learns_neighbours(k):
    real, fake = clouds()
    got = neighbours.realism_score(real, fake, k=k)
    np.testing.assert_allclose(got, expected_realism(*map(np.float32, (real, fake)), k), rtol=1e-5)
    assert got.shape == (15,)


def test_realism_falls_with_the_distance_and_knows_a_copy():
    real = np.random.default_rng(1).normal(size=(30, 4))
    direction = np.array([1.0, 0, 0, 0])
    central = np.linalg.norm(real, axis=1).argmin()  # its neighbourhood is among the narrow ones
    fake = np.stack([real[central], *(direction * far for far in (5, 10, 1000))])
    copy, *others = neighbours.realism_score(real, fake)
    assert copy > 50
    assert 1 > others[0] > others[1] > others[2] > 0
    # Far away all that counts is the widest of the narrower half of neighbourhoods, over the distance.
    np.testing.assert_allclose(others[2], expected_realism(real, fake[3:], 3)[0], rtol=1e-4)


def test_realism_is_blind_to_shifts_and_scale():
    real, fake = clouds()
    before = neighbours.realism_score(real, fake)
    after = neighbours.realism_score(3 * (real - 50), 3 * (fake - 50))
    np.testing.assert_allclose(after, before, rtol=2e-3)


def test_the_nearest_are_scipys(monkeypatch):
    queries, references = clouds()[1], clouds()[0]
    distances = cdist(queries, references)
    for entries in (generative._BLOCK_ENTRIES, 80):  # at once, and two rows a time
        monkeypatch.setattr(generative, "_BLOCK_ENTRIES", entries)
        jax.clear_caches()
        got = neighbours.nearest_neighbours(queries, references)
        np.testing.assert_allclose(got.distance, distances.min(1), rtol=1e-5)
        np.testing.assert_array_equal(got.row, distances.argmin(1))


def tight_clusters(seed: int, n: int, d: int) -> np.ndarray:
    """Clusters of radius 0.01 at distances of about 100."""
    centres = 100 * np.random.default_rng(99).normal(size=(3, d))
    within = np.random.default_rng(seed).normal(0, 0.01 / d**0.5, (n, d))
    return np.float32(centres[np.arange(n) % 3] + within)


@pytest.mark.parametrize("d", [8, 100])
def test_tight_clusters_far_apart_keep_their_neighbours(d):
    """Where products of float32 would find any row of the cluster."""
    queries, references = tight_clusters(1, 30, d), tight_clusters(2, 60, d)
    distances = cdist(np.float64(queries), np.float64(references))
    got = neighbours.nearest_neighbours(queries, references)
    np.testing.assert_array_equal(got.row, distances.argmin(1))
    np.testing.assert_allclose(got.distance, distances.min(1), rtol=1e-5)
    realism = neighbours.realism_score(references, queries)
    expected = expected_realism(np.float64(references), np.float64(queries), 3)
    np.testing.assert_allclose(realism, expected, rtol=1e-5)


def test_a_copy_is_at_no_distance():
    images = np.random.default_rng(0).integers(0, 256, (20, 784)) / np.float32(255)
    got = neighbours.nearest_neighbours(images[[3, 7]], images)
    np.testing.assert_array_equal(got.row, [3, 7])
    np.testing.assert_array_equal(got.distance, 0)


def test_both_may_be_jitted():
    real, fake = (jnp.asarray(a, jnp.float32) for a in clouds())
    jitted = jax.jit(lambda a, b: neighbours.realism_score(a, b, k=2))(real, fake)
    np.testing.assert_allclose(jitted, neighbours.realism_score(real, fake, k=2), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: neighbours.realism_score(x, x, k=4), "realism_score: k must .* 4; got 4. Give"),
        (lambda x: neighbours.realism_score(x, x, k=0), "k must be at least 1 .* got 0"),
        (lambda x: neighbours.realism_score(x, x[:, :1]), r"realism_score: real and fake must be"),
        (lambda x: neighbours.realism_score(x[:1], x), "real must have at least 2 rows"),
        (lambda x: neighbours.nearest_neighbours(x, x / 0), "references must be finite; row 0"),
    ],
)
def test_bad_features_are_named(call, message):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        call(np.arange(8.0).reshape(4, 2))


def test_one_query_has_a_neighbour():
    found = neighbours.nearest_neighbours(
        np.array([[1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 2.0]])
    )
    assert found.row.tolist() == [1]
    with pytest.raises(ValueError, match="must be features of shapes"):
        neighbours.nearest_neighbours(np.zeros((0, 2)), np.zeros((1, 2)))
