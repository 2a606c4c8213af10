"""In which arithmetic exact images are exact.

Purpose   Beyond paper A: images whose output is within 1e-5 of a target in float32, evaluated again by the same
          network in float64, in float32 by direct convolutions, and with products whose factors are rounded as TF32
          and bfloat16 round them (GPUs and TPUs use these unless told otherwise).
Command   python -m experiments.exactness.arithmetic --data_dir=... --out=experiments/exactness/results/arithmetic
Duration  about 5 minutes on 2 CPU cores
Output    --out gets results.json (per image) and table.md.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import tables as common_tables
from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import report, runs, scripts
from outgen_jax.data import sources
from outgen_jax.models import pretrained, vgg

_DATA_DIR = common_flags.data_dir()
_SPLIT = flags.DEFINE_string("split", "test[1000:]", "Split of CIFAR-10.")
_NUMBER = common_flags.number(100, of="split", at_least=2)
_OUT = common_flags.out("arithmetic")
_OVERWRITE = common_flags.overwrite()

# Bits of the mantissa that factors of a product keep; None: all.
ARITHMETICS = {
    "float64": None,
    "float32": None,
    "TF32 factors": 10,
    "bfloat16 factors": 7,
}
MARKS = (1e-5, 1e-4, 1e-3)


def logits_of(model: Any, images: jax.Array, mantissa_bits: int | None) -> jax.Array:
    """VGG16 in inference mode, written out with XLA's convolutions: [B, 32, 32, 3] -> [B, K].

    Both factors of every product keep `mantissa_bits`; sums stay in the images' type.
    """

    def rounded(x: jax.Array) -> jax.Array:
        if mantissa_bits is None:
            return x
        return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=mantissa_bits)

    def cast(variable: Any) -> jax.Array:
        return jnp.asarray(variable[...], images.dtype)

    shift, scale = (jnp.asarray(x, images.dtype) for x in (vgg.MEAN, vgg.STD))
    x = (images - shift) / scale
    for block in model.blocks:
        for layer in block:
            x = jax.lax.conv_general_dilated(
                rounded(x),
                rounded(cast(layer.kernel)),
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            norm = layer.norm
            spread = jnp.sqrt(cast(norm.var) + norm.epsilon)
            x = (x - cast(norm.mean)) / spread * cast(norm.scale) + cast(norm.bias)
            x = jax.nn.relu(x)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    features = x.mean((1, 2))
    return rounded(features) @ rounded(cast(model.head.kernel)) + cast(model.head.bias)


def distances(model: Any, images: np.ndarray, targets: np.ndarray, name: str) -> np.ndarray:
    """Total variation [N] in an arithmetic; the softmax is float64's throughout."""
    with jax.enable_x64(True):
        dtype = np.float64 if name == "float64" else np.float32
        judge = nnx.jit(lambda model, x: logits_of(model, x, ARITHMETICS[name]))
        logits = np.asarray(judge(model, jnp.asarray(images, dtype)), np.float64)
        probs = np.exp(logits - logits.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
    return np.abs(probs - targets).sum(-1) / 2


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row per kind of target and arithmetic."""
    headings = ("target", "evaluated in", *(f"within {m:g}" for m in MARKS))
    rows = []
    for kind, found in results["per_image"].items():
        for name, values in found.items():
            shares = (f"{np.mean(np.array(values) <= 1.001 * mark):.0%}" for mark in MARKS)
            rows.append([kind, name, *shares, *percentiles(values, 50, 99)])
    return report.markdown_table((*headings, *percentile_headings("TV", 50, 99)), rows)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    classifier = pretrained.load("cifar10_vgg16_half")
    source = sources.load(
        "cifar10", split=_SPLIT.value, data_dir=_DATA_DIR.value, limit=_NUMBER.value
    )
    network, count = og.models.from_nnx(classifier.model), len(source.ids)
    kinds = {
        "0.9 / 0.1": og.targets.parse(
            "true=0.9,random=0.1", class_names=classifier.class_names, source=source
        ),
        "Dirichlet(1)": og.targets.dirichlet(0, count, 10, image_ids=source.ids),
    }
    out = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    classifier.model.eval()
    found: dict[str, Any] = {}
    for kind, targets in kinds.items():
        images = og.synthesize(*network, source.images, targets, progress=True).images
        found[kind] = {
            name: distances(classifier.model, images, targets, name).tolist()
            for name in ARITHMETICS
        }
    results = {"flags": out.flags, "per_image": found}
    common_tables.write(out, results, table)
    print(table(results))


if __name__ == "__main__":
    scripts.start(main)
