"""What the package imports is what its installation brings, by part."""

import ast
import configparser
import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from packaging.version import Version

import outgen_jax as og

PACKAGE = Path(og.__file__).parent
# Modules whose distribution has another name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "haiku": "dm-haiku",
    "orbax": "orbax-checkpoint",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
}
# Distributions that one part alone needs, and the extra that brings them.
EXTRAS = {
    "tensorflow-datasets": "data",
    "array_record": "data",
    "orbax-checkpoint": "train",
    "tensorboardX": "train",
    "matplotlib": "report",
    "equinox": "equinox",
    "dm-haiku": "haiku",
    "keras": "keras",
    "absl-py": "scripts",
    "scikit-image": "scripts",
    "scikit-learn": "scripts",
    "starlette": "studio",
    "uvicorn": "studio",
}


def requirements(text: str) -> set[str]:
    return {re.split(r"[<>=!~\[ ]", line)[0] for line in text.split("\n") if line.strip()}


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    if not parser.read(PACKAGE.parent / "setup.cfg"):
        pytest.skip("outgen_jax is installed without its source")
    return parser


def imported() -> dict[str, set[str]]:
    """Distributions that the package imports anywhere, and by which files."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in {name.split(".")[0] for name in names}:
                if name not in sys.stdlib_module_names and name != "outgen_jax":
                    user = path.relative_to(PACKAGE).as_posix()
                    found.setdefault(DISTRIBUTIONS.get(name, name), set()).add(user)
    return found


def test_whatever_is_imported_is_installed_with_the_package_or_named_by_an_extra(config):
    core = requirements(config["options"]["install_requires"])
    for distribution, users in imported().items():
        if distribution in EXTRAS:
            listed = requirements(config["options.extras_require"][EXTRAS[distribution]])
            assert distribution in listed, users
        else:
            assert distribution in core, f"{distribution}, imported by {users}"


def test_nothing_is_installed_that_nothing_needs(config):
    core = requirements(config["options"]["install_requires"])
    assert core <= imported().keys()


def test_the_readmes_example_and_a_progress_bar_need_no_extra(config):
    core = requirements(config["options"]["install_requires"])
    assert {"pillow", "tqdm"} <= core


def test_the_tests_have_every_framework_that_has_an_adapter(config):
    extras = config["options.extras_require"]
    for name in ("equinox", "haiku", "keras"):
        assert requirements(extras[name]) <= requirements(extras["dev"])


def test_the_extra_for_scripts_brings_all_others(config):
    extras = config["options.extras_require"]
    listed = requirements(extras["scripts"])
    for name in ("data", "train", "report", "imagenet"):
        assert requirements(extras[name]) <= listed


def test_the_oldest_versions_that_ci_tests_are_the_lower_bounds(config):
    extras = config["options.extras_require"]
    users = [extras[name] for name in extras if name not in ("dev", "docs")]
    listed = "\n".join([config["options"]["install_requires"], *users])
    bounds = {n: Version(v) for n, v in re.findall(r"^([\w-]+)>=(\S+)$", listed, re.MULTILINE)}
    oldest = (PACKAGE.parent / ".github" / "oldest.txt").read_text()
    pinned = {n: Version(v) for n, v in re.findall(r"^([\w-]+)==(\S+)$", oldest, re.MULTILINE)}
    assert {name: pinned.get(name) for name in bounds} == bounds
    assert pinned["jaxlib"] == pinned["jax"]


@pytest.mark.parametrize(
    "page", ["README.md", "README.ja.md", "docs/index.md", "docs/getting_started.md"]
)
def test_the_pages_about_the_installation_state_the_lower_bounds(config, page):
    core = config["options"]["install_requires"]
    text = (PACKAGE.parent / page).read_text()
    for name, title in (("jax", "JAX"), ("flax", "Flax")):
        found = re.search(rf"^{name}>=(\S+)$", core, re.MULTILINE)
        assert found is not None
        assert re.search(rf"{title} (≥ )?{re.escape(found[1])}\b", text)


def test_programs_without_their_packages_name_the_extra(monkeypatch):
    import outgen_jax.tools

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'outgen_jax\[scripts\]'"):
        importlib.reload(outgen_jax.tools)
