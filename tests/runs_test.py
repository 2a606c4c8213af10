"""What a run's directory accepts, what it keeps, and what `results.json` says of its origin."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from conftest import ROOT

from outgen_jax import runs
from outgen_jax.versions import CodeVersion


@pytest.fixture
def call(monkeypatch):
    """`call(steps=3)`: what absl makes of the command line of a script `study.py`."""

    def parse(**values: object) -> None:
        parsed = flags.FlagValues()
        monkeypatch.setattr(sys, "argv", ["experiments/study.py"])
        monkeypatch.setattr(flags, "FLAGS", parsed)
        own = {"flag_values": parsed, "module_name": "__main__"}
        flags.DEFINE_integer("steps", 5, "", **own)
        flags.DEFINE_float("rate", 0.1, "", **own)
        flags.DEFINE_list("names", ["a"], "", **own)
        flags.DEFINE_string("out", "runs/study", "", **own)
        flags.DEFINE_string("data_dir", None, "", **own)
        flags.DEFINE_bool("overwrite", False, "", **own)
        flags.DEFINE_integer("elsewhere", 1, "", flag_values=parsed, module_name="absl.logging")
        parsed(["study.py", *(f"--{name}={value}" for name, value in values.items())])

    return parse


def test_a_run_is_opened_and_reopened_with_the_same_flags(call, tmp_path):
    call(steps=3)
    run = runs.open_run(tmp_path / "a" / "b")
    assert run.directory == tmp_path / "a" / "b"
    assert run.flags == {"steps": 3, "rate": 0.1, "names": ["a"]}
    (run.directory / "weights").write_text("precious")
    call(steps=3, out="elsewhere", data_dir="/data", elsewhere=2)  # the same run all the same
    assert runs.open_run(tmp_path / "a" / "b") == run
    assert (run.directory / "weights").read_text() == "precious"


def test_a_run_may_lie_in_the_home_directory(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    call()  # a shell leaves the ~ of --out=~/study as it is
    assert runs.open_run("~/study").directory == tmp_path / "study"


def test_other_flags_are_refused_by_name(call, tmp_path):
    call(steps=3)
    runs.open_run(tmp_path)
    (tmp_path / "weights").write_text("precious")
    call(steps=4, names="b,c")
    message = (
        f"{tmp_path} holds a run with other flags (names=['a'], steps=3); choose another directory "
        "(--out), or replace what is there (--overwrite)"
    )
    with pytest.raises(FileExistsError, match=re.escape(message)):
        runs.open_run(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 3


def test_a_run_that_failed_at_its_start_is_taken_over(call, tmp_path):
    call(steps=3)
    runs.open_run(tmp_path)
    call(steps=4)
    assert runs.open_run(tmp_path).flags["steps"] == 4
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 4


def test_a_run_that_was_killed_at_its_first_write_is_taken_over(call, tmp_path):
    call(steps=3)
    killed, others = tmp_path / "killed", tmp_path / "others"
    for directory, name in ((killed, ".0123456789abcdef.tmp"), (others, ".hidden")):
        directory.mkdir()
        (directory / name).write_text("{")
    assert runs.open_run(killed).flags["steps"] == 3
    with pytest.raises(FileExistsError, match="not a run's"):
        runs.open_run(others)


def test_overwrite_empties_a_run(call, tmp_path):
    call(steps=3)
    runs.open_run(tmp_path)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "weights").write_text("old")
    call(steps=4)
    runs.open_run(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 4


def test_an_interrupted_overwrite_leaves_nothing_that_a_later_one_takes_for_its_own(
    call, tmp_path, monkeypatch
):
    """Else jobs of the old run would be results of the new one."""
    call(steps=3)
    runs.open_run(tmp_path)
    for name in ("a", "z"):
        runs.kept(tmp_path / name / "job.npz", lambda: {"steps": np.array(3)})
    call(steps=4)
    listed = Path.iterdir

    def record_first(directory):
        return iter(sorted(listed(directory), key=lambda path: path.name != "run.json"))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", record_first)
        patch.setattr(runs.shutil, "rmtree", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            runs.open_run(tmp_path, overwrite=True)
    runs.open_run(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def _interrupted(*_):
    raise KeyboardInterrupt


def test_overwrite_deletes_a_link_and_not_what_it_leads_to(call, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").write_text("precious")
    call(steps=3)
    run = runs.open_run(tmp_path / "run")
    (run.directory / "data").symlink_to(tmp_path / "data")
    runs.open_run(tmp_path / "run", overwrite=True)
    assert [path.name for path in run.directory.iterdir()] == ["run.json"]
    assert (tmp_path / "data" / "images").read_text() == "precious"


def test_the_files_of_others_are_neither_mixed_with_nor_deleted(call, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    call()
    for overwrite in (False, True, True):
        with pytest.raises(FileExistsError, match="holds files that are not a run's"):
            runs.open_run(tmp_path, overwrite=overwrite)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_results_that_were_committed_without_their_flags_are_replaced_on_request(call, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    call()
    with pytest.raises(FileExistsError, match="results of a run whose flags are not known"):
        runs.open_run(tmp_path)
    runs.open_run(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_results_say_what_was_run_and_on_what(call, tmp_path):
    call(steps=3)
    path = runs.open_run(tmp_path).write_results({"accuracy": [0.5, 0.25]})
    assert path == tmp_path / "results.json"
    results = json.loads(path.read_text())
    assert results["script"] == "study.py"
    assert results["flags"] == {"steps": 3, "rate": 0.1, "names": ["a"]}
    assert results["accuracy"] == [0.5, 0.25]
    assert results["versions"].keys() == {"outgen_jax", "jax", "flax", "optax", "numpy"}
    assert results["versions"]["jax"] == jax.__version__
    assert results["device"] == f"{jax.devices()[0].device_kind} x {jax.device_count()}"
    assert results["python"] == ".".join(map(str, sys.version_info[:3]))
    assert results["cores"] >= 1
    assert results["commit"] is None or re.fullmatch("[0-9a-f]{40}", results["commit"])


def test_results_without_git_have_no_commit(call, tmp_path, monkeypatch, fresh_version):
    def no_git(*_, **__):
        raise FileNotFoundError("git")

    call()
    monkeypatch.setattr(subprocess, "run", no_git)
    path = runs.open_run(tmp_path).write_results({})
    found = json.loads(path.read_text())
    assert found["commit"] is None
    assert found["tree_clean"] is None


def test_plain_python_opens_a_run_though_no_flags_were_parsed(tmp_path):
    code = f"""
