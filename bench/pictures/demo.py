"""`penstock demo | python -m bench.pictures.demo OUT.svg`: draws what the demo wrote, for the README.

The picture is the output as a terminal shows it, without the lines that only the command's own reader needs: the first line,
the excerpt of the metrics and the commands to try next.
"""

import re
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

_LEFT_OUT: Final = ("From /metrics:", "To try next:")
"""Each begins a part that ends at an empty line, or with the output."""
_STYLES: Final = {r"✓": "green", r" \d+\.\d s$": "dim", r"failures 0": "green"}
_PROMOTION: Final = "is now champion"


def shown(lines: list[str]) -> Iterator[str]:
    """The lines that the picture shows."""
    is_left_out = False
    for line in lines:
        is_left_out = line.strip() in _LEFT_OUT or (is_left_out and bool(line.strip()))
        if not is_left_out:
            yield line


def picture(output: str) -> str:
    """The demo's output as an SVG picture of a terminal."""
    lines = list(shown(output.strip("\n").split("\n")))
    width = max(map(len, lines), default=1)
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True)
    for line in lines:
        text = Text(line)
        for pattern, style in _STYLES.items():
            text.highlight_regex(pattern, style)
        if _PROMOTION in line:
            text.stylize("bold cyan")
        console.print(text, soft_wrap=True)
    return console.export_svg(title="penstock demo", unique_id="penstock-demo")


def main() -> None:
    """Reads the output from standard input, and writes the picture."""
    Path(sys.argv[1]).write_text(re.sub(r"[ \t]+$", "", picture(sys.stdin.read()), flags=re.MULTILINE))


if __name__ == "__main__":
    main()
