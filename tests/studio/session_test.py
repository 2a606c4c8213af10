"""A window's state: what changes it, what undo brings back, and the Python text that does the same."""

import jax
import numpy as np
import pytest
import toy_studio
from flax import nnx

import outgen_jax as og
from outgen_jax.models import LeNet, pretrained
from outgen_jax.studio import networks, record, solving, target
from outgen_jax.studio.__main__ import main
from outgen_jax.studio.networks import Catalogue
from outgen_jax.studio.session import RequestError, Session, Sessions
from outgen_jax.studio.snippet import Request, python_text


def session(**options) -> Session:
    return Session(toy_studio.catalogue(toy=toy_studio.network(**options)))


def values(found: Session) -> list[int]:
    return [bar.value for bar in found.state.bars]


def run(found: Session, **options) -> solving.Reached:
    begun = found.state
    options = {"tolerance": begun.tolerance, "tell": lambda reached: False, **options}
    reached = solving.solve(begun.network, begun.source, begun.wanted, **options)
    found.finish(begun, reached)
    return reached


def test_bars_begin_at_what_the_network_says():
    found = session()
    network = found.state.network
    logits = network.apply_fn(network.variables, found.state.source[None] / np.float32(255))
    says = np.asarray(jax.nn.softmax(logits))[0]
    np.testing.assert_allclose(found.state.before, says, atol=1e-5)
    np.testing.assert_allclose(np.array(values(found)) / target.TOTAL, says, atol=1e-3)


def test_the_others_follow_from_before_the_gesture():
    found = session()
    first = values(found)
    for value in (200, 1000, 700):
        found.move(0, value, is_last=False)
    assert not found.can_undo
    found.move(0, first[0], is_last=True)
    assert values(found) == first
    found.move(0, 900, is_last=True)
    found.undo()
    assert values(found) == first
    assert not found.can_undo
    found.redo()
    assert values(found)[0] == 900
    assert not found.can_redo


def test_a_change_after_undo_ends_redo():
    found = session()
    found.move(0, 900, is_last=True)
    found.undo()
    found.lock(1, True)
    assert not found.can_redo
    assert found.state.bars[1].locked


def test_a_run_reaches_the_target_and_can_be_undone():
    found = session()
    found.move(2, 800, is_last=True)
    steps = []
    reached = run(found, tell=lambda step: steps.append(step))
    assert reached.converged
    assert found.is_current
    np.testing.assert_allclose(reached.says, found.state.wanted, atol=2e-3)
    np.testing.assert_allclose(found.state.network.says(reached.image), reached.says, atol=1e-4)
    change = np.linalg.norm(reached.image - found.state.source / 255)
    np.testing.assert_allclose(reached.change, change, rtol=1e-4)
    assert 0 < reached.reached_after <= reached.seconds
    assert [step.steps for step in steps][:3] == [1, 2, 3]
    found.move(2, 100, is_last=True)
    assert not found.is_current
    assert record.of_state(found.state)["target"] != found.state.text  # that of the run
    found.undo()
    found.undo()
    assert found.state.reached is None


def test_a_run_stops_when_it_is_told_to():
    found = session()
    found.move(2, 800, is_last=True)
    assert run(found, tell=lambda step: step.steps == 2).steps == 2


def test_a_run_for_another_image_is_dropped():
    found = session()
    begun = found.state
    found.use_image("upload", "x.png", toy_studio.random_image())
    found.finish(begun, None)
    assert found.state.reached is None
    assert found.state.image_name == "x.png"


def test_few_of_many_classes_leave_the_rest_free():
    found = session(classes=50)
    assert [bar.entry for bar in found.state.bars][-1] == target.REST
    found.add_class("CLASS 42")
    found.add_class("7")
    assert [bar.entry for bar in found.state.bars][-3:] == [42, 7, target.REST]
    place = len(found.state.bars) - 3
    found.move(place, 600, is_last=True)
    reached = run(found)
    assert abs(reached.says[42] - 0.6) < 2e-3
    found.remove_class(place)
    assert all(bar.entry != 42 for bar in found.state.bars)
    with pytest.raises(RequestError, match="no class 'unicorn'"):
        found.add_class("unicorn")


