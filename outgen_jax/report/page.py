"""The page of a run: one self-contained HTML file that needs no network, now or in ten years."""

import io
import string
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from outgen_jax.report import wording
from outgen_jax.report.gallery_entry import escape, png_uri, render_entry
from outgen_jax.report.plotting import figure_bytes
from outgen_jax.report.run import (
    SynthesisRun,
    check_run,
    distance_before,
    finite_rows,
    median,
    number,
    pixel_change,
)

# Inlined styles, scripts and images only: a browser refuses anything from outside.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def html_page(
    run: SynthesisRun,
    *,
    title: str,
    summary: Mapping[str, str] | None = None,
    figures: Sequence[tuple[str, Figure | bytes]] = (),
    command: str = "",
    max_images: int = 60,
) -> str:
    """The run as one HTML page: key numbers, what one sees, figures, a gallery, the command.

    Args:
      run: the run's arrays; the key numbers are over all of it.
      title: heading of the page.
      summary: further facts by name, such as the network, the solver, the time, the hardware.
      figures: caption and figure (or the bytes of a PNG) each.
      command: what to type to get the same run again; "": nothing is said of it.
      max_images: the gallery holds the first so many images, unselected.

    Raises:
      ValueError: the run has no images or its fields disagree, or `max_images` is not positive.
    """
    check_run(run, caller="html_page")
    if not len(run.source) or max_images < 1:
        raise ValueError(
            f"html_page: at least one image is needed; the run has {len(run.source)}, "
            f"max_images is {max_images}"
        )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{_static("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p class="lede">{wording.lede(run)}</p>
{_tiles(run)}
{_facts(summary or {})}
<nav aria-label="On this page"><a href="#explanation">What you are looking at</a>
<a href="#distance">How far from the target</a> <a href="#images">The images</a>
{'<a href="#figures">Figures</a>' if figures else ""}
{'<a href="#command">The command</a>' if command else ""}</nav>
</header>
<main>
{_explanation(run)}
{_histogram(run)}
{_gallery(run, min(max_images, len(run.source)))}
{_figures(figures)}
{_command(command)}
</main>
<footer>Everything on this page is in this one file; it loads nothing from elsewhere.</footer>
<script>{_static("page.js")}</script>
</body>
</html>
"""


def _tiles(run: SynthesisRun) -> str:
    hits, total = int(np.sum(run.converged)), len(run.source)
    before, after = median(distance_before(run)), median(run.distance)
    broken = int(np.sum(~finite_rows(run)))
    not_finite = f"; the network's output is not finite on {broken:,}" if broken else ""
    tiles = (
        (f"{hits:,} <small>of {total:,}</small>", f"images reached their target{not_finite}"),
        (
            escape(number(after)),
            f"{escape(wording.distance_to_target(run))}, median image, from {escape(number(before))} at the start; "
            "0 is exact",
        ),
        (
            f"{np.median(pixel_change(run)[1]):.1f} <small>of 255</small>",
            "grey levels of change per pixel (RMS), median image",
        ),
        (f"{np.median(run.steps):,.0f}", "updates, median image"),
    )
    items = "".join(f'<li class="tile"><b>{big}</b><span>{text}</span></li>' for big, text in tiles)
    return f'<ul class="tiles">{items}</ul>'


def _facts(summary: Mapping[str, str]) -> str:
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in summary.items()
    )
    return f'<dl class="facts">{items}</dl>' if items else ""


def _explanation(run: SynthesisRun) -> str:
    return _filled(
        "explanation.html",
        who=wording.who(run),
        prescribed=wording.prescribed(run),
        chosen=wording.chosen_answers(run),
        key=wording.key(run),
    )


def _histogram(run: SynthesisRun) -> str:
    """Distances of all images before and after, 5 bins per decade from 0.00001 to 1, or more where there are such."""
    rows = {"source": distance_before(run), "generated": run.distance}
    finite = {name: values[np.isfinite(values)] for name, values in rows.items()}
    largest = max([1.0, *(values.max() for values in finite.values() if values.size)])
    # Ticks at every second decade, where there are more than six, end at the end.
    top = next(end for end in (0, 1, 3, 5) if largest <= 10**end or end == 5)
    counts = {
        name: np.histogram(
            np.log10(np.clip(values, 1e-5, 10.0**top)), bins=5 * (5 + top), range=(-5, top)
        )[0]
        for name, values in finite.items()
    }
    bars = "".join(
        f'<dt>{name}</dt><dd class="{name}">'
        + "".join(
            f'<i style="height:{100 * count / max(counts[name].max(), 1):.2f}%"></i>'
            for count in counts[name]
        )
        + "</dd>"
        for name in counts
    )
    medians = escape(" and ".join(f"{number(median(rows[name]))} ({name})" for name in rows))
    ticks = "".join(
        f'<span style="left:{100 * place / (5 + top):.4g}%">{_power(place - 5)}</span>'
        for place in range(0, 6 + top, 1 if top < 2 else 2)
    )
    distance = escape(wording.sentence_case(wording.distance_to_target(run)))
    return f"""<h2 id="distance">How far from the target, before and after</h2>
<dl class="histogram" role="img" aria-label="Histogram; {distance}; medians {medians}">
{bars}</dl>
<div class="axis" aria-hidden="true">{ticks}</div>
<p class="note">{distance}, of all {len(run.source):,} images, on a logarithmic
scale; further left is closer, and each row has its own height. Medians: {medians}.</p>"""


def _power(exponent: int) -> str:
    return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:.{-exponent}f}"


def _figures(figures: Sequence[tuple[str, Figure | bytes]]) -> str:
    if not figures:
        return ""
    items = "".join(_figure(caption, figure) for caption, figure in figures)
    return f'<h2 id="figures">Figures</h2>\n<div class="figures">{items}</div>'


def _figure(caption: str, figure: Figure | bytes) -> str:
    data = figure if isinstance(figure, bytes) else figure_bytes(figure)
    width = Image.open(io.BytesIO(data)).width // 2  # two dots of the file per pixel of the page
    text = escape(caption)
    image = f'<img width="{width}" src="{png_uri(data)}" alt="{text}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _gallery(run: SynthesisRun, shown: int) -> str:
    total = len(run.source)
    note = (
        f"The first {shown:,} of {total:,} images in the order of the run, not a selection; "
        "the numbers at the top are over all of them."
        if shown < total
        else f"All {total:,} images of the run."
    )
    entries = "".join(render_entry(run, row) for row in range(shown))
    return f"""<h2 id="images">The images</h2>
<p class="note">{note}</p>
{_filled("tools.html", searched=wording.searched(run))}<div class="gallery" id="gallery">{entries}
</div>"""


def _command(command: str) -> str:
    if not command:
        return ""
    lines = "\n".join(escape(line) for line in command.splitlines())
    return f'<h2 id="command">Get the same run again</h2>\n<pre><code>{lines}</code></pre>'


def _filled(name: str, **texts: str) -> str:
    """A part of the page with texts that depend on the run."""
    return string.Template(_static(name)).substitute(texts)


def _static(name: str) -> str:
    """A part of the page that is the same for every run."""
    return resources.files("outgen_jax.report").joinpath("static", name).read_text("utf-8")
