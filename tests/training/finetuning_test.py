"""Fine-tuning against steps written out, its invariances, resuming, and what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from outgen_jax import losses
from outgen_jax.data import distort
from outgen_jax.training import finetuning, finetuning_fit, finetuning_recipe
from outgen_jax.training.checkpoints import Checkpoints
from outgen_jax.training.finetuning_recipe import FinetuningRecipe, Penalty


class Network(nnx.Module):
    """Two hidden layers on images [B, 4, 4, 3]; dropout and running statistics where asked for."""

    def __init__(self, hidden: int = 6, *, dropout: float = 0.0, norm: bool = False, seed: int = 0):
        rngs = nnx.Rngs(seed)
        self.fc1 = nnx.Linear(48, hidden, rngs=rngs)
        self.norm = nnx.BatchNorm(hidden, rngs=rngs) if norm else None
        self.fc2 = nnx.Linear(hidden, 5, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def activations(self, images):
        first = self.fc1(images.reshape(len(images), -1))
        first = first if self.norm is None else self.norm(first)
        second = self.fc2(self.dropout(jax.nn.relu(first)))
        logits = self.head(self.dropout(jax.nn.relu(second)))
        return logits, {"fc1": first, "fc2": second}


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8)
LABELS = np.arange(12) % 3
KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles in a fraction of the usual kind's time
STEPS = FinetuningRecipe(
    updates=3, batch_size=12, learning_rate=0.1, flip=False
)  # one recipe for most: one compiled program an arm
LAYERS = ("fc1", "fc2")


def same(key, images):
    return images


def darker(key, images):
    return images / 4


def noisy(key, images):
    return images * jax.random.uniform(key, (len(images), 1, 1, 1))


@functools.cache
def model(**options) -> Network:
    return Network(**options)


def tune(recipe=STEPS, penalty=None, network=None, images=IMAGES, labels=LABELS, **options):
    options = {"distort": darker, "key": KEY} | options
    network = model() if network is None else network
    return finetuning_fit.finetune(network, images, labels, recipe, penalty or Penalty(), **options)


def parameters(network) -> list[np.ndarray]:
    return [np.asarray(p) for p in jax.tree.leaves(nnx.state(network, nnx.Param))]


def assert_same(a, b, **tolerance):
    for x, y in zip(parameters(a), parameters(b), strict=True):
        if tolerance:
            np.testing.assert_allclose(x, y, **tolerance)
        else:
            np.testing.assert_array_equal(x, y)


# --- the update ---


def by_hand(penalty: Penalty, updates: int) -> tuple[nnx.State, list[float]]:
    """Full-batch gradient descent on the loss of paper D, written out."""
    graphdef, params, rest = nnx.split(model(), nnx.Param, ...)
    clean = jnp.asarray(IMAGES, jnp.float32) / 255
    original = model().activations(clean)[1]
    found = []

    def loss(params):
        logits, hidden = nnx.merge(graphdef, params, rest).activations(clean / 4)
        log_p = jax.nn.log_softmax(logits)[jnp.arange(12), LABELS]
        ours, theirs = (jnp.concatenate([h[n] for n in LAYERS], 1) for h in (hidden, original))
        extra = 0.0
        if penalty.kind == "mse":
            extra = jnp.mean((ours - theirs) ** 2)
        if penalty.kind == "constraint":
            sign = jnp.where(theirs > 0, 1, -1)
            extra = jnp.mean(jnp.logaddexp(0, -penalty.gain * sign * ours))
        return -log_p.mean() + penalty.weight * extra

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    for _ in range(updates):
        value, gradient = value_and_grad(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        found.append(float(value))
    return params, found


@pytest.mark.parametrize(
    "penalty",
    [Penalty(), Penalty(kind="mse", weight=0.3), Penalty(kind="constraint", weight=0.05, gain=2.0)],
    ids=lambda p: p.kind,
)
def test_updates_equal_those_by_hand(penalty):
    result = tune(STEPS, penalty)
    params, values = by_hand(penalty, 3)
    for x, y in zip(parameters(result.model), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)
    np.testing.assert_allclose([row["loss"] for row in result.history], values, rtol=1e-5)
    assert [row["updates"] for row in result.history] == [1, 2, 3]
    loss = result.history[0]["recognition"] + penalty.weight * result.history[0]["penalty"]
    np.testing.assert_allclose(result.history[0]["loss"], loss, rtol=1e-6)


def test_without_weight_every_penalty_is_plain_fine_tuning():
    plain = tune()
    assert any(
        (x != y).any() for x, y in zip(*map(parameters, (plain.model, model())), strict=True)
    )
    for kind in finetuning_recipe.HELD:
        assert_same(tune(penalty=Penalty(kind=kind)).model, plain.model, atol=1e-6)


def test_consistency_is_of_the_clean_image_and_two_distortions():
    """Against the definition in float64; outputs that differ by much, as a small divergence is all rounding."""
    network = Network()
    network.head.kernel.set_value(30 * network.head.kernel[...])
    (row, *_) = tune(STEPS, Penalty(kind="consistency", weight=2.0), network).history
    clean = jnp.asarray(IMAGES, jnp.float32) / 255
    graphdef, variables = nnx.split(network)
    logits_of = jax.jit(lambda x: nnx.merge(graphdef, variables).activations(x)[0])
    logits = np.stack([np.float64(logits_of(x)) for x in (clean, clean / 4, clean / 4)])
    log_p = logits - scipy.special.logsumexp(
        logits, axis=-1, keepdims=True
    )  # [views, images, classes]
    recognition = -log_p[0, np.arange(12), LABELS].mean()
    np.testing.assert_allclose(row["recognition"], recognition, rtol=1e-5)
    p = np.exp(log_p)
    divergence = (p * (log_p - np.log(p.mean(0)))).sum(-1).mean()
    assert divergence > 0.02
    np.testing.assert_allclose(row["penalty"], divergence, rtol=1e-5)
    np.testing.assert_allclose(row["loss"], recognition + 2 * divergence, rtol=1e-5)
    _, first, second = draw(IMAGES, STEPS, noisy)
    assert not np.array_equal(first, second)


def draw(images, recipe, distort):
    """Clean, distorted, and distorted anew."""

    def run(key, images):
        batch = finetuning._draw(key, images, LABELS, recipe, distort)
        return batch.clean, batch.distorted, batch.again()

    return map(np.asarray, jax.jit(run)(KEY, images))


def on_as_before(network) -> float:
    clean = jnp.asarray(IMAGES, jnp.float32) / 255
    before, now = model().activations(clean)[1], network.activations(clean / 4)[1]
    return float(np.mean([(before[n] > 0) == (now[n] > 0) for n in ("fc1",)]))


def test_the_constraint_keeps_neurons_on_or_off():
    recipe = FinetuningRecipe(updates=60, batch_size=12, learning_rate=0.1, flip=False)
    plain = on_as_before(tune(recipe).model)
    held = on_as_before(tune(recipe, Penalty(kind="constraint", weight=0.1)).model)
    assert held > plain + 0.05


def test_layers_are_compared_as_the_named_pass_computes_them():
    network = Network(dropout=0.7, norm=True)
    network.norm.mean.set_value(jnp.full(6, 0.3))  # unlike the batch's
    clean = jnp.asarray(IMAGES, jnp.float32) / 255
    teacher, student = nnx.clone(network), nnx.clone(network)
    teacher.eval()
    original = teacher.activations(clean)[1]
    student.train()
    student.dropout.deterministic = True
    hidden = {
        "no_dropout": student.activations(clean / 4)[1],
        "inference": teacher.activations(clean / 4)[1],
    }
    recipe = dataclasses.replace(STEPS, updates=1)
    found, statistics = {}, []
    for name in finetuning_recipe.PASSES:
        penalty = Penalty(kind="mse", held_pass=name)  # λ = 0: the training is the same
        tuned = tune(recipe, penalty, network)
        found[name] = tuned.history[0]["penalty"]
        statistics.append((parameters(tuned.model), tuned.model.norm.mean[...]))
    for name, ours in hidden.items():
        both = (jnp.concatenate([h[n] for n in LAYERS], 1) for h in (ours, original))
        expected = jnp.mean(jnp.subtract(*both) ** 2)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    assert len({round(value, 6) for value in found.values()}) == 3
    # The second pass leaves the training as it is, its statistics among it.
    for other in statistics[1:]:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), statistics[0], other)


def test_a_penalty_on_the_second_pass_is_learned_from():
    network = Network(dropout=0.7)
    plain = tune(network=network)
    for name in finetuning_recipe.PASSES:
        held = tune(penalty=Penalty(kind="mse", weight=1.0, held_pass=name), network=network)
        differing = [
            (x != y).any() for x, y in zip(*map(parameters, (held.model, plain.model)), strict=True)
        ]
        assert any(differing), name


def test_named_layers_and_their_weights_alone_count():
    only = tune(penalty=Penalty(kind="mse", weight=0.5, layers=("fc2",)))
    weighted = tune(
        penalty=Penalty(kind="mse", weight=0.5, layers=LAYERS, layer_weights=(0.0, 3.0))
    )
    assert_same(only.model, weighted.model, atol=1e-6)


def test_a_teacher_of_ones_own_holds():
    teacher = Network(seed=7)
    result = tune(STEPS, Penalty(kind="mse", weight=0.1), teacher=teacher)
    clean = jnp.asarray(IMAGES, jnp.float32) / 255
    theirs, ours = teacher.activations(clean)[1], model().activations(clean / 4)[1]
    both = (jnp.concatenate([h[n] for n in LAYERS], 1) for h in (ours, theirs))
    np.testing.assert_allclose(
        result.history[0]["penalty"], losses.intermediate_mse(*both), rtol=1e-5
    )


def test_gain_is_annealed_geometrically_and_learned():
    penalty = Penalty(kind="constraint", weight=0.1, gain=1.0, gain_end=100.0)
    numbers = finetuning_recipe.coefficients(penalty)
    gains = [float(finetuning_recipe.gain_at(t, 10, numbers, jnp.log(2.0))) for t in (0, 5, 10)]
    np.testing.assert_allclose(gains, [2, 20, 200], rtol=1e-5)
    constant = finetuning_recipe.coefficients(Penalty(gain=7.0))
    np.testing.assert_allclose(finetuning_recipe.gain_at(3, 10, constant, 0.0), 7, rtol=1e-6)
    annealed = tune(penalty=penalty)
    expected = [100 ** (t / 3) for t in range(3)]
    np.testing.assert_allclose([row["gain"] for row in annealed.history], expected, rtol=1e-5)
    # Neurons that disagree by far make a flatter sigmoid cheaper.
    learning = Penalty(kind="constraint", weight=0.1, gain=100.0, gain_rate=0.05)
    learned = tune(STEPS, learning, teacher=Network(seed=7))
    assert learned.history[2]["gain"] < learned.history[1]["gain"] < 100


def test_a_grid_of_numbers_shares_one_compiled_update():
    tune(penalty=Penalty(kind="constraint", weight=0.1))
    before = finetuning_fit.compile_update.cache_info().misses
    for weight, gain in ((0.2, 100.0), (0.3, 5.0)):
        tune(
            penalty=Penalty(kind="constraint", weight=weight, gain=gain),
            key=jax.random.fold_in(KEY, 5),
        )
    assert finetuning_fit.compile_update.cache_info().misses == before


def test_lists_of_layers_and_weights_are_tuples():
    assert Penalty(layers="fc1").layers == ("fc1",)
    lists = Penalty(layers=["fc1"], layer_weights=np.ones(1, np.float32))
    tuples = Penalty(layers=("fc1",), layer_weights=(1.0,))
    assert lists == tuples
    assert hash(lists.without_numbers()) == hash(tuples.without_numbers())


# --- what goes in ---


def test_the_network_given_is_left_alone_and_the_result_is_for_inference():
    network = Network(dropout=0.5, norm=True)
    before = [np.array(x) for x in jax.tree.leaves(nnx.state(network, nnx.Not(nnx.RngState)))]
    result = tune(network=network)
    after = jax.tree.leaves(nnx.state(network, nnx.Not(nnx.RngState)))
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)
    assert result.model.dropout.deterministic
    assert result.model.norm.use_running_average
    assert not network.dropout.deterministic
    assert not np.array_equal(result.model.norm.mean[...], network.norm.mean[...])


class Reader:
    """Images that are read when asked for."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray)
        return IMAGES[rows]


