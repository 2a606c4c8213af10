"""How close to its targets each solver is after a given time: total variation against seconds.

Purpose   Paper A's SGD and momentum, Adam, Adam behind the tanh map (Carlini and Wagner 2017) and Gauss-Newton on the
          same images, targets and network, taking turns so that a busy machine slows all alike.
Command   python -m experiments.exactness.time_to_target --data_dir=...
              --out=experiments/exactness/results/time_to_target
Output    --out gets results.json (the curves), table.md and exactness.png. About 10 minutes on 2 cores.

Time is that of updates alone, without compilation and evaluation. Images that have converged stay in the batch. At the
end every solver's best images are rounded to 8 bits, to the nearest level and by `og.quantize`.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import loading, target_text
from experiments.common import tables as common_tables
from experiments.common.cells import label, percentile_headings
from experiments.exactness.time_figure import time_figure
from outgen_jax import report, runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.synthesis import network as networks
from outgen_jax.synthesis import slots
from outgen_jax.synthesis.programs import Network

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = flags.DEFINE_integer("number", 64, "Test images, from the start; one batch.", 1)
_TARGETS = flags.DEFINE_list(
    "targets", ["dirichlet", "true=0.9;random=0.1"], "Target texts, ';' for ','; or dirichlet."
)
_SECONDS = flags.DEFINE_float("seconds", 40.0, "Time of updates of each solver and target.", 0)
_SEED = common_flags.seed("the targets")
_OUT = common_flags.out("time_to_target")
_OVERWRITE = common_flags.overwrite()

_MANY = 10**6  # steps: time is the limit
SOLVERS: dict[str, og.Solver] = {
    "SGD": og.preset("sgd", steps=_MANY),
    "momentum": og.preset("momentum", steps=_MANY),
    "Adam": og.preset("adam", steps=_MANY),
    "Adam, tanh map": og.gradient_descent(
        optax.adam(0.01), weight_decay=0.0, steps=_MANY, pixels=og.pixels.tanh()
    ),
    "Gauss-Newton": og.gauss_newton(steps=_MANY),
}
# What a user may want to reach by the median image.
_MARKS = (0.02, 0.005, 1e-3, 1e-5)


class Workload(NamedTuple):
    """One batch and what is wanted of it."""

    apply_fn: Any
    variables: Any
    images: np.ndarray  # [B, H, W, C] uint8
    targets: np.ndarray  # [B, K]


class Runner:
    """One solver at work, a step at a time."""

    def __init__(self, workload: Workload, solver: og.Solver) -> None:
        self.workload, self.solver = workload, solver
        images = networks.as_float(workload.images)
        self._network, self._mesh = Network(workload.apply_fn), slots.local_mesh()
        kinds = (og.outputs.softmax(),)
        entries = slots.Entry(images, images, (workload.targets[:, None],))
        self._variables = slots.on_all_devices(self._mesh, workload.variables)
        self.slots = slots.start(
            self._network,
            solver,
            self._variables,
            *slots.shared(self._mesh, (entries, np.ones(len(images), bool))),
            kinds=kinds,
            counts=(None,),
            mesh=self._mesh,
        )
        self._step(jax.tree.map(jnp.copy, self.slots))  # compiles
        self.seconds, self.curve = 0.0, list[dict[str, float]]()

    def _step(self, state: slots.Slot) -> slots.Slot:
        moved, _ = slots.advance(
            self._network,
            self.solver,
            self._variables,
            np.float32(-1),  # no tolerance: images that have converged stay in the batch
            np.int32(len(self.workload.images)),
            state,
            updates=1,
            mesh=self._mesh,
        )
        return jax.block_until_ready(moved)

    def advance(self) -> None:
        """One step; the curve speaks of the best images before it."""
        start = time.perf_counter()
        self.slots = self._step(self.slots)
        before, self.seconds = self.seconds, self.seconds + time.perf_counter() - start
        distance = self.distances()
        found = {"median": float(np.median(distance)), "p95": float(np.percentile(distance, 95))}
        self.curve.append({"seconds": before, **found, "l2": float(np.median(self.changes()))})

    def distances(self) -> np.ndarray:
        """Total variation [B] of the best images."""
        return np.asarray(self.slots.best_distance)

    def changes(self) -> np.ndarray:
        """L2 [B] by which the best images differ from their sources."""
        return np.asarray(og.metrics.l2_change(self.slots.best_image, self.workload.images))

    def summary(self) -> dict[str, Any]:
        """What there is at the end: distances, also after rounding, and the size of the change."""
        network = self.workload.apply_fn, self.workload.variables
        images = np.asarray(self.slots.best_image)
        saved = {
            "nearest": og.data.to_uint8(images),
            "quantize": og.quantize(*network, images, self.workload.targets),
        }
        rounded = {
            name: np.asarray(
                og.metrics.total_variation(og.predict(*network, x), self.workload.targets)
            )
            for name, x in saved.items()
        }
        return {
            "updates": len(self.curve),
            "curve": self.curve,
            "seconds_to": {f"{mark:g}": self.at(mark, "seconds") for mark in _MARKS},
            "l2_at": {f"{mark:g}": self.at(mark, "l2") for mark in _MARKS},
            "total_variation": self.distances().tolist(),
            "l2": self.changes().tolist(),
            "total_variation_8bit": {name: x.tolist() for name, x in rounded.items()},
        }

    def at(self, mark: float, key: str) -> float | None:
        """What the curve says where the median image comes within `mark`; None: not in this run."""
        return next((p[key] for p in self.curve if p["median"] <= mark), None)


def compare(workload: Workload, seconds: float) -> dict[str, Any]:
    """All solvers, each for so many seconds, the one that has used least next."""
    runners = {name: Runner(workload, solver) for name, solver in SOLVERS.items()}
    while min(r.seconds for r in runners.values()) < seconds:
        min(runners.values(), key=lambda runner: runner.seconds).advance()
    return {name: runner.summary() for name, runner in runners.items()}


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row per target and solver."""
    headings = (
        *("target", "solver", "updates", *(f"s to {mark:g}" for mark in _MARKS)),
        f"L2 at {_MARKS[0]:g}",
        *percentile_headings("TV", 50, 95),
        *("TV, nearest 8-bit", "TV, og.quantize", *percentile_headings("L2", 50)),
    )
    rows = []
    for target, solvers in results["targets"].items():
        for name, found in solvers.items():
            times = ("-" if s is None else f"{s:.1f}" for s in found["seconds_to"].values())
            size = found["l2_at"][f"{_MARKS[0]:g}"]
            distance, rounded = found["total_variation"], found["total_variation_8bit"]
            numbers = (
                *(np.median(distance), np.percentile(distance, 95)),
                *(np.median(rounded["nearest"]), np.median(rounded["quantize"])),
                np.median(found["l2"]),
            )
            cells = [label(target), label(name), str(found["updates"]), *times]
            cells += ["-" if size is None else f"{size:.2g}", *(f"{x:.2g}" for x in numbers)]
            rows.append(cells)
    return report.markdown_table(headings, rows)


def wanted(source: sources.ImageSource, num_classes: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every kind of target with its rows [N, K]."""
    for given in _TARGETS.value:
        text = given.replace(";", ",")
        if text == "dirichlet":
            count = len(source.ids)
            rows = og.targets.dirichlet(_SEED.value, count, num_classes, image_ids=source.ids)
            yield "Dirichlet(1)", rows
            continue
        rows = target_text.parse_full(
            text,
            class_names=source.class_names,
            labels=source.labels,
            image_ids=source.ids,
            seed=_SEED.value,
        )
        yield text, rows


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    names, network, source = loading.load_labelled(
        _CLASSIFIER.value, _DATASET.value, data_dir=_DATA_DIR.value, number=_NUMBER.value
    )
    kinds = dict(wanted(source, len(names)))
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    results: dict[str, Any] = {}
    for text, rows in kinds.items():
        results[text] = compare(Workload(*network, source.images, rows), _SECONDS.value)
        common_tables.write(run, {"targets": results}, table)
        report.save_figure(time_figure(results), run.directory / "exactness.png")
    print(table({"targets": results}))


if __name__ == "__main__":
    scripts.start(main)
