"""One image seen in several ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_synthesis import APPLY, SHAPE, WEIGHTS, sources

import outgen_jax as og
from outgen_jax.solvers.jacobian import ViewedNetwork
from outgen_jax.synthesis import network, views
from outgen_jax.synthesis.programs import Network

IMAGES = sources(3) / np.float32(255)


def test_outputs_gain_an_axis_in_the_order_of_the_transforms():
    transforms = [lambda x: x, lambda x: x[:, ::-1], views.shift(1, -2)]
    seen = og.views(APPLY, transforms)(WEIGHTS, IMAGES)
    assert seen.shape == (3, 3, 5)
    for v, transform in enumerate(transforms):
        shown = np.stack([transform(image) for image in IMAGES])
        np.testing.assert_allclose(seen[:, v], APPLY(WEIGHTS, shown), rtol=1e-4, atol=1e-5)


def test_every_part_of_a_tree_gains_it():
    seen = og.views(lambda w, x: {"a": APPLY(w, x), "b": x[:, 0]}, [lambda x: x] * 4)
    shapes = jax.tree.map(jnp.shape, seen(WEIGHTS, IMAGES))
    assert shapes == {"a": (3, 4, 5), "b": (3, 4, *SHAPE[1:])}


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 0), (-1, 3), (0, -2)])
def test_a_shift_moves_pixels_and_fills_with_0(rows, columns):
    image = IMAGES[0]
    found = np.asarray(views.shift(rows, columns)(jnp.asarray(image)))
    expected = np.zeros_like(image)
    for i in range(SHAPE[0]):
        for j in range(SHAPE[1]):
            if 0 <= i - rows < SHAPE[0] and 0 <= j - columns < SHAPE[1]:
                expected[i, j] = image[i - rows, j - columns]
    np.testing.assert_array_equal(found, expected)


def test_straight_through_has_the_value_of_one_and_the_slope_of_another():
    rounded = views.straight_through(lambda x: jnp.round(x * 4) / 4)
    image = jnp.asarray(IMAGES[0])
    np.testing.assert_allclose(rounded(image), np.round(image * 4) / 4, atol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda x: rounded(x).sum())(image), 1)


def test_straight_through_takes_a_transform_of_the_host():
    """Such as the encoder of another library, which has no derivative."""

    def coarse(image):
        shape = jax.ShapeDtypeStruct(image.shape, image.dtype)
        return jax.pure_callback(
            lambda x: np.round(x * 4) / 4, shape, image, vmap_method="expand_dims"
        )

    one = views.straight_through(coarse)
    image = jnp.asarray(IMAGES[0])
    np.testing.assert_allclose(one(image), np.round(image * 4) / 4, atol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda x: one(x).sum())(image), 1)
    seen = og.views(APPLY, [lambda x: x, one])
    found = og.synthesize(
        seen, WEIGHTS, IMAGES[:1], np.full(5, 0.2), solver=og.gauss_newton(steps=1)
    )
    assert found.finite.all()


def test_solvers_see_the_views_apart_with_the_outputs_of_all():
    """Without the views apart, each row of the Jacobian would pass through all of them."""
    transforms = [lambda x: x, lambda x: x[:, ::-1], views.shift(1, -2)]
    seen = og.views(lambda w, x: {"a": APPLY(w, x), "b": x[:, 0]}, transforms)
    kinds = (og.outputs.softmax(), og.outputs.values())
    one = network.of_one_image(Network(seen), kinds, WEIGHTS)
    assert isinstance(one, ViewedNetwork)
    expected = seen(WEIGHTS, IMAGES[:1])
    logits, pixels = one(jnp.asarray(IMAGES[0]))
    np.testing.assert_allclose(logits, expected["a"][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pixels, expected["b"].reshape(-1, 3), rtol=1e-5)


def test_transforms_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="views: there must be at least one transform"):
        og.views(APPLY, [])
    remedy = og.views(APPLY, [lambda image: image])  # as the message says
    assert remedy(WEIGHTS, IMAGES).shape == (3, 1, 5)
    uneven = og.views(APPLY, [lambda x: x, lambda x: x[:4]])
    message = (
        r"views: all transforms must give images of one shape, got \[\[4, 6, 3\], \[8, 6, 3\]\]"
    )
    with pytest.raises(ValueError, match=message):
        uneven(WEIGHTS, IMAGES)
    with pytest.raises(ValueError, match=rf"^synthesize: {message}"):
        og.synthesize(uneven, WEIGHTS, IMAGES, np.full(5, 0.2))
    whole = og.views(APPLY, [lambda x: x, lambda x: jax.image.resize(x[:4], SHAPE, "linear")])
    assert whole(WEIGHTS, IMAGES).shape == (3, 2, 5)


def test_a_transform_without_a_gradient_is_refused_by_its_name():
    def rounding(image):
        return jnp.round(image * 4) / 4

    constant = [lambda x: x, lambda x: jnp.ones_like(x)]
    for transforms, name in (([views.shift(0, 1), rounding], "rounding"), (constant, "<lambda>")):
        message = rf"the gradient of transform 1 \({name}\) is zero everywhere"
        with pytest.raises(ValueError, match=rf"^views: {message}"):
            og.views(APPLY, transforms)(WEIGHTS, IMAGES)
        with pytest.raises(ValueError, match=rf"^synthesize: views: {message}"):
            og.synthesize(og.views(APPLY, transforms), WEIGHTS, IMAGES, np.full(5, 0.2))
    remedy = og.views(APPLY, [views.shift(0, 1), views.straight_through(rounding)])
    assert remedy(WEIGHTS, IMAGES).shape == (3, 2, 5)


def test_a_transform_that_returns_no_floats_is_refused():
    seen = og.views(APPLY, [lambda x: (x * 255).astype(jnp.uint8)])
    with pytest.raises(ValueError, match=r"transform 0 \(<lambda>\) must return floats.*uint8"):
        seen(WEIGHTS, IMAGES)


@pytest.mark.parametrize("steady", [1, 2])
def test_a_shape_that_changes_from_call_to_call_is_refused(steady):
    sizes = iter([8] * steady + [6] * 9)

    def drawn(image):
        return jnp.zeros((8, 6, 3)).at[:4].set(image[:4])[: next(sizes)]

    seen = og.views(lambda w, x: x.mean((1, 2)), [drawn])
    message = r"transform 0 \(drawn\) .* gave \[8, 6, 3\] and then \[6, 6, 3\]"
    with pytest.raises(ValueError, match=message):
        [seen(WEIGHTS, IMAGES) for _ in range(2)]


@pytest.mark.parametrize(
    "transform",
    [
        lambda x: jnp.clip(1.5 * x, 0, 1),
        lambda x: jax.image.resize(x, (4, 4, 3), "linear"),
        lambda x: jnp.where(x > 0.5, x, 0),
        jax.nn.relu,
        jax.checkpoint(lambda x: x**2),
        lambda x: jax.lax.map(lambda row: 2 * row, x),
    ],
)
def test_transforms_with_gradients_pass(transform):
    assert og.views(lambda w, x: x.mean((1, 2)), [transform])(None, IMAGES).shape == (3, 1, 3)


def test_transforms_are_checked_once():
    calls = []

    def counted(image):
        calls.append(1)
        return image

    seen = og.views(APPLY, [counted])
    seen(WEIGHTS, IMAGES)
    first = len(calls)
    seen(WEIGHTS, IMAGES)
    assert len(calls) == first + 1


def _broken(image):
    raise KeyError("size")


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            lambda x: None,
            r"transform 1 \(<lambda>\) must return one image .*, but returns None; is",
        ),
        (
            lambda x: (x, x),
            r"transform 1 \(<lambda>\) must return one image .*, but returns a tuple",
        ),
        (_broken, r"transform 1 \(_broken\) fails on an image of shape \[8, 6, 3\]: 'size'\. "),
    ],
)
def test_a_transform_that_fails_is_named(transform, message):
    seen = og.views(APPLY, [lambda x: x, transform])
    with pytest.raises(ValueError, match=rf"^synthesize: views: {message}"):
        og.synthesize(seen, WEIGHTS, IMAGES, np.full(5, 0.2))


def test_what_is_no_transform_is_named():
    with pytest.raises(
        ValueError, match=r"^views: transform 1 must be a function .*, got 0\.5; wrap"
    ):
        og.views(APPLY, [lambda x: x, 0.5])
    with pytest.raises(
        ValueError, match=r"^views: transforms must be a list, .* pass \[transform\]"
    ):
        og.views(APPLY, lambda x: x)