def test_images_that_are_read_train_as_resident_ones():
    options = {
        "recipe": FinetuningRecipe(updates=7, batch_size=4, learning_rate=0.1, crop_padding=1),
        "distort": noisy,
    }
    resident = tune(**options)
    for images in (Reader(), jnp.asarray(IMAGES)):
        other = tune(images=images, **options)
        assert other.history == resident.history
        assert_same(other.model, resident.model)


def test_seeds_differ():
    first, second = (tune(distort=noisy, key=jax.random.fold_in(KEY, s)).model for s in (0, 1))
    assert not np.array_equal(parameters(first)[0], parameters(second)[0])


def test_further_channels_are_cropped_and_mirrored_alike():
    pairs = np.concatenate([IMAGES, 255 - IMAGES], axis=-1)

    def negative(key, images):
        return images[..., 3:]

    recipe = dataclasses.replace(STEPS, flip=True, crop_padding=1)
    clean, distorted, _ = draw(pairs, recipe, negative)
    inside = (clean + distorted) > 0  # zeros were padded in both
    np.testing.assert_allclose((clean + distorted)[inside], 1, atol=1e-6)
    assert not inside.all()
    assert np.isfinite(tune(images=pairs, distort=negative).history[0]["loss"])


# --- stopping and going on ---


