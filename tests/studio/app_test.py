"""The studio over HTTP: sessions apart, runs as streams, bad requests refused."""

import io
import json
import threading
import urllib.request

import numpy as np
import pytest
import toy_studio
from PIL import Image

import outgen_jax as og

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def server():
    with toy_studio.served(toy_studio.catalogue()) as found:
        yield found


@pytest.fixture
def window(server):
    """The address of a new session."""
    return f"/api/sessions/{server.ask('/api/sessions', {}).json['token']}"


def run(server, window) -> list[dict]:
    return [json.loads(line) for line in server.ask(f"{window}/run", b"").content.splitlines()]


def test_the_page_needs_nothing_from_elsewhere(server):
    page = server.ask("/")
    assert page.status == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in ("/static/studio.js", "/static/bars.js", "/static/studio.css", "/static/icon.svg"):
        found = server.ask(path)
        assert found.status == 200
        assert path.split("/")[-1].encode() in page.content
        assert b"https://" not in found.content


def test_a_run_tells_its_steps_and_ends_with_the_state(server, window):
    server.ask(f"{window}/move", {"place": 2, "value": 0.8, "isLast": True})
    assert server.ask(f"{window}/ready").json == {"isReady": True}
    *steps, last = run(server, window)
    assert len(steps) > 1
    assert steps.pop() == {"isRounding": True}
    assert [line["step"]["steps"] for line in steps] == sorted(s["step"]["steps"] for s in steps)
    reached = last["state"]["reached"]
    assert reached["converged"]
    assert reached["says"][2] == pytest.approx(0.8, abs=2e-3)
    assert last["state"]["isCurrent"]
    saved = server.ask(f"{window}/result.json").json
    assert saved["reached"]["distance"] == reached["distance"]
    assert abs(saved["reached"]["png_says"]["ship"] - 0.8) < 2e-3
    assert saved["reached"]["png_distance"] == reached["pngDistance"] < 1e-3
    png = server.ask(f"{window}/image.png")
    pixels = np.asarray(Image.open(io.BytesIO(png.content)))
    says = toy_studio.network().says(pixels)
    assert says[2] == pytest.approx(saved["reached"]["png_says"]["ship"], abs=1e-5)
    assert "attachment" in png.headers["content-disposition"]


def test_numbers_are_prescribed_and_left_free():
    numbers = toy_studio.catalogue(toy=toy_studio.network(output=og.outputs.values()))
    with toy_studio.served(numbers) as server:
        window = f"/api/sessions/{server.ask('/api/sessions', {}).json['token']}"
        answer = server.ask(f"{window}/run", b"")
        assert (answer.status, "All numbers are free" in answer.json["error"]) == (400, True)
        found = server.ask(f"{window}/prescribe", {"place": 1, "value": 0.5, "isLast": True}).json
        assert [bar["free"] for bar in found["bars"]] == [True, False, True, True]
        reached = run(server, window)[-1]["state"]["reached"]
        assert reached["says"][1] == pytest.approx(0.5, abs=5e-3)
        found = server.ask(f"{window}/leave_free", {"place": 1, "free": True}).json
        assert found["allFree"]
        for value in ("Infinity", "NaN"):
            body = b'{"place": 1, "isLast": true, "value": %s}' % value.encode()
            assert "finite" in server.ask(f"{window}/prescribe", body).json["error"]


def test_windows_are_apart_and_run_at_once(server):
    windows = [f"/api/sessions/{server.ask('/api/sessions', {}).json['token']}" for _ in range(2)]
    for place, window in enumerate(windows):
        server.ask(f"{window}/move", {"place": place, "value": 0.9, "isLast": True})
    ends = {}
    threads = [
        threading.Thread(target=lambda w=w: ends.update({w: run(server, w)[-1]})) for w in windows
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, window in enumerate(windows):
        reached = ends[window]["state"]["reached"]
        assert reached["says"][place] == pytest.approx(0.9, abs=2e-3)


def test_a_run_that_fails_says_so(server, window, monkeypatch):
    from outgen_jax.studio import app

    def fails(*args, **options):
        raise ValueError("out of luck")

    monkeypatch.setattr(app, "solve", fails)
    assert run(server, window)[-1]["error"] == "The solver failed: out of luck"
    monkeypatch.undo()
    assert "error" not in run(server, window)[-1]


def test_a_compilation_that_fails_says_so(server, window, monkeypatch):
    from outgen_jax.studio.networks import Catalogue

    monkeypatch.setattr(Catalogue, "prepare", lambda self, name: 1 / 0)
    answer = server.ask(f"{window}/ready")
    assert (answer.status, "division by zero" in answer.json["error"]) == (400, True)


def test_a_run_stops_when_nobody_reads_on(server, window, monkeypatch):
    from outgen_jax.studio import app

    endless = toy_studio.Endless()
    monkeypatch.setattr(app, "solve", endless)
    with urllib.request.urlopen(f"{server.address}{window}/run", b"", timeout=60) as answer:
        assert "step" in json.loads(answer.readline())
        assert server.ask(f"{window}/run", b"").json == {
            "error": "A run is going on already. Stop it first."
        }
    assert endless.ended.wait(60)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "no image"),
        (toy_studio.bomb(), "pixels"),
        (toy_studio.image_file(size=(1, 1)), "1 × 1"),
        (bytes(21 * 2**20), "larger than 20 MB"),
    ],
    ids=["text", "bomb", "1x1", "large"],
)
def test_a_bad_upload_gets_a_message_and_changes_nothing(server, window, data, message):
    answer = server.ask(f"{window}/upload?name=x.png", data)
    assert answer.status == 400
    assert message in answer.json["error"]
    state = server.ask(f"{window}/lock", {"place": 0, "locked": False}).json
    assert state["image"]["kind"] != "upload"


def test_an_upload_is_used_with_notes(server, window):
    answer = server.ask(f"{window}/upload?name=a.gif", toy_studio.animation())
    assert answer.json["image"]["name"] == "a.gif"
    assert answer.json["notes"] == ["The file is animated; its first frame is used."]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("move", b"no json"),
        ("move", {"place": 0}),
        ("move", {"place": 99, "value": 0.5, "isLast": True}),
        ("move", {"place": 0, "value": "high", "isLast": True}),
        ("move", b" " * 20_000),
        ("fly", {}),
        ("choose_network", {"name": "../../etc/passwd"}),
    ],
)
def test_a_bad_request_gets_a_message(server, window, path, body):
    answer = server.ask(f"{window}/{path}", body)
    assert answer.status == 400
    assert answer.json["error"]


def test_a_forgotten_window_is_told_to_reload(server):
    answer = server.ask("/api/sessions/none/undo", {})
    assert (answer.status, answer.json) == (
        400,
        {"error": "This window has been forgotten. Reload the page."},
    )


def test_pages_and_names_of_elsewhere_are_refused(server, window):
    assert server.ask(f"{window}/undo", {}, origin="http://example.org").status == 403
    assert server.ask("/", host="example.org").status == 400
    assert server.ask(f"{window}/undo", {}, origin=server.address).status == 200
