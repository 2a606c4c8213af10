"""The roofline model (Williams, Waterman and Patterson, 2009): what a program can reach on a device.

A program of F operations that moves Q bytes takes at least max(F / peak, Q / bandwidth) seconds.
"""


def intensity(flops: float, num_bytes: float) -> float:
    """Operations for each byte that is moved: F / Q."""
    return flops / num_bytes


def attainable(flops: float, num_bytes: float, *, peak: float, bandwidth: float) -> float:
    """Operations a second that the device allows: min(peak, bandwidth · F / Q).

    Args:
      flops: F.
      num_bytes: Q, read and written.
      peak: operations a second.
      bandwidth: bytes a second.

    >>> attainable(200, 100, peak=1000, bandwidth=50)
    100.0
    """
    return min(peak, bandwidth * intensity(flops, num_bytes))


def share(
    seconds: float, flops: float, num_bytes: float, *, peak: float, bandwidth: float
) -> float:
    """What a program that takes `seconds` reaches of that, in [0, 1] if both peaks are true ones."""
    return flops / seconds / attainable(flops, num_bytes, peak=peak, bandwidth=bandwidth)
