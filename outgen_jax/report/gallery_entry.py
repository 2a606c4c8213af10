"""One image of the page as an entry of its gallery: the two pictures, the probabilities, the numbers.

Everything that is not written in this file passes through `escape`.
"""

import base64
import html

import numpy as np

from outgen_jax import files
from outgen_jax.metrics import total_variation
from outgen_jax.report.run import (
    CRISP_BELOW,
    SMALLEST_SHOWN,
    TICK_FROM,
    SynthesisRun,
    finite_rows,
    kl_divergence,
    pixel_change,
    printable,
    probability,
    shown_probabilities,
)


def escape(text: str) -> str:
    """The text for use in HTML, also between quotes; characters that HTML forbids are replaced."""
    return html.escape(printable(text))


def png_uri(data: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def number(value: float) -> str:
    """Four decimals, or the bound where they would all be zero."""
    if np.isnan(value):
        return "not finite"
    if np.isinf(value):
        return "infinite"
    return "&lt; 0.0001" if 0 < value < 0.0001 else f"{value:.4f}"


def render_entry(run: SynthesisRun, row: int) -> str:
    """The entry of one image, sortable and searchable by its data attributes."""
    one = run._replace(
        **{name: getattr(run, name)[row : row + 1] for name in run._fields if name != "class_names"}
    )
    distance, rms = (float(values[0]) for values in pixel_change(one))
    outcome, badge = ("hit", "target reached") if run.converged[row] else ("miss", "target missed")
    if not finite_rows(one)[0]:
        outcome, badge = "miss", "output not finite"
    names, table = shown_probabilities(run, row, limit=5)
    tables = [run.wanted[row], run.before[row], run.reached[row]]
    present = np.max(np.nan_to_num(tables), axis=0) >= TICK_FROM
    # The script sorts by it: what is not finite is farther than the farthest.
    order = run.total_variation[row] if np.isfinite(run.total_variation[row]) else 2.0
    found_by = (run.ids[row], *(run.class_names[index] for index in np.flatnonzero(present)))
    words = " ".join(found_by).lower()
    return f"""
<article class="entry" data-index="{row}" data-outcome="{outcome}" data-words="{escape(words)}"
 data-distance="{order:.8f}" data-change="{rms:.6f}"
 data-steps="{run.steps[row]}">
{_stage(run, row)}
<div class="body">
<div class="row"><span class="badge {outcome}">{badge}</span>
<button type="button" aria-pressed="false">Difference</button></div>
<h3>{_largest(run, run.before[row], 1)} → {_largest(run, run.wanted[row], 3)}</h3>
<p class="id">{escape(run.ids[row])}</p>
{render_bars(names, table)}
{_numbers(one, distance, rms)}
</div>
</article>"""


def render_bars(names: list[str], table: np.ndarray) -> str:
    """A table of bars, one row per class: wanted (outline), reached (filled) and before (tick).

    Args:
        names: of the rows.
        table: [rows, 3] probabilities wanted, before and reached.
    """
    rows = "".join(
        _bar(name, *map(float, values)) for name, values in zip(names, table, strict=True)
    )
    return f"""<table class="bars"><caption class="visually-hidden">Probabilities by class</caption>
<colgroup><col class="name"><col><col class="number"><col class="number"></colgroup>
<thead><tr><th scope="col"><span class="visually-hidden">class</span></th>
<th scope="col"><span class="visually-hidden">source</span></th>
<th scope="col" class="number">wanted</th><th scope="col" class="number">reached</th></tr></thead>
<tbody>{rows}</tbody></table>"""


def _bar(name: str, wanted: float, before: float, reached: float) -> str:
    label = escape(name)
    outline = f'<i class="wanted" style="width:{100 * wanted:.2f}%"></i>'
    tick = f'<i class="before" style="left:{100 * before:.2f}%"></i>'
    cells = "".join(
        f'<td class="number{"" if value >= SMALLEST_SHOWN else " none"}">{probability(value)}</td>'
        for value in (wanted, reached)
    )
    return (
        f'<tr title="{label}: source {probability(before)}, wanted {probability(wanted)}, '
        f'reached {probability(reached)}">'
        f'<th scope="row">{label}</th><td><span class="track">'
        f'<i class="reached" style="width:{100 * np.nan_to_num(reached):.2f}%"></i>'
        f"{outline if wanted >= SMALLEST_SHOWN else ''}{tick if before >= TICK_FROM else ''}"
        f'<span class="visually-hidden">{probability(before)}</span></span></td>{cells}</tr>'
    )


def _stage(run: SynthesisRun, row: int) -> str:
    """Source and generated image on top of each other, with the slider between them."""
    height, width = run.source.shape[1:3]
    crisp = " pixelated" if max(height, width) < CRISP_BELOW else ""
    name = escape(run.ids[row])
    before, after = (_largest(run, values[row], 1) for values in (run.before, run.reached))
    source, generated = (
        png_uri(files.png_bytes(images[row])) for images in (run.source, run.generated)
    )
    return f"""<div class="stage{crisp}" style="aspect-ratio:{width}/{height}">
<img class="source" src="{source}" alt="Source {name}; the classifier says {before}">
<img class="generated" src="{generated}" alt="Generated from {name}; the classifier says {after}">
<canvas role="img" aria-label="Amplified difference of the two images of {name}"></canvas>
<span class="end left">source</span><span class="end right">generated</span>
<input type="range" min="0" max="100" value="50"
 aria-label="Where source gives way to generated, {name}">
</div>"""


def _largest(run: SynthesisRun, probabilities: np.ndarray, limit: int) -> str:
    """The most probable classes by name, largest first, at most `limit`, none under TICK_FROM."""
    if not np.isfinite(probabilities).all():
        return "nothing finite"
    order = np.argsort(-probabilities, kind="stable")
    order = order[: max(1, int(np.sum(probabilities >= TICK_FROM)))]
    parts = [f"{escape(run.class_names[k])} {probabilities[k]:.2f}" for k in order[:limit]]
    more = len(order) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more and limit > 1 else "")


def _numbers(one: SynthesisRun, distance: float, rms: float) -> str:
    before, after = float(total_variation(one.wanted, one.before)[0]), one.total_variation[0]
    entries = {
        "KL(wanted ‖ reached)": f"{number(kl_divergence(one.wanted, one.reached)[0])} nats",
        "Total variation to the target": f"{number(before)} → {number(after)}",
        "L2 distance to the source": f"{distance:.3f}",
        "RMS change per pixel": f"{rms:.2f} of 255",
        "Updates": f"{one.steps[0]:,}",
    }
    items = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in entries.items()
    )
    return f'<dl class="numbers">{items}</dl>'
