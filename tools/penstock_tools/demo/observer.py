"""Looks at the server's metrics while flights stream, and remembers when each feature began to drift."""

import asyncio
from contextlib import suppress
from typing import Final

from penstock_server.errors import UnavailableError
from penstock_tools.demo import metrics
from penstock_tools.demo.onset import DriftLog
from penstock_tools.demo.plan import MODEL, Plan
from penstock_tools.demo.results import Tally

SCRAPE_S: Final = 1.0


class Observer:
    """Scrapes the server.

    Attributes:
        facts: of the last scrape.
        drift: of all scrapes.
    """

    def __init__(self, plan: Plan, http: str, tally: Tally) -> None:
        self._plan = plan
        self._url = f"http://{http}/metrics"
        self._tally = tally
        self.facts = metrics.Facts()
        self.drift = DriftLog()

    async def run(self) -> None:
        """Looks each second, until cancelled; what a scrape misses, the next one has."""
        while True:
            with suppress(UnavailableError):
                await self.look()
            await asyncio.sleep(SCRAPE_S)

    async def look(self) -> str:
        """Scrapes once, and gives the text.

        Raises:
            UnavailableError: the server does not answer.
        """
        month = self._tally.month
        text = await asyncio.to_thread(metrics.fetch, self._url)
        self.facts = metrics.read(text, MODEL)
        if month:
            self.drift.look(month, self.facts.settled_drift(self._plan.settled_rows))
        return text
