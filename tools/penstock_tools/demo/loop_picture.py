"""Draws a year of the full loop as SVG: the accuracy of the answers, who gave them, and what the server did when."""

from collections.abc import Sequence
from html import escape
from typing import Final

from penstock_tools.demo.year import Event, Year

MOST_EVENTS: Final = 12
_WIDTH: Final = 960
_HEIGHT: Final = 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 28, 200
_COLOURS: Final = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2")


def draw(year: Year, seconds: float) -> str:
    """The picture's text.

    Args:
        year: what became of it.
        seconds: how long the stream took.
    """
    plot_w, plot_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    known = [(part, accuracy) for part in range(year.parts) if (accuracy := year.accuracy(part)) is not None]
    low = min((accuracy for _, accuracy in known), default=0.0) - 0.02
    high = max((accuracy for _, accuracy in known), default=1.0) + 0.02

    def x(share: float) -> float:
        return _LEFT + min(1.0, max(0.0, share)) * plot_w

    def y(accuracy: float) -> float:
        return _TOP + (high - accuracy) / (high - low) * plot_h

    versions = sorted({version for _, version in year.rows}, key=lambda text: (len(text), text))
    colour = {version: _COLOURS[at % len(_COLOURS)] for at, version in enumerate(versions)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for part in range(year.parts):
        at = 0.0
        total = sum(year.rows[part, version] for version in versions) or 1
        for version in versions:
            share = year.rows[part, version] / total
            parts.append(
                f'<rect x="{x(part / year.parts):.1f}" y="{_TOP + plot_h * (1 - at - share):.1f}" '
                f'width="{plot_w / year.parts + 0.5:.1f}" height="{plot_h * share:.1f}" fill="{colour[version]}" '
                'opacity="0.22"/>'
            )
            at += share
    step = 0.05 if high - low > 0.12 else 0.02
    tick = step * -(-low // step)
    while tick < high:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>'
        )
        tick += step
    line = " ".join(f"{x((part + 0.5) / year.parts):.1f},{y(accuracy):.1f}" for part, accuracy in known)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#222" stroke-width="2"/>')
    parts.append(
        f'<text x="{_LEFT}" y="{_TOP - 10}" font-weight="bold">right answers, by about five days of flights</text>'
    )
    for at, version in enumerate(versions):
        parts.append(
            f'<rect x="{_WIDTH - 110 * (len(versions) - at)}" y="{_TOP - 20}" width="12" height="12" '
            f'fill="{colour[version]}" opacity="0.5"/>'
            f'<text x="{_WIDTH - 110 * (len(versions) - at) + 17}" y="{_TOP - 10}">version {escape(version)}</text>'
        )
    for at, name in enumerate(("Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")):
        parts.append(
            f'<text x="{x((at + 0.5) / 9):.1f}" y="{_TOP + plot_h + 16}" text-anchor="middle" fill="#555">{name}</text>'
        )
    shown = _telling(year.events)
    for at, event in enumerate(shown[:MOST_EVENTS]):
        across = x(event.at_s / seconds)
        parts.append(
            f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{_TOP}" y2="{_TOP + plot_h}" stroke="#a00" stroke-dasharray="3 3"/>'
            f'<text x="{across + 3:.1f}" y="{_TOP + 12 + 12 * (at % 4)}" fill="#a00" font-weight="bold">{at + 1}</text>'
            f'<text x="{_LEFT}" y="{_TOP + plot_h + 34 + 13 * at}" font-size="11">{at + 1}  '
            f"{escape(_short(event.text))}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _telling(events: Sequence[Event]) -> list[Event]:
    """What became of versions, and the call for each that was trained."""
    telling: list[Event] = []
    call: Event | None = None
    for event in events:
        if event.text.startswith("retraining called"):
            call = call or event
        elif event.text.startswith("version") and not event.text.endswith("is champion"):
            telling += [event] if call is None else [call, event]
            call = None
    return telling


def _short(text: str) -> str:
    return text if len(text) <= 150 else text[:147] + "..."
