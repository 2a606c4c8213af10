"""The page over HTTP, on Starlette: a session for each window, and runs as streams of JSON lines."""

import asyncio
import concurrent.futures
import contextlib
import importlib.resources
import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outgen_jax import files
from outgen_jax.studio import record, saving, uploads, values, view
from outgen_jax.studio.networks import Catalogue
from outgen_jax.studio.session import RequestError, Session, Sessions, State
from outgen_jax.studio.solving import Reached, solve

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_BUSY = "A run is going on already. Stop it first."
_MOST_JSON = 10_000  # bytes of a request that is no upload
_STATIC = importlib.resources.files("outgen_jax.studio") / "static"
_HEADERS = {
    # The page needs nothing from elsewhere, and nobody may frame it.
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def build(catalogue: Catalogue) -> Starlette:
    """The application. It answers to names of this machine only."""
    sessions = Sessions(lambda: Session(catalogue))
    routes = [
        Route("/", _page),
        Route("/api/sessions", _open, methods=["POST"]),
        Route("/api/sessions/{token}/network", _network),
        Route("/api/sessions/{token}/ready", _ready),
        Route("/api/sessions/{token}/upload", _upload, methods=["POST"]),
        Route("/api/sessions/{token}/run", _run, methods=["POST"]),
        Route("/api/sessions/{token}/stop", _stop, methods=["POST"]),
        Route("/api/sessions/{token}/image.png", _png),
        Route("/api/sessions/{token}/result.json", _json),
        Route("/api/sessions/{token}/{action}", _act, methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("outgen_jax.studio", "static")])),
    ]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL_HOSTS)),
        Middleware(OwnPagesOnly),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        sessions.stop_all()  # else the process would wait for runs to end

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=middleware,
        exception_handlers={RequestError: _refused, uploads.UploadError: _refused},
    )
    app.state.sessions = sessions
    return app


class OwnPagesOnly:
    """Refuses requests of pages from elsewhere, and sets the headers of all answers."""

    def __init__(self, app: ASGIApp) -> None:
        """Around `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != headers.get(b"host"):
            await Response("This page is not the studio's.", 403)(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await self.app(scope, receive, with_headers)


async def _page(request: Request) -> Response:
    return Response((_STATIC / "index.html").read_bytes(), media_type="text/html")


async def _open(request: Request) -> Response:
    token = secrets.token_urlsafe(16)
    session = await run_in_threadpool(request.app.state.sessions.open, token)
    return JSONResponse(
        {"token": token, "network": view.of_network(session), "state": view.of_session(session)}
    )


async def _network(request: Request) -> Response:
    return JSONResponse(await run_in_threadpool(view.of_network, _session(request)))


async def _ready(request: Request) -> Response:
    """Compiles what the network's runs need, and answers once that is done."""
    session = _session(request)
    prepared: concurrent.futures.Future[None] = concurrent.futures.Future()

    def prepare() -> None:
        prepared.set_running_or_notify_cancel()
        try:
            session.catalogue.prepare(session.state.network.name)
            prepared.set_result(None)
        except Exception as error:
            prepared.set_exception(RequestError(f"The solver cannot be compiled: {error}"))

    # A thread that does not keep the process from ending: compilation takes minutes, and cannot be stopped.
    threading.Thread(target=prepare, daemon=True).start()
    await asyncio.wrap_future(prepared)
    return JSONResponse({"isReady": True})


async def _act(request: Request) -> Response:
    """One change of the session."""
    session, action = _session(request), request.path_params["action"]
    if action not in _ACTIONS:
        raise RequestError(f"There is no action {action!r}; the page is out of date, reload it.")
    body = await _body(request, _MOST_JSON)
    if body is None:
        raise RequestError("The request is too long.")
    try:
        arguments = json.loads(body or b"{}")
        found = await run_in_threadpool(_acted, session, _ACTIONS[action], arguments)
    except RequestError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise RequestError(f"{action}: the request cannot be read ({error!r}).") from error
    return JSONResponse(found)


def _acted(session: Session, action: Callable[[Session, Any], None], to: Any) -> dict[str, Any]:
    with session.guard:
        action(session, to)
        return view.of_session(session)