def test_resuming_is_exact(tmp_path):
    network = Network(dropout=0.3, norm=True)
    recipe = FinetuningRecipe(
        updates=8,
        batch_size=4,
        learning_rate=0.05,
        momentum=0.9,
        schedule="cosine",
        weight_decay=1e-3,
        crop_padding=1,
    )
    penalty = Penalty(kind="constraint", weight=0.1, gain_rate=0.1)
    whole = tune(recipe, penalty, network, distort=noisy, checkpoint_every=2)
    done: list[int] = []

    def stop(count):
        done.append(count)
        if sum(done) == 6:  # in the middle of the third segment's successor
            raise KeyboardInterrupt

    options = {"distort": noisy, "checkpoint_every": 2}
    kept = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tune(recipe, penalty, network, checkpoints=kept, on_updates=stop, **options)
    assert Checkpoints(tmp_path).latest == 5  # epochs of 3 updates: checkpoints at 2, 3, 5, 6, 8
    told: list[int] = []
    resumed = tune(
        recipe,
        penalty,
        network,
        checkpoints=Checkpoints(tmp_path),
        on_updates=told.append,
        **options,
    )
    assert told == [5, 1, 2]
    assert resumed.history == whole.history
    assert [row["updates"] for row in whole.history] == [2, 3, 5, 6, 8]
    assert_same(resumed.model, whole.model)
    for x, y in zip(
        *(jax.tree.leaves(nnx.state(m, nnx.BatchStat)) for m in (resumed.model, whole.model)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)
    again = tune(recipe, penalty, network, checkpoints=Checkpoints(tmp_path), **options)
    assert_same(again.model, whole.model)  # nothing is left to do


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    tune(checkpoints=Checkpoints(tmp_path))
    replaced = functools.partial(dataclasses.replace, STEPS)
    for name, options in {
        "keys": {"key": jax.random.fold_in(KEY, 1)},
        "checksum of the data": {"labels": LABELS[::-1]},
        "learning_rate": {"recipe": replaced(learning_rate=0.2)},
        "batch_size": {"recipe": replaced(batch_size=6)},
        "updates": {"penalty": Penalty(gain_end=50.0)},  # here they decide α
        "penalty's kind": {"penalty": mse()},
        "penalty's gain": {"penalty": Penalty(gain=50.0)},
        "checksum": {"images": 255 - IMAGES},
    }.items():
        with pytest.raises(ValueError, match=f"finetune: checkpoint 3 is of another run: {name}"):
            tune(checkpoints=Checkpoints(tmp_path), **options)
    with pytest.raises(
        ValueError, match=r"was trained up to [0-9]+ before, and this call ends with 2"
    ):
        tune(replaced(updates=2), checkpoints=Checkpoints(tmp_path))


def test_a_longer_run_resumes_from_a_shorter_one(tmp_path):
    tune(checkpoints=Checkpoints(tmp_path))
    longer = dataclasses.replace(STEPS, updates=4)
    resumed = tune(longer, checkpoints=Checkpoints(tmp_path))
    straight = tune(longer)
    assert resumed.history == straight.history
    assert_same(resumed.model, straight.model)


def test_a_divergence_stops_and_keeps_the_checkpoint(tmp_path):
    def breaking(key, images):
        return jnp.where(jax.random.bernoulli(key, 0.1), jnp.inf, images)

    recipe = FinetuningRecipe(updates=300, batch_size=4, learning_rate=0.1)
    with pytest.raises(FloatingPointError, match=r"diverged between updates \d+ and \d+; .*kept"):
        tune(recipe, distort=breaking, checkpoints=Checkpoints(tmp_path), checkpoint_every=1)
    latest = Checkpoints(tmp_path).latest
    assert latest is None or latest < 300


def test_a_divergence_without_checkpoints_promises_none():
    def breaking(key, images):
        """Not on the image that is looked at first."""
        return images if len(images) == 1 else images * jnp.inf

    with pytest.raises(FloatingPointError, match=r"updates 0 and 1; there is no checkpoint\. Use"):
        tune(dataclasses.replace(STEPS, updates=1), distort=breaking)


def test_weights_that_the_last_update_breaks_are_not_kept(tmp_path):
    # The loss is finite, the step is not.
    recipe = dataclasses.replace(STEPS, updates=1, learning_rate=3e38)
    with pytest.raises(FloatingPointError, match=r"the weights diverged between updates 0 and 1"):
        tune(recipe, distort=lambda key, images: 20 * images, checkpoints=Checkpoints(tmp_path))
    assert Checkpoints(tmp_path).latest is None


def test_with_64_bit_types_on_metrics_and_gain_stay_float32():
    penalty = Penalty(kind="constraint", weight=0.1, gain_rate=0.1, layers=LAYERS)
    with jax.enable_x64(True):
        graphdef, state = finetuning.create(model(), STEPS, KEY)
        frozen_graphdef, frozen = finetuning.freeze(model())
        update = finetuning.make_update(
            graphdef,
            frozen_graphdef,
            finetuning_recipe.make_optimizer(STEPS),
            STEPS,
            penalty,
            darker,
        )
        numbers = finetuning_recipe.coefficients(penalty)
        data = jnp.asarray(IMAGES), jnp.asarray(LABELS, jnp.int32), np.arange(12)
        state, metrics = update(state, frozen, numbers, *data)
    assert {x.dtype for x in (*metrics, state.log_gain)} == {jnp.dtype(jnp.float32)}


def test_schedules_and_weight_decay():
    kernels = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, kernels)
    optimizer = finetuning_recipe.make_optimizer(
        FinetuningRecipe(updates=10, learning_rate=0.5, weight_decay=0.1)
    )
    updates, _ = optimizer.update(zero, optimizer.init(kernels), kernels)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)
    optimizer = finetuning_recipe.make_optimizer(
        FinetuningRecipe(updates=10, learning_rate=0.5, schedule="cosine")
    )
    ones, state, sizes = jax.tree.map(jnp.ones_like, kernels), optimizer.init(kernels), []
    for _ in range(10):
        updates, state = optimizer.update(ones, state, kernels)
        sizes.append(-float(updates["bias"][0]))
    np.testing.assert_allclose(sizes, 0.25 * (1 + np.cos(np.pi * np.arange(10) / 10)), rtol=1e-5)


