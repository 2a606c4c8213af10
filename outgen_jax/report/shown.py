"""What a report shows of one image: which entries of which parts, and in what words. Texts are plain, not HTML."""

from typing import NamedTuple

import numpy as np

from outgen_jax.outputs import Output
from outgen_jax.report.parts import Part, distances
from outgen_jax.report.run import SynthesisRun, number

SMALLEST_SHOWN = 0.0005  # a probability that prints as 0.001; smaller ones print as zero
TICK_FROM = 0.005  # the source's probabilities below this are not marked: the axis is there
COMPLETE = 10  # entries of a part that are all shown
MOST_VIEWS = 4  # of more views of one network, the worst is shown


class Shown(NamedTuple):
    """The entries of one part to show of one image."""

    names: list[str]
    table: np.ndarray  # [rows, 3] wanted (NaN where free), before, reached
    note: str = ""  # on entries that are left out


class Group(NamedTuple):
    """A part to show of one image, under a heading where there are several."""

    part: Part
    title: str = ""
    detail: str = ""  # its distance
    note: str = ""  # on views that are left out


def groups(run: SynthesisRun, row: int) -> list[Group]:
    """The parts to show of one image: all networks, and of more than four views of one the worst."""
    if len(run.parts) == 1:
        return [Group(run.parts[0])]
    found = []
    for network in dict.fromkeys(part.network for part in run.parts):
        views = [part for part in run.parts if part.network == network]
        gaps = np.concatenate([distances(_one(p, row), _one(p, row).reached) for p in views])
        order = np.argsort(-np.where(np.isnan(gaps), np.inf, gaps), kind="stable")
        shown = order[:1] if len(views) > MOST_VIEWS else range(len(views))
        for index in shown:
            title = ", ".join(name for name in (network, views[index].view) if name)
            note = ""
            if len(views) > MOST_VIEWS:
                title += f", worst of {len(views)} views"
                note = f"{len(views) - 1} other views: {_at_most(gaps[order[1]], 4)}"
            detail = f"{views[index].kind.measure} {number(gaps[index])}"
            if unit(views[index].kind):
                detail += f", {unit(views[index].kind)}"
            found.append(Group(views[index], title, detail, note))
    return found


def shown_entries(part: Part, row: int, *, limit: int, complete: int = COMPLETE) -> Shown:
    """The leading entries of one image, and what there is to say of the others.

    Of a distribution the last row is the sum of all others, so that columns sum to 1.
    """
    chosen = leading_entries(part, row, limit=limit, complete=complete)
    names = [part.entries[index] for index in chosen]
    full = np.stack([part.wanted[row], part.before[row], part.reached[row]], axis=1)
    table = full[chosen]
    left_out = np.setdiff1d(np.arange(len(full)), chosen)
    if part.kind.form != "distribution":
        return Shown(names, table, _note(part, full[left_out]))
    if left_out.size:
        names.append(f"{left_out.size} other{'s' if left_out.size > 1 else ''}")
        # Where a class that is shown is free, what it leaves to the others is not prescribed.
        table = np.concatenate([table, np.maximum(1 - table.sum(axis=0, keepdims=True), 0)])
    return Shown(names, np.clip(table, 0.0, 1.0))


def leading_entries(part: Part, row: int, *, limit: int, complete: int = COMPLETE) -> np.ndarray:
    """Indices of the entries that tell the story of one image.

    Up to `complete` entries in all are given in their own order. Of more, `limit` are given. Of a distribution they are
    the highest by wanted or reached probability, highest first, and then the source's first class if it is not among
    them. Of labels and numbers they are those that have a target, those first that had to change most.
    """
    wanted, before, reached = part.wanted[row], part.before[row], part.reached[row]
    if len(wanted) <= complete:
        return np.arange(len(wanted))
    if part.kind.form != "distribution":
        free = np.isnan(wanted)
        change = np.abs(np.where(free, reached, wanted) - before)
        return np.lexsort((-np.nan_to_num(change), free))[:limit]
    wanted, before, reached = (np.nan_to_num(values) for values in (wanted, before, reached))
    highest = np.maximum(wanted, reached)
    # Classes that round to zero are told apart by what the source was.
    highest = np.where(highest < SMALLEST_SHOWN, SMALLEST_SHOWN * before, highest)
    chosen = np.argsort(-highest, kind="stable")[:limit]
    first = np.argmax(before)
    return chosen if first in chosen else np.append(chosen, first)


