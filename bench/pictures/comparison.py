"""`python -m bench.pictures.comparison RESULTS.json OUT.svg`: draws the record of a run, for the README.

On the left are requests per second as bars, one group per scenario; on the right the 99th percentile against throughput,
one curve per server.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_COLOURS: Final = ("#9aa5b1", "#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e")
_BAR_SPACE: Final = 0.8

Record = Mapping[str, Any]
"""A summary as JSON, one of `report.record`'s."""


def by_server(summaries: Iterable[Record]) -> dict[str, dict[str, Record]]:
    """Summaries by server and scenario, in the order of the record."""
    found: dict[str, dict[str, Record]] = {}
    for each in summaries:
        found.setdefault(each["server"], {})[each["scenario"]] = each
    return found


def curve(summaries: Iterable[Record]) -> list[tuple[float, float]]:
    """Requests per second and p99 in ms of one server, by rising throughput; without scenarios that got no answer."""
    return sorted((each["requests_per_s"], each["p99_ms"]) for each in summaries if each["p99_ms"] is not None)


def draw(record: Mapping[str, Any], file: Path) -> None:
    """Draws a record of `report.record`, in the format of the file's suffix.

    Raises:
        ValueError: the record holds no measurement.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    servers = by_server(record["summaries"])
    if not servers:
        raise ValueError("the record holds no measurement, expected at least one")
    scenarios = list(dict.fromkeys(each["scenario"] for each in record["summaries"]))
    mpl.rcParams.update({"font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "penstock"})
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _bars(left, servers, scenarios)
    _curves(right, servers)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e9ecef")
        axes.set_axisbelow(True)
    figure.suptitle(_caption(record.get("machine", {})), fontsize=8, color="#495057")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _bars(axes: Any, servers: Mapping[str, Mapping[str, Record]], scenarios: Sequence[str]) -> None:
    width = _BAR_SPACE / len(servers)
    for index, (server, found) in enumerate(servers.items()):
        places = [place - _BAR_SPACE / 2 + (index + 0.5) * width for place in range(len(scenarios))]
        heights = [found[name]["requests_per_s"] if name in found else 0 for name in scenarios]
        axes.bar(places, heights, width, label=server, color=_COLOURS[index % len(_COLOURS)])
    axes.set_xticks(range(len(scenarios)), scenarios, rotation=20 if len(scenarios) > 3 else 0)
    axes.set_ylabel("requests per second")
    axes.legend(frameon=False)


def _curves(axes: Any, servers: Mapping[str, Mapping[str, Record]]) -> None:
    for index, (server, found) in enumerate(servers.items()):
        points = curve(found.values())
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=server, color=_COLOURS[index % len(_COLOURS)])
    axes.set_yscale("log")
    axes.set_xlabel("requests per second")
    axes.set_ylabel("99th percentile, ms")
    axes.legend(frameon=False)


def _caption(machine: Mapping[str, Any]) -> str:
    parts = [machine.get("cpu"), f"{machine['cpus']} cores" if "cpus" in machine else None]
    parts += [f"{name} {machine[name]}" for name in ("grpcio", "onnxruntime") if name in machine]
    return ", ".join(part for part in parts if part)


def main(arguments: Iterable[str] | None = None) -> None:
    """Reads the command line and draws."""
    parser = argparse.ArgumentParser(prog="python -m bench.pictures.comparison")
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("out", type=Path, metavar="OUT.svg")
    options = parser.parse_args(None if arguments is None else list(arguments))
    draw(json.loads(options.results.read_text()), options.out)


if __name__ == "__main__":
    main()
