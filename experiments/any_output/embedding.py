"""Embeddings at will: an image with the features of another.

Purpose   EfficientNet-Lite0's 1,280 pooled features, `og.outputs.values()`: every image gets those of the image before
          it in the source, by one plain call of `og.synthesize`.
Command   python -m experiments.any_output.embedding --source=IMAGES --out=experiments/any_output/results/embedding
Expected  A relative error of at most 1e-2, better 1e-3. Measured: README.md.
Output    --out gets results.json (per image), table.md and embedding.png. The same command resumes.

Without --source it takes the photographs that scikit-image carries. The relative error is ‖f − g‖/‖g‖.
"""

import functools
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import nnx

import outgen_jax as og
from experiments.any_output import measures
from experiments.common import flags as common_flags
from outgen_jax import runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained
from outgen_jax.networks import ApplyFn

_SOURCE = common_flags.photographs()
_DATA_DIR = common_flags.data_dir()
_NETWORK = flags.DEFINE_enum(
    "network", "efficientnet_lite0", [*pretrained.IMAGENET, "mnist_lenet"], "Whose features."
)
_NUMBER = common_flags.number(20, of="source", at_least=2)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-3, "Relative error.", 1e-9)
_BATCH = common_flags.images_at_a_time()
_OUT = common_flags.out("embedding")
_OVERWRITE = common_flags.overwrite()

WITHIN = 1e-2  # relative error that the table counts
TASK = "another image's features"


def features_of(model: Any) -> tuple[ApplyFn, nnx.State]:
    """`apply_fn` and variables of a network's penultimate features [B, M]."""
    graphdef, variables = nnx.split(model)

    def apply_fn(variables: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, variables).features(images)[1]

    return apply_fn, variables


def relative_error(said: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """‖f − g‖/‖g‖ of each row: [N, M], [N, M] -> [N]."""
    return np.linalg.norm(said - targets, axis=1) / np.linalg.norm(targets, axis=1)


def table(results: dict[str, Any]) -> str:
    """Markdown tables of `results`, as results.json has them: exactness, and its price."""
    return "\n".join(measures.tables(results["tasks"], name="relative error", within=WITHIN))


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    loaded = pretrained.load(_NETWORK.value)
    side = loaded.image_size
    source = sources.load(
        _SOURCE.value, data_dir=_DATA_DIR.value, size=(side, side), limit=_NUMBER.value
    )
    network = features_of(loaded.model)
    features = og.predict(
        *network, source.images, output=og.outputs.values(), batch_size=_BATCH.value
    )
    # In this unit, the root mean square of the smallest features, no relative error is above the engine's distance.
    norms = np.linalg.norm(features, axis=1)
    output = og.outputs.values(scale=float(norms.min() / np.sqrt(features.shape[1])))
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    study = measures.Study(run, table, "tasks")
    targets = np.roll(features, 1, axis=0)
    case = measures.Case(
        *(*network, output, source.images, targets, relative_error, _BATCH.value),
        quantizes=False,
    )
    ours = functools.partial(measures.synthesized, case, tolerance=_TOLERANCE.value)
    study.keep("tasks", TASK, measures.OURS, ours)
    study.finish(source.images, "embedding.png")


if __name__ == "__main__":
    scripts.start(main)
