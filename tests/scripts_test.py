"""How errors, interrupts and flags of a script end, and where compiled programs are kept."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest
from absl import flags, logging

from outgen_jax import scripts


@pytest.mark.parametrize(
    "error", [ValueError, FileNotFoundError, FileExistsError, FloatingPointError]
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, error):
    def main(argv):
        raise error("load: no such thing; look elsewhere")

    with pytest.raises(SystemExit) as caught:
        scripts.guarded(main)(["experiments/study.py"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "study.py: load: no such thing; look elsewhere\n"


def test_an_interrupt_is_exit_code_130(capsys):
    def main(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        scripts.guarded(main)(["study.py"])
    assert caught.value.code == 130
    assert "interrupted; the same command resumes" in capsys.readouterr().err


def test_an_interrupt_does_not_wait_for_what_runs_on_a_device(tmp_path):
    """The interpreter would end before the program, which crashes."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, jax\n"
        "from outgen_jax import scripts\n"
        # A shell may have started the tests with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def main(argv):\n"
        "    loop = jax.jit(lambda x: jax.lax.fori_loop(0, 10**9, lambda i, x: x @ x / 300, x))\n"
        "    running = loop(jax.numpy.ones((300, 300)))\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    running.block_until_ready()\n"
        "if __name__ == '__main__':\n"
        "    scripts.start(main)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "Fatal" not in done.stderr


def test_an_argument_that_is_no_option_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        scripts.guarded(lambda argv: pytest.fail("ran"))(["study.py", "steps=3"])
    assert caught.value.code == 2
    assert "unexpected arguments ['steps=3']; options are --name=value" in capsys.readouterr().err


def test_errors_of_the_program_keep_their_traceback():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scripts.guarded(main)(["study.py"])


def test_the_notes_of_libraries_are_left_out_unless_asked_for(monkeypatch):
    before = logging.get_verbosity()
    try:
        for given, expected in ((0, logging.WARNING), (1, logging.INFO)):
            logging.set_verbosity(logging.INFO)
            monkeypatch.setattr(flags.FLAGS["verbosity"], "present", given)
            scripts.guarded(lambda argv: None)(["study.py"])
            assert logging.get_verbosity() == expected
    finally:
        logging.set_verbosity(before)


def test_a_preset_gives_what_the_command_line_leaves_out(monkeypatch):
    own = flags.FlagValues()
    flags.DEFINE_integer("seeds", None, "", flag_values=own)
    flags.DEFINE_integer("epochs", 1, "", flag_values=own)
    own(["script", "--seeds=7"])
    monkeypatch.setattr(flags, "FLAGS", own)
    scripts.apply_preset({"seeds": 3, "epochs": 30})
    assert (own.seeds, own.epochs) == (7, 30)


def test_the_compilation_cache_lies_where_the_user_wants_it(monkeypatch, tmp_path):
    set_to: dict[str, object] = {}
    monkeypatch.setattr(jax.config, "update", set_to.__setitem__)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scripts.enable_compilation_cache()
    assert set_to.pop("jax_compilation_cache_dir") == str(tmp_path / "outgen_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    scripts.enable_compilation_cache()
    assert set_to.pop("jax_compilation_cache_dir") == str(Path.home() / ".cache" / "outgen_jax")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/which/jax/reads/itself")
    scripts.enable_compilation_cache()
    assert "jax_compilation_cache_dir" not in set_to
