r"""How large a change a tolerance costs: the plain call, Gauss-Newton, and a first-order search.

Purpose   Beyond paper A: L2 of the change against the total variation that is allowed, on the same images.
Command   python -m experiments.exactness.change_by_tolerance --data_dir=... --out=runs/change_by_tolerance
Expected  The plain call makes smaller changes than Gauss-Newton, about as small as the search at a tolerance of 0.01;
          smaller tolerances, the search does not reach. Measured: README.md.
Duration  about an hour and a half on one CPU core
Output    --out gets results.json (per image), table.md. The same command resumes.

The search is in the manner of Carlini and Wagner (2017): Adam on weights w with x = (tanh w + 1)/2 descends

    KL(q || softmax(z(x))) + 1/(2c) |x - x_0|^2

for several c, which are bisected for each image between too small (outside the tolerance) and large enough. It is slow,
so it runs on the first --search_number images only.
"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import loading
from experiments.common import tables as common_tables
from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import losses, pixels, report, runs, scripts
from outgen_jax.models import pretrained

_DATASET = common_flags.labelled_dataset("cifar10")
_DATA_DIR = common_flags.data_dir()
_SPLIT = common_flags.unchosen_split()
_CLASSIFIER = common_flags.classifier(pretrained.SHIPPED[0])
_NUMBER = common_flags.number(100, of="split", at_least=2)
_TOLERANCES = flags.DEFINE_list("tolerances", ["0.01", "0.001", "0.00001"], "Total variations.")
_SEARCH_NUMBER = flags.DEFINE_integer("search_number", 12, "Images of the search; 0: none.", 0)
_SEARCH_UPDATES = flags.DEFINE_integer("search_updates", 400, "Updates for each c.", 1)
_SEED = common_flags.seed("the random classes")
_OUT = common_flags.out("change_by_tolerance")
_OVERWRITE = common_flags.overwrite()

KINDS = {
    "0.9 / 0.1": "true=0.9,random=0.1",
    "0.5 / 0.5": "true=0.5,random=0.5",
    "Dirichlet(1)": None,
}
SEARCH = "search"
# The search: values of c, the first of them, and Adam's rate.
_ROUNDS = 7
_FIRST_C = 1.0
_RATE = 0.01


def gauss_newton(tolerance: float) -> Any:
    """Gauss-Newton with restarts, which heeds the change only while the target is far."""
    once = og.gauss_newton(steps=48, floor=0.1 * tolerance)
    return og.restarted(og.restarted(once, times=2), times=2, from_source=True)


METHODS = {"plain call": lambda tolerance: None, "Gauss-Newton": gauss_newton, SEARCH: None}


def search(
    network: tuple[Any, Any], images: np.ndarray, targets: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest changes that descent finds: images [B, H, W, C], and which of them are within the tolerance [B]."""
    apply_fn, variables = network
    source, wanted = jnp.asarray(images, jnp.float32), jnp.asarray(targets, jnp.float32)
    pixel_map, adam = (
        pixels.tanh(),
        optax.adam(optax.cosine_decay_schedule(_RATE, _SEARCH_UPDATES.value)),
    )

    @jax.jit
    def step(variables: Any, weights: jax.Array, state: Any, best: Any, c: jax.Array) -> Any:
        def total(weights: jax.Array) -> tuple[jax.Array, Any]:
            shown = pixel_map.to_pixels(weights)
            logits = apply_fn(variables, shown)
            change = ((shown - source) ** 2).sum((1, 2, 3))
            each = jax.vmap(losses.kl_divergence)(logits, wanted) + change / (2 * c)
            # Divided by 1 + 1/c, so that one rate suits every c.
            return (each / (1 + 1 / c)).sum(), (shown, logits, change)

        gradient, (shown, logits, change) = jax.grad(total, has_aux=True)(weights)
        distance = og.metrics.total_variation(jax.nn.softmax(logits), wanted)
        better = (distance <= tolerance) & (change < best[1])
        best = (
            jnp.where(better[:, None, None, None], shown, best[0]),
            jnp.where(better, change, best[1]),
        )
        update, state = adam.update(gradient, state, weights)
        return optax.apply_updates(weights, update), state, best, (distance <= tolerance)

    best = (source, jnp.full(len(source), jnp.inf))
    low, high = np.zeros(len(source)), np.full(len(source), np.inf)
    c = np.full(len(source), _FIRST_C)
    for _ in range(_ROUNDS):
        weights = pixel_map.to_weights(source)
        state = adam.init(weights)
        succeeded = np.zeros(len(source), bool)
        for _ in range(_SEARCH_UPDATES.value):
            weights, state, best, within = step(variables, weights, state, best, jnp.float32(c))
            succeeded |= np.asarray(within)
        low, high = np.where(succeeded, low, c), np.where(succeeded, c, high)
        c = np.where(np.isinf(high), 10 * c, np.sqrt(np.maximum(low, high / 100) * high))
    return np.asarray(best[0]), np.isfinite(np.asarray(best[1]))


