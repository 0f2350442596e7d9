"""Prints how many lines of each room the tests reached, from the data that `pytest --cov` leaves."""

import io
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Final

from coverage import Coverage

ROOT: Final = Path(__file__).parent.parent


def room_of(file: str) -> str:
    """The folder, without the folder that a package lies in; a package's own files count as the package."""
    return "/".join(Path(file).parts[1:-1])


def main() -> None:
    os.chdir(ROOT)
    coverage = Coverage()
    coverage.load()
    report = ROOT / ".coverage" / "report.json"
    coverage.json_report(outfile=str(report))
    rooms: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file, found in json.loads(report.read_text())["files"].items():
        for at, key in enumerate(("num_statements", "covered_lines")):
            rooms[room_of(file)][at] += found["summary"][key]
    rooms["total"] = [sum(numbers) for numbers in zip(*rooms.values(), strict=True)]
    out = io.StringIO()
    print("| Room | Lines | Reached |", "| --- | ---: | ---: |", sep="\n", file=out)
    for room, (lines, reached) in rooms.items():
        if lines:
            print(f"| {room:36} | {lines:6} | {reached / lines:7.1%} |", file=out)
    print(out.getvalue())
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a") as file:
            file.write(out.getvalue())


if __name__ == "__main__":
    main()
