"""A window's state: what changes it, what undo brings back, and the Python text that does the same."""

import dataclasses
import json
import socket

import jax
import numpy as np
import pytest
import toy_studio
from flax import nnx

import outgen_jax as og
from outgen_jax.models import LeNet, pretrained
from outgen_jax.studio import networks, record, saving, solving, target, view
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
    rounded = saving.saved(
        begun.network,
        reached.image,
        begun.wanted,
        tolerance=begun.tolerance,
        converged=reached.converged,
    )
    reached = reached._replace(saved=rounded)
    found.finish(begun, reached)
    return reached


def numbers_session(card: dict | None = None) -> Session:
    return session(output=og.outputs.values(), card=card)


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


def test_a_gesture_ends_where_it_is_when_another_bar_moves():
    """Its last move may be lost on the way."""
    found = session()
    first = values(found)
    found.move(0, 300, is_last=False)
    moved = values(found)
    assert moved[0] == 300
    found.move(1, 100, is_last=True)
    expected = target.moved(tuple(target.Bar(k, v) for k, v in enumerate(moved)), 1, 100)
    assert values(found) == [bar.value for bar in expected]
    found.undo()
    assert values(found) == moved
    found.undo()
    assert values(found) == first
    assert not found.can_undo
    numbers = numbers_session()
    numbers.prescribe(0, 0.1, is_last=False)
    numbers.prescribe(2, 0.2, is_last=True)
    assert numbers.state.wanted.mask.tolist() == [False, True, False, True]


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


def test_a_bar_for_every_one_of_many_classes_leaves_no_rest():
    found = session(classes=networks.MOST_BARS + 1)
    for name in found.state.network.class_names:
        found.add_class(name)
    bars = found.state.bars
    assert sorted(bar.entry for bar in bars) == list(range(networks.MOST_BARS + 1))
    assert sum(values(found)) == target.TOTAL
    assert not np.ma.getmaskarray(found.state.wanted).any()
    np.testing.assert_allclose(found.state.wanted.sum(), 1)
    found.remove_class(3)
    assert found.state.bars[-1] == target.Bar(target.REST, bars[3].value)
    with pytest.raises(RequestError, match="cannot be removed"):
        session().remove_class(0)


def test_a_class_with_spaces_at_its_ends_is_found():
    network = dataclasses.replace(
        toy_studio.network(50), class_names=tuple(f"class {k} " for k in range(50))
    )
    found = Session(toy_studio.catalogue(toy=network))
    found.add_class("class 42 ")
    assert found.state.bars[-2].entry == 42


def test_labels_are_reached_alone():
    found = session(output=og.outputs.sigmoid())
    before = values(found)
    found.move(1, 900, is_last=True)
    assert [v for k, v in enumerate(values(found)) if k != 1] == [before[0], *before[2:]]
    reached = run(found)
    np.testing.assert_allclose(reached.says, np.array(values(found)) / target.TOTAL, atol=2e-3)


def test_numbers_are_free_until_they_are_moved_or_checked():
    found = numbers_session()
    before = found.state.before
    assert found.state.wanted.mask.all()
    assert found.state.text == ""
    assert found.state.python(*found.state.asks).startswith("# Nothing is asked for")
    found.prescribe(1, before[1] + 0.5, is_last=True)
    assert found.state.wanted.mask.tolist() == [True, False, True, True]
    found.leave_free(3, False)
    assert found.state.wanted.mask.tolist() == [True, False, True, False]
    np.testing.assert_allclose(found.state.wanted[3], before[3], atol=0.05)
    found.leave_free(1, True)
    found.leave_free(1, False)
    assert found.state.wanted[1] == pytest.approx(before[1] + 0.5)
    found.reset()
    assert found.state.wanted.mask.all()
    for expected in ([False, False], [True, False]):
        found.undo()
        assert found.state.wanted.mask[[1, 3]].tolist() == expected


def test_undo_of_a_moved_number_goes_back_to_before_the_gesture():
    found = numbers_session()
    first = found.state.numbers
    for value in (0.1, 0.2):
        found.prescribe(0, value, is_last=False)
    assert not found.can_undo
    found.prescribe(0, 0.3, is_last=True)
    assert found.state.numbers[0].value == 0.3
    found.undo()
    assert found.state.numbers == first
    assert not found.can_undo


def test_prescribed_numbers_are_reached_in_units_of_the_scale():
    found = numbers_session()
    network, before = found.state.network, found.state.before
    wanted = float(before[2]) + 3 * network.unit
    found.prescribe(2, wanted, is_last=True)
    reached = run(found)
    assert reached.converged
    assert found.is_current
    assert abs(reached.says[2] - wanted) <= found.state.tolerance * network.unit * 1.01
    # The tolerance counts in this unit, which is not 1.
    assert abs(network.unit - 1) > 0.05
    error = abs(network.says(reached.image)[2] - wanted) / network.unit
    assert reached.distance == pytest.approx(error, abs=1e-5)
    kept = json.loads(json.dumps(record.of_state(found.state)))
    assert kept["output"] == "values"
    assert kept["scale"] == network.unit
    assert kept["target"] == f"ship={wanted!r}"
    assert list(kept["reached"]["says"]) == list(toy_studio.NAMES)  # in their order
    assert f"og.outputs.values(scale={network.unit})" in kept["python"]


