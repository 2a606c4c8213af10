"""Bad input is refused at once, in words that name the value, the expectation and the remedy."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from toy_synthesis import APPLY, CLASSES, FAST, SHAPE, WEIGHTS

import outgen_jax as og
from outgen_jax.synthesis import request
from outgen_jax.synthesis.programs import Network

IMAGES = np.random.default_rng(0).random((3, *SHAPE), np.float32)
TARGETS = np.full((3, CLASSES), 0.2)


def changed(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


IN_RANGE = r"float images must lie in \[0, 1\], got values from {} to {}; {}"
NOT_FINITE = (
    r"must lie in \[0, 1\], got {}, in row 1 first; leave out the images that are not finite"
)
BY_255 = "take images / 255"
RANK_4 = r"images must be \[B, H, W, C\], at least one, got \[{}\]; {}"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES * 255, IN_RANGE.format(r"[\d.]+", r"25\d\.?\d*", BY_255)),
        (IMAGES * 2 - 1, IN_RANGE.format(r"-\d\.\d+", r"[\d.]+", r"take \(images \+ 1\) / 2")),
        (IMAGES * 4 - 2, IN_RANGE.format(r"-\d\.\d+", r"[\d.]+", "undo their normalisation")),
        (
            changed(IMAGES, (1, 2, 3, 0), np.nextafter(np.float32(1), np.float32(2))),
            IN_RANGE.format(r"[\d.e-]+", r"1\.0000001", r"take numpy\.clip\(images, 0, 1\)"),
        ),
        (changed(IMAGES, (1, 2, 3, 0), np.nan), NOT_FINITE.format("NaN")),
        (changed(IMAGES, (1, 2, 3, 0), np.inf), NOT_FINITE.format("infinity")),
        (
            (IMAGES * 2).astype(ml_dtypes.bfloat16),
            IN_RANGE.format(r"[\d.e-]+", r"[12]\.?\d*", BY_255),
        ),
        (
            IMAGES[0],
            RANK_4.format(
                "8, 6, 3", r"one image is images\[None\], grey images are images\[\.\.\., None\]"
            ),
        ),
        (
            IMAGES[0, ..., 0],
            RANK_4.format("8, 6", r"one grey image is images\[None, \.\.\., None\]"),
        ),
        (IMAGES[:, :0], RANK_4.format("3, 0, 6, 3", "leave out images without pixels")),
        (IMAGES[None], RANK_4.format("1, 3, 8, 6, 3", r"stack images \[H, W, C\]")),
        ("photos/", r"must be an array .*, got the path 'photos/'; og.data.sources.load\(path\)"),
        (
            IMAGES[:0],
            r"images must be \[B, H, W, C\], at least one, got \[0, 8, 6, 3\]; give at least one",
        ),
        (
            [IMAGES[0], IMAGES[1, :4]],
            r"images must all have one size, got \[4, 6, 3\], \[8, 6, 3\]; resize or crop",
        ),
        (
            (IMAGES * 255).astype(np.int32),
            r"must be uint8, or float in \[0, 1\], got int32; grey levels become uint8",
        ),
        (IMAGES > 0.5, r"must be uint8, or float in \[0, 1\], got bool; convert"),
        (
            IMAGES[..., :1],
            r"apply_fn\(variables, images\) fails on images of shape \[3, 8, 6, 1\]: .*"
            r"Check the image size and the number of channels",
        ),
    ],
)
def test_images(images, message):
    with pytest.raises(ValueError, match=rf"(?s)^synthesize: .*{message}"):
        og.synthesize(APPLY, WEIGHTS, images, TARGETS)


SHAPES = r"must have one of the shapes \[3, 5\], \[5\] for 3 images and 5 outputs; they have \[{}\]\. Give"


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            changed(TARGETS, (2, 1), 0.07),
            r"must sum to 1 per row; row 2 sums to 0\.87\. Normalise them or use og\.targets\.parse",
        ),
        (
            changed(TARGETS, (1, 4), -0.1),
            r"must not be negative; row 1 has -0\.1 for class 4\. Give probabilities",
        ),
        (changed(TARGETS, (0, 3), np.nan), r"must be finite; row 0 has nan for class 3\. Mask"),
        (TARGETS[:, :4] * 1.25, SHAPES.format("3, 4")),
        (TARGETS[:2], SHAPES.format("2, 5")),
        (TARGETS[None], SHAPES.format("1, 3, 5")),
        ("cat=1", r"must be an array of numbers \(.*\)\. Use og\.targets\.parse to turn text"),
    ],
)
def test_targets(targets, message):
    with pytest.raises(ValueError, match=rf"^synthesize: targets {message}"):
        og.synthesize(APPLY, WEIGHTS, IMAGES, targets)


def probabilities(weights, images):
    return jax.nn.softmax(APPLY(weights, images))


def short_probabilities(weights, images):
    return jax.nn.softmax(APPLY(weights, images).astype(jnp.bfloat16))


def sigmoids(weights, images):
    return jax.nn.sigmoid(APPLY(weights, images))


def with_a_name(weights, images):
    return APPLY(weights, images), images[0, 0, 0, 0]


def one_row(weights, images):
    return APPLY(weights, images)[0]


def twice(weights, images):
    return APPLY(weights, images).repeat(2, 0)


def nothing(weights, images):
    return ()


def one_class(weights, images):
    return APPLY(weights, images)[:, :1]


SHAPED = (
    r"must return outputs \[B, \.\.\., K\]; for one image it returns {}\. Wrap it so that it does"
)
ROWS = r"must return logits, but its rows are non-negative and sum to 1.*Leave the softmax out"


@pytest.mark.parametrize(
    ("apply_fn", "message"),
    [
        (probabilities, ROWS),
        (short_probabilities, ROWS),
        (
            sigmoids,
            r"must return logits, but all its values lie in \[0, 1\], as those of a sigmoid",
        ),
        (with_a_name, SHAPED.format(r"\[\] as output\[1\]")),
        (one_row, SHAPED.format(r"\[5\]")),
        (twice, SHAPED.format(r"\[2, 5\]")),
        (nothing, r"must return outputs \[B, \.\.\., K\], but it returns nothing"),
    ],
)
def test_networks(apply_fn, message):
    images = IMAGES.repeat(2, 0)  # numbers enough for chance to be ruled out
    with pytest.raises(ValueError, match=rf"^synthesize: apply_fn {message}"):
        og.synthesize(apply_fn, WEIGHTS, images, TARGETS[0])


def solved(apply_fn, targets, **options) -> og.Result:
    options = {"solver": og.gauss_newton(), "tolerance": 1e-3} | options
    result = og.synthesize(apply_fn, WEIGHTS, IMAGES, targets, **options)
    assert result.converged.all()
    return result


def test_the_remedies_for_probabilities_work():
    solved(lambda w, x: jnp.log(probabilities(w, x)), TARGETS)
    solved(lambda w, x: APPLY(w, x) - 1, TARGETS)
    labels = np.full(CLASSES, 0.4)
    solved(APPLY, labels, output=og.outputs.sigmoid())
    solved(
        lambda w, x: jax.scipy.special.logit(sigmoids(w, x)), labels, output=og.outputs.sigmoid()
    )


def test_a_sigmoid_output_refuses_probabilities():
    with pytest.raises(
        ValueError,
        match=r"as probabilities do. Leave the sigmoid out .*activation=None.* or return jax",
    ):
        og.synthesize(
            sigmoids, WEIGHTS, IMAGES.repeat(2, 0), TARGETS[0], output=og.outputs.sigmoid()
        )


def test_one_output_is_no_softmax_but_what_the_message_names():
    with pytest.raises(ValueError, match=r"at least two logits, got 1.*sigmoid\(\).*values\(\)"):
        og.synthesize(one_class, WEIGHTS, IMAGES, np.ones(1))
    for kind in (og.outputs.sigmoid(), og.outputs.values()):
        solved(one_class, np.full(1, 0.3), output=kind)


def test_a_network_that_is_not_finite_on_sources_names_their_rows():
    def fails(weights, images):
        bright = images.mean((1, 2, 3))[:, None] > IMAGES[1].mean() - 1e-6
        return jnp.where(bright, jnp.nan, APPLY(weights, images))

    rows = np.flatnonzero(IMAGES.mean((1, 2, 3)) > IMAGES[1].mean() - 1e-6)
    assert 0 < len(rows) < 3
    listed = ", ".join(map(str, rows))
    with pytest.raises(
        ValueError, match=f"for {len(rows)} of 3: row {listed}. Leave these rows out"
    ):
        og.synthesize(fails, WEIGHTS, IMAGES, TARGETS)
    kept = np.delete(IMAGES, rows, 0)
    assert og.synthesize(fails, WEIGHTS, kept, TARGETS[0], solver=FAST).finite.any()


# --- other outputs ---


def pair(weights, images):
    """Logits [B, 5] and, for two views, three numbers [B, 2, 3]."""
    logits = APPLY(weights, images)
    return logits, jnp.stack([logits[:, :3], logits[:, 2:]], 1)


KINDS = (og.outputs.sigmoid(), og.outputs.values())
HALVES = np.full(5, 0.5)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (HALVES, r"targets must be a tree like the network's outputs, \(\*, \*\)"),
        ((HALVES,), r"targets must be a tree like the network's outputs, \(\*, \*\)"),
        ({"a": HALVES, "b": np.zeros(3)}, "targets must be a tree like the network's outputs"),
        (
            (HALVES + 0.6, np.zeros(3)),
            r"output\[0\]: targets of a sigmoid .* \[0, 1\]; row 0 has 1.1 for label 0",
        ),
        (
            (HALVES[:4], np.zeros(3)),
            r"output\[0\]: targets must have one of the shapes \[3, 5\], \[5\] .* \[4\]",
        ),
        (
            (HALVES, np.zeros((4, 3))),
            r"output\[1\]: targets must have one of the shapes \[3, 2, 3\], \[3, 3\], \[3\] for 3 images and 3 "
            r"outputs; they have \[4, 3\]",
        ),
        (
            (HALVES, np.full(3, np.inf)),
            r"output\[1\]: targets must be numbers; row 0 has inf in column 0",
        ),
    ],
)
def test_targets_of_other_outputs(targets, message):
    with pytest.raises(ValueError, match=rf"(?s)^synthesize: {message}"):
        og.synthesize(pair, WEIGHTS, IMAGES, targets, output=KINDS)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "softmax",
            r"output must be one of og.outputs, or a tree of them .*, \(\*, \*\): Expected tuple, got 'softmax'",
        ),
        ((og.outputs.softmax(),), r"output must be one of og.outputs, or a tree of them"),
        (
            (og.outputs.softmax(), 3),
            r"output must be made of .*softmax\(\), .sigmoid\(\) and .values\(\); got 3",
        ),
        (og.outputs.softmax, r"output must be one of og.outputs, or a tree of them"),
    ],
)
def test_kinds_that_do_not_match(output, message):
    with pytest.raises(ValueError, match=rf"^synthesize: {message}"):
        og.synthesize(pair, WEIGHTS, IMAGES, (HALVES, np.zeros(3)), output=output)


@pytest.mark.parametrize(
    "shape", [(3,), (4, 3), (4, 2, 3), (2, 3), (1, 3), (1, 1, 3), (4, 1, 3), (1, 2, 3)], ids=str
)
def test_targets_are_broadcast(shape):
    """[K] for all, [B, K] for all views of each, [V, K] for each view, [B, V, K]."""
    found = request.meaning(Network(pair), WEIGHTS, IMAGES, KINDS, caller="test")
    assert found.shapes == ((5,), (2, 3))
    target = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    _, part = request.checked_targets(found, (HALVES, target), 4, caller="test")
    spread = target[:, None] if shape == (4, 3) else target
    np.testing.assert_array_equal(part, np.broadcast_to(spread, (4, 2, 3)))


def test_targets_for_images_or_views_are_not_guessed():
    found = request.meaning(Network(pair), WEIGHTS, IMAGES[:2], KINDS, caller="test")
    target = np.arange(6.0).reshape(2, 3)
    with pytest.raises(ValueError, match="may be for 2 images or for 2 views"):
        request.checked_targets(found, (HALVES, target), 2, caller="test")
    for clear in (target[:, None], target[None]):  # what the message asks for
        _, part = request.checked_targets(found, (HALVES, clear), 2, caller="test")
        np.testing.assert_array_equal(part, np.broadcast_to(clear, (2, 2, 3)))


def test_one_kind_serves_all_parts_and_classes_are_counted_by_what_is_wanted():
    found = request.meaning(Network(pair), WEIGHTS, IMAGES, og.outputs.values(), caller="test")
    assert found.kinds == (og.outputs.values(),) * 2

    def wide(weights, images):
        return jnp.tile(APPLY(weights, images), 8)

    meaning = request.meaning(Network(wide), WEIGHTS, IMAGES, None, caller="test")
    rows = np.zeros((3, 40))
    rows[0, 5], rows[1, :3], rows[2] = 1, 1 / 3, 1 / 40
    (checked,) = request.checked_targets(meaning, rows, 3, caller="test")
    assert request.counts(meaning, (checked,)) == [(1,), (4,), (None,)]


TOLERANCE = "tolerance must be a positive, finite number,"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"tolerance": 0}, f"{TOLERANCE} got 0; use None for the solver's own"),
        ({"tolerance": -0.1}, f"{TOLERANCE} got -0.1; use None for the solver's own"),
        ({"tolerance": np.nan}, f"{TOLERANCE} got nan; use None for the solver's own"),
        ({"tolerance": np.inf}, f"{TOLERANCE} got inf; use None for the solver's own"),
        ({"tolerance": "1e-5"}, f"{TOLERANCE} got '1e-5'; use None for the solver's own"),
        ({"tolerance": [1e-5, 1e-4]}, rf"{TOLERANCE} got \[1e-05, 0.0001\]; use None"),
        ({"precision": "fp32"}, "precision must be a name .*, got 'fp32'; pass 'highest' for full"),
        (
            {"precision": jax.lax.Precision.HIGHEST},
            "precision must be a name .*, got .*HIGHEST.*; pass 'highest' for full float32",
        ),
        ({"callback": 3}, "callback must be a function of a Result, got 3; None calls nothing"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0; use None for a default"),
        ({"batch_size": -3}, "batch_size must be at least 1, got -3; use None for a default"),
    ],
)
def test_options(option, message):
    with pytest.raises(ValueError, match=f"^synthesize: {message}"):
        og.synthesize(APPLY, WEIGHTS, IMAGES, TARGETS, **option)


def test_logits_that_look_like_probabilities_for_one_image_only_are_taken():
    """Refused is a network all of whose rows are distributions, not one that passes through one."""

    def pixels_of(_, images):
        return images.reshape(len(images), -1)[:, :3]

    images = np.zeros((2, *SHAPE), np.float32)
    images[0, 0, 0] = [0.2, 0.3, 0.5]
    still = og.gradient_descent(optax.sgd(0.1), steps=0)
    result = og.synthesize(pixels_of, {}, images, [0.2, 0.3, 0.5], solver=still)
    assert np.isfinite(result.kl).all()


def test_logits_of_one_image_that_look_like_probabilities_are_taken():
    """By chance they sum to 1, as those of the image's negative do not."""

    def pixels_of(_, images):
        return images.reshape(len(images), -1)[:, :3]

    images = np.zeros((1, *SHAPE), np.float32)
    images[0, 0, 0] = [0.2, 0.3, 0.5]
    still = og.gradient_descent(optax.sgd(0.1), steps=0)
    result = og.synthesize(pixels_of, {}, images, [0.2, 0.3, 0.5], solver=still)
    np.testing.assert_allclose(og.predict(pixels_of, {}, images), result.probs, atol=1e-2)
    with pytest.raises(ValueError, match=r"^synthesize: apply_fn must return logits"):
        og.synthesize(probabilities, WEIGHTS, IMAGES[:1], TARGETS[0], solver=still)


