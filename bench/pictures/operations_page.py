"""`python -m bench.pictures.operations_page OUT.png`: the operations page while the full loop of the demo runs, for the README.

It runs `penstock demo --full-loop`, opens the page of its server in Chromium, and draws it once a version that was trained on
the way is canary. That takes some minutes.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import sync_playwright

from penstock_tools.server_process import PENSTOCK

_ADDRESS: Final = re.compile(r'"http": "([^"]+)", "event": "the HTTP port answers"')
_START_S: Final = 600.0
_CANARY_MS: Final = 400_000.0
_SETTLED_MS: Final = 12_000.0
"""So that the curve has something to show of the canary's time."""
_SIZE: Final = (1180, 1500)
_COLOURS: Final = 96
"""Enough for a page, in half the bytes."""


def draw(address: str, file: Path, chromium: str) -> None:
    """Draws the page of a server once it has a canary."""
    width, height = _SIZE
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(f"http://{address}/")
        page.locator("#versions").get_by_text("canary").wait_for(timeout=_CANARY_MS)
        page.locator("#drift-list summary").first.click()
        page.locator(".feature").first.wait_for()
        page.wait_for_timeout(_SETTLED_MS)
        drawn = page.screenshot()
        browser.close()
    Image.open(BytesIO(drawn)).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


def _address(log: Path) -> str:
    """Where the demo's server has its HTTP port, once it says so; raises `TimeoutError`."""
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        found = _ADDRESS.search(log.read_text()) if log.exists() else None
        if found:
            return found[1]
        time.sleep(0.5)
    raise TimeoutError(f"the demo's server does not answer within {_START_S:g} s")


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.pictures.operations_page", description="Draws the operations page."
    )
    parser.add_argument("file", type=Path, help="of the picture")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        command = [*PENSTOCK, "demo", "--full-loop", "--folder", name]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as demo:
            try:
                draw(_address(Path(name) / "server.log"), options.file, options.chromium)
            finally:
                demo.terminate()


if __name__ == "__main__":
    main()
