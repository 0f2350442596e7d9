"""What a run prints and writes: tables for people, one record for machines."""

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.memory import MemoryGrowth
from bench.processes import ProcessMemory
from bench.promotions import Promotions
from bench.results import Measurement, Summary, percentile
from bench.servers.measured import ROOT
from bench.session import RunResult
from bench.startup import Startup

_MIB: Final = 2**20
_MB: Final = 10**6
_LIBRARIES: Final = ("grpcio", "numpy", "onnxruntime", "penstock", "protobuf", "uvloop")


def show(console: Console, run: RunResult) -> None:
    """Prints every part that was measured."""
    if run.summaries:
        console.print(comparison(run.summaries))
        if any(each.capacity_per_s for each in run.summaries):
            console.print(open_loads(run.summaries))
        for line in reasons(run.measurements):
            console.print(line, style="red", markup=False)
    if run.startups:
        console.print(startups(run.startups))
    if run.memory:
        console.print(memory(run.memory))
    if run.memory_growth:
        console.print(memory_growth(run.memory_growth))
    if run.promotions:
        console.print(promotions(run.promotions))


def comparison(summaries: Sequence[Summary]) -> Table:
    """One row per scenario and server."""
    title = "Medians of the rounds, CPU per request; ×: times better than the baseline"
    headings = ("req/s", "×", "CPU µs", "×", "p50 ms", "p99 ms", "×", "failed")
    table = _table(title, ("scenario", "server"), headings)
    last = ""
    for each in summaries:
        if last and each.scenario != last:
            table.add_section()
        table.add_row(
            "" if each.scenario == last else each.scenario,
            each.server,
            f"{each.requests_per_s:,.0f}",
            _number(each.throughput_ratio, "{:.2f}"),
            _number(each.cpu_us, "{:.0f}"),
            _number(each.cpu_ratio, "{:.2f}"),
            _number(each.p50_ms, "{:.2f}"),
            _number(each.p99_ms, "{:.2f}"),
            _number(each.p99_ratio, "{:.2f}"),
            f"[bold red]{each.failed}" if each.failed else "0",
        )
        last = each.scenario
    return table


def open_loads(summaries: Iterable[Summary]) -> Table:
    """One row per load that depends on the server's own capacity."""
    headings = ("capacity/s", "goodput/s", "share", "p99/p50")
    table = _table("Loads set by each server's own capacity", ("scenario", "server"), headings)
    for each in summaries:
        if each.capacity_per_s is not None:
            tail = each.p99_ms / each.p50_ms if each.p99_ms and each.p50_ms else None
            table.add_row(
                each.scenario,
                each.server,
                f"{each.capacity_per_s:,.0f}",
                _number(each.goodput_per_s, "{:,.0f}"),
                _number(each.goodput_share, "{:.2f}"),
                _number(tail, "{:.1f}"),
            )
    return table


def memory_growth(found: Iterable[MemoryGrowth]) -> Table:
    """One row per server; growth in MB of 10^6 bytes."""
    headings = ("warm MB", "requests", "failed", "growth MB", "abandoned", "growth MB")
    table = _table("Memory of the workers: over requests, then over abandoned calls", ("server",), headings)
    for each in found:
        table.add_row(
            each.server,
            f"{each.warm_bytes / _MB:.1f}",
            f"{each.requests:,}",
            f"{each.failed:,}",
            f"{(each.served_bytes - each.warm_bytes) / _MB:+.1f}",
            f"{each.abandoned:,}",
            f"{(each.abandoned_bytes - each.served_bytes) / _MB:+.1f}",
        )
    return table


def reasons(measurements: Iterable[Measurement]) -> list[str]:
    """One line per server and reason of failure, with its count."""
    counts: Counter[tuple[str, str]] = Counter()
    for each in measurements:
        for reason, count in each.failures.items():
            counts[each.server, reason] += count
    return [f"{server}: {count} × {reason}" for (server, reason), count in counts.most_common()]


def startups(found: Sequence[Startup]) -> Table:
    """One row per start."""
    headings = ("listening s", "first answer s", "largest process MiB")
    table = _table("From start to ready", ("server",), headings)
    for each in found:
        rss = each.largest_rss_bytes / _MIB
        table.add_row(each.server, f"{each.listening_s:.2f}", f"{each.answered_s:.2f}", f"{rss:.0f}")
    return table


def memory(found: dict[str, list[ProcessMemory]]) -> Table:
    """One row per process."""
    table = _table("Memory after the load", ("server", "process"), ("RSS MiB", "PSS MiB"))
    for name, processes in found.items():
        for number, each in enumerate(processes):
            pss = None if each.pss_bytes is None else each.pss_bytes / _MIB
            label = name if number == 0 else ""
            table.add_row(label, each.command, f"{each.rss_bytes / _MIB:.0f}", _number(pss, "{:.0f}"))
    return table


def promotions(found: Promotions) -> str:
    """The promotions in one sentence."""
    p99_s = percentile(found.load.latencies_s, 99)
    reasons = "".join(f"; {count} × {reason}" for reason, count in found.load.failures.items())
    visible = f"visible after {median(found.visible_s):.2f} s (median)" if found.visible_s else "none visible"
    return (
        f"{len(found.visible_s)} promotions under {found.load.requests_per_s:,.0f} requests/s: {found.load.failed} of "
        f"{found.load.attempted:,} requests failed{reasons}; {visible}, "
        f"p99 {_number(None if p99_s is None else p99_s * 1e3, '{:.2f}')} ms"
    )


def record(run: RunResult) -> dict[str, Any]:
    """The run as JSON's types; the latencies during promotions are recorded as percentiles."""
    found: dict[str, Any] = {
        "machine": {
            "cpu": _cpu_model(),
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            **{library: version(library) for library in _LIBRARIES},
        },
        "commit": _commit(),
        "summaries": [asdict(each) for each in run.summaries],
        "measurements": [asdict(each) for each in run.measurements],
        "memory": {name: [asdict(each) for each in processes] for name, processes in run.memory.items()},
        "readiness": [asdict(each) for each in run.startups],
        "growth": [asdict(each) for each in run.memory_growth],
    }
    if run.promotions:
        load = run.promotions.load
        found["promotions"] = {
            "visible_s": run.promotions.visible_s,
            "attempted": load.attempted,
            "failures": load.failures,
            "requests_per_s": load.requests_per_s,
            "latency_s": {str(percent): percentile(load.latencies_s, percent) for percent in (50, 99, 99.9, 100)},
        }
    return found


def default_file(now: datetime) -> Path:
    """Where a run that ends at this time is written, if no file is named."""
    return ROOT / "bench" / "results" / f"{now:%Y-%m-%d-%H%M%S}.json"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _commit() -> str | None:
    """The checkout's commit, marked if files differ from it; None outside a checkout."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    try:
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write(run: RunResult, file: Path) -> None:
    """Writes the record."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record(run), indent=1) + "\n")


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in texts:
        table.add_column(heading, no_wrap=heading != "scenario")  # a long name is wrapped, so that no number is cut
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
