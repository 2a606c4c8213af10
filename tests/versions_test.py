"""When the tree of this code counts as clean."""

import subprocess

from outgen_jax import versions


def test_a_tree_is_clean_until_code_differs_from_the_commit(tmp_path, monkeypatch, fresh_version):
    module = tmp_path / "package" / "versions.py"
    module.parent.mkdir()
    module.write_text("x = 1")
    monkeypatch.setattr(versions, "__file__", str(module))

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=n", "-c", "user.email=e")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    def clean() -> bool | None:
        versions.code_version.cache_clear()
        return versions.code_version().tree_clean

    git("init", "--quiet")
    assert clean() is None  # the repository does not hold the package
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    assert clean() is True
    commit = versions.code_version().commit
    results = tmp_path / "package" / "results" / "results.json"
    results.parent.mkdir()
    results.write_text("{}")
    (tmp_path / "notes.txt").write_text("untracked, but no code")
    assert clean() is True
    git("add", "package/results")
    git("commit", "--quiet", "--message=results")
    assert versions.code_version().commit == commit  # what this process has loaded
    results.write_text("{ }")
    assert clean() is True
    assert versions.code_version().commit != commit
    (tmp_path / "new.py").write_text("y = 2")
    assert clean() is False
    (tmp_path / "new.py").unlink()
    module.write_text("x = 2")
    assert clean() is False
