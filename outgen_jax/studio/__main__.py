r"""Starts a page on which a network's output is set with bars, and the image is changed until it says so.

Command   python -m outgen_jax.studio
              the shipped networks, at http://localhost:8765
          python -m outgen_jax.studio --checkpoint=classifier.npz
              and a checkpoint of one's own, as pretrained.save writes it
          python -m outgen_jax.studio --checkpoint=regression.npz --output=values
              and one whose outputs are numbers
"""

import argparse
import contextlib
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence

from outgen_jax import scripts
from outgen_jax.studio import networks


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the page until Ctrl-C; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.output is not None and options.checkpoint is None:
        parser.error("--output says what the outputs of --checkpoint mean; give that too")
    if not 1 <= options.port <= 65_535:
        parser.error(f"--port must be from 1 to 65535, got {options.port}; the default is 8765")
    try:
        import uvicorn

        from outgen_jax.studio import app
    except ModuleNotFoundError as error:
        print(f"studio: {error}; pip install 'outgen_jax[studio]'", file=sys.stderr)
        return 2
    try:
        catalogue = networks.offered(
            checkpoint=options.checkpoint, output=options.output or "softmax"
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"studio: {error}", file=sys.stderr)
        return 2
    try:
        listening = socket.create_server(("127.0.0.1", options.port))
    except OSError as error:
        print(
            f"studio: --port={options.port} cannot be used: {error.strerror}. Choose another, or end the program that "
            "uses it, which may be another studio",
            file=sys.stderr,
        )
        return 2
    scripts.enable_compilation_cache()
    first = catalogue.names[0]
    threading.Thread(target=catalogue.prepare, args=(first,), daemon=True).start()
    address = f"http://localhost:{options.port}"
    print(
        f"The studio is at {address}; end it with Ctrl-C.\nThe first start on a machine compiles the solver, which "
        "takes minutes; the page says when it is ready."
    )
    if options.open:
        threading.Timer(1.0, webbrowser.open, (address,)).start()
    serving = uvicorn.Config(app.build(catalogue), log_level="warning", timeout_graceful_shutdown=1)
    with listening, contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(serving).run(sockets=[listening])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m outgen_jax.studio", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=8765, help="port on localhost (8765)")
    parser.add_argument(
        "--checkpoint",
        help="an .npz with its card, as outgen_jax.tools.train_classifier or pretrained.save writes it; offered first",
    )
    parser.add_argument(
        "--output",
        choices=sorted(networks.OUTPUTS),
        help="what the checkpoint's outputs mean: a distribution (the default), independent labels, or numbers",
    )
    parser.add_argument(
        "--open", action=argparse.BooleanOptionalAction, default=True, help="open a browser"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