def test_predict_and_quantize_refuse_probabilities_too():
    for name, call in (("predict", og.predict), ("quantize", og.quantize)):
        targets = [TARGETS] if name == "quantize" else []
        with pytest.raises(ValueError, match=rf"^{name}: apply_fn {ROWS}"):
            call(probabilities, WEIGHTS, IMAGES, *targets)


@pytest.mark.parametrize("kind", [og.outputs.softmax(), og.outputs.values()], ids=str)
def test_minus_infinity_is_no_output_of_a_source(kind):
    """Nor are logits all of which are minus infinity."""

    def fails(weights, images):
        return jnp.log(0 * APPLY(weights, images))

    with pytest.raises(ValueError, match=r"must be finite on every source image.*for 3 of 3"):
        og.synthesize(fails, WEIGHTS, IMAGES, TARGETS, output=kind)


def test_arguments_are_left_as_they_were():
    images, targets = IMAGES.copy(), TARGETS.copy()
    run = functools.partial(og.synthesize, APPLY, WEIGHTS, solver=FAST)
    run(images, targets)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(targets, TARGETS)
    device_images = jax.numpy.asarray(IMAGES)
    run(device_images, targets)
    np.testing.assert_array_equal(device_images, IMAGES)  # raises if its buffer was given away


def test_one_kind_for_several_outputs_is_named_where_targets_do_not_fit():
    def network(weights, images):
        return {"kind": APPLY(weights, images), "age": images[:, 0, 0, :1]}

    targets = {"kind": np.full(CLASSES, 1 / CLASSES), "age": np.array([30.0])}
    message = r"output\['age'\]: .*All 2 outputs are taken for Softmax\(\); .* pass output= a tree"
    with pytest.raises(ValueError, match=message):
        og.synthesize(network, WEIGHTS, IMAGES, targets, solver=FAST)