def run_one(
    method: str, tolerance: float, network: tuple[Any, Any], images: np.ndarray, targets: np.ndarray
) -> dict[str, np.ndarray]:
    """The numbers of one method, per image."""
    start = time.perf_counter()
    if method == SEARCH:
        images, targets = images[: _SEARCH_NUMBER.value], targets[: _SEARCH_NUMBER.value]
        found, within = search(network, images / np.float32(255), targets, tolerance)
        steps = np.full(len(images), _ROUNDS * _SEARCH_UPDATES.value)
    else:
        solver = METHODS[method](tolerance)
        ended = og.synthesize(
            *network, images, targets, solver=solver, tolerance=tolerance, progress=True
        )
        found, within, steps = ended.images, ended.converged, ended.steps
    seconds = time.perf_counter() - start
    l2 = np.asarray(og.metrics.l2_change(found, images))
    return {"within": within, "l2": l2, "steps": steps, "seconds": np.array(seconds)}


def times_the_searchs(numbers: dict[str, Any], of_search: dict[str, Any]) -> tuple[str, str]:
    """L2 over that of the search, for the images that both bring within the tolerance: median and maximum."""
    count = len(of_search["l2"])
    both = np.array(numbers["within"][:count]) & np.array(of_search["within"])
    times = np.array(numbers["l2"][:count])[both] / np.array(of_search["l2"])[both]
    return (f"{np.median(times):.2f}", f"{times.max():.2f}") if len(times) else ("-", "-")


def table(results: dict[str, Any]) -> str:
    """Two Markdown tables of `results`, as results.json has them: all images, and those of the search."""
    everyone, few = [], []
    for kind, by_tolerance in results["found"].items():
        for tolerance, methods in by_tolerance.items():
            for method, numbers in methods.items():
                within, l2 = np.array(numbers["within"]), np.array(numbers["l2"])
                if method != SEARCH:
                    everyone.append(
                        [
                            *(kind, f"{float(tolerance):g}", method, f"{within.mean():.1%}"),
                            *percentiles(l2[within], 50, 95, 100),
                            f"{np.median(numbers['steps']):.0f}",
                            f"{numbers['seconds'] / len(l2):.2f}",
                        ]
                    )
                if SEARCH in methods:
                    first = slice(len(methods[SEARCH]["l2"]))
                    reached = l2[first][within[first]]
                    few.append(
                        [
                            *(
                                kind,
                                f"{float(tolerance):g}",
                                method,
                                f"{len(reached)} of {first.stop}",
                            ),
                            *percentiles(reached, 50, 100),
                            *times_the_searchs(numbers, methods[SEARCH]),
                        ]
                    )
    headings = ("target", "tolerance", "method", "within")
    sizes = percentile_headings("L2", 50, 95, 100)
    tables = [report.markdown_table((*headings, *sizes, "steps, median", "s per image"), everyone)]
    if few:
        sizes = (*percentile_headings("L2", 50, 100), "times the search's, median", "max")
        tables.append(report.markdown_table((*headings, *sizes), few))
    return "\n".join(tables)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    names, network, source = loading.load_labelled(
        _CLASSIFIER.value,
        _DATASET.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
        resized=True,
    )
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    results: dict[str, Any] = {}
    for kind, text in KINDS.items():
        targets = (
            og.targets.dirichlet(_SEED.value, len(source.images), len(names), image_ids=source.ids)
            if text is None
            else og.targets.parse(
                text,
                class_names=source.class_names,
                labels=source.labels,
                image_ids=source.ids,
                seed=_SEED.value,
            )
        )
        results[kind] = {}
        for tolerance in _TOLERANCES.value:
            results[kind][tolerance] = {}
            for method in METHODS:
                if method == SEARCH and not _SEARCH_NUMBER.value:
                    continue
                print(f"{kind}, {tolerance}: {method}")
                name = f"{list(KINDS).index(kind)}-{tolerance}-{list(METHODS).index(method)}.npz"
                arguments = (method, float(tolerance), network, source.images, targets)
                found = runs.kept(
                    run.directory / "cache" / name, functools.partial(run_one, *arguments)
                )
                results[kind][tolerance][method] = {k: v.tolist() for k, v in found.items()}
                common_tables.write(run, {"found": results}, table)
    print(table({"found": results}))


if __name__ == "__main__":
    scripts.start(main)
