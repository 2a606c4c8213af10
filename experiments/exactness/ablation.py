r"""What each part of the exact solver buys: all of it, and then without one part at a time.

Purpose   Beyond paper A: share of images within the tolerance, Jacobians, L2 of the change and time, for
          `og.smallest_change` and `og.gauss_newton` with single parts turned off, and for the passes of `og.exact` on
          the images that `og.smallest_change` leaves.
Command   python -m experiments.exactness.ablation --data_dir=... --out=experiments/exactness/results/ablation
          MNIST: --dataset=mnist --classifier=mnist_lenet
Expected  Without a part that is worth its place, fewer images are within the tolerance, or they need more Jacobians or
          larger changes. Measured: README.md.
Duration  hours on one CPU core; MNIST half an hour without the passes of `og.exact`
Output    --out gets results.json (per image), table.md. The same command resumes.

By default images are of the training split: settings are chosen by these tables, and no image that results are reported
on should take part. `--split=test[:1000]` has images that the classifier was not fitted to. Seconds are those of the
processor, without compilation.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import jobs, loading
from experiments.common import tables as common_tables
from experiments.exactness.ablation_table import REFERENCE, table
from outgen_jax import runs, scripts
from outgen_jax.models import pretrained
from outgen_jax.solvers.convex_loss import ExcessPenalty
from outgen_jax.solvers.exact import Exact
from outgen_jax.solvers.gauss_newton import GaussNewton
from outgen_jax.solvers.momentum import Momentum
from outgen_jax.solvers.penalty import PenaltySchedule
from outgen_jax.solvers.smallest_change import SmallestChange
from outgen_jax.solvers.trust import TrustRule

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_SPLIT = flags.DEFINE_string("split", "train[30000:]", "Split, of the training images.")
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = common_flags.number(200, of="split", at_least=2)
_TOLERANCES = flags.DEFINE_list("tolerances", ["0.00001", "0.001"], "Total variations.")
_ONLY = flags.DEFINE_list("only", [], "Variants to run, as solver/variant; by default all.")
_BATCH = flags.DEFINE_integer("batch_size", 4, "Images at a time.", 1)
_SEED = common_flags.seed("the random classes")
_OUT = common_flags.out("ablation")
_OVERWRITE = common_flags.overwrite()

KINDS = {"0.9 / 0.1": "true=0.9,random=0.1", "Dirichlet(1)": None, "one-hot": "random=1"}
# Trust that never falls below the first: the damping is left at its least.
_ALWAYS = TrustRule(good=-np.inf, poor=-np.inf, growth=1000.0)
_SMALLEST: Mapping[str, Any] = {
    REFERENCE: SmallestChange(),
    "no second trial with the corrected J": SmallestChange(correction=False),
    "no penalty on zeros": SmallestChange(excess=ExcessPenalty(weight=0.0)),
    "no limit on the weight of zeros": SmallestChange(excess=ExcessPenalty(most_distance=np.inf)),
    "J as computed for all trials": SmallestChange(correction=False, secant=False),
    "one trial for each J": SmallestChange(trials=1),
    "three trials for each J": SmallestChange(trials=3),
    "measured from the iterate (Gauss-Newton)": GaussNewton(steps=30),
    "trust of Gauss-Newton": SmallestChange(trust=TrustRule()),
    "no damping": SmallestChange(trust=_ALWAYS),
    "ends at the tolerance": SmallestChange(patience=0),
    "c stays once the tolerance is met": SmallestChange(
        penalty=PenaltySchedule(later_growth=1.0, shrinkage=1.0)
    ),
    "c grows by at most 3": SmallestChange(penalty=PenaltySchedule(growth=3.0)),
    "c from 10": SmallestChange(penalty=PenaltySchedule(first=10.0)),
    "no active set": SmallestChange(rounds=1),
    "one Newton step on the multipliers": SmallestChange(newton_steps=1),
}
_NEWTON: Mapping[str, Any] = {
    REFERENCE: GaussNewton(),
    "no ratio term": GaussNewton(first_weight=0.0),
    "ratio term without decay": GaussNewton(weight_decay=1.0),
    "ratio term from the start": GaussNewton(near=np.inf),
    "no memory of J": GaussNewton(memory=0.0),
    "no momentum": GaussNewton(momentum=0.0),
    "no return to the source": GaussNewton(return_share=0.0),
    "neither limit on the step nor return": GaussNewton(stride=None),
    "one trial for each J": GaussNewton(trials=1),
}
_FIRST = Exact().newton.steps
_EXACT: Mapping[str, Any] = {
    REFERENCE: Exact(),
    "no momentum between passes": Exact(momentum=None),
    "no ratio term": Exact(newton=GaussNewton(steps=_FIRST, first_weight=0.0)),
    "no memory of J": Exact(newton=GaussNewton(steps=_FIRST, memory=0.0)),
    "no momentum": Exact(newton=GaussNewton(steps=_FIRST, momentum=0.0)),
    "no return to the source": Exact(newton=GaussNewton(steps=_FIRST, return_share=0.0)),
    "a first pass of 48 Jacobians": Exact(newton=GaussNewton(steps=48)),
    "128 momentum steps between passes": Exact(momentum=Momentum(steps=128)),
    "never gives up": Exact(patience=None),
    "gives up after one pass without progress": Exact(patience=1),
    "one pass": Exact(restarts=0),
    "two passes": Exact(restarts=1),
    "three passes": Exact(restarts=2),
}
SOLVERS = {"smallest_change": _SMALLEST, "gauss_newton": _NEWTON, "exact": _EXACT}
# Gauss-Newton takes the same floor as in `og.exact`: this share of the tolerance.
_FLOOR = 0.1
# Images of a first call that compiles the programs.
_FEW = 6


def solve(
    solver: Any, network: tuple[Any, Any], images: np.ndarray, targets: np.ndarray, tolerance: float
) -> dict[str, np.ndarray]:
    """The numbers of one solver, per image, and its processor seconds without compilation."""
    if isinstance(solver, GaussNewton):
        solver = dataclasses.replace(solver, floor=_FLOOR * tolerance)
    options = {"solver": solver, "tolerance": tolerance, "batch_size": _BATCH.value}
    og.synthesize(*network, images[:_FEW], targets[:_FEW], **options)
    start = time.process_time()
    result = og.synthesize(*network, images, targets, progress=True, **options)
    return {
        "within": result.converged,
        "l2": np.asarray(og.metrics.l2_change(result.images, images)),
        "steps": result.steps,
        "seconds": np.array(time.process_time() - start),
    }


def targets_of(kind: str, start: loading.Start) -> np.ndarray:
    """The targets [N, K] of a kind."""
    source, text = start.source, KINDS[kind]
    if text is None:
        count, classes = len(source.images), len(start.class_names)
        return og.targets.dirichlet(_SEED.value, count, classes, image_ids=source.ids)
    return og.targets.parse(
        text,
        class_names=source.class_names,
        labels=source.labels,
        image_ids=source.ids,
        seed=_SEED.value,
    )


class Cell(NamedTuple):
    """One variant of a solver for one kind of target and tolerance."""

    solver: str
    variant: str
    kind: str
    tolerance: str

    @property
    def job(self) -> str:
        """As --only names it."""
        return f"{self.solver}/{self.variant}"

    @property
    def file(self) -> str:
        """Where its numbers are kept."""
        variant = list(SOLVERS[self.solver]).index(self.variant)
        return f"{self.solver}-{list(KINDS).index(self.kind)}-{self.tolerance}-{variant}.npz"


def cells(tolerances: Sequence[str]) -> Iterator[Cell]:
    """All cells, in the order in which they are run."""
    for solver, variants in SOLVERS.items():
        for tolerance, kind, variant in itertools.product(tolerances, KINDS, variants):
            yield Cell(solver, variant, kind, tolerance)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    names = list(dict.fromkeys(cell.job for cell in cells(_TOLERANCES.value)))
    wanted = set(jobs.selected(names, _ONLY.value))
    wanted |= {f"{name.split('/')[0]}/{REFERENCE}" for name in wanted}
    start = loading.load_labelled(
        _CLASSIFIER.value,
        _DATASET.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
        resized=True,
    )
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    found: dict[str, Any] = {}

    def numbers(cell: Cell, chosen: np.ndarray) -> dict[str, np.ndarray]:
        images, targets = start.source.images[chosen], targets_of(cell.kind, start)[chosen]
        variant = SOLVERS[cell.solver][cell.variant]
        compute = functools.partial(
            solve, variant, start.network, images, targets, float(cell.tolerance)
        )
        return runs.kept(run.directory / "cache" / cell.file, compute)

    everyone = np.ones(len(start.source.images), bool)
    for cell in cells(_TOLERANCES.value):
        if cell.job not in wanted and not (run.directory / "cache" / cell.file).exists():
            continue
        chosen = everyone
        if cell.solver == "exact":
            reference = cell._replace(solver="smallest_change", variant=REFERENCE)
            chosen = ~numbers(reference, everyone)["within"].astype(bool)
        if chosen.any():
            print(*cell, sep=", ", flush=True)
            outcome = {key: array.tolist() for key, array in numbers(cell, chosen).items()}
            of_kind = found.setdefault(cell.solver, {}).setdefault(cell.kind, {})
            of_kind.setdefault(cell.tolerance, {})[cell.variant] = outcome
            common_tables.write(run, {"found": found}, table)
    print(table({"found": found}))


if __name__ == "__main__":
    scripts.start(main)
