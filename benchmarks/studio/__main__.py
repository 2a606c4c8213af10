"""Seconds until the studio has reached a target of two classes, for every pair of classes.

Subject   `outgen_jax.studio.solving.solve` with the shipped CIFAR-10 classifier: 0.6 of one class and 0.4 of the other,
          from scikit-image's photographs at 32×32 in turn. A run is stopped once it is within the tolerance; the studio
          itself lets it go on to a smaller change.
Method    One run a pair and tolerance after one that compiles. Seconds by the clock, and seconds of processor time,
          which do not count what other programs take. The environment says how many cores there are.
Command   python -m benchmarks.studio
Duration  about a minute on two cores
Output    the table, and --out gets table.md and results.json with the numbers of every run.
"""

import itertools
from typing import Any

import tqdm
from absl import flags

from benchmarks.harness.machine import machine
from benchmarks.studio.measure import measure
from benchmarks.studio.table import table
from outgen_jax import files, runs, scripts
from outgen_jax.studio import networks
from outgen_jax.tools import common_flags

_NETWORK = flags.DEFINE_string("network", "cifar10_vgg16_half", "A name of pretrained.load.")
_TOLERANCES = flags.DEFINE_list("tolerances", ["0.01", "0.001"], "Distances to reach.")
_PAIRS = flags.DEFINE_integer("pairs", None, "Pairs of classes at most; by default all.", 1)
_OUT = common_flags.out("benchmarks/studio")
_OVERWRITE = common_flags.overwrite()


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    network = networks.load(_NETWORK.value)
    images = [start.image for start in networks.starts(network) if start.kind != "noise"]
    pairs = list(itertools.combinations(range(len(network.class_names)), 2))[: _PAIRS.value]
    measure(network, images[0], pairs[0], 1.0)  # compiles
    found: dict[str, list[dict[str, Any]]] = {}
    for tolerance in _TOLERANCES.value:
        turns = tqdm.tqdm(list(enumerate(pairs)), mininterval=1, leave=False)
        found[tolerance] = [
            measure(network, images[i % len(images)], pair, float(tolerance)) for i, pair in turns
        ]
    results = {**machine(), "runs": found}
    text = table(results)
    files.write_atomic(run.directory / "table.md", text)
    print(text)
    print(run.write_results(results))


if __name__ == "__main__":
    scripts.start(main)