# --- networks ---


def flat(weights, images):
    return images.reshape(len(images), -1) @ weights["w"]


@pytest.mark.parametrize(
    ("leaf", "found"),
    [("relu", "a str: 'relu'"), (jax.nn.relu, "a .*: "), (np.array(["a"]), "a ndarray: ")],
)
def test_variables_that_are_no_arrays_are_named_by_their_path(leaf, found):
    variables = {"layers": [{"w": WEIGHTS, "activation": leaf}]}
    message = (
        rf"^synthesize: variables must be .*\['layers'\]\[0\]\['activation'\] is {found}.*Partition"
    )
    with pytest.raises(ValueError, match=message):
        og.synthesize(lambda v, x: flat(v["layers"][0], x), variables, IMAGES, TARGETS)


def test_a_network_that_is_no_function_is_named():
    message = r"^predict: apply_fn must be a function \(variables, images\) -> outputs, got a dict"
    with pytest.raises(ValueError, match=message):
        og.predict({"w": WEIGHTS}, flat, IMAGES)


def _branches(weights, images):
    return images[:, 0, 0] if images.sum() > 0 else images[:, 1, 1]


def _takes_a_mode(weights, images, train):
    return images[:, 0, 0]


@pytest.mark.parametrize(
    ("apply_fn", "remedy"),
    [
        (lambda w, x: {}["logits"], r"'logits'\. This KeyError is the network's own"),
        (lambda w, x: np.tanh(np.asarray(x)), "one that jax.jit can trace"),
        (_branches, "one that jax.jit can trace"),
        (lambda w, x: x[:, 0] @ w, "Check the image size and the number of channels"),
        (_takes_a_mode, r"og\.models\.from_nnx\(model, train=False\)"),
        (
            functools.partial(_takes_a_mode, is_training=False),
            "only arguments that the network has",
        ),
    ],
)
def test_the_remedy_for_a_network_fits_its_error(apply_fn, remedy):
    with pytest.raises(ValueError, match=rf"(?s)^predict: apply_fn.* fails on .*{remedy}") as error:
        og.predict(apply_fn, jnp.zeros((7, 2)), IMAGES)
    assert str(error.value).count("Check the image size") == ("Check" in remedy)


