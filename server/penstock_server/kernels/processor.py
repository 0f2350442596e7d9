"""What this machine's processor is, and the baseline: the older processor that shipped kernels are compiled for.

x86-64-v2 is every x86-64 processor since about 2010. Kernels for it take at most 1.08 times as long as those for the
machine that runs them (AMD Zen 4; 1 to 1,024 rows, with and without drift); x86-64-v3, which has AVX2, gains nothing.
"""

import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_IDENTIFYING: Final = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")
_ALIASES: Final = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class ProcessorBaseline:
    """A processor to compile for.

    Attributes:
        name: as LLVM calls it.
        flags: what /proc/cpuinfo lists on each machine that can run the code.
    """

    name: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Processor:
    """A machine's processor.

    Attributes:
        architecture: `x86_64` or `aarch64`; of others, what the system calls them.
        flags: the features that it has, as /proc/cpuinfo lists them.
        identity: changes when code compiled for it may not run on another, or not as fast.
    """

    architecture: str
    flags: frozenset[str]
    identity: str

    @property
    def baseline(self) -> ProcessorBaseline | None:
        """The baseline that it runs; None if kernels are shipped for no processor like it."""
        found = BASELINES.get(self.architecture)
        return found if found is not None and found.flags <= self.flags else None


BASELINES: Final = {
    "x86_64": ProcessorBaseline(
        "x86-64-v2", frozenset({"cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"})
    ),
    "aarch64": ProcessorBaseline("generic", frozenset({"fp", "asimd"})),
}


@cache
def this_processor() -> Processor:
    """The processor of this machine."""
    architecture = platform.machine().lower()
    architecture = _ALIASES.get(architecture, architecture)
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        return Processor(architecture, frozenset(), platform.processor())
    return processor_of(architecture, text)


def processor_of(architecture: str, cpuinfo: str) -> Processor:
    """The processor that /proc/cpuinfo describes; its first core stands for all."""
    first = dict(line.split(":", 1) for line in cpuinfo.split("\n\n", 1)[0].splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in first.items()}
    flags = frozenset(values.get("flags", values.get("Features", "")).split())
    described = "\n".join(
        f"{name}: {values.get(name, '')}" for name in _IDENTIFYING if name not in {"flags", "Features"}
    )
    identity = hashlib.sha256("\n".join([described, *sorted(flags)]).encode()).hexdigest()
    return Processor(architecture, flags, identity)
