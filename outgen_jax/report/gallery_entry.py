"""One image of the page as an entry of its gallery: the two pictures, what the network says, the numbers.

Everything that is not written in this file passes through `escape`.
"""

import base64
import html

import numpy as np

from outgen_jax import files
from outgen_jax.names import printable
from outgen_jax.report import run as runs
from outgen_jax.report import wording
from outgen_jax.report.parts import Part, completed
from outgen_jax.report.run import SynthesisRun, number
from outgen_jax.report.shown import (
    SMALLEST_SHOWN,
    TICK_FROM,
    Group,
    groups,
    present_names,
    said,
    shown_entries,
    story,
    value_text,
    wanted_text,
)


def escape(text: str) -> str:
    """The text for use in HTML, also between quotes; characters that HTML forbids are replaced."""
    return html.escape(printable(text))


def png_uri(data: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def render_entry(run: SynthesisRun, row: int) -> str:
    """The entry of one image, sortable and searchable by its data attributes."""
    one = runs.one_image(run, row)
    distance, rms = (float(values[0]) for values in runs.pixel_change(one))
    outcome, badge = ("hit", "target reached") if run.converged[row] else ("miss", "target missed")
    if not runs.finite_rows(one)[0]:
        outcome, badge = "miss", "output not finite"
    shown = groups(one, 0)
    several = len(shown) > 1 or bool(shown[0].title)
    # The script sorts by it: what is not finite is farther than the farthest.
    order = f"{run.distance[row]:.8g}" if np.isfinite(run.distance[row]) else "Infinity"
    words = (name for part in one.parts for name in present_names(part, 0))
    found_by = " ".join(dict.fromkeys((run.ids[row], *words))).lower()
    heading = f"<h3>{escape(run.ids[row])}</h3>"
    if len({part.network for part in one.parts}) == 1:
        told = escape(story(shown[0].part, 0))
        heading = f'<h3>{told}</h3>\n<p class="id">{escape(run.ids[row])}</p>'
    return f"""
<article class="entry" data-index="{row}" data-outcome="{outcome}"
 data-words="{escape(found_by)}"
 data-distance="{order}" data-change="{rms:.6f}"
 data-steps="{run.steps[row]}">
{_stage(run, row)}
<div class="body">
<div class="row"><span class="badge {outcome}">{badge}</span>
<button type="button" aria-pressed="false">Difference</button></div>
{heading}
{"".join(_group(group, several) for group in shown)}
{_numbers(one, distance, rms)}
</div>
</article>"""


def _group(group: Group, several: bool) -> str:
    """What a network says in one view; of several, under a heading."""
    part = group.part
    names, table, note = shown_entries(part, 0, limit=5)
    shown = (
        _values(part, names, table) if part.kind.form == "numbers" else _bars(part, names, table)
    )
    notes = "".join(f'<p class="others">{escape(text)}</p>' for text in (note, group.note) if text)
    if not several:
        return shown + notes
    heading = f"<h4>{escape(group.title)} <small>{escape(group.detail)}</small></h4>"
    return f'<section class="part">{heading}\n{shown}{notes}</section>'


def _bars(part: Part, names: list[str], table: np.ndarray) -> str:
    """A table of bars, one row per class or label: wanted (outline), reached (filled) and before (tick)."""
    rows = "".join(_bar(part, name, *values) for name, values in zip(names, table, strict=True))
    what = "class" if part.kind.form == "distribution" else "label"
    return f"""<table class="bars"><caption class="visually-hidden">Probabilities by {what}</caption>
<colgroup><col class="name"><col><col class="number"><col class="number"></colgroup>
<thead><tr><th scope="col"><span class="visually-hidden">{what}</span></th>
<th scope="col"><span class="visually-hidden">source</span></th>
<th scope="col" class="number">wanted</th><th scope="col" class="number">reached</th></tr></thead>
<tbody>{rows}</tbody></table>"""


def _bar(part: Part, name: str, wanted: float, before: float, reached: float) -> str:
    label = escape(name)
    outline = f'<i class="wanted" style="width:{100 * wanted:.2f}%"></i>'
    tick = f'<i class="before" style="left:{100 * before:.2f}%"></i>'
    texts = wanted_text(part, wanted), value_text(part, reached, exact=True)
    cells = "".join(
        f'<td class="number{"" if value >= SMALLEST_SHOWN else " none"}">{text}</td>'
        for value, text in zip((wanted, reached), texts, strict=True)
    )
    source = value_text(part, before, exact=True)
    return (
        f'<tr title="{label}: source {source}, wanted {texts[0]}, reached {texts[1]}">'
        f'<th scope="row">{label}</th><td><span class="track">'
        f'<i class="reached" style="width:{100 * np.nan_to_num(reached):.2f}%"></i>'
        f"{outline if wanted >= SMALLEST_SHOWN else ''}{tick if before >= TICK_FROM else ''}"
        f'<span class="visually-hidden">{source}</span></span></td>{cells}</tr>'
    )


def _values(part: Part, names: list[str], table: np.ndarray) -> str:
    """A table of numbers, one row each: source, wanted and reached."""
    rows = "".join(
        f'<tr><th scope="row" title="{escape(name)}">{escape(name)}</th>'
        f'<td class="number">{value_text(part, before)}</td>'
        f'<td class="number{" none" if np.isnan(wanted) else ""}">{wanted_text(part, wanted)}</td>'
        f'<td class="number">{value_text(part, reached)}</td></tr>'
        for name, (wanted, before, reached) in zip(names, table, strict=True)
    )
    heads = "".join(
        f'<th scope="col" class="number">{name}</th>' for name in ("source", "wanted", "reached")
    )
    return f"""<table class="bars values"><caption class="visually-hidden">Numbers</caption>
<thead><tr><th scope="col"><span class="visually-hidden">number</span></th>{heads}</tr></thead>
<tbody>{rows}</tbody></table>"""


def _stage(run: SynthesisRun, row: int) -> str:
    """Source and generated image on top of each other, with the slider between them."""
    height, width = run.source.shape[1:3]
    crisp = " pixelated" if max(height, width) < runs.CRISP_BELOW else ""
    name, who = escape(run.ids[row]), wording.who(run)
    before, after = (escape(_says(run, row, when)) for when in ("before", "reached"))
    source, generated = (
        png_uri(files.png_bytes(images[row])) for images in (run.source, run.generated)
    )
    return f"""<div class="stage{crisp}" style="aspect-ratio:{width}/{height}">
<img class="source" src="{source}" alt="Source {name}; the {who} says {before}">
<img class="generated" src="{generated}" alt="Generated from {name}; the {who} says {after}">
<canvas role="img" aria-label="Amplified difference of the two images of {name}"></canvas>
<span class="end left">source</span><span class="end right">generated</span>
<input type="range" min="0" max="100" value="50"
 aria-label="Where source gives way to generated, {name}">
</div>"""


def _says(run: SynthesisRun, row: int, when: str) -> str:
    """What the networks say of an image, each in its first view."""
    first: dict[str, str] = {}
    for part in run.parts:
        first.setdefault(part.network, said(part, getattr(part, when)[row]))
    return "; ".join(first.values())


def _numbers(one: SynthesisRun, distance: float, rms: float) -> str:
    before, after = runs.distance_before(one)[0], one.distance[0]
    entries = {}
    if len(one.parts) == 1 and one.parts[0].kind.form == "distribution":
        divergence = runs.kl_divergence(completed(one.parts[0]), one.parts[0].reached)[0]
        entries["KL(wanted ‖ reached)"] = f"{number(divergence)} nats"
    entries |= {
        wording.sentence_case(
            wording.distance_to_target(one)
        ): f"{number(before)} → {number(after)}",
        "L2 distance to the source": f"{distance:.3f}",
        "RMS change per pixel": f"{rms:.2f} of 255",
        "Updates": f"{one.steps[0]:,}",
    }
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in entries.items()
    )
    return f'<dl class="numbers">{items}</dl>'
