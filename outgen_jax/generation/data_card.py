"""The README of a generated data set: what its manifest says, in words, and how near its images are."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from outgen_jax.markdown import markdown_table

# Distances whose images are counted.
LEVELS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)

_ENTRIES = {
    "id": "that of the source",
    "image": "the changed image, uint8",
    "image_float": "the same before rounding to 8 bits, float32 in [0, 1]",
    "label": "that of the source, -1 where it has none; it does not describe the changed image",
    "target": "what the network was to say of the image; NaN where an entry was free",
    "probs": "the probabilities that the network gives for `image`",
    "outputs": "what the network says of `image`",
    "total_variation": "between `probs` and the target",
    "distance": "between `outputs` and the target, the largest over all parts",
    "steps": "of the solver",
    "converged": "whether the solver met its tolerance, before rounding to 8 bits",
}


def within(distances: np.ndarray) -> list[int]:
    """How many distances [n] are at most each of `LEVELS`.

    >>> within(np.array([2e-6, 0.05, np.nan]))
    [1, 1, 1, 1, 2, 2]
    """
    return [int((distances <= level).sum()) for level in LEVELS]


def total_within(counts: Iterable[Sequence[int]]) -> dict[float, int]:
    """The sum over shards of `within`, by level.

    >>> total_within([within(np.array([2e-6])), within(np.array([0.05]))])[0.01]
    1
    """
    sums = (sum(column) for column in zip(*counts, strict=True))
    return dict(zip(LEVELS, sums, strict=True))


def data_card(
    manifest: Mapping[str, Any], entries: Iterable[str], counts: Sequence[Sequence[int]]
) -> str:
    """The card as Markdown.

    Args:
      manifest: of the finished data set; `made_from["about"]` may hold `source` and `license`.
      entries: of an example.
      counts: `within` of the stored images of each shard.
    """
    about = manifest["made_from"]["about"]
    license_ = about.get("license")
    # What is JSON is YAML too, whatever signs it has.
    header = json.dumps("other" if license_ is None else license_, ensure_ascii=False)
    sections = [
        f"---\nlicense: {header}\n---\n",
        "# Images changed until a network says what was asked\n",
        "Made by `outgen_jax.generate_dataset`, which wrote this page from `manifest.json`.\n",
        markdown_table(("", ""), _facts(manifest)),
        "## Distances of the stored images\n",
        "Between the network's output for the 8-bit image and the target.\n",
        markdown_table(("distance at most", "images", "share"), _distances(manifest, counts)),
        "## Entries of an example\n",
        markdown_table(("entry", "what it is"), _described(entries)),
        "## Licence\n",
        _licence(license_),
    ]
    return "\n".join(sections)


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    made, counts = manifest["made_from"], manifest["counts"]
    names = made["class_names"]
    source = made["about"].get("source", "not stated; give `about={'source': ...}`")
    rounding = (
        "with `og.quantize`, for the target" if made["quantize"] else "to the nearest grey level"
    )
    return [
        ("images", str(counts["examples"])),
        ("converged before rounding", str(counts["converged"])),
        ("size", " x ".join(map(str, made["shape"])) + " (height x width x channels)"),
        ("source", _cell(source)),
        ("classes of the source", "not stated" if names is None else _cell(", ".join(names))),
        ("outputs of the network", ", ".join(map(str, made["outputs"]))),
        ("their kind", ", ".join(made["kinds"])),
        ("network's variables, SHA-256", f"`{made['classifier']}`"),
        ("solver", f"{made['solver']['name']}, at most {made['steps']} steps"),
        ("limits on the change", _limits(made.get("limits"))),
        ("tolerance", "none" if made["tolerance"] is None else f"{made['tolerance']:g}"),
        ("rounding", rounding),
        ("outgen_jax", str(manifest["versions"]["outgen_jax"])),
        ("jax", str(manifest["versions"]["jax"])),
    ]


def _limits(limits: Mapping[str, Any] | None) -> str:
    if limits is None:
        return "none"
    mask, most, radius = (limits[key] for key in ("mask", "max_change", "lowpass_radius"))
    found = []
    if mask is not None:
        found.append(f"a mask, {mask['free']} of {math.prod(mask['shape'])} entries free")
    if most is not None:
        found.append(f"at most {most:g} a pixel, of [0, 1]")
    if radius is not None:
        found.append(f"frequencies up to about {radius:g} cycles per image side")
    return "; ".join(found)


def _distances(
    manifest: Mapping[str, Any], counts: Sequence[Sequence[int]]
) -> list[tuple[str, str, str]]:
    total = manifest["counts"]["examples"]
    return [
        (f"{level:g}", str(count), f"{count / total:.1%}")
        for level, count in total_within(counts).items()
    ]


def _described(entries: Iterable[str]) -> list[tuple[str, str]]:
    rows = []
    for entry in entries:
        known = [name for name in _ENTRIES if entry == name or entry.startswith(f"{name}_")]
        name = max(known, key=len)
        part = f" (part `{entry.removeprefix(name)[1:]}`)" if entry != name else ""
        rows.append((f"`{entry}`", _ENTRIES[name] + part))
    return rows


def _licence(license_: Any) -> str:
    changed = "The images are changed copies of the source's, whose licence holds for them"
    if license_ is None:
        return f"{changed}. It is not stated: give `about={{'license': ...}}`.\n"
    return f"{changed}: {license_}.\n"


def _cell(text: Any) -> str:
    return str(text).replace("\n", " ").replace("|", "/")
