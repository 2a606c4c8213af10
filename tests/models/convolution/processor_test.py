"""What is read of the processor."""

import pytest

from outgen_jax.models.convolution import processor


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", path)
    processor.multiplies_bfloat16.cache_clear()
    yield path
    processor.multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name : A\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx512f\nbugs : avx512_bf16\n", False),
        ("", False),
    ],
)
def test_reads_the_flags(cpuinfo, text, expected):
    cpuinfo.write_text(text)
    assert processor.multiplies_bfloat16() is expected


def test_a_system_without_the_file_has_none(cpuinfo):
    assert not processor.multiplies_bfloat16()
