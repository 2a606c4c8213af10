"""A Python program that repeats what the page did."""

from typing import NamedTuple

NOTHING = "# Nothing is asked for yet: move a bar, or check a box.\n"
_TEXT = """\
import outgen_jax as og
{imports}
network = og.models.pretrained.load({network!r})
apply_fn, variables = og.models.from_nnx(network.model)
{image}
targets = og.targets.parse(
    {target!r},
    class_names=network.class_names,
    num_images=1,{output_line}
)
result = og.synthesize(
    apply_fn, variables, image[None], targets, {output}tolerance={tolerance:g}
)
print(og.predict(apply_fn, variables, result.images{predict_output}).round(4), result.converged)
"""


class Request(NamedTuple):
    """What is asked for on the page."""

    network: str  # a name of `pretrained.load`, or the path of a checkpoint
    image_kind: str  # "photograph", "digit", "noise" or "upload"
    image_name: str  # its id, or the file's name
    size: int
    channels: int
    target: str
    tolerance: float
    output: str  # "softmax", "sigmoid" or "values"
    unit: float | None = None  # of the distance, where the outputs are numbers


def python_text(request: Request) -> str:
    """A program for one image and its target, which ends with what the network says; a comment without a target."""
    if not request.target:
        return NOTHING
    imports, image = _image(request)
    is_softmax = request.output == "softmax"
    scale = "" if request.unit is None else f"scale={request.unit!r}"
    output = f"og.outputs.{request.output}({scale})"
    return _TEXT.format(
        imports=imports,
        image=image,
        network=request.network,
        target=request.target,
        tolerance=request.tolerance,
        output_line="" if is_softmax else f"\n    output={output},",
        output="" if is_softmax else f"output={output}, ",
        predict_output="" if is_softmax else f", output={output}",
    )


def _image(request: Request) -> tuple[str, str]:
    """Lines that import, and lines that make `image`."""
    chosen = f"source.images[source.ids.index({request.image_name!r})]"
    if request.image_kind == "photograph":
        lines = (
            f"source = sources.photographs(size=({request.size}, {request.size}))\nimage = {chosen}"
        )
        return "from outgen_jax.data import sources\n", lines
    if request.image_kind == "digit":
        imports = "from outgen_jax.data import sources\nfrom outgen_jax.studio.digits import SIZE, like_mnist\n"
        lines = f"source = sources.digits(size=(SIZE, SIZE))\nimage = like_mnist({chosen})"
        return imports, lines
    if request.image_kind == "noise":
        shape = f"({request.size}, {request.size}, {request.channels})"
        return (
            "import numpy as np\n",
            f'image = np.random.default_rng(0).integers(0, 256, {shape}, "uint8")',
        )
    read = f"Path({request.image_name!r}).read_bytes()"
    return (
        "from pathlib import Path\n\nfrom outgen_jax.studio.uploads import decode\n",
        f"image = decode({read}, size={request.size}, channels={request.channels}).image",
    )
