"""The state of one window of the page, and its history for undo and redo."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from outgen_jax.studio import networks, snippet, target, values
from outgen_jax.studio.networks import Catalogue, Network
from outgen_jax.studio.solving import Reached

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
_TOLERANCE = 1e-3
_LONGEST_HISTORY = 100


class RequestError(ValueError):
    """Something that cannot be done; the message is for the person at the page."""


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Everything that undo brings back."""

    network: Network
    image_kind: str  # "photograph", "digit", "noise" or "upload"
    image_name: str
    source: np.ndarray  # [H, W, C] uint8
    before: np.ndarray  # [K] what the network says of the source
    # What is wanted: bars of a distribution or of labels, or numbers. The other one is empty.
    bars: target.Bars
    numbers: values.Numbers
    tolerance: float = _TOLERANCE
    reached: Reached | None = None
    # The target, as text, and the tolerance that `reached` is for.
    asked: tuple[str, float] = ("", 0.0)

    @property
    def wanted(self) -> np.ma.MaskedArray:
        """The target [K], as `synthesize` takes it."""
        if self.numbers:
            return values.as_array(self.numbers)
        return target.as_array(self.bars, len(self.network.class_names))

    @property
    def text(self) -> str:
        """The target, as `og.targets.parse` reads it; empty where all numbers are free."""
        network = self.network
        if self.numbers:
            return values.as_text(self.numbers, network.class_names)
        return target.as_text(self.bars, network.class_names, sums_to_one=network.sums_to_one)

    @property
    def asks(self) -> tuple[str, float]:
        """The target, as text, and the tolerance."""
        return self.text, self.tolerance

    def python(self, text: str, tolerance: float) -> str:
        """The program that does the same for a target and a tolerance."""
        return snippet.python_text(
            snippet.Request(
                network=self.network.name,
                image_kind=self.image_kind,
                image_name=self.image_name,
                size=self.network.size,
                channels=self.network.channels,
                target=text,
                tolerance=tolerance,
                output=self.network.kind,
                unit=self.network.unit,
            )
        )


class _Held(NamedTuple):
    """A bar whose gesture goes on."""

    place: int
    before: State  # the gesture


