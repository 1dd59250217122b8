"""Charts as SVG text: a strip of every file's value by system, and one number against another.

Colours come from the page's style, so that both light and dark suit. Each chart has a title and a description for
those who do not see it; each point says on hovering what it is.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 34, 170, 20, 12, 40
_TALL = 320
_COLOURS = 8  # classes c0 to c7 of the style


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
    low, high = _range(every)
    height = _TOP + _ROW * len(values) + _BOTTOM
    parts = [_axis(low, high, height, unit)]
    for row, (name, by_file) in enumerate(values.items()):
        middle = _TOP + _ROW * (row + 0.5)
        parts.append(f'<text x="{_LEFT - 8}" y="{middle + 4:.1f}" class="end">{_cut(name)}</text>')
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
    return _svg(title, f"{title} by system. {told}.", height, parts)


def scatter(title: str, axes: tuple[str, str], points: Mapping[str, tuple[float, float]]) -> str:
    """Returns one number against another, a point per system.

    Args:
        title: what is shown.
        axes: names of the two numbers, horizontal and vertical.
        points: by system.
    """
    low, high = _range([x for x, _ in points.values()])
    bottom, top = _range([y for _, y in points.values()])
    parts = [_axis(low, high, _TALL, axes[0])]
    floor = _TALL - _BOTTOM
    for tick in _ticks(bottom, top):
        y = floor - (tick - bottom) / (top - bottom) * (floor - _TOP)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" class="end">{tick:.4g}</text>')
    parts.append(f'<text x="8" y="{_TOP + 10}">{html.escape(axes[1])}</text>')
    for number, (name, (across, up)) in enumerate(points.items()):
        x, y = _place(across, low, high), floor - (up - bottom) / (top - bottom) * (floor - _TOP)
        parts.append(_point(x, y, number, f"{name}: {across:.4g}, {up:.4g}", 6))
        parts.append(f'<text x="{x + 9:.1f}" y="{y - 6:.1f}">{_cut(name)}</text>')
    told = "; ".join(f"{name}: {x:.4g}, {y:.4g}" for name, (x, y) in points.items())
    return _svg(title, f"{axes[1]} against {axes[0]}. {told}.", _TALL, parts)


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(description)}">'
        f"<title>{html.escape(title)}</title>{''.join(parts)}</svg>"
    )


def _axis(low: float, high: float, height: float, unit: str) -> str:
    floor = height - _BOTTOM
    parts = [f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}" class="axis"/>']
    for tick in _ticks(low, high):
        x = _place(tick, low, high)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" class="middle">{tick:.4g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{height - 6}" class="end">{html.escape(unit)}</text>')
    return "".join(parts)


def _point(x: float, y: float, colour: int, told: str, radius: float = 3.5) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="c{colour % _COLOURS}">'
        f"<title>{html.escape(told)}</title></circle>"
    )


def _place(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _RIGHT - _LEFT)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Returns a little less than the smallest and a little more than the largest value."""
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or max(abs(low), 1.0) * 0.1
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers within a range."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def _cut(name: str) -> str:
    return html.escape(name if len(name) <= 24 else name[:23] + "…")
