"""What the tests of the studio share: a small network, files that people upload, and a server."""

import contextlib
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from toy_synthesis import linear, linear_weights

from outgen_jax import outputs
from outgen_jax.outputs import Output
from outgen_jax.studio.networks import Catalogue, Network, measured
from outgen_jax.studio.solving import Reached

SIZE = 16
NAMES = ("cat", "dog", "ship", "frog")


def network(
    classes: int = 4, *, output: Output | None = None, card: dict[str, Any] | None = None
) -> Network:
    names = NAMES if classes == len(NAMES) else tuple(f"class {k}" for k in range(classes))
    found = Network(
        name="toy",
        apply_fn=linear,
        variables=linear_weights(classes, (SIZE, SIZE, 3)),
        class_names=names,
        size=SIZE,
        channels=3,
        output=output or outputs.softmax(),
    )
    return found if found.unit is None else measured(found, card or {})


def catalogue(**networks: Network) -> Catalogue:
    return Catalogue(dict(networks or {"toy": network()}))


def image_file(
    mode: str = "RGB", size: tuple[int, int] = (40, 30), kind: str = "PNG", **options
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def animation() -> bytes:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def bomb() -> bytes:
    """A small file of 400 million pixels; only its header is ever written."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


class Answer(NamedTuple):
    status: int
    content: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Server(NamedTuple):
    """A studio that is being served."""

    address: str

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, **headers: str
    ) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return Answer(answer.status, answer.read(), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), error.headers)


@contextlib.contextmanager
def served(networks: Catalogue) -> Iterator[Server]:
    """Serves a studio on a free port of this machine."""
    import uvicorn

    from outgen_jax.studio import app

    server = uvicorn.Server(uvicorn.Config(app.build(networks), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(600):
            if server.started:
                break
            thread.join(0.05)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(30)


def random_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


class Endless:
    """A solver that changes nothing until it is stopped."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def __call__(self, network, source, wanted, *, tolerance, tell) -> Reached:
        says = network.says(source)
        reached = Reached(source / 255, says, 0.5, 0.0, 1, 0.1, False, None)
        while not tell(reached):
            time.sleep(0.05)
        self.ended.set()
        return reached
