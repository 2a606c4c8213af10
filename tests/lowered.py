"""Programs as text for GPU and TPU, from a machine that has neither; what no such text may hold."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import jax

PLATFORMS = ("cuda", "tpu")
_FORBIDDEN = {
    "a call of the host": r"callback|stablehlo\.(send|recv|infeed|outfeed)",
    "an array of float64": r"xf64>",
    "a dynamic shape": r"tensor<[^>]*\?",
}


class Convolution(NamedTuple):
    """Shapes of one of XLA's."""

    operands: tuple[list[int], list[int]]
    result: list[int]
    dtype: str  # of the first operand


def texts(traced: jax.stages.Traced) -> Iterator[str]:
    """The program for each platform; asserts that it holds nothing that is forbidden."""
    for platform in PLATFORMS:
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        for name, pattern in _FORBIDDEN.items():
            found = re.search(pattern, text)
            assert found is None, f"{name} for {platform}: {text[found.start() - 200 :][:400]}"
        yield text


def convolutions(text: str) -> list[Convolution]:
    """XLA's convolutions; asserts that none is grouped, as one for each image would be."""
    found = []
    for line in text.splitlines():
        if "stablehlo.convolution" not in line:
            continue
        assert "feature_group_count = 1 " in line, line
        assert "batch_group_count = 1 " in line, line
        shapes = re.findall(r"tensor<((?:\d+x)+)(\w+)>", line)
        a, b, c = ([int(n) for n in shape.split("x")[:-1]] for shape, _ in shapes)
        found.append(Convolution((a, b), c, shapes[0][1]))
    return found


def precisions(text: str) -> set[str]:
    """Those of the factors of all products and convolutions."""
    found = set()
    for line in text.splitlines():
        if "stablehlo.dot_general" in line or "stablehlo.convolution" in line:
            given = re.search(r"precision(?:_config)? = \[([^]]*)\]", line)
            found |= set(re.findall("[A-Z]{4,}", given[1])) if given else {"DEFAULT"}
    return found


def is_in_place(traced: jax.stages.Traced, text: str) -> bool:
    """Whether there are arguments that are donated, and each gives its buffer to a result."""
    promised = sum(info.donated for info in jax.tree.leaves(traced.args_info))
    return text.count("tf.aliasing_output") == promised > 0
