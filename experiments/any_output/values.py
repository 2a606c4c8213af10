"""Numbers at will: the outputs of a regression, prescribed.

Purpose   A network that reads four numbers off a digit, `og.outputs.values()`: its angle, the thickness of its strokes,
          its row and its column, all standardised. One plain call of `og.synthesize` for each kind of target, next to
          first-order attacks on the same loss for the same time.
Command   python -m experiments.any_output.values --network=runs/numbers/weights.npz --data_dir=...
              --out=experiments/any_output/results/values
Expected  The largest error of a number at most 1e-4 standard deviations for 99 % of the images. Measured: README.md.
Output    --out gets results.json (per image), table.md and values.png.

`train` trains the network. The same command resumes: every finished task is kept.
"""

import functools
from typing import Any

import numpy as np
from absl import flags

import outgen_jax as og
from experiments.any_output import digits, measures, networks, peers
from experiments.common import flags as common_flags
from outgen_jax import runs, scripts
from outgen_jax.data import sources

_NETWORK = flags.DEFINE_string("network", "runs/numbers/weights.npz", "What `train` wrote.")
_DATASET = common_flags.labelled_dataset("mnist")
_DATA_DIR = common_flags.data_dir()
_SPLIT = flags.DEFINE_string("split", "test", "Split of the digits.")
_NUMBER = flags.DEFINE_integer("number", 100, "Images.", 2)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-4, "Largest error, standard deviations.", 1e-9)
_BATCH = common_flags.images_at_a_time()
_SEED = common_flags.seed("poses and targets", default=100)
_OUT = common_flags.out("values")
_OVERWRITE = common_flags.overwrite()

TASKS = ("another digit's numbers", "random numbers", "another angle alone")
_WIDEST = 2.0  # standard deviations, of the random numbers


def largest_error(said: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Of a number, in standard deviations: [N, M], [N, M] -> [N]."""
    return np.abs(said - targets).max(1)


def wanted(task: str, true: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Targets [N, M] of a task, from the true numbers of the images and what the network says of them."""
    rng = np.random.default_rng([_SEED.value, TASKS.index(task)])
    if task == "another digit's numbers":
        return np.roll(true, 1, axis=0)
    if task == "random numbers":
        return rng.uniform(-_WIDEST, _WIDEST, true.shape).astype(np.float32)
    changed = before.copy()  # the other numbers stay as the network reads them
    angle = digits.NUMBERS.index("angle")
    changed[:, angle] = np.roll(true[:, angle], 1)
    return changed


def table(results: dict[str, Any]) -> str:
    """Markdown tables of `results`, as results.json has them: exactness, and its price."""
    within = results["flags"]["tolerance"]
    return "\n".join(measures.tables(results["tasks"], name="error", within=within))


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    network = networks.load(_NETWORK.value)
    if network.card["kind"] != "numbers":
        raise ValueError(f"--network={_NETWORK.value} must have numbers; it has labels")
    source = sources.load(_DATASET.value, split=_SPLIT.value, data_dir=_DATA_DIR.value)
    images, true = networks.drawn("numbers", source, _NUMBER.value, seed=_SEED.value)
    true = ((true - network.card["mean"]) / network.card["std"]).astype(np.float32)
    before = og.predict(network.apply_fn, network.variables, images, output=network.output)
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    study = measures.Study(run, table, "tasks")
    # The engine's distance is the root mean square over the numbers; none is then off by more than --tolerance.
    tolerance = _TOLERANCE.value / np.sqrt(true.shape[1])
    for task in TASKS:
        targets = wanted(task, true, before)
        case = measures.Case(*network[:3], images, targets, largest_error, _BATCH.value)
        ours = functools.partial(measures.synthesized, case, tolerance=tolerance)
        seconds = study.keep("tasks", task, measures.OURS, ours)
        for name, descent in peers.DESCENTS.items():
            theirs = functools.partial(measures.descended, case, descent, seconds=seconds)
            study.keep("tasks", task, name, theirs)
    study.finish(images, "values.png")


if __name__ == "__main__":
    scripts.start(main)
