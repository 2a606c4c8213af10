"""The distribution: what the wheel holds, and that it works where there is no clone."""

import configparser
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from outgen_jax import __main__ as program

ROOT = Path(__file__).parents[1]


def call(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed, without this project on its path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def test_the_summary_names_the_extras_of_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    for extra, packages in program.EXTRAS.items():
        listed = re.findall(r"^([A-Za-z][\w-]*)", extras.get(extra, raw=True), re.MULTILINE)
        assert set(packages) == set(listed), extra


def test_the_summary_says_what_is_there_and_what_is_missing(monkeypatch):
    monkeypatch.setattr(program, "EXTRAS", {"report": ("numpy", "no-such-package")})
    first, devices, extra = program.lines()
    assert first.startswith("outgen_jax ")
    assert "cpu" in devices.lower()
    assert extra == "extra report: missing: no-such-package"


def test_the_description_has_no_picture_and_no_link_into_the_repository():
    describe = runpy.run_path(str(ROOT / "setup.py"))["description"]
    text = "A [page](docs/a.md), a [site](https://a.org/b).\n\n![A figure](docs/a.png)\n\nMore.\n"
    assert describe(text) == "A page, a [site](https://a.org/b).\n\nMore.\n"


@pytest.mark.slow
def test_the_distributions_are_well_formed(distributions):
    call(sys.executable, "-m", "twine", "check", "--strict", *distributions, cwd=ROOT)
    with zipfile.ZipFile(distributions[1]) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = wheel.read(name).decode()
    assert "**Change images until" in metadata
    assert not re.search(r"!\[|\]\((?!https?:)|<img", metadata)


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    kept = [path for path in (ROOT / "outgen_jax").rglob("*") if path.is_file()]
    wanted = {p.relative_to(ROOT).as_posix() for p in kept if "__pycache__" not in p.parts}
    assert found == wanted


@pytest.mark.slow
def test_the_wheel_runs_the_readme_the_demo_and_a_data_set(distributions, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    call(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    call(python, "-m", "pip", "install", "--quiet", distributions[1], cwd=tmp_path)
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert example is not None
    assert "outgen_jax" in example[1]
    call(python, "-c", example[1], cwd=tmp_path)

    scripts = f"{distributions[1]}[scripts]"
    call(python, "-m", "pip", "install", "--quiet", scripts, cwd=tmp_path)
    assert "extra scripts: installed" in call(python, "-m", "outgen_jax", cwd=tmp_path)
    demo = ("--number=1", "--solver=momentum", "--steps=2", "--out=demo")
    call(python, "-m", "outgen_jax.tools.synthesize", *demo, cwd=tmp_path)
    assert (tmp_path / "demo" / "index.html").is_file()
    classifier = ("--classifier=mnist_lenet", "--source=digits", "--number=8")
    call(python, "-m", "outgen_jax.tools.generate_dataset", *classifier, "--out=set", cwd=tmp_path)
    assert (tmp_path / "set" / "generated" / "1.0.0" / "manifest.json").is_file()
