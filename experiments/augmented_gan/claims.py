"""Paper B's claims, tested over seeds: confirmed, refuted or undecided, in both readings of the score and by FID.

The verdicts rest on p-values that are corrected for their number (Holm). `results` is what results.json has:
subjects -> sets -> a list of seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

import outgen_jax as og
from experiments.augmented_gan.presets import CONTROL, DOUBLED, MIXED, SINGLE, parse

# Reading: score, and the sign that makes more of it better.
READINGS = {
    "lower score is better (paper B)": ("inception_score", -1),
    "higher score is better (the field)": ("inception_score", 1),
    "lower FID is better": ("fid", -1),
}
CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"
LEVEL = 0.05  # of corrected p-values


class Claim(NamedTuple):
    """`better` sets do better than `worse` ones, pair by pair."""

    text: str
    pairs: tuple[tuple[str, str], ...]  # better, worse


class Finding(NamedTuple):
    """What the seeds say of a claim."""

    claim: str
    subject: str
    reading: str
    verdict: str
    value: str  # what decided
    p_value: float
    p_corrected: float  # for the number of findings


class Evidence(NamedTuple):
    """What the seeds say of a claim that all of some differences are positive."""

    direction: int  # 1: all means are; -1: one is not
    p_value: float
    value: str  # the difference nearest to refuting the claim


CLAIMS = (
    Claim("inversion is the worst kind", tuple((k, "invert") for k in SINGLE if k != "invert")),
    Claim("left-right flips beat no augmentation", (("flip_left_right", CONTROL),)),
    Claim("generated images beat no augmentation", (("generated", CONTROL),)),
    *(
        Claim(f"{one}: twice as many beat as many", ((two, one),))
        for one, two in zip(MIXED, DOUBLED, strict=True)
    ),
)


def values(seeds: Sequence[Mapping[str, Any]], score: str) -> dict[int, float]:
    """The estimate of a score, by seed."""
    return {run["seed"]: run["scores"][score]["estimate"] for run in seeds}


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """The values of the seeds that both have."""
    common = sorted(a.keys() & b.keys())
    return np.array([a[s] for s in common]), np.array([b[s] for s in common])


def weigh(tests: Sequence[og.metrics.PairedTTest], value: str) -> Evidence:
    """The evidence for or against all differences being positive.

    For it, each must be: the largest p-value. Against it, one negative difference suffices: the smallest p-value,
    times the number of differences.
    """
    against = [test.p_value for test in tests if test.difference < 0]
    if against:
        return Evidence(-1, min(1.0, len(tests) * min(against)), value)
    return Evidence(1, max(test.p_value for test in tests), value)


def verdict(direction: int, p_corrected: float) -> str:
    """Confirmed, refuted or undecided, by the direction of the evidence and its p-value."""
    if p_corrected >= LEVEL:
        return UNDECIDED
    return CONFIRMED if direction > 0 else REFUTED


def examine(claim: Claim, sets: Mapping[str, Any], reading: str) -> Evidence | None:
    """What the seeds say of a claim; None if a set or a second seed is missing."""
    score, sign = READINGS[reading]
    tests = []
    for better, worse in claim.pairs:
        if better not in sets or worse not in sets:
            return None
        a, b = paired(values(sets[better], score), values(sets[worse], score))
        if len(a) < 2:
            return None
        tests.append((og.metrics.paired_t_test(sign * a, sign * b), (better, worse)))
    least, (better, worse) = min(tests)
    interval = _interval(least.low, least.high, sign)
    text = f"{better} − {worse}: {sign * least.difference:+.3g} ({interval})"
    return weigh([test for test, _ in tests], text)


def doubled(subjects: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """By reading: in how many cases, of how many, twice as many added images have the better mean."""
    found = {}
    for reading, (score, sign) in READINGS.items():
        pairs = [
            (values(sets[one], score), values(sets[two], score))
            for sets in (subject["sets"] for subject in subjects.values())
            for one, two in zip(MIXED, DOUBLED, strict=True)
            if one in sets and two in sets
        ]
        means = [[np.mean(list(v.values())) for v in pair] for pair in pairs]
        found[reading] = (sum(sign * (two - one) > 0 for one, two in means), len(pairs))
    return found


def _interval(low: float, high: float, sign: int) -> str:
    low, high = sorted((sign * low, sign * high))
    return f"{low:+.3g} to {high:+.3g}"


def similarity(subjects: Mapping[str, Any], score: str) -> Evidence | None:
    """Whether both subjects order the paper's sets alike, by Spearman's correlation for each seed."""
    first, second = (subjects[name]["sets"] for name in list(subjects)[:2])
    names = [n for n in (CONTROL, *SINGLE, *MIXED, *DOUBLED) if n in first and n in second]
    by_name = [[values(sets[name], score) for name in names] for sets in (first, second)]
    seeds = sorted(set.intersection(*(set(v) for group in by_name for v in group)) if names else ())
    if len(names) < 3 or len(seeds) < 2:
        return None
    scores = [[[v[seed] for v in group] for group in by_name] for seed in seeds]
    if any(len(set(group)) == 1 for pair in scores for group in pair):
        return None  # no ranks where all are alike
    found = [float(scipy.stats.spearmanr(*pair).statistic) for pair in scores]
    test = og.metrics.paired_t_test(found, np.zeros(len(found)))
    text = f"rank correlation of {len(names)} sets {test.difference:+.2f} ({test.low:+.2f} to {test.high:+.2f})"
    return weigh([test], text)


def findings(results: Mapping[str, Any]) -> list[Finding]:
    """The verdicts on all claims that the finished jobs can decide, corrected for their number."""
    found = list(_evidence(results["subjects"]))
    corrected = og.metrics.holm([evidence.p_value for *_, evidence in found])
    return [
        Finding(*about, verdict(e.direction, p), e.value, e.p_value, float(p))
        for (*about, e), p in zip(found, corrected, strict=True)
    ]


def _evidence(subjects: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Evidence]]:
    """Claim, subject, reading, and what the seeds say."""
    for claim in CLAIMS:
        for name, subject in subjects.items():
            for reading in READINGS:
                if found := examine(claim, subject["sets"], reading):
                    yield claim.text, name, reading, found
    if len(subjects) > 1:
        both = " and ".join(list(subjects)[:2])
        for score, reading in (("inception_score", "by the score"), ("fid", "by FID")):
            if found := similarity(subjects, score):
                yield "both subjects show the same pattern", both, reading, found


def fid_changes(sets: Mapping[str, Any]) -> dict[str, Any]:
    """For every scheme in front of the discriminator: relative change of FID against the control, with interval."""
    found = {}
    for scheme in sets if CONTROL in sets else ():
        if parse(scheme).scheme == "off":
            continue
        a, b = paired(values(sets[scheme], "fid"), values(sets[CONTROL], "fid"))
        if not len(a):
            continue
        change = a / b - 1
        interval = og.metrics.mean_interval(change)._asdict() if len(a) > 1 else None
        found[scheme] = {
            "by_seed": change.tolist(),
            "interval": interval and {k: float(v) for k, v in interval.items()},
        }
    return found
