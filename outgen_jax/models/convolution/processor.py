"""What the processor of this machine multiplies fast."""

import functools
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # Intel and AMD, AMD and Intel, ARM


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16 with float32 sums.

    They are about twice as fast as float32's, or more; without them bfloat16 is slower. False where it is not known.

    >>> from outgen_jax.models.convolution import processor
    >>> isinstance(processor.multiplies_bfloat16(), bool)
    True
    """
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    named = [line.split(":", 1) for line in lines if ":" in line]
    flags = [value for name, value in named if name.strip() in ("flags", "Features")]
    return bool(flags) and bool(_BFLOAT16 & set(flags[0].split()))
