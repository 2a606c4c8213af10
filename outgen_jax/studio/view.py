"""What the page is told, as JSON values."""

from typing import Any

import numpy as np

from outgen_jax.data.grey_levels import to_uint8
from outgen_jax.studio import networks, pictures, record, saving, target, values
from outgen_jax.studio.session import TOLERANCES, Session, State
from outgen_jax.studio.solving import Reached

_TOP = 5


def of_network(session: Session) -> dict[str, Any]:
    """What changes with the network only: its classes, and the images to start from."""
    network = session.state.network
    return {
        "name": network.name,
        "title": networks.title(network.name),
        "size": network.size,
        "classes": network.class_names,
        "correctsPng": saving.corrects(network),
        "unit": network.unit,  # null unless the outputs are numbers
        "hasBarForEach": network.has_bar_for_each,
        "starts": [
            {
                "kind": start.kind,
                "name": start.name,
                "label": start.label,
                "image": pictures.data_url(start.image),
            }
            for start in networks.starts(network)
        ],
        "networks": [
            {"name": name, "title": networks.title(name)} for name in session.catalogue.names
        ],
        "tolerances": TOLERANCES,
    }


def of_session(session: Session, *, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything that a change may have changed."""
    state = session.state
    return {
        "network": state.network.name,
        "isReady": session.catalogue.is_ready(state.network.name),
        "image": {
            "kind": state.image_kind,
            "name": state.image_name,
            "url": pictures.data_url(state.source),
        },
        "bars": of_numbers(state) if state.numbers else of_bars(state),
        "allFree": values.all_free(state.numbers),
        "isCurrent": session.is_current,
        "reached": None if state.reached is None else of_reached(state, state.reached),
        "top": top(state, state.before),
        "tolerance": state.tolerance,
        "python": state.python(*state.asks),
        "canUndo": session.can_undo,
        "canRedo": session.can_redo,
        "isRunning": session.is_running,
        "notes": notes,
    }


def of_bars(state: State) -> list[dict[str, Any]]:
    """One entry a bar: what is wanted, and what the network said of the source; shares of 1."""
    before = _at_bars(state, state.before)
    return [
        {
            "entry": bar.entry,
            "name": bar_name(state, bar.entry),
            "value": bar.value / target.TOTAL,
            "locked": bar.locked,
            "before": share,
        }
        for bar, share in zip(state.bars, before, strict=True)
    ]


def of_numbers(state: State) -> list[dict[str, Any]]:
    """One entry a number: what is wanted, what the network said of the source, and the ends and steps of its bar."""
    entries = []
    for number in state.numbers:
        before = float(state.before[number.entry])
        ends = values.including(state.network.ranges[number.entry], before)
        entries.append(
            {
                "entry": number.entry,
                "name": bar_name(state, number.entry),
                "value": number.value,
                "free": number.free,
                "before": before,
                **ends._asdict(),
            }
        )
    return entries


def of_reached(state: State, reached: Reached) -> dict[str, Any]:
    """A step of a run, or its end."""
    shown = pictures.difference(state.source / np.float32(255), reached.image)
    return {
        "image": pictures.data_url(to_uint8(reached.image)),
        "difference": pictures.data_url(shown.image),
        "factor": shown.factor,
        "says": _at_bars(state, reached.says),
        "top": top(state, reached.says),
        "distance": record.finite(reached.distance),
        "pngDistance": None if reached.saved is None else record.finite(reached.saved.distance),
        "change": reached.change,
        "steps": reached.steps,
        "seconds": reached.seconds,
        "converged": reached.converged,
        "reachedAfter": reached.reached_after,
    }


def top(state: State, says: np.ndarray) -> list[dict[str, Any]]:
    """The likeliest entries, likeliest first."""
    order = np.argsort(-says, kind="stable")[:_TOP]
    return [{"name": state.network.class_names[k], "value": float(says[k])} for k in order]


def bar_name(state: State, entry: int) -> str:
    """What the page calls a bar."""
    return "All other classes" if entry == target.REST else state.network.class_names[entry]


def _at_bars(state: State, says: np.ndarray) -> list[float]:
    """Of an output [K], what each bar or number stands for."""
    if state.numbers:
        return [float(says[number.entry]) for number in state.numbers]
    named = [bar.entry for bar in state.bars if bar.entry != target.REST]
    rest = max(0.0, 1 - float(says[named].sum()))
    return [rest if bar.entry == target.REST else float(says[bar.entry]) for bar in state.bars]