def test_labels_are_reached_alone():
    found = session(output=og.outputs.sigmoid())
    before = values(found)
    found.move(1, 900, is_last=True)
    assert [v for k, v in enumerate(values(found)) if k != 1] == [before[0], *before[2:]]
    reached = run(found)
    np.testing.assert_allclose(reached.says, np.array(values(found)) / target.TOTAL, atol=2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.choose_network("none"), "no network 'none'"),
        (lambda s: s.choose_image("photograph", "none"), "no image 'none'"),
        (lambda s: s.move(99, 0, is_last=True), "no bar 99"),
        (lambda s: s.choose_tolerance(2.0), "tolerance must be one of"),
    ],
)
def test_what_cannot_be_done_gets_a_message(call, message):
    with pytest.raises(RequestError, match=message):
        call(session())


def test_a_network_that_cannot_be_loaded_gets_a_message(tmp_path):
    found = Session(Catalogue({"toy": toy_studio.network(), str(tmp_path / "x.npz"): None}))
    with pytest.raises(RequestError, match=r"cannot be loaded: .*no weights"):
        found.choose_network(str(tmp_path / "x.npz"))
    assert found.state.network.name == "toy"


def test_old_windows_are_forgotten_and_their_runs_stopped():
    sessions = Sessions(session, most=2)
    opened = [sessions.open(str(i)) for i in range(3)]
    assert sessions.get("0") is None
    assert opened[0].stop.is_set()
    assert sessions.get("2") is opened[2]


def test_a_network_that_fails_to_compile_can_be_asked_again(monkeypatch):
    found = toy_studio.catalogue()
    monkeypatch.setattr(networks.Network, "compile", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.prepare("toy")
    assert not found.is_ready("toy")
    monkeypatch.undo()
    found.prepare("toy")
    assert found.is_ready("toy")


# --- networks and the Python text ---


@pytest.fixture
def checkpoint(tmp_path):
    """A small untrained LeNet of digits, as `pretrained.save` writes it."""
    model = LeNet(4, (4, 4), rngs=nnx.Rngs(0))
    card = {"network": "LeNet", "channels": [4, 4], "class_names": list(toy_studio.NAMES)}
    pretrained.save(tmp_path / "small.npz", model, card)
    return str(tmp_path / "small.npz")


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_the_python_text_does_the_same(checkpoint, output):
    found = Session(networks.offered(checkpoint=checkpoint, output=output))
    assert found.state.network.name == checkpoint
    found.choose_image("digit", "3")
    found.move(0, 600, is_last=True)
    spaces = {}
    exec(found.state.python(*found.state.asks), spaces)
    assert spaces["result"].distance[0] <= found.state.tolerance
    np.testing.assert_array_equal(spaces["image"], found.state.source)
    np.testing.assert_allclose(spaces["targets"][0], found.state.wanted, atol=1e-6)
    assert spaces["result"].converged[0]


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert main([f"--checkpoint={tmp_path}/none.npz", "--no-open"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("studio: pretrained.load: no weights")
    assert message.count("\n") == 1


def test_the_shipped_networks_are_offered_with_images():
    found = networks.offered()
    assert set(pretrained.SHIPPED) <= set(found.names)
    kinds = {name: {s.kind for s in networks.starts(found[name])} for name in pretrained.SHIPPED}
    assert kinds == {
        "cifar10_vgg16_half": {"photograph", "noise"},
        "cifar10_whitened_half": {"photograph", "noise"},
        "mnist_lenet": {"digit", "noise"},
        "mnist_lenet_robust": {"digit", "noise"},
    }
    lenet = found["mnist_lenet"]
    starts = networks.starts(lenet)
    assert {start.image.shape for start in starts} == {(28, 28, 1)}
    seen = [lenet.class_names[lenet.says(start.image).argmax()] for start in starts[:10]]
    assert sum(name == start.label[-1] for name, start in zip(seen, starts, strict=False)) >= 8


@pytest.mark.parametrize(
    ("kind", "name"), [("photograph", "coffee"), ("noise", "noise"), ("upload", "cup.png")]
)
def test_the_image_of_the_text_is_that_of_the_page(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = toy_studio.image_file("RGB", (30, 40))
    (tmp_path / "cup.png").write_bytes(file)
    request = Request("toy", kind, name, toy_studio.SIZE, 3, "cat=1", 1e-3, "softmax")
    lines = python_text(request).split("variables = ")[1].split("\n", 1)[1].split("targets = ")[0]
    imports = python_text(request).split("network = ")[0]
    spaces = {}
    exec(imports + lines, spaces)
    found = session()
    if kind == "upload":
        from outgen_jax.studio.uploads import decode

        found.use_image(kind, name, decode(file, size=toy_studio.SIZE).image)
    else:
        found.choose_image(kind, name)
    np.testing.assert_array_equal(spaces["image"], found.state.source)
