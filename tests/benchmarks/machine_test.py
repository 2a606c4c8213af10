"""What a benchmark records of the machine."""

from benchmarks.harness import machine

X86 = """processor\t: 0
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
flags\t\t: fpu avx avx2 avx512f fma aes amx_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


def test_the_processor_is_named_with_its_instructions(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(X86)
    monkeypatch.setattr(machine, "_CPUINFO", path)
    assert machine.processor() == {
        "name": "AMD EPYC",
        "family": "25",
        "model": "1",
        "instructions": ["amx_bf16", "avx", "avx2", "avx512f", "fma"],
    }
    path.write_text("processor : 0\nFeatures : fp asimd aes bf16\n")
    assert machine.processor()["instructions"] == ["asimd", "bf16"]
    path.unlink()
    found = machine.processor()
    assert (found["family"], found["instructions"]) == (None, [])


def test_peers_that_are_not_installed_have_no_version():
    found = machine.machine("numpy", "no-such-package")
    assert found["threads"] >= 1
    assert found["peers"]["numpy"]
    assert found["peers"]["no-such-package"] is None
    assert "peers" not in machine.machine()
