"""What every script of this study measures: how near images are to their targets, and how much they changed.

Results are numbers per image, by task and method: `{task: {method: {measure: [N], "seconds": ...}}}`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import outgen_jax as og
from experiments.any_output import peers
from experiments.common import tables as common_tables
from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import files, report, runs

OURS = "og.synthesize"
SHOWN = 5  # images of a task that are kept for figures
MEASURES = ("distance", "l2", "steps", "distance_8bit")


class Case(NamedTuple):
    """A network, images, and what is wanted of them."""

    apply_fn: Any
    variables: Any
    output: Any  # as `og.synthesize` takes it
    images: np.ndarray  # [N, H, W, C] uint8
    targets: Any
    # (what `og.predict` returns, targets) -> [N]: how far outputs are off, judged apart from the engine
    distance: Callable[[Any, Any], np.ndarray]
    batch_size: int | None = None
    # Whether saved images are quantised; with many outputs the Jacobian that this takes is too large.
    quantizes: bool = True

    def judged(self, images: np.ndarray) -> np.ndarray:
        """The distance [N] of images, float in [0, 1] or uint8."""
        said = og.predict(
            self.apply_fn,
            self.variables,
            images,
            output=self.output,
            batch_size=self.batch_size,
        )
        return self.distance(said, self.targets)


def synthesized(case: Case, *, tolerance: float) -> dict[str, np.ndarray]:
    """The numbers of one plain call of `og.synthesize`, and of `og.quantize` after it if the case wants it."""
    return synthesized_images(case, case, tolerance=tolerance)[0]


def synthesized_images(
    made: Case, judged: Case, *, tolerance: float
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The numbers and the images [N, H, W, C] of a plain call on `made`, judged as `judged` says."""
    options: dict[str, Any] = {"output": made.output, "batch_size": made.batch_size}
    network = made.apply_fn, made.variables
    start = time.perf_counter()
    result = og.synthesize(
        *network, made.images, made.targets, tolerance=tolerance, progress=True, **options
    )
    seconds = time.perf_counter() - start
    saved = og.data.to_uint8(result.images)
    if made.quantizes:
        saved = og.quantize(*network, result.images, made.targets, **options)
    return _numbers(judged, result.images, saved, result.steps, seconds), result.images


def of_peer(case: Case, ended: peers.Ended) -> dict[str, np.ndarray]:
    """The numbers of an attack; its 8-bit images are rounded to the nearest level."""
    steps = np.full(len(case.images), ended.steps)
    saved = og.data.to_uint8(ended.images)
    return _numbers(case, ended.images, saved, steps, ended.seconds)


def descended(case: Case, descent: peers.Descent, *, seconds: float) -> dict[str, np.ndarray]:
    """The numbers of a first-order attack on the loss that `og.synthesize` minimises."""
    sources = case.images / np.float32(255)
    options: dict[str, Any] = {"loss": case.output.divergence, "descent": descent}
    ended = peers.descend(
        case.apply_fn, case.variables, sources, case.targets, seconds=seconds, **options
    )
    return of_peer(case, ended)


def _numbers(
    case: Case, images: np.ndarray, saved: np.ndarray, steps: np.ndarray, seconds: float
) -> dict[str, np.ndarray]:
    # Judged in batches of another shape than the solver's, as a user would.
    return {
        "distance": case.judged(images),
        "l2": np.asarray(og.metrics.l2_change(images, case.images)),
        "steps": steps,
        "distance_8bit": case.judged(saved),
        "seconds": np.array(seconds),
        "shown": saved[:SHOWN],
    }


def error_caption(distance: float, l2: float) -> str:
    """What a figure says of a saved image.

    >>> error_caption(0.000472, 2.289)
    'error 5e-04, L2 2.3'
    """
    return f"error {distance:.0e}, L2 {l2:.1f}"


def side_caption(distance: float, l2: float) -> str:
    """What a figure says of a saved image whose labels were to change sides.

    >>> side_caption(0.3075, 1.631)
    'succeeds, L2 1.6'
    """
    return f"{'succeeds' if distance < 0.5 else 'fails'}, L2 {l2:.1f}"


