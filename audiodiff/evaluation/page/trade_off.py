"""Score against cost: one point per system, as an SVG chart for each measure and each kind of cost.

Small costs lie to the left, so that a good system lies to the left and towards the better end of the score. The line
joins the systems that no other beats in both (Pareto). Costs that span more than a factor of five are on a logarithmic
axis. Every point can be reached by keyboard and says its numbers.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from audiodiff.evaluation.costs import COLUMNS, Column, in_digits
from audiodiff.evaluation.page.charts import COLOURS, shortened, span, svg, ticks
from audiodiff.evaluation.page.content import Content, Mean, Measure

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 360, 84, 24, 30, 46
_LETTER, _LINE, _SPACING = (
    6.7,
    15,
    6,
)  # pixels of a label, about, and between two points where a line is looked at
_RADIUS = 6
_LOGARITHMIC = 5.0  # between the largest and the smallest cost


@dataclass(frozen=True)
class Point:
    """One system: its cost, and its score with interval."""

    cost: float
    score: Mean


def trade_offs(content: Content) -> str:
    """Returns the section of a page; empty where no measure has two systems whose cost is known."""
    drawn = []
    for measure in content.measures:
        charts = []
        for column in COLUMNS:
            points = _points(content, measure, column)
            if len(points) > 1:
                charts.append((column, chart(measure, column, points)))
        if charts:
            drawn.append((measure, charts))
    if not drawn:
        return ""
    known = [column for column in COLUMNS if any(column is c for _, charts in drawn for c, _ in charts)]
    options = "".join(f'<option value="{each.key}">{html.escape(each.name)}</option>' for each in known)
    shown = "".join(
        f"<details{' open' if number == 0 else ''}><summary>{html.escape(measure.heading)}</summary>"
        + "".join(_figure(column, text, column is known[0]) for column, text in charts)
        + "</details>"
        for number, (measure, charts) in enumerate(drawn)
    )
    about = "".join(
        f"<dt>{html.escape(each.name)}</dt><dd>{html.escape(each.definition)}</dd>" for each in known
    )
    return (
        '<section aria-labelledby="trade-off"><h2 id="trade-off">Score against cost</h2>'
        '<p class="soft">The line joins the systems that no other beats in both; bars are 95 % intervals. '
        "Point at a system, or step through them with the Tab key, for its numbers.</p>"
        f'<div class="controls"><label>Cost<select id="cost">{options}</select></label></div>{shown}'
        f"<details><summary>What the costs are</summary><dl>{about}</dl></details></section>"
    )


def chart(measure: Measure, column: Column, points: Mapping[str, Point]) -> str:
    """Returns one chart as SVG.

    Args:
        measure: of the scores, upwards.
        column: of the costs, to the right.
        points: by system, two or more.
    """
    costs = [point.cost for point in points.values()]
    ends = [end for point in points.values() for end in (point.score.interval or (point.score.value,) * 2)]
    across, up = _cost_axis(costs), _Axis(*span(ends), float, ticks, _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(across, up, column.name, measure.heading)]
    places = {n: (across.place(p.cost), up.place(p.score.value)) for n, p in points.items()}
    front = sorted(frontier(points, measure.better), key=lambda name: points[name].cost)
    line = " ".join(f"{places[name][0]:.1f},{places[name][1]:.1f}" for name in front)
    parts.append(f'<polyline points="{line}" class="front"/>')
    labels = _labels(places, [places[name] for name in front])
    for number, (name, point) in enumerate(points.items()):
        parts.append(_system(name, point, number, places[name], labels[name], (up, measure, column)))
    told = "; ".join(f"{name}: {_told(point, measure, column)}" for name, point in points.items())
    title = f"{measure.name} against {column.name.rstrip(' ↓')}"
    return svg(
        title, f"{title}. Best in both: {', '.join(front)}. {told}.", (_WIDTH, _HEIGHT), parts, "group"
    )


def frontier(points: Mapping[str, Point], better: str) -> list[str]:
    """Returns the systems that no other is at least as good as in both, and better in one.

    Args:
        points: by system.
        better: "higher" or "lower", of the score.
    """
    sign = 1 if better == "higher" else -1
    pairs = {name: (-point.cost, sign * point.score.value) for name, point in points.items()}
    return [
        name
        for name, (cost, score) in pairs.items()
        if not any(c >= cost and s >= score and (c, s) != (cost, score) for c, s in pairs.values())
    ]


@dataclass(frozen=True)
class _Axis:
    """Values from low to high (after `scale`) between two pixels."""

    low: float
    high: float
    scale: Callable[[float], float]
    marks: Callable[[float, float], Sequence[float]]
    first: float
    last: float

    def place(self, value: float) -> float:
        return self.first + (self.scale(value) - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> Sequence[float]:
        return self.marks(self.low, self.high)


def _cost_axis(costs: Sequence[float]) -> _Axis:
    ends = _LEFT, _WIDTH - _RIGHT
    if min(costs) > 0 and max(costs) > _LOGARITHMIC * min(costs):
        return _Axis(*span([math.log10(cost) for cost in costs]), math.log10, _decades, *ends)
    low, high = span(costs)
    return _Axis(max(low, -0.02 * high) if min(costs) >= 0 else low, high, float, ticks, *ends)


def _decades(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 of every power of ten between two logarithms, or only the powers where these are many."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    numbers = [f * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for f in factors]
    return [number for number in numbers if low <= math.log10(number) <= high]


def _points(content: Content, measure: Measure, column: Column) -> dict[str, Point]:
    found = {}
    for system in content.systems:
        cost = None if system.cost is None else column.value(system.cost)
        if cost is not None and measure.key in system.means:
            found[system.name] = Point(cost, system.means[measure.key])
    return found


def _figure(column: Column, drawn: str, first: bool) -> str:
    return f'<div class="cost" data-cost="{column.key}"{"" if first else " hidden"}>{drawn}</div>'


def _grid(across: _Axis, up: _Axis, cost: str, score: str) -> str:
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<line x1="{_LEFT}" x2="{right}" y1="{floor}" y2="{floor}" class="axis"/>']
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{floor}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{floor + 17}" class="middle">{in_digits(tick)}</text>')
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" class="end">{tick:.4g}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 12}" class="title">{html.escape(score)}</text>')
    parts.append(f'<text x="{right}" y="{_HEIGHT - 8}" class="end title">{html.escape(cost)}</text>')
    return "".join(parts)


def _system(
    name: str, point: Point, number: int, place: tuple[float, float], label: tuple[float, float],
    axes: tuple[_Axis, Measure, Column],
) -> str:  # fmt: skip
    up, measure, column = axes
    (x, y), (left, base) = place, label
    told = _told(point, measure, column)
    bar = ""
    if point.score.interval is not None:
        low, high = (up.place(end) for end in point.score.interval)
        bar = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" class="bar"/>'
    shown = shortened(name)
    return (
        f'<g tabindex="0" role="img" aria-label="{html.escape(f"{name}: {told}")}" class="point">{bar}'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" class="c{number % COLOURS}"/>'
        f'<text x="{left:.1f}" y="{base:.1f}">{html.escape(shown)}</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_TOP - 12}" class="end told" aria-hidden="true">'
        f"{html.escape(f'{shown}: {told}')}</text></g>"
    )


def _told(point: Point, measure: Measure, column: Column) -> str:
    score = f"{measure.name} {point.score.value:.4g}{f' {measure.unit}' if measure.unit else ''}"
    return f"{score}, {column.name.rstrip(' ↓')} {in_digits(point.cost)}"


def _labels(
    places: Mapping[str, tuple[float, float]], line: Sequence[tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Returns left end and base line of each name: at the first corner of its point that is free, off the line too."""
    taken = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in places.values()]
    for (x, y), (right, end) in pairwise(line):
        dots = max(1, round(math.hypot(right - x, end - y) / _SPACING))
        along = [(x + (right - x) * n / dots, y + (end - y) * n / dots) for n in range(dots)]
        taken += [(across - 1, up - 1, across + 1, up + 1) for across, up in along]
    found = {}
    for name, (x, y) in places.items():
        width, gap = _LETTER * len(shortened(name)), _RADIUS + 4
        corners = [
            (left, y + shift)
            for shift in (-5, 14, -5 - _LINE, 14 + _LINE, -5 - 2 * _LINE, 14 + 2 * _LINE)
            for left in (x + gap, x - gap - width)
            if left >= _LEFT and left + width <= _WIDTH and _TOP < y + shift < _HEIGHT - _BOTTOM
        ]
        boxes = {(left, base): (left, base - 11, left + width, base + 3) for left, base in corners}
        free = [corner for corner, box in boxes.items() if not any(_overlap(box, each) for each in taken)]
        found[name] = (free or corners or [(x + gap, y - 5)])[0]
        left, base = found[name]
        taken.append((left, base - 11, left + width, base + 3))
    return found


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
