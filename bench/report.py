"""What a run prints: tables for people, one record for machines. Decides no numbers; called by `__main__`."""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.load.latency import percentile
from bench.measure import ProcessMemory
from bench.promotions import Promotions
from bench.ready import Readiness
from bench.results import Measurement, Summary
from bench.session import Run

_MIB: Final = 2**20
_LIBRARIES: Final = ("grpcio", "numpy", "onnxruntime", "protobuf", "uvloop")


def show(console: Console, run: Run) -> None:
    """Prints what there is."""
    if run.summaries:
        console.print(comparison(run.summaries))
        for line in reasons(run.measurements):
            console.print(line, style="red", markup=False)
    if run.readiness:
        console.print(starts(run.readiness))
    if run.memory:
        console.print(memory(run.memory))
    if run.promotions:
        console.print(promotions(run.promotions))


def comparison(summaries: Sequence[Summary]) -> Table:
    """One row a scenario and server."""
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


def reasons(measurements: Iterable[Measurement]) -> list[str]:
    """One line a server and reason of failure, with its count."""
    counts: Counter[tuple[str, str]] = Counter()
    for each in measurements:
        for reason, count in each.failures.items():
            counts[each.server, reason] += count
    return [f"{server}: {count} × {reason}" for (server, reason), count in counts.most_common()]


def starts(readiness: Sequence[Readiness]) -> Table:
    """One row a start."""
    headings = ("address named s", "first answer s", "largest process MiB")
    table = _table("From start to ready", ("server",), headings)
    for each in readiness:
        rss = each.largest_rss_bytes / _MIB
        table.add_row(each.server, f"{each.listening_s:.2f}", f"{each.answered_s:.2f}", f"{rss:.0f}")
    return table


def memory(found: dict[str, list[ProcessMemory]]) -> Table:
    """One row a process."""
    table = _table("Memory after the load", ("server", "process"), ("RSS MiB", "PSS MiB"))
    for name, processes in found.items():
        for number, each in enumerate(processes):
            pss = None if each.pss_bytes is None else each.pss_bytes / _MIB
            label = name if number == 0 else ""
            table.add_row(label, each.command, f"{each.rss_bytes / _MIB:.0f}", _number(pss, "{:.0f}"))
    return table


def promotions(found: Promotions) -> str:
    """One sentence."""
    p99_s = percentile(found.load.latencies_s, 99)
    reasons = "".join(f"; {count} × {reason}" for reason, count in found.load.failures.items())
    visible = f"visible after {median(found.visible_s):.2f} s (median)" if found.visible_s else "none visible"
    return (
        f"{len(found.visible_s)} promotions under {found.load.requests_per_s:,.0f} requests/s: {found.load.failed} of "
        f"{found.load.attempted:,} requests failed{reasons}; {visible}, "
        f"p99 {_number(None if p99_s is None else p99_s * 1e3, '{:.2f}')} ms"
    )


def record(run: Run) -> dict[str, Any]:
    """The run as JSON's types; of a promotions' load the percentiles stand for the latencies."""
    found: dict[str, Any] = {
        "machine": {
            "cpus": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            **{library: version(library) for library in _LIBRARIES},
        },
        "summaries": [asdict(each) for each in run.summaries],
        "measurements": [asdict(each) for each in run.measurements],
        "memory": {name: [asdict(each) for each in processes] for name, processes in run.memory.items()},
        "readiness": [asdict(each) for each in run.readiness],
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


def write(run: Run, file: Path) -> None:
    """Writes the record."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record(run), indent=1) + "\n")


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in texts:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