def test_a_number_whose_distance_overflows_is_told_as_json():
    found = numbers_session()
    found.prescribe(0, 1e30, is_last=True)
    reached = run(found, tell=lambda step: step.steps >= 3)
    assert not reached.converged
    np.testing.assert_allclose(reached.says, found.state.network.says(reached.image), atol=1e-5)
    for told in (view.of_session(found), record.of_state(found.state)):
        json.dumps(told, allow_nan=False)
        assert told["reached"]["distance"] is None


def test_the_page_is_told_of_numbers():
    found = numbers_session()
    assert view.of_network(found)["unit"] == found.state.network.unit
    told = view.of_session(found)
    assert told["allFree"]
    for bar, said in zip(told["bars"], found.state.before, strict=True):
        assert bar["free"]
        assert bar["before"] == pytest.approx(said)
        assert bar["low"] <= bar["value"] <= bar["high"]
        assert round(bar["value"], bar["decimals"]) == bar["value"]
    found.prescribe(0, 1e30, is_last=True)  # far beyond the bar
    told = view.of_session(found)
    assert (told["bars"][0]["value"], told["allFree"]) == (1e30, False)
    assert told["bars"][0]["high"] < 1e3
    reached = dataclasses.replace(found.state).network.says(found.state.source)
    step = solving.Reached(found.state.source / 255, reached, np.inf, 0, 1, 0.1, False, None)
    assert view.of_reached(found.state, step)["distance"] is None  # JSON has no infinity


def test_the_card_says_scale_and_ranges():
    card = {"output_scale": 2.5, "output_range": [[-k - 1, k + 1] for k in range(4)]}
    network = numbers_session(card).state.network
    assert network.unit == 2.5
    assert [r[:2] for r in network.ranges] == [(-1, 1), (-2, 2), (-3, 3), (-4, 4)]
    measured = numbers_session().state.network
    starts = networks.starts(measured)[:-1]
    says = np.stack([measured.says(start.image) for start in starts])
    assert measured.unit == pytest.approx(says.std(0).mean(), rel=5e-3)
    for ends, column in zip(measured.ranges, says.T, strict=True):
        assert ends.low < column.min() < column.max() < ends.high
    for wrong in ({"output_scale": 0}, {"output_range": [[0, 1]]}):
        with pytest.raises(ValueError, match=r"expected a positive number, and a pair"):
            numbers_session(wrong)


def test_the_saved_image_meets_the_target_where_rounding_would_not():
    errors = []
    for wanted in (500, 600, 700, 800):
        found = session()
        found.move(2, wanted, is_last=True)
        reached = run(found)
        network, saved = found.state.network, reached.saved
        nearest = np.round(reached.image * 255).astype(np.uint8)
        errors.append(abs(network.says(nearest) - found.state.wanted).sum() / 2)
        assert saved.image.dtype == np.uint8
        np.testing.assert_allclose(network.says(saved.image), saved.says, atol=1e-5)
        error = abs(saved.says - found.state.wanted).sum() / 2
        assert saved.distance == pytest.approx(error, abs=1e-5)
        assert saved.distance <= found.state.tolerance
    assert max(errors) > found.state.tolerance
    # Large images, and those that miss their target, get the nearest levels.
    for large, converged in ((True, True), (False, False)):
        other = dataclasses.replace(network, size=224 if large else network.size)
        kept = saving.saved(
            other, reached.image, found.state.wanted, tolerance=1e-3, converged=converged
        )
        np.testing.assert_array_equal(kept.image, nearest)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.prescribe(0, 1.0, is_last=True), "no bar 0"),
        (lambda s: s.prescribe(0, np.nan, is_last=True), "must be finite"),
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


@pytest.mark.parametrize("output", ["softmax", "sigmoid", "values"])
def test_the_python_text_does_the_same(checkpoint, output):
    found = Session(networks.offered(checkpoint=checkpoint, output=output))
    assert found.state.network.name == checkpoint
    found.choose_image("digit", "3")
    if output == "values":
        found.prescribe(0, 0.25, is_last=True)
    else:
        found.move(0, 600, is_last=True)
    spaces = {}
    exec(found.state.python(*found.state.asks), spaces)
    assert spaces["result"].distance[0] <= found.state.tolerance
    np.testing.assert_array_equal(spaces["image"], found.state.source)
    np.testing.assert_array_equal(
        np.ma.getmaskarray(spaces["targets"][0]), np.ma.getmaskarray(found.state.wanted)
    )
    np.testing.assert_allclose(spaces["targets"][0], found.state.wanted, atol=1e-6)
    assert spaces["result"].converged[0]


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert main([f"--checkpoint={tmp_path}/none.npz", "--no-open"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("studio: pretrained.load: no weights")
    assert message.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main([f"--port={port}", "--no-open"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"studio: --port={port} cannot be used: Address already in use")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--output=values", "--output says what the outputs of --checkpoint mean; give that too"),
        ("--port=70000", "--port must be from 1 to 65535, got 70000"),
        ("--port=0", "--port must be from 1 to 65535, got 0"),
    ],
)
def test_flags_that_would_have_no_effect_or_fail_later_are_refused(capsys, flag, message):
    with pytest.raises(SystemExit) as refused:
        main([flag, "--no-open"])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_the_shipped_networks_are_offered_with_images():
    found = networks.offered()
    assert set(pretrained.SHIPPED) <= set(found.names)
    kinds = {name: {s.kind for s in networks.starts(found[name])} for name in pretrained.SHIPPED}
    assert kinds == {
        "cifar10_vgg16_half": {"photograph", "noise"},
        "cifar10_whitened_half": {"photograph", "noise"},
        "cifar10_whitened_half_robust": {"photograph", "noise"},
        "cifar10_whitened_half_robust_r1": {"photograph", "noise"},
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