_ACTIONS: dict[str, Callable[[Session, Any], None]] = {
    "choose_network": lambda session, to: session.choose_network(str(to["name"])),
    "choose_image": lambda session, to: session.choose_image(str(to["kind"]), str(to["name"])),
    "move": lambda session, to: session.move(
        int(to["place"]), round(1000 * float(to["value"])), is_last=bool(to["isLast"])
    ),
    "prescribe": lambda session, to: session.prescribe(
        int(to["place"]), float(to["value"]), is_last=bool(to["isLast"])
    ),
    "leave_free": lambda session, to: session.leave_free(int(to["place"]), bool(to["free"])),
    "lock": lambda session, to: session.lock(int(to["place"]), bool(to["locked"])),
    "add_class": lambda session, to: session.add_class(str(to["name"])),
    "remove_class": lambda session, to: session.remove_class(int(to["place"])),
    "choose_tolerance": lambda session, to: session.choose_tolerance(float(to["tolerance"])),
    "reset": lambda session, to: session.reset(),
    "undo": lambda session, to: session.undo(),
    "redo": lambda session, to: session.redo(),
}


async def _upload(request: Request) -> Response:
    """An image file as the body; its name as a parameter."""
    session = _session(request)
    data = await _body(request, uploads.MOST_BYTES)
    if data is None:
        raise uploads.UploadError(uploads.too_large())
    network = session.state.network

    def use() -> dict[str, Any]:
        decoded = uploads.decode(data, size=network.size, channels=network.channels)
        name = request.query_params.get("name", "image")[:200]
        with session.guard:
            session.use_image("upload", name, decoded.image)
            return view.of_session(session, notes=decoded.notes)

    return JSONResponse(await run_in_threadpool(use))


async def _run(request: Request) -> Response:
    """Starts a run, and answers with a line of JSON for each step that the page can keep up with."""
    session = _session(request)
    if session.is_running:
        raise RequestError(_BUSY)
    if values.all_free(session.state.numbers):
        raise RequestError("All numbers are free. Move one, or check its box.")
    return StreamingResponse(_steps(session, session.state), media_type="application/x-ndjson")


async def _steps(session: Session, begun: State) -> AsyncIterator[str]:
    """Lines of a run that began at a state; the last one has the session. It stops if nobody reads on."""
    if session.is_running:  # begun between the request and its answer
        yield json.dumps({"error": _BUSY}) + "\n"
        return
    session.is_running = True
    session.stop.clear()
    loop, steps = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

    def tell(reached: Reached) -> bool:
        if steps.empty():  # else the page is behind, and does without this step
            loop.call_soon_threadsafe(steps.put_nowait, {"step": view.of_reached(begun, reached)})
        return session.stop.is_set()

    def work() -> dict[str, Any]:
        try:
            session.catalogue.prepare(begun.network.name)
            reached = solve(
                begun.network, begun.source, begun.wanted, tolerance=begun.tolerance, tell=tell
            )
            loop.call_soon_threadsafe(steps.put_nowait, {"isRounding": True})
            rounded = saving.saved(
                begun.network,
                reached.image,
                begun.wanted,
                tolerance=begun.tolerance,
                converged=reached.converged,
            )
            with session.guard:
                session.finish(begun, reached._replace(saved=rounded))
            failure = {}
        except Exception as error:
            failure = {"error": f"The solver failed: {error}"}
        finally:
            session.is_running = False
        return failure | {"state": view.of_session(session)}

    end = asyncio.ensure_future(run_in_threadpool(work))
    end.add_done_callback(lambda done: steps.put_nowait({}))
    try:
        while line := await steps.get():
            yield json.dumps(line) + "\n"
        yield json.dumps(await end) + "\n"
    finally:
        session.stop.set()


async def _stop(request: Request) -> Response:
    _session(request).stop.set()
    return JSONResponse({})


async def _png(request: Request) -> Response:
    state = _session(request).state
    saved = state.reached and state.reached.saved
    image = saved.image if saved else state.source
    return _download(files.png_bytes(image), "image/png", "studio.png")


async def _json(request: Request) -> Response:
    found = await run_in_threadpool(record.of_state, _session(request).state)
    return _download(json.dumps(found, indent=1).encode(), "application/json", "studio.json")


def _download(data: bytes, media_type: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media_type, headers=headers)


def _session(request: Request) -> Session:
    session = request.app.state.sessions.get(request.path_params["token"])
    if session is None:
        raise RequestError("This window has been forgotten. Reload the page.")
    return session


# Times the size that is taken: of what is larger the connection ends.
_READ_ALL_THE_SAME = 20


async def _body(request: Request, most: int) -> bytes | None:
    """The body; None where it is longer than `most` bytes, of which no more are kept.

    The rest is read all the same: whoever is still sending when the connection ends does not see the answer.
    """
    chunks, length = [], 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= most:
            chunks.append(chunk)
        if length > _READ_ALL_THE_SAME * most:
            return None
    return b"".join(chunks) if length <= most else None


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)