# --- solvers ---


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("sgd", r"got 'sgd'; pass og\.preset\('sgd'\)"),
        ("adamw", r"got 'adamw'; og\.preset takes the names exact, sgd, "),
        (og.exact, r"got <function exact.*; call it, as in og\.exact\(\)"),
        (type(og.gauss_newton()), "got <class .*GaussNewton'>; call it"),
        (optax.adam(0.1), r"got GradientTransformation.*; pass og\.gradient_descent\(optimizer\)"),
        (3, r"got 3; pass one such as og\.exact\(\)"),
    ],
)
def test_what_is_no_solver_is_named(solver, message, tmp_path):
    with pytest.raises(ValueError, match=f"^synthesize: solver must be a solver, {message}"):
        og.synthesize(APPLY, WEIGHTS, IMAGES, TARGETS, solver=solver)
    with pytest.raises(ValueError, match=f"^generate_dataset: solver must be a solver, {message}"):
        og.generate_dataset(APPLY, WEIGHTS, IMAGES, TARGETS, tmp_path / "set", solver=solver)


def test_a_part_of_the_output_is_named_as_the_network_names_it():
    def named(weights, images):
        first, second = pair(weights, images)
        return {"kind": first, "views": second}

    kinds = dict(zip(("kind", "views"), KINDS, strict=True))
    found = request.meaning(Network(named), WEIGHTS, IMAGES, kinds, caller="test")
    wrong = {"kind": HALVES, "views": np.full(3, np.inf)}
    with pytest.raises(ValueError, match=r"^test: output\['views'\]: targets must be numbers"):
        request.checked_targets(found, wrong, len(IMAGES), caller="test")


def test_class_labels_are_not_taken_for_targets():
    with pytest.raises(ValueError, match=r"For class labels, pass numpy\.eye\(5\)\[labels\]"):
        og.synthesize(APPLY, WEIGHTS, IMAGES, np.array([0, 2, 1]))
