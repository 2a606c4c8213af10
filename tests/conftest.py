"""What the tests share: the platform, small networks, and a way to run the scripts."""

import atexit
import contextlib
import gc
import importlib.metadata
import math
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from flax import nnx

from outgen_jax import scripts, versions
from outgen_jax.models import VGG16, vgg

ROOT = Path(__file__).resolve().parents[1]

# Compiling is most of what the tests take, and small arrays gain nothing from XLA's optimisations.
_QUICK = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # others may not know these flags
    _QUICK += " --xla_cpu_use_fusion_emitters=false"
    _QUICK += " --xla_cpu_enable_concurrency_optimized_scheduler=false"
    _QUICK += " --xla_cpu_parallel_codegen_split_count=1"


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the platform and how programs are compiled, before JAX looks for devices.

    The environment is set for the scripts that tests start, too. What is set already stays:
    `XLA_FLAGS= python -m pytest` compiles as users do.
    """
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras looks when it is imported
    if config.getoption("markexpr") != "gpu":
        jax.config.update("jax_platforms", os.environ.setdefault("JAX_PLATFORMS", "cpu"))
        os.environ.setdefault("XLA_FLAGS", _QUICK)
    # No test reads where in its source an operation was written, which every lowering would look up.
    limit = os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
    jax.config.update("jax_traceback_in_locations_limit", int(limit))
    # Many tests compile the same programs for networks of their own: all workers of a run share them.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        programs = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="outgen_jax_")
        atexit.register(shutil.rmtree, programs, ignore_errors=True)
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    # Also the smallest ones: to read one takes half as long as to compile it.
    least = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(least))


def pytest_collection_finish() -> None:
    """What the modules hold is not searched for garbage again and again while programs are traced."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def flags_of_devices(count: int) -> str:
    """`XLA_FLAGS` of a process that takes the CPU for `count` devices and compiles as this one does."""
    return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"


@contextlib.contextmanager
def switches() -> Iterator[None]:
    """All of JAX's global switches, as a researcher may set them for a whole program."""
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        yield


class Finished(NamedTuple):
    """What a script's process would have left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    """A file's compiled programs leave memory with it: a worker would hold gigabytes in the end."""
    yield
    jax.clear_caches()


@pytest.fixture
def toy_classifier() -> tuple[Callable[[Any, jax.Array], jax.Array], dict[str, jax.Array]]:
    """`apply_fn, variables` of a linear classifier: images [B, 8, 8, 3] -> logits [B, 10]."""
    rng = np.random.default_rng(0)
    variables = {
        "kernel": jnp.asarray(rng.normal(0, 0.3, (8 * 8 * 3, 10)), jnp.float32),
        "bias": jnp.asarray(rng.normal(0, 0.3, 10), jnp.float32),
    }

    def apply_fn(variables: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        return images.reshape(len(images), -1) @ variables["kernel"] + variables["bias"]

    return apply_fn, variables


@pytest.fixture
def five_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG16 becomes a network of one convolution a block, quick to compile."""
    monkeypatch.setattr(vgg, "BLOCKS", ((64,), (64,), (64,), (64,), (64,)))


@pytest.fixture
def small_vgg16(five_layers: None) -> Callable[..., VGG16]:
    """`small_vgg16(**options)`: five layers of 4 channels with random weights, in inference mode."""

    def build(**options: Any) -> VGG16:
        options = {"num_classes": 3, "width_multiplier": 1 / 16, **options}
        # Shapes only: drawing weights with JAX would compile a program for each shape.
        model = nnx.eval_shape(lambda: VGG16(rngs=nnx.Rngs(0), **options))
        model.dropout = nnx.Dropout(model.dropout.rate, rngs=nnx.Rngs(0))
        state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
        rng = np.random.default_rng(0)
        for path, variable in nnx.to_flat_state(state):
            if path[-1] in ("scale", "var"):
                value = rng.uniform(0.5, 1.5, variable.shape)
            else:
                value = rng.normal(0, (2 / math.prod(variable.shape[:-1])) ** 0.5, variable.shape)
            variable.set_value(jnp.asarray(value, variable.dtype))
        nnx.update(model, state)
        model.eval()
        return model

    return build


@pytest.fixture
def fresh_version() -> Iterator[None]:
    """The code version is asked for once a process; here it is asked for again, and afterwards too."""
    versions.code_version.cache_clear()
    yield
    versions.code_version.cache_clear()


@pytest.fixture
def run_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """`run_script("synthesize.py", "--steps=3")` runs a script of experiments/ in this process.

    A study is `run_script("draw_gan/__main__.py", ...)`, as `python -m experiments.draw_gan` runs it.

    What a test has monkeypatched in the package holds in the script too.
    """
    monkeypatch.setattr(scripts, "enable_compilation_cache", lambda: None)  # not the user's
    monkeypatch.setattr(scripts, "leave", lambda code: None)  # pytest goes on

    def run(name: str, *arguments: str) -> Finished:
        script = str(ROOT / "experiments" / name)
        capsys.readouterr()
        with monkeypatch.context() as patch, _flags_of(script):
            patch.setattr(sys, "argv", [script, *arguments])
            try:
                runpy.run_path(script, run_name="__main__")
                code = 0
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        return Finished(code, *capsys.readouterr())

    return run


@contextlib.contextmanager
def _flags_of(script: str) -> Iterator[None]:
    """Forgets the script's flags afterwards, so that it can define them again, and those of a program that it runs."""
    try:
        yield
    finally:
        # `common_flags` stays: absl knows by its address that it defines flags for others, and a module that is
        # loaded later could get the same address.
        programs = [
            name
            for name in sys.modules
            if name.startswith("outgen_jax.tools") and not name.endswith(".common_flags")
        ]
        for module in (script, *programs):
            for flag in list(flags.FLAGS.flags_by_module_dict().get(module, ())):
                delattr(flags.FLAGS, flag.name)
            sys.modules.pop(module, None)
        flags.FLAGS.unparse_flags()