class Session:
    """One window. Its methods change the state; each change can be undone."""

    def __init__(self, catalogue: Catalogue) -> None:
        """The first network with its first image."""
        self.catalogue = catalogue
        self.stop = threading.Event()
        self.guard = threading.Lock()  # held by whoever changes the state
        self.is_running = False
        self._held: _Held | None = None  # the bar that is being moved
        self._past: list[State] = []
        self._future: list[State] = []
        self.state = self._fresh(catalogue[catalogue.names[0]])

    @property
    def can_undo(self) -> bool:
        """Whether there is a state to go back to."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether an undo can be taken back."""
        return bool(self._future)

    @property
    def is_current(self) -> bool:
        """Whether what has been reached is what the bars now ask for."""
        return self.state.reached is not None and self.state.asked == self.state.asks

    def undo(self) -> None:
        """Goes back by one change, where there is one."""
        self._step(self._past, self._future)

    def redo(self) -> None:
        """Takes the last undo back, where there is one."""
        self._step(self._future, self._past)

    def choose_network(self, name: str) -> None:
        """Another network, with its first image; an uploaded image has to be chosen again."""
        try:
            network = self.catalogue[name]
        except KeyError:
            raise RequestError(f"There is no network {name!r}.") from None
        except (FileNotFoundError, ValueError) as error:
            raise RequestError(f"The network cannot be loaded: {error}") from error
        self._change(self._fresh(network))

    def choose_image(self, kind: str, name: str) -> None:
        """One of the images that need no download."""
        for start in networks.starts(self.state.network):
            if (start.kind, start.name) == (kind, name):
                self.use_image(kind, name, start.image)
                return
        raise RequestError(f"There is no image {name!r}.")

    def use_image(self, kind: str, name: str, image: np.ndarray) -> None:
        """An image [H, W, C] uint8; the bars begin at what the network says of it."""
        self._change(self._begun(self.state.network, kind, name, image, self.state.tolerance))

    def move(self, place: int, value: int, *, is_last: bool) -> None:
        """One bar at `value`. Until the last move of a gesture, the others follow from where they were before it."""
        base = self._hold(place, self.state.bars)
        sums_to_one = self.state.network.sums_to_one
        bars = target.moved(base.bars, place, value, sums_to_one=sums_to_one)
        self._move_to(base, dataclasses.replace(base, bars=bars), is_last=is_last)

    def prescribe(self, place: int, value: float, *, is_last: bool) -> None:
        """One number at `value`, no longer free; undo goes back to before the gesture."""
        if not abs(value) <= values.LARGEST:
            raise RequestError(f"A number must be finite, and at most {values.LARGEST:.1e}.")
        base = self._hold(place, self.state.numbers)
        found = values.prescribed(base.numbers, place, value)
        self._move_to(base, dataclasses.replace(base, numbers=found), is_last=is_last)

    def leave_free(self, place: int, free: bool) -> None:
        """Leaves a number free, or prescribes it where its bar stands."""
        _check_place(place, self.state.numbers)
        found = values.left_free(self.state.numbers, place, free)
        self._change_target(dataclasses.replace(self.state, numbers=found))

    def lock(self, place: int, locked: bool) -> None:
        """Locks a bar, or frees it."""
        _check_place(place, self.state.bars)
        self._change_bars(target.with_lock(self.state.bars, place, locked))

    def add_class(self, name: str) -> None:
        """A bar for one more class, by its name or index."""
        names = self.state.network.class_names
        folded = [known.strip().casefold() for known in names]
        name = name.strip()
        if name in names:
            entry = names.index(name)
        elif name.casefold() in folded:
            entry = folded.index(name.casefold())
        elif name.isdecimal() and int(name) < len(names):
            entry = int(name)
        else:
            raise RequestError(f"There is no class {name!r}. Choose one from the list.")
        self._change_bars(target.with_class(self.state.bars, entry, len(names)))

    def remove_class(self, place: int) -> None:
        """One bar less; what it had goes to the rest."""
        _check_place(place, self.state.bars)
        if self.state.network.has_bar_for_each:
            raise RequestError("The bars of this network cannot be removed: each entry has one.")
        self._change_bars(target.without(self.state.bars, place))

    def reset(self) -> None:
        """The bars as the network says of the source; all numbers are free."""
        network, before = self.state.network, self.state.before
        bars, found = network.first_bars(before), network.first_numbers(before)
        self._change_target(dataclasses.replace(self.state, bars=bars, numbers=found))

    def choose_tolerance(self, tolerance: float) -> None:
        """At which distance a target is reached."""
        if tolerance not in TOLERANCES:
            raise RequestError(f"The tolerance must be one of {', '.join(map(str, TOLERANCES))}.")
        self._change(dataclasses.replace(self.state, tolerance=tolerance))

    def finish(self, begun: State, reached: Reached) -> None:
        """Keeps the result of a run that began at `begun`, even if the bars have moved since."""
        if self.state.source is begun.source and self.state.network is begun.network:
            self._change(dataclasses.replace(self.state, reached=reached, asked=begun.asks))

    def _change(self, state: State) -> None:
        self._past = [*self._past, self.state][-_LONGEST_HISTORY:]
        self._future, self._held = [], None
        self.state = state

    def _change_bars(self, bars: target.Bars) -> None:
        self._change_target(dataclasses.replace(self.state, bars=bars))

    def _change_target(self, state: State) -> None:
        if (state.bars, state.numbers) != (self.state.bars, self.state.numbers):
            self._change(state)

    def _hold(self, place: int, those: Sequence[object]) -> State:
        """The state before the gesture that moves one of `those`. A gesture of another one ends where it is."""
        _check_place(place, those)
        if self._held is not None and self._held.place != place:
            self._move_to(self._held.before, self.state, is_last=True)
        if self._held is None:
            self._held = _Held(place, self.state)
        return self._held.before

    def _move_to(self, base: State, state: State, *, is_last: bool) -> None:
        if is_last:
            self.state, self._held = base, None
            self._change_target(state)
        else:
            self.state = state

    def _step(self, source: list[State], destination: list[State]) -> None:
        if source:
            destination.append(self.state)
            self.state, self._held = source.pop(), None

    def _fresh(self, network: Network) -> State:
        start = networks.starts(network)[0]
        return self._begun(network, start.kind, start.name, start.image, _TOLERANCE)

    def _begun(
        self, network: Network, kind: str, name: str, image: np.ndarray, tolerance: float
    ) -> State:
        before = network.says(image)
        bars, found = network.first_bars(before), network.first_numbers(before)
        return State(network, kind, name, image, before, bars, found, tolerance)


class Sessions:
    """The windows that are open, by a token that only the window knows; the oldest are forgotten."""

    def __init__(self, make: Callable[[], Session], *, most: int = 64) -> None:
        """`make` begins a session; `most` are kept."""
        self._make, self._most = make, most
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def open(self, token: str) -> Session:
        """A new session under `token`."""
        session = self._make()
        with self._lock:
            self._sessions[token] = session
            while len(self._sessions) > self._most:
                self._sessions.pop(next(iter(self._sessions))).stop.set()
        return session

    def stop_all(self) -> None:
        """Asks all runs to stop."""
        for session in list(self._sessions.values()):
            session.stop.set()

    def get(self, token: str) -> Session | None:
        """The session under `token`, if it is open."""
        return self._sessions.get(token)


def _check_place(place: int, those: Sequence[object]) -> None:
    if not 0 <= place < len(those):
        raise RequestError(f"There is no bar {place}; the page is out of date, reload it.")