def said(part: Part, values: np.ndarray, *, limit: int = 1) -> str:
    """An answer [K] in words, by its largest probabilities, none under TICK_FROM, or by its numbers."""
    if not np.isfinite(values).all():
        return "nothing finite"
    if part.kind.form == "numbers":
        return _in_words(part, values, np.arange(len(values)), limit)
    order = np.argsort(-values, kind="stable")
    return _in_words(part, values, order[: max(1, int(np.sum(values >= TICK_FROM)))], limit)


def asked(part: Part, row: int, *, limit: int = 3) -> str:
    """The target distribution of one image in words, the largest probabilities first, none under TICK_FROM."""
    wanted = part.wanted[row]
    order = np.argsort(-np.nan_to_num(wanted), kind="stable")
    order = order[: max(1, int(np.sum(wanted >= TICK_FROM)))]
    rest = ", the rest free" if np.isnan(wanted).any() else ""
    return _in_words(part, wanted, order, limit) + rest


def story(part: Part, row: int) -> str:
    """What the network said of the source, and what it was to say: of labels and numbers, of the same ones."""
    named = np.flatnonzero(~np.isnan(part.wanted[row]))
    if not named.size:
        return f"{said(part, part.before[row])} → anything"
    if part.kind.form == "distribution":
        return f"{said(part, part.before[row])} → {asked(part, row)}"
    leading = leading_entries(part, row, limit=2, complete=2)
    leading = leading[~np.isnan(part.wanted[row, leading])]
    pairs = part.before[row], part.wanted[row]
    parts = [
        f"{part.entries[k]}: {' → '.join(value_text(part, values[k]) for values in pairs)}"
        for k in leading
    ]
    more = len(named) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")


def present_names(part: Part, row: int) -> list[str]:
    """The entries by which a reader may look for an image."""
    if part.kind.form == "numbers":
        return shown_entries(part, row, limit=5).names
    values = np.nan_to_num([part.wanted[row], part.before[row], part.reached[row]])
    return [part.entries[k] for k in np.flatnonzero(values.max(0) >= TICK_FROM)]


def unit(kind: Output) -> str:
    """The unit of the distance of numbers, where it is not 1."""
    scale = getattr(kind, "scale", 1.0)
    return "" if scale == 1 else f"in units of {scale:g}"


def value_text(part: Part, value: float, *, exact: bool = False) -> str:
    """A number to a thousandth of its scale; a probability to two decimals, or `exact` to three; a dash for NaN."""
    if np.isnan(value):
        return "–"
    if part.kind.form != "numbers":
        return f"{value:.3f}" if exact else f"{value:.2f}"
    if abs(value) >= 1e7:
        return f"{value:.4g}"
    decimals = _decimals(part)
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # no minus before zero


def wanted_text(part: Part, value: float) -> str:
    """The target of an entry as a cell of a table."""
    return "free" if np.isnan(value) else value_text(part, value, exact=True)


def _one(part: Part, row: int) -> Part:
    return part._replace(wanted=part.wanted[[row]], reached=part.reached[[row]])


def _in_words(part: Part, values: np.ndarray, order: np.ndarray, limit: int) -> str:
    parts = [f"{part.entries[k]} {value_text(part, values[k])}" for k in order[:limit]]
    more = len(order) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more and limit > 1 else "")


def _note(part: Part, rows: np.ndarray) -> str:
    """On entries [n, 3] that are left out."""
    if not len(rows):
        return ""
    free = np.isnan(rows[:, 0])
    text = f"{len(rows)} other{'s' if len(rows) > 1 else ''}: "
    if free.all():
        return text + "free"
    decimals = _decimals(part) if part.kind.form == "numbers" else 4
    gap = _at_most(np.abs(rows[:, 2] - rows[:, 0])[~free].max(), decimals)
    return text + (f"{free.sum()} free, {gap}" if free.any() else gap)


def _at_most(gap: float, decimals: int) -> str:
    """The gap rounded up."""
    if np.isnan(gap):
        return "not finite"
    return f"at most {np.ceil(gap * 10**decimals) / 10**decimals:.{decimals}f} off"


def _decimals(part: Part) -> int:
    """Of numbers: down to a thousandth of their scale."""
    return int(np.clip(3 - np.floor(np.log10(getattr(part.kind, "scale", 1.0))), 0, 8))
