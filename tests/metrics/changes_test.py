"""How far images have been changed, against numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import outgen_jax as og


def test_one_image_at_a_time_in_both_norms():
    sources = np.full((3, 2, 2, 1), 0.5, np.float32)
    images = sources.copy()
    images[1] += np.array([[0.3, 0.0], [0.0, -0.4]])[:, :, None]
    images[2] -= 0.1
    np.testing.assert_allclose(og.metrics.l2_change(images, sources), [0, 0.5, 0.2], rtol=1e-5)
    np.testing.assert_allclose(og.metrics.linf_change(images, sources), [0, 0.4, 0.1], rtol=1e-5)


@pytest.mark.parametrize("change", [og.metrics.l2_change, og.metrics.linf_change])
def test_grey_levels_are_255ths(change):
    sources = np.zeros((1, 2, 2, 3), np.uint8)
    images = sources.copy()
    images[0, 0, 0, 0] = 51
    np.testing.assert_allclose(change(images, sources), [0.2], rtol=1e-6)
    np.testing.assert_allclose(change(images / 255, jnp.asarray(sources)), [0.2], rtol=1e-6)


@pytest.mark.parametrize("change", [og.metrics.l2_change, og.metrics.linf_change])
def test_other_integers_are_refused(change):
    images = np.full((1, 2, 2, 3), 200)
    with pytest.raises(ValueError, match=r"uint8, or float in \[0, 1\], got int.*numpy\.asarray"):
        change(images, images)
    assert change(images.astype(np.uint8), images / 255) < 1e-6


@pytest.mark.parametrize("change", [og.metrics.l2_change, og.metrics.linf_change])
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4, 4, 3), (1, 4, 4, 3)), "must have one shape, got .*; give each image its own"),
        (((4, 4, 3), (4, 4, 3)), r"must be \[B, H, W, C\], got .*images\[None\]"),
    ],
)
def test_other_shapes_are_errors(change, shapes, message):
    with pytest.raises(ValueError, match=message):
        change(*map(np.zeros, shapes))


@pytest.mark.parametrize("change", [og.metrics.l2_change, og.metrics.linf_change])
def test_compiled_functions_may_close_over_the_sources(change):
    sources = jnp.full((2, 3, 3, 1), 0.5)
    np.testing.assert_allclose(
        jax.jit(lambda x: change(x, sources))(sources + 0.1), change(sources + 0.1, sources)
    )


def test_grey_levels_as_floats_are_refused():
    images = np.full((1, 4, 4, 3), 200.0)
    with pytest.raises(
        ValueError, match=r"float images must lie in \[0, 1\], got values up to 200"
    ):
        og.metrics.l2_change(images, images)
