"""What `results.json` of a benchmark says of the machine, and of the other implementations."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from outgen_jax.devices import processors

_CPUINFO = Path("/proc/cpuinfo")
# How the names of the instructions that decide about the speed of products begin: of x86, then of ARM.
_INSTRUCTIONS = ("avx", "fma", "amx", "asimd", "sve", "bf16")


def machine(*peers: str) -> dict[str, Any]:
    """`threads`, `processor` and, if there are peers, the versions of these packages; None: not installed."""
    found: dict[str, Any] = {"threads": processors(), "processor": processor()}
    if peers:
        versions = {d.name: d.version for d in importlib.metadata.distributions()}
        found["peers"] = {name: versions.get(name) for name in peers}
    return found


def processor() -> dict[str, Any]:
    """The name of the processor, its family and model numbers, and its vector and matrix instructions.

    Virtual machines often hide the name; the numbers still tell which generation it is. What the system does not tell
    is None.
    """
    told: dict[str, str] = {}
    if _CPUINFO.exists():
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
        # Of the first core: the others are alike.
        for name, _, value in reversed([line.partition(":") for line in lines]):
            told[name.strip()] = value.strip()
    flags = told.get("flags", told.get("Features", "")).split()
    return {
        "name": told.get("model name") or platform.processor() or None,
        "family": told.get("cpu family"),
        "model": told.get("model"),
        "instructions": sorted(flag for flag in flags if flag.startswith(_INSTRUCTIONS)),
    }
