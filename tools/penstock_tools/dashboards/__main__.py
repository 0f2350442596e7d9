"""`python -m penstock_tools.dashboards [--check]`: writes the dashboards and the list of their panels, or says which are stale.

It runs in a checkout, with grafana-foundation-sdk, which only developers have: users take the files.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock_tools.dashboards.drift import DRIFT
from penstock_tools.dashboards.fleet import FLEET
from penstock_tools.dashboards.grafana import to_json
from penstock_tools.dashboards.page import with_panels
from penstock_tools.dashboards.rollout import ROLLOUT
from penstock_tools.dashboards.service import SERVICE

TOOLS: Final = Path(__file__).parents[2]
FOLDER: Final = TOOLS / "deploy" / "grafana" / "dashboards"
PAGE: Final = TOOLS / "docs" / "monitoring.md"
BOARDS: Final = (SERVICE, ROLLOUT, DRIFT, FLEET)


def texts() -> Iterator[tuple[Path, str]]:
    """Each file that is made of the boards, and what it should hold."""
    for board in BOARDS:
        others = [other for other in BOARDS if other is not board]
        yield FOLDER / f"{board.name}.json", to_json(board, others)
    yield PAGE, with_panels(PAGE.read_text(), BOARDS)


def main() -> int:
    """Writes every file; with `--check`, prints which differ and returns 1."""
    is_check = "--check" in sys.argv
    stale = [(path, text) for path, text in texts() if not path.exists() or path.read_text() != text]
    for path, text in () if is_check else stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if stale:
        names = ", ".join(path.name for path, _ in stale)
        sys.stdout.write(f"{'stale' if is_check else 'written'}: {names}\n")
    return int(bool(stale) and is_check)


if __name__ == "__main__":
    sys.exit(main())