# --- bad input ---


class Bare(nnx.Module):
    def __call__(self, images):
        return images


recipe = functools.partial(FinetuningRecipe, updates=1, batch_size=4)
mse = functools.partial(Penalty, kind="mse", weight=0.1)
constraint = functools.partial(Penalty, kind="constraint", weight=0.1)
ERRORS = {
    "unknown layer": (
        {"penalty": constraint(layers=("fc9",))},
        "no layer 'fc9'; Network has 'fc1', 'fc2'",
    ),
    "no layers": ({"penalty": mse(layers=())}, "none or repeated; Network has"),
    "layer twice": ({"penalty": mse(layers=("fc1", "fc1"))}, "none or repeated"),
    "unknown penalty": ({"penalty": mse(kind="l1")}, "unknown penalty 'l1'; use one of none, mse"),
    "unknown pass": (
        {"penalty": mse(held_pass="eval")},
        "unknown held_pass 'eval'; use one of training, no_dropout, inference",
    ),
    "negative weight": (
        {"penalty": mse(weight=-0.1)},
        "λ must be finite and not negative, got -0.1; 0 is plain",
    ),
    "weight that is no number": ({"penalty": mse(weight=float("nan"))}, "got nan"),
    "gain": ({"penalty": constraint(gain=0.0)}, r"must be positive .* got 0\.0"),
    "last gain": ({"penalty": constraint(gain_end=-1.0)}, "must be positive"),
    "layer weights": (
        {"penalty": mse(layer_weights=(1.0,))},
        "one per layer, not negative and not all 0",
    ),
    "all layer weights 0": ({"penalty": mse(layer_weights=(0.0, 0.0))}, "all 0"),
    "no updates between checkpoints": (
        {"checkpoint_every": 0},
        "checkpoint_every must be at least 1 update, got 0",
    ),
    "another architecture": (
        {"teacher": Network(hidden=7)},
        r"architecture of the network, Network; .*fc1.bias is \(7,\), not \(6,\)",
    ),
    "another class of teacher": ({"teacher": Bare()}, "it is a Bare"),
    "no activations": ({"network": Bare()}, r"Bare has no activations\(images\)"),
    "float images": ({"images": IMAGES / 255}, r"uint8 \[N, H, W, C\], .* got float64"),
    "a penalty of no kind": ({"penalty": Penalty(weight=0.5)}, "weight 0.5 has no kind; choose one of mse"),
    "8 bits from distort": ({"distort": lambda key, x: 255 * x}, r"scale of \[0, 1\], got values up to"),
    "NaN from distort": ({"distort": lambda key, x: x * jnp.nan}, "distort returns NaN or infinity"),
    "nothing from distort": ({"distort": lambda key, x: None}, "distort must return images .* got NoneType"),
    "numpy in distort": ({"distort": lambda key, x: np.asarray(x)}, "distort fails on .* jax.jit can trace"),
    "other images": ({"images": np.zeros((12, 9, 9, 3), np.uint8)}, "the network fails on a distorted image"),
    "too few labels": (
        {"labels": LABELS[:-1], "recipe": recipe()},
        r"integers \[12\], one per image; got int64 \[11\]",
    ),
    "labels beyond": ({"labels": LABELS + 1}, r"must be in 0\.\.2, the network's classes; .* 1\.\.3"),
    "no updates": ({"recipe": recipe(updates=0)}, "updates must be at least 1"),
    "a large batch": ({"recipe": recipe(batch_size=13)}, "1 to the number of images, 12; got 1 and 13"),
    "rate": ({"recipe": recipe(learning_rate=-1.0)}, "learning_rate must be positive"),
    "decay": ({"recipe": recipe(weight_decay=-1.0)}, "weight_decay and crop_padding not neg"),
    "schedule": ({"recipe": recipe(schedule="step")}, "unknown schedule 'step'; use one of"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_refuses(case):
    options, message = ERRORS[case]
    with pytest.raises(ValueError, match=f"(?s)finetune: .*{message}"):
        tune(**options)


@pytest.mark.parametrize("sigma", [-1.0, float("nan")])
def test_negative_levels_are_refused(sigma):
    levels = distort.PAPER_32._replace(blur=(sigma,))
    with pytest.raises(ValueError, match="levels must be finite and not negative"):
        tune(distort=lambda key, images: distort.random_distortion(key, images, levels))
