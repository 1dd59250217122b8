"""Charts as SVG text: a strip of every file's value by system.

Colours come from the page's style, so that both light and dark suit. Each chart has a title and a description for
those who do not see it; each point says on hovering what it is.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 34, 170, 20, 12, 40
COLOURS = 8  # classes c0 to c7 of the style


def strips(
    title: str, unit: str, values: Mapping[str, Mapping[str, float]], means: Mapping[str, float]
) -> str:
    """Returns one row per system with a point per file and a line at the mean.

    Args:
        title: what is measured.
        unit: of it.
        values: system -> file -> value.
        means: by system.
    """
    every = [value for by_file in values.values() for value in by_file.values()]
    low, high = span(every)
    height = _TOP + _ROW * len(values) + _BOTTOM
    parts = [_axis(low, high, height, unit)]
    for row, (name, by_file) in enumerate(values.items()):
        middle = _TOP + _ROW * (row + 0.5)
        parts.append(
            f'<text x="{_LEFT - 8}" y="{middle + 4:.1f}" class="end">{html.escape(shortened(name))}</text>'
        )
        numbers = np.random.default_rng(0).uniform(-0.3, 0.3, len(by_file))
        for shift, (file, value) in zip(numbers, by_file.items(), strict=True):
            x, y = _place(value, low, high), middle + _ROW * float(shift)
            parts.append(_point(x, y, row, f"{name}, {file}: {value:.4g} {unit}".strip()))
        if name in means:
            x = _place(means[name], low, high)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{middle - _ROW * 0.42:.1f}" y2="{middle + _ROW * 0.42:.1f}" '
                f'class="mean"><title>{html.escape(name)}: mean {means[name]:.4g}</title></line>'
            )
    told = "; ".join(f"{name}: mean {value:.4g}" for name, value in means.items())
    return svg(title, f"{title} by system. {told}.", (_WIDTH, height), parts)


def svg(
    title: str, description: str, size: tuple[float, float], parts: Sequence[str], role: str = "img"
) -> str:
    """Returns a chart.

    Args:
        title: shown on hovering.
        description: for those who do not see it.
        size: width and height.
        parts: SVG elements.
        role: "img", or "group" where its parts speak for themselves.
    """
    width, height = size
    return (
        f'<svg viewBox="0 0 {width} {height}" role="{role}" aria-label="{html.escape(description)}">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}</svg>"
    )


def _axis(low: float, high: float, height: float, unit: str) -> str:
    floor = height - _BOTTOM
    parts = [f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}" class="axis"/>']
    for tick in ticks(low, high):
        x = _place(tick, low, high)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" class="middle">{tick:.4g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{height - 6}" class="end">{html.escape(unit)}</text>')
    return "".join(parts)


def _point(x: float, y: float, colour: int, told: str, radius: float = 3.5) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="c{colour % COLOURS}">'
        f"<title>{html.escape(told)}</title></circle>"
    )


def _place(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _RIGHT - _LEFT)


def span(values: Sequence[float]) -> tuple[float, float]:
    """Returns a little less than the smallest and a little more than the largest value."""
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or max(abs(low), 1.0) * 0.1
    return low - margin, high + margin


def ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers within a range."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def shortened(name: str) -> str:
    """Returns a name of at most 24 letters."""
    return name if len(name) <= 24 else name[:23] + "…"
