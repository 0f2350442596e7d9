import pytest

from penstock_server.kernels.processor import BASELINES, processor_of, this_processor

ATOM = "model name : old\nvendor_id : GenuineIntel\nmodel : 28\nflags : cx16 lahf_lm pni ssse3"
CORE = ATOM.replace("28", "85") + " sse4_1 sse4_2 popcnt avx2\nbogomips : 5000"
GRAVITON = "processor : 0\nBogoMIPS : 243\nFeatures : fp asimd evtstrm\nCPU implementer : 0x41\nCPU part : 0xd0c"


@pytest.mark.parametrize(
    ("architecture", "text", "baseline"),
    [
        ("x86_64", ATOM, None),
        ("x86_64", CORE, "x86-64-v2"),
        ("aarch64", GRAVITON, "generic"),
        ("riscv64", CORE, None),
        ("x86_64", "", None),
    ],
)
def test_the_baseline_is_for_machines_that_have_all_of_it(architecture: str, text: str, baseline: str | None) -> None:
    found = processor_of(architecture, text).baseline
    assert (None if found is None else found.name) == baseline


def test_the_identity_follows_what_code_is_compiled_for() -> None:
    first = processor_of("x86_64", CORE)
    assert (
        processor_of("x86_64", CORE.replace("5000", "2000") + "\n\nprocessor : 1\nmodel : 3").identity == first.identity
    )
    assert processor_of("x86_64", CORE.replace("avx2", "avx2 avx512f")).identity != first.identity
    assert processor_of("x86_64", CORE.replace("85", "86")).identity != first.identity


def test_this_machine_has_a_baseline() -> None:
    assert this_processor().baseline == BASELINES[this_processor().architecture]
