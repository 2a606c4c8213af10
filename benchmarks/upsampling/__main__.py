"""Milliseconds of a DCGAN's resampling layers, in every form they could take.

Subject   Forward pass and both gradients, float32, outside of loops. Up, a map of h×w to 2h×2w: a 3×3
          convolution to four times the channels and a pixel shuffle (`outgen_jax.models.dcgan`'s); nearest
          neighbours, then a 3×3 convolution; a transposed 4×4 convolution of stride 2 by XLA. These have 36,
          9 and 16 weights for a pair of channels and compute different functions. Down: a 4×4 convolution of
          stride 2 by XLA (`dcgan`'s), and the same function by Winograd's 3×3 over blocks of 2×2 pixels.
Method    The forms in one process, all of them XLA's programs, taking turns; median of the rounds, with the
          fastest and the slowest.
Command   python -m benchmarks.upsampling
Duration  4 minutes on one CPU core shared with other work, 1 min 46 s of its time
Output    the table, and --out gets table.md and results.json with the raw numbers of every round.
"""

from collections.abc import Mapping

import tqdm
from absl import flags

from benchmarks.harness.alternation import Operations
from benchmarks.harness.machine import machine
from benchmarks.upsampling.sides import DOWN, UP, Form, layers, operations
from benchmarks.upsampling.table import table
from outgen_jax import files, runs, scripts
from outgen_jax.tools import common_flags

_BATCH = flags.DEFINE_integer("batch_size", 64, "Images.", 1)
_SIZE = flags.DEFINE_integer("size", 64, "Side of the images, a power of two from 16.", 16)
_WIDTH = flags.DEFINE_integer("width", 64, "Channels next to the image.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Turns of each form.", 1)
_OUT = common_flags.out("benchmarks/upsampling")
_OVERWRITE = common_flags.overwrite()


def measure(timed: Operations, forms: Mapping[str, Form], rounds: int) -> dict[str, list[float]]:
    """Seconds of each form, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name in forms:
            seconds[name].append(timed.seconds(name))
    return seconds


def main(argv: list[str]) -> None:
    del argv
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    up, down = layers(_SIZE.value, _WIDTH.value)
    cases = [(UP, layer) for layer in up] + [(DOWN, layer) for layer in down]
    raw = {}
    for forms, layer in tqdm.tqdm(cases, mininterval=1, leave=False):
        name = f"{'up' if forms is UP else 'down'} {layer.name}"
        raw[name] = measure(operations(forms, layer, _BATCH.value), forms, _ROUNDS.value)
    results = {**machine(), "seconds": raw}
    text = table(results)
    files.write_atomic(run.directory / "table.md", text)
    print(text)
    print(run.write_results(results))


if __name__ == "__main__":
    scripts.start(main)
