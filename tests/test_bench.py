"""The benchmarks can be imported, and two processors never share a section of bench/RESULTS.md."""

import importlib
import pkgutil

import pytest

import bench
from bench import sections

CPUINFO = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: {model}
model name	: AMD EPYC
stepping	: 1
flags		: fpu sse sse2 {flags}

processor	: 1
cpu family	: 25
model		: 99
"""
ZEN_3 = CPUINFO.format(model=1, flags="avx2 vaes")
ZEN_4 = CPUINFO.format(model=17, flags="avx2 avx512f avx512_bf16")
MACHINE = {"device": "AMD EPYC", "device_type": "cpu", "cores": 2, "torch": "2.14.1", "python": "3.11.7"}


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(bench.__path__)])
def test_every_benchmark_can_be_imported(name):
    assert importlib.import_module(f"bench.{name}").__doc__


def test_processors_with_one_name_are_told_apart_by_family_model_stepping_and_instructions():
    assert sections.processor_in(ZEN_3) == "AMD EPYC (family 25, model 1, stepping 1; AVX2)"
    assert sections.processor_in(ZEN_4) == "AMD EPYC (family 25, model 17, stepping 1; AVX-512 with bf16)"


def test_a_processor_without_a_family_has_its_name_alone(monkeypatch):
    monkeypatch.setattr(sections, "cpu_name", lambda: "Neoverse-N1")
    assert sections.processor_in("processor\t: 0\nBogoMIPS\t: 50.00\n") == "Neoverse-N1"


def test_a_benchmark_replaces_its_own_processors_section_only(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(sections, "CPUINFO", tmp_path / "cpuinfo")
    for cpuinfo, line in ((ZEN_3, "old"), (ZEN_4, "other"), (ZEN_3, "new")):
        (tmp_path / "cpuinfo").write_text(cpuinfo)
        sections.write_section("A step", "python -m bench.step", MACHINE, [line])
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count("## A step · AMD EPYC (family 25, model 1, stepping 1; AVX2)\n") == 1
    assert text.count("## A step · AMD EPYC (family 25, model 17, stepping 1; AVX-512 with bf16)\n") == 1
    assert "other" in text
    assert "new" in text
    assert "old" not in text