def figure(
    source: np.ndarray, images: Mapping[str, np.ndarray], captions: Mapping[str, Sequence[str]]
) -> Figure:
    """The sources, and below every image its caption: of a single task as a row, of several as columns."""
    if len(images) > 1:
        return report.image_grid_figure({"source": source[:SHOWN], **images}, captions=captions)
    ((task, made),) = images.items()
    pairs = {
        f"image {i + 1}": np.stack(pair) for i, pair in enumerate(zip(source, made, strict=False))
    }
    below = {name: ("", caption) for name, caption in zip(pairs, captions[task], strict=True)}
    return report.image_grid_figure(
        pairs, row_labels=("source", task.replace(",", "\n")), captions=below
    )


class Study:
    """The run of a script: keeps the numbers of every task and method, and remakes the table after each."""

    def __init__(self, run: runs.Run, table: Callable[[dict[str, Any]], str], *groups: str) -> None:
        """`groups` are the keys of results.json that hold tasks."""
        self.run, self.table = run, table
        self.results: dict[str, Any] = {"flags": run.flags, **{group: {} for group in groups}}
        self.images: dict[str, np.ndarray] = {}  # by task, of this package, for the picture
        self.captions: dict[str, list[str]] = {}

    def keep(
        self,
        group: str,
        task: str,
        method: str,
        compute: Callable[[], dict[str, np.ndarray]],
        *,
        caption: Callable[[float, float], str] = error_caption,
    ) -> float:
        """Computes the numbers of a method, unless an earlier start kept them; returns its seconds.

        `caption` says in the picture what the distance and the L2 of a saved image are.
        """
        print(f"{task}: {method}")
        name = files.unique_file_names([f"{task}, {method}"], ".npz")[0]
        found = runs.kept(self.run.directory / "cache" / name, compute)
        if method == OURS:
            self.images[task] = found["shown"]
            numbers = zip(found["distance_8bit"][:SHOWN], found["l2"][:SHOWN], strict=True)
            self.captions[task] = [caption(*pair) for pair in numbers]
        self.results[group].setdefault(task, {})[method] = _as_json(found)
        common_tables.write(self.run, self.results, self.table)
        return float(found["seconds"])

    def finish(self, source: np.ndarray, picture: str) -> None:
        """Draws the sources and what each task made of them, and prints the table."""
        drawn = figure(source, self.images, self.captions)
        report.save_figure(drawn, self.run.directory / picture)
        print(self.table(self.results))


def _as_json(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The numbers of a method as results.json keeps them."""
    rounded = np.vectorize(lambda x: float(f"{x:.4g}"), otypes=[float])
    return {name: rounded(values).tolist() for name, values in found.items() if name != "shown"}


def tables(tasks: Mapping[str, Any], *, name: str, within: float) -> list[str]:
    """Two Markdown tables with a row for each task and method: how exact, and at what price.

    Args:
      tasks: numbers by task and method, as results.json has them.
      name: of the distance.
      within: the share of images up to this distance has a column.
    """
    exactness, price = [], []
    for task, methods in tasks.items():
        for method, found in methods.items():
            distance, saved = np.array(found["distance"]), found["distance_8bit"]
            exactness.append(
                [
                    *(task, method, str(len(distance)), f"{np.mean(distance <= within):.0%}"),
                    *percentiles(distance, 50, 95, 99, 100),
                    *percentiles(saved, 50, 99),
                ]
            )
            price.append(
                [
                    *(task, method, *percentiles(found["l2"], 50, 95, 99, 100)),
                    *(f"{np.percentile(found['steps'], q):.0f}" for q in (50, 99, 100)),
                    f"{found['seconds'] / len(distance):.2g}",
                ]
            )
    return [
        report.markdown_table(
            (
                *("target", "method", "images", f"within {within:g}"),
                *percentile_headings(name, 50, 95, 99, 100),
                *percentile_headings("8-bit", 50, 99),
            ),
            exactness,
        ),
        report.markdown_table(
            (
                *("target", "method", *percentile_headings("L2", 50, 95, 99, 100)),
                *(*percentile_headings("steps", 50, 99, 100), "s per image"),
            ),
            price,
        ),
    ]