import sys
import outgen_jax
from outgen_jax import runs
for overwrite in (False, False, True):
    runs.open_run({str(tmp_path / "run")!r}, overwrite=overwrite).write_results({{"x": 1}})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (found["flags"], found["script"], found["x"]) == ({}, "-c", 1)


def test_plain_python_names_what_identifies_its_run(tmp_path):
    runs.open_run(tmp_path, flags={"steps": 3, "size": (2, 2)})
    assert runs.open_run(tmp_path, flags={"steps": 3, "size": (2, 2)}).flags["size"] == [2, 2]
    (tmp_path / "weights").write_text("precious")
    with pytest.raises(FileExistsError, match=re.escape("other flags (size=[2, 2], steps=3)")):
        runs.open_run(tmp_path, flags={})


@pytest.mark.parametrize("how", [["-m", "package.study"], ["package/study/__main__.py"]])
def test_a_study_is_named_by_its_package(tmp_path, how):
    folder = tmp_path / "package" / "study"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "shared.py").write_text("from absl import flags\nflags.DEFINE_integer('b', 1, '')")
    (folder / "__main__.py").write_text(
        "from absl import flags\nfrom outgen_jax import runs, scripts\n"
        "from package.study import shared\n"
        "flags.adopt_module_key_flags(shared)\n"
        "flags.DEFINE_integer('a', 1, '')\n"
        "def main(argv):\n"
        "    runs.open_run('out').write_results({})\n"
        "    raise ValueError('done')\n"
        "scripts.start(main)"
    )
    done = subprocess.run(
        [sys.executable, *how, "--a=2", "--b=3"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "package.study: done\n")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (found["script"], found["flags"]) == ("package.study", {"a": 2, "b": 3})


def test_what_was_computed_once_is_kept(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"seconds": np.arange(3)}

    for _ in range(2):
        found = runs.kept(tmp_path / "cache" / "a.npz", compute)
        np.testing.assert_array_equal(found["seconds"], np.arange(3))
    assert len(calls) == 1


def test_results_name_the_commit_that_computed_each_kept_job(tmp_path, monkeypatch):
    run = runs.open_run(tmp_path / "run", flags={})
    jobs = run.directory / "jobs"
    for name, version in (("a", ("1" * 40, True)), ("b", ("2" * 40, False)), ("c", (None, None))):
        monkeypatch.setattr(runs, "code_version", lambda v=version: CodeVersion(*v))
        runs.kept(jobs / f"{name}.npz", lambda: {"x": np.zeros(2)})
    np.savez(run.directory / "other.npz", x=1)  # of someone else
    resumed = runs.kept(jobs / "a.npz", lambda: pytest.fail("computed again"))
    assert resumed.keys() == {"x"}
    found = json.loads(run.write_results({}).read_text())
    assert found["computed_by"] == {
        "jobs/a.npz": {"commit": "1" * 40, "tree_clean": True},
        "jobs/b.npz": {"commit": "2" * 40, "tree_clean": False},
        "jobs/c.npz": {"commit": None, "tree_clean": None},
    }
    assert found["commit"] == run.code.commit
