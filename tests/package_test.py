"""The package's surface, its map of equations, and its floors."""

import ast
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import outgen_jax as og

PACKAGE = Path(og.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# From the lowest floor up; a part imports only what lies below its floor.
FLOORS = (
    (
        *("files", "names", "networks", "devices", "restricted_pickle", "markdown", "versions"),
        *("whole_numbers", "image_checks", "json_text", "scripts"),
    ),
    ("chunking",),
    ("losses", "pixels", "data", "metrics", "models"),
    ("targets", "training"),
    ("outputs",),
    ("solvers",),
    ("synthesis",),
    ("generation", "report"),
    ("studio",),
)
# Training is beside the main subject: nothing of it stands on training.
BESIDE = ("training",)
# What people start stands above all floors.
PROGRAMS = ("tools", "__main__")
OPTIONAL = (
    *("tensorflow", "tensorflow_datasets", "array_record", "matplotlib", "orbax", "PIL"),
    *("sklearn", "skimage", "tqdm", "torch", "equinox", "haiku", "keras", "grain", "datasets"),
    *("starlette", "uvicorn", "outgen_jax.studio"),
)


# --- exports ---


def exports() -> dict[str, object]:
    """Names that `__init__` exports by `import x as x`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias for node in imports for alias in node.names]
    assert all(alias.asname == alias.name for alias in names), "exports are written `x as x`"
    return {alias.name: getattr(og, alias.name) for alias in names}


def test_the_main_interface_is_exported():
    wanted = {"synthesize", "predict", "quantize", "generate_dataset", "views", "Result"}
    wanted |= {"exact", "gradient_descent", "gauss_newton", "gauss_newton_cg", "then", "restarted"}
    wanted |= {"preset", "PRESETS", "Solver"}
    wanted |= {"targets", "outputs", "pixels", "losses", "metrics", "models", "data"}
    assert wanted <= exports().keys()


@pytest.mark.parametrize("name", exports())
def test_exports_are_documented(name):
    exported = exports()[name]
    if isinstance(exported, types.ModuleType | type) or callable(exported):
        # NamedTuple writes "Name(field, ...)" where there is no docstring.
        assert exported.__doc__
        assert not exported.__doc__.startswith(f"{name}(")


def test_every_module_and_public_function_is_documented():
    missing = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        documented = [tree] if path.read_text().strip() else []
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                documented.append(node)
        names = (f"{path.name}: {getattr(n, 'name', 'module')}" for n in documented)
        docs = map(ast.get_docstring, documented)
        missing += [name for name, doc in zip(names, docs, strict=True) if not doc]
    assert missing == []


def test_the_version_is_the_installed_one():
    try:
        installed = importlib.metadata.version("outgen_jax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("outgen_jax is run from its source, not installed")
    assert og.__version__ == installed


# --- the map of equations ---


def tags_in(text: str) -> set[str]:
    """Tags of equations, figures and tables, ranges written out: "Eq. A6–A8" -> A6, A7 and A8."""
    found = set()
    for kind, listed in re.findall(r"(Eq\.|Fig\.|Table) ((?:[A-D]\d+(?:[-–, ]|and )*)+)", text):
        for letter, first, last in re.findall(r"([A-D])(\d+)(?:[-–][A-D](\d+))?", listed):
            numbers = range(int(first), int(last or first) + 1)
            found |= {f"{kind} {letter}{number}" for number in numbers}
    return found


def map_lines() -> Iterator[tuple[set[str], list[str]]]:
    """Lines "tags   subject   functions" of the map: (tags, dotted names under `outgen_jax`)."""
    for line in og.__doc__.splitlines():
        if re.match(r" {4}(Eq\.|Fig\.|Table) ", line):
            tags, _, names = re.split(r" {2,}", line.strip())
            yield tags_in(tags), names.split(", ")


MAPPED = [(name, tags) for tags, names in map_lines() for name in names]


def test_tags_are_read_as_meant():
    read = tags_in("Eq. A2, A4 and Fig. A5; Eq. A6–A8, Eq. A10-A11, Table D1. Eq. 8 is another's")
    assert read == {f"Eq. A{n}" for n in (2, 4, 6, 7, 8, 10, 11)} | {"Fig. A5", "Table D1"}
    assert len(MAPPED) >= 6


@pytest.mark.parametrize(("name", "tags"), MAPPED, ids=[name for name, _ in MAPPED])
def test_the_map_leads_to_the_equation(name, tags):
    *modules, function = name.split(".")
    found = og
    for part in (*modules, function):
        found = getattr(found, part)
    assert callable(found)
    documented = f"{inspect.getdoc(found)}\n{inspect.getmodule(found).__doc__}"
    assert tags <= tags_in(documented)


def test_every_equation_cited_is_on_the_map():
    on_map = tags_in(og.__doc__)
    for path in FILES:
        cited = {tag for tag in tags_in(path.read_text()) if tag.startswith("Eq.")}
        assert cited <= on_map, f"{path.name} cites equations that `outgen_jax.__doc__` leaves out"


# --- imports ---


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floors(path: Path) -> set[str]:
    """The parts of the package that a file imports, its own left out."""
    own = part_of(path)
    names = [name.split(".") for name in imported(path) if name.startswith("outgen_jax.")]
    return {name[1] for name in names} - {own}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_only_point_down():
    below: set[str] = set()
    allowed = {}
    for floor in FLOORS:
        allowed |= {part: below - set(BESIDE) for part in floor}
        below = below | set(floor)
    allowed["studio"].add("scripts")  # it is a program, too
    for path in FILES:
        part = part_of(path)
        if part in allowed:
            assert floors(path) <= allowed[part], path
    assert {part_of(path) for path in FILES} - allowed.keys() == {"__init__", "runs", *PROGRAMS}
    assert floors(PACKAGE / "runs.py") <= set(FLOORS[0])
    # Imports are seen.
    assert floors(PACKAGE / "synthesis" / "stream.py") == {"chunking", "solvers"}


@pytest.mark.parametrize(
    ("package", "home"),
    [("tensorflow_datasets", "data"), ("orbax", "training/checkpoints.py"), ("absl", "scripts.py")],
)
def test_only_one_place_of_the_library_imports(package, home):
    library = [path for path in FILES if part_of(path) not in PROGRAMS]
    users = [path for path in library if any(n.split(".")[0] == package for n in imported(path))]
    places = [path.relative_to(PACKAGE).as_posix() for path in users]
    assert places
    assert all(place == home or place.startswith(f"{home}/") for place in places)


def test_the_library_never_imports_tensorflow():
    for path in FILES:
        assert not any(name.split(".")[0] == "tensorflow" for name in imported(path)), path


def test_importing_the_package_loads_nothing_optional():
    code = f"import sys, outgen_jax; print([m for m in {OPTIONAL} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
