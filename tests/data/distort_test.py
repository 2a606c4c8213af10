"""Noise by its moments; blur against scipy in float64, for every border, kernel and level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from outgen_jax.data import distort

SCIPY_MODES = {
    "reflect": "mirror",
    "symmetric": "reflect",
    "edge": "nearest",
    "wrap": "wrap",
    "constant": "constant",
}
blur = jax.jit(distort.gaussian_blur, static_argnames=("truncate", "border"))
IMAGES = np.random.default_rng(0).uniform(0, 1, (5, 12, 10, 3)).astype(np.float32)
SAME = IMAGES[[0] * 5]  # one image five times, for five levels at once
KEY = jax.random.key(0)
SCALES = {name: getattr(distort, name) for name in ("PAPER", "PAPER_32", "IMAGENET_C", "CIFAR10_C")}


def scipy_blur(image: np.ndarray, sigma: float, radius: int, border: str) -> np.ndarray:
    """Rows, then columns, in float64."""
    distance = np.arange(-radius, radius + 1)
    kernel = np.exp(-(distance**2) / (2 * sigma**2))
    result = np.float64(image)
    for axis in (0, 1):
        mode = SCIPY_MODES[border]
        result = scipy.ndimage.correlate1d(result, kernel / kernel.sum(), axis, mode=mode)
    return result


def paper_blur(images, sigmas, border: distort.Border = "reflect") -> jax.Array:
    return blur(images, jnp.asarray(sigmas, jnp.float32), border=border)


# --- blur ---


@pytest.mark.parametrize("border", SCIPY_MODES)
def test_blur_equals_scipy_at_every_border(border):
    sigmas, radii = (1, 2, 4, 8, 10), (1, 3, 7, 15, 19)  # 4σ − 1 pixels, up to four times the side
    for sigma, radius, result in zip(sigmas, radii, paper_blur(SAME, sigmas, border), strict=True):
        expected = scipy.ndimage.gaussian_filter(
            np.float64(SAME[0]), sigma, mode=SCIPY_MODES[border], radius=radius, axes=(0, 1)
        )
        np.testing.assert_allclose(result, expected, atol=2e-6)
        if sigma in (2, 4):  # wide enough for all borders to differ, not yet all near the mean
            others = [scipy_blur(SAME[0], sigma, radius, other) for other in SCIPY_MODES]
            assert sum(np.abs(other - result).max() < 0.01 for other in others) == 1


def test_fractional_kernels_are_the_nearest_odd():
    sigmas = np.arange(0.125, 4.01, 0.125)
    results = blur(IMAGES[[0] * len(sigmas)], jnp.asarray(sigmas, jnp.float32))
    for sigma, result in zip(sigmas, results, strict=True):
        sizes = np.arange(3, 40, 2)
        gaps = np.abs(sizes - (4 * sigma - 1))
        size = sizes[gaps == gaps.min()].max()
        expected = scipy_blur(IMAGES[0], sigma, size // 2, "reflect")
        np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["IMAGENET_C", "CIFAR10_C"])
def test_benchmark_blurs_equal_their_own(name):
    filters = pytest.importorskip("skimage.filters", reason="scikit-image is not installed")
    scale = SCALES[name]
    images = np.tile(IMAGES[:1], (5, 2, 3, 1))
    sigmas = jnp.array(scale.blur, jnp.float32)
    results = blur(images, sigmas, truncate=scale.truncate, border=scale.border)
    for sigma, result in zip(scale.blur, results, strict=True):
        expected = filters.gaussian(np.float64(images[0]), sigma, channel_axis=-1)
        np.testing.assert_allclose(result, expected, atol=2e-6)


def test_levels_may_differ_by_image_and_be_traced():
    sigmas = np.array([0, 0.6, 1, 2.5, 4], np.float32)
    together = paper_blur(IMAGES, sigmas)
    for i, sigma in enumerate(sigmas):
        np.testing.assert_allclose(blur(IMAGES, float(sigma))[i], together[i], atol=1e-6)
    mapped = jax.vmap(lambda x, s: blur(x[None], s)[0])(IMAGES, sigmas)
    np.testing.assert_allclose(mapped, together, atol=1e-6)
    outside_of_jit = distort.gaussian_blur(IMAGES, sigmas)
    np.testing.assert_allclose(outside_of_jit, together, atol=1e-6)


def test_images_and_channels_do_not_mix():
    sigmas = [2.0] * 5
    blurred = paper_blur(IMAGES, sigmas)
    changed = IMAGES.copy()
    changed[0], changed[..., 0] = 0, 0
    np.testing.assert_array_equal(paper_blur(changed, sigmas)[1:, ..., 1:], blurred[1:, ..., 1:])


@pytest.mark.parametrize("border", ["reflect", "symmetric", "edge", "wrap"])
def test_a_plain_image_stays_as_it_is(border):
    plain = np.broadcast_to(np.float32([0, 0.25, 0.5, 0.75, 1])[:, None, None, None], IMAGES.shape)
    blurred = paper_blur(plain, [1, 2, 3, 4, 5], border)
    np.testing.assert_allclose(blurred, plain, atol=1e-6)
    assert blurred.max() <= 1


@pytest.mark.parametrize("border", ["symmetric", "wrap"])
def test_these_borders_keep_the_mean(border):
    means = paper_blur(IMAGES, [1, 2, 3, 4, 5], border).mean((1, 2))
    np.testing.assert_allclose(means, IMAGES.mean((1, 2)), atol=1e-6)


def test_the_widest_kernel_is_cut_at_twice_the_side():
    (result, *_) = paper_blur(SAME, [1e6, 1, 1, 1, 1], "wrap")
    expected = np.float64(SAME[0])
    for axis, side in ((0, 12), (1, 10)):  # all weights alike
        expected = scipy.ndimage.uniform_filter1d(expected, 4 * side + 1, axis, mode="wrap")
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("border", SCIPY_MODES)
def test_the_smallest_images(border):
    images = IMAGES[:1, :1, :2]
    expected = scipy_blur(images[0], 1, 1, border)
    np.testing.assert_allclose(blur(images, 1.0, border=border)[0], expected, atol=1e-6)


def test_level_0_leaves_the_image_untouched():
    np.testing.assert_array_equal(blur(IMAGES, 0.0), IMAGES)
    np.testing.assert_array_equal(distort.gaussian_noise(jax.random.key(0), IMAGES, 0), IMAGES)
    for change in (blur, lambda x, s: distort.gaussian_noise(jax.random.key(0), x, s)):
        changed = change(IMAGES, jnp.array([0.0, 1, 2, 0, 4]))
        same = (changed == IMAGES).all((1, 2, 3))
        np.testing.assert_array_equal(same, [True, False, False, True, False])


def test_gradient_of_blur_is_its_transpose():
    weights = np.random.default_rng(1).normal(size=IMAGES.shape).astype(np.float32)
    sigmas = jnp.array([0, 1, 2, 3, 4], jnp.float32)
    gradient = jax.grad(lambda x: (weights * blur(x, sigmas, border="symmetric")).sum())(IMAGES)
    # With the edge repeated and an even kernel, blur is its own transpose.
    np.testing.assert_array_equal(gradient[0], weights[0])
    for i, radius in ((1, 1), (2, 3), (3, 5), (4, 7)):
        expected = scipy_blur(weights[i], i, radius, "symmetric")
        np.testing.assert_allclose(gradient[i], expected, atol=1e-5)


# --- noise ---


def test_noise_is_normal_on_the_8_bit_scale():
    grey = jnp.full((2, 64, 64, 3), 0.5)
    noise = np.float64(distort.gaussian_noise(jax.random.key(0), grey, 20.0)) - 0.5
    n = noise.size
    assert abs(noise.mean()) * 255 < 4 * 20 / np.sqrt(n)
    assert abs(noise.std() * 255 - 20) < 4 * 20 / np.sqrt(2 * n)
    # 0.5 is 6.4 standard deviations from black and white: nothing was clipped.
    assert abs((np.abs(noise * 255) < 20).mean() - 0.6827) < 4 * 0.4654 / np.sqrt(n)
    first, second = noise[0].ravel(), noise[1].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(n / 2)
    channels = np.corrcoef(noise.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 4 / np.sqrt(n / 3)


def test_noise_is_clipped():
    black, white = jnp.zeros((1, 32, 32, 3)), jnp.ones((1, 32, 32, 3))
    for images, end in ((black, 0), (white, 1)):
        noisy = np.asarray(distort.gaussian_noise(jax.random.key(1), images, 60.0))
        assert noisy.min() >= 0
        assert noisy.max() <= 1
        assert 0.45 < (noisy == end).mean() < 0.55  # half the noise points out of the range


def test_noise_of_each_image_has_its_own_level():
    grey = jnp.full((3, 32, 32, 3), 0.5)
    sigmas = jnp.array([5.0, 10.0, 20.0])
    noisy = jax.jit(distort.gaussian_noise)(jax.random.key(2), grey, sigmas)
    np.testing.assert_allclose(255 * noisy.std((1, 2, 3)), sigmas, rtol=0.05)
    # The level scales one draw.
    for i, sigma in enumerate((5.0, 10.0, 20.0)):
        alone = distort.gaussian_noise(jax.random.key(2), grey, sigma)
        np.testing.assert_allclose(alone[i], noisy[i], atol=1e-6)


def test_noise_depends_on_key_and_place_alone():
    images = jnp.asarray(IMAGES)
    key = jax.random.key(3)
    noisy = distort.gaussian_noise(key, images, 20.0)
    np.testing.assert_array_equal(distort.gaussian_noise(key, images[:2], 20.0), noisy[:2])
    others = images.at[1:].set(0)
    np.testing.assert_array_equal(distort.gaussian_noise(key, others, 20.0)[0], noisy[0])
    assert not np.array_equal(distort.gaussian_noise(jax.random.key(4), images, 20.0), noisy)


# --- random levels ---


@pytest.mark.parametrize("kinds", [("noise",), ("blur",), ("noise", "blur")])
def test_levels_are_drawn_uniformly_clean_included(kinds):
    scale, count = distort.PAPER_32, 4400
    noise, blurs = (np.asarray(s) for s in distort.random_levels(KEY, count, scale, kinds=kinds))
    assert not ((noise > 0) & (blurs > 0)).any()  # one distortion an image
    wanted = [(s, 0) for s in scale.noise if "noise" in kinds]
    wanted += [(0, s) for s in scale.blur if "blur" in kinds]
    wanted.append((0, 0))
    shares = [(np.isclose(noise, n) & np.isclose(blurs, b)).mean() for n, b in wanted]
    np.testing.assert_allclose(sum(shares), 1)
    p = 1 / len(wanted)
    np.testing.assert_allclose(shares, p, atol=4 * np.sqrt(p * (1 - p) / count))


def test_random_distortion_applies_the_levels_drawn():
    images = jnp.asarray(np.tile(IMAGES, (4, 1, 1, 1)))
    run = jax.jit(lambda key: distort.random_distortion(key, images, distort.PAPER_32))
    level_key, noise_key = jax.random.split(KEY)
    noise, blurs = distort.random_levels(level_key, len(images), distort.PAPER_32)
    assert 0 < (noise > 0).sum() < len(images)
    assert 0 < (blurs > 0).sum() < len(images)
    expected = distort.gaussian_noise(noise_key, blur(images, blurs), noise)
    np.testing.assert_allclose(run(KEY), expected, atol=1e-6)
    clean = (noise == 0) & (blurs == 0)
    np.testing.assert_array_equal(run(KEY)[clean], images[clean])
    assert not np.array_equal(run(KEY), run(jax.random.key(1)))


@pytest.mark.parametrize(
    ("kinds", "noise", "message"),
    [
        ((), (20,), r"kinds must be some of noise, blur; got \[\]"),
        (("fog",), (20,), r"got \['fog'\]"),
        (("noise",), (20, -1), "finite and not negative, got -1"),
        (("noise",), (np.inf,), "finite and not negative, got inf"),
    ],
)
def test_random_levels_reject(kinds, noise, message):
    levels = distort.PAPER._replace(noise=noise)
    with pytest.raises(ValueError, match=f"random_levels: .*{message}"):
        distort.random_levels(KEY, 3, levels, kinds=kinds)


# --- levels and the door ---


def test_levels_of_the_literature():
    assert distort.PAPER.noise == (20, 40, 60, 80, 100)
    assert distort.PAPER.blur == (2, 4, 6, 8, 10)
    assert distort.PAPER_32.noise == distort.PAPER.noise
    np.testing.assert_allclose(distort.PAPER_32.blur, [2 / 7, 4 / 7, 6 / 7, 8 / 7, 10 / 7])
    np.testing.assert_allclose(distort.IMAGENET_C.noise, [20.4, 30.6, 45.9, 66.3, 96.9])
    np.testing.assert_allclose(distort.CIFAR10_C.noise, [10.2, 15.3, 20.4, 22.95, 25.5])
    for levels in (level for scale in SCALES.values() for level in (scale.noise, scale.blur)):
        assert len(levels) == 5
        assert list(levels) == sorted(levels)


@pytest.mark.parametrize("name", SCALES)
def test_every_level_blurs_more_than_the_one_before(name):
    scale = SCALES[name]
    points = np.zeros((5, 49, 49, 1), np.float32)
    points[:, 24, 24] = 1
    sigmas = jnp.array(scale.blur, jnp.float32)
    spots = blur(points, sigmas, truncate=scale.truncate, border=scale.border)
    assert (np.diff([1, *spots[:, 24, 24, 0]]) < 0).all()


CALLS = {
    "gaussian_noise": lambda x, s: distort.gaussian_noise(jax.random.key(0), x, s),
    "gaussian_blur": distort.gaussian_blur,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("images", "sigma", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), 1.0, r"got uint8; divide"),
        (np.zeros((4, 4, 3), np.float32), 1.0, r"got \[4, 4, 3\].*images\[None\]"),
        (IMAGES[:2], [1.0, 2.0, 3.0], r"one number or \[2\], .* shape \[3\]"),
        (IMAGES[:2], [1.0, -2.0], r"not negative, got -2"),
        (IMAGES[:2], np.nan, r"must be finite .* got nan"),
        (IMAGES[:2], np.inf, r"must be finite .* got inf"),
    ],
)
def test_rejects(name, images, sigma, message):
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        CALLS[name](images, jnp.asarray(sigma))


def test_rejects_options():
    with pytest.raises(ValueError, match="unknown border 'mirror'; use one of reflect, symmetric"):
        distort.gaussian_blur(IMAGES[:1], 1.0, border="mirror")
    with pytest.raises(ValueError, match="truncate must be positive, got 0; None"):
        distort.gaussian_blur(IMAGES[:1], 1.0, truncate=0)


@pytest.mark.parametrize("name", CALLS)
def test_a_level_that_is_no_number_shows(name):
    assert np.isnan(jax.jit(CALLS[name])(IMAGES[:1], jnp.nan)).any()


@pytest.mark.parametrize(
    "change",
    [
        lambda images: distort.gaussian_noise(jax.random.key(0), images, 20.0),
        lambda images: distort.gaussian_blur(images, 1.0),
    ],
)
def test_grey_levels_as_floats_are_refused(change):
    """Noise would make them white."""
    images = np.full((1, 8, 8, 3), 120, np.float32)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], got values from 120.*images / 255"):
        change(images)
    change(change(images / 255))
