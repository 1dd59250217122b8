"""One self-contained HTML page of an evaluation: systems, distributions, and files to listen to.

Nothing is loaded from anywhere: style, script, sounds and pictures are inside, so that the page works from a disk, in a
mail, and in ten years. The tables stand in the HTML itself; the script sorts, filters and plays.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files as resources
from pathlib import Path

import numpy as np

from audiodiff.errors import InputError
from audiodiff.evaluation.costs import COLUMNS, HARDWARE, Column, in_digits
from audiodiff.evaluation.page import media
from audiodiff.evaluation.page.charts import strips
from audiodiff.evaluation.page.content import Content, Measure, System
from audiodiff.evaluation.page.trade_off import trade_offs
from audiodiff.evaluation.signals import LENGTH_TOLERANCE
from audiodiff.files import write_whole
from audiodiff.progress import track
from audiodiff.synthesis.cost import Cost

PAGE = "report.html"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; media-src data:"


def write_page(content: Content, path: Path, files: int, show: bool = False) -> None:
    """Writes the page.

    Args:
        content: what it shows.
        path: of the HTML file.
        files: files with sounds and pictures; a third each of the best and the worst by the first measure, the rest
            evenly from between.
        show: a progress bar on the terminal.

    Raises:
        InputError: a sound that cannot be read, or a place that cannot be written.
    """
    if files < 0:
        raise InputError(f"files on the page: got {files}, expected 0 or more")
    write_whole({path: render(content, files, show).encode("utf-8")})


def render(content: Content, files: int, show: bool = False) -> str:
    """Returns the HTML of a page; arguments and errors as of `write_page`."""
    chosen = chosen_files(content, files)
    parts = [
        _systems(content),
        trade_offs(content),
        _distributions(content),
        *(_plain_table(caption, rows) for caption, rows in content.tables.items()),
        _files(content, chosen, show),
        _definitions(content),
        _made(content),
    ]
    title = html.escape(content.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{title}</title>\n<style>{_asset('style.css')}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the results</a>\n'
        f"<header><div><h1>{title}</h1>{_summary(content, chosen)}</div>"
        '<button id="theme" type="button" aria-pressed="false" hidden>Light or dark</button></header>\n'
        f'<main id="main">\n{"".join(part for part in parts if part)}\n</main>\n'
        f'<footer class="soft">Scored with <code>{html.escape(content.command)}</code></footer>\n'
        f"<script>{_asset('script.js')}</script>\n</body>\n</html>\n"
    )


def chosen_files(content: Content, count: int) -> list[str]:
    """Returns which files are heard: worst and best by the first measure, and evenly from between, worst first.

    A file's rank is that of the mean over the systems whose sounds are at hand.
    """
    able = [file for file in content.files if any(file in system.sounds for system in content.systems)]
    if not content.measures or len(able) <= count:
        return _ranked(content, able)
    ranked = _ranked(content, able)
    edge = count // 3
    between = ranked[edge : len(ranked) - edge]
    inner = count - 2 * edge
    middle = [between[len(between) * place // inner] for place in range(inner)]
    return ranked[:edge] + middle + ranked[len(ranked) - edge :]


def _ranked(content: Content, able: Sequence[str]) -> list[str]:
    """Returns files from the worst to the best by the first measure; unmeasured ones last."""
    if not content.measures:
        return list(able)
    measure = content.measures[0]
    sign = 1 if measure.better == "higher" else -1
    judged = [system.values.get(measure.key, {}) for system in content.systems if system.sounds]
    means = {
        file: sign * float(np.mean([values[file] for values in judged if file in values]))
        for file in able
        if any(file in values for values in judged)
    }
    return sorted(means, key=lambda file: means[file]) + [file for file in able if file not in means]


def _summary(content: Content, chosen: Sequence[str]) -> str:
    heard = f"{len(chosen)} of them to listen to" if chosen else "no sounds at hand"
    return (
        f'<p class="soft">{_count(len(content.systems), "system")}, {_count(len(content.files), "file")}, {heard}. '
        "Means over files with their 95 % bootstrap intervals; ↑ higher is better, ↓ lower is better.</p>"
    )


def _systems(content: Content) -> str:
    facts = list(dict.fromkeys(name for system in content.systems for name in system.facts))
    costs = COLUMNS if any(system.cost is not None for system in content.systems) else ()
    heads = ["system", *(measure.heading for measure in content.measures)]
    heads += [*(column.name for column in costs), *([HARDWARE] if costs else []), *facts]
    titles = ["", *(each.definition for each in (*content.measures, *costs))]
    titles += [""] * (len(heads) - len(titles))
    best = {measure.key: _best(content.systems, measure) for measure in content.measures}
    rows = []
    for system in content.systems:
        cells = [f'<th scope="row">{html.escape(system.name)}</th>']
        for measure in content.measures:
            mean = system.means.get(measure.key)
            if mean is None:
                cells.append('<td data-value="" class="soft">n/a</td>')
                continue
            between = (
                "" if mean.interval is None else f' <span class="soft">{_between(*mean.interval)}</span>'
            )
            mark = ' class="best"' if best[measure.key] == system.name else ""
            cells.append(f'<td data-value="{mean.value!r}"{mark}>{_number(mean.value)}{between}</td>')
        cells += _cost_cells(system.cost, costs)
        cells += [f"<td>{html.escape(system.facts.get(name, ''))}</td>" for name in facts]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    columns = "".join(
        f'<th scope="col"><button type="button" title="{html.escape(title)}">{html.escape(head)}</button></th>'
        for head, title in zip(heads, titles, strict=True)
    )
    return (
        '<section aria-labelledby="systems"><h2 id="systems">Systems</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="systems"><table class="sortable">'
        "<caption>A heading sorts. The best of a column is set in bold; recordings scored against themselves do not "
        f"compete.</caption><thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _cost_cells(cost: Cost | None, columns: Sequence[Column]) -> list[str]:
    if not columns:
        return []
    values = [None if cost is None else column.value(cost) for column in columns]
    cells = [
        '<td data-value="" class="soft">n/a</td>'
        if v is None
        else f'<td data-value="{v!r}">{in_digits(v)}</td>'
        for v in values
    ]
    return [*cells, f"<td>{html.escape('' if cost is None else cost.hardware)}</td>"]


def _best(systems: Sequence[System], measure: Measure) -> str | None:
    """Returns the best system of several that compete."""
    means = {
        each.name: each.means[measure.key].value
        for each in systems
        if measure.key in each.means and each.sounds
    }
    if len(means) < 2:
        return None
    choose = max if measure.better == "higher" else min
    return choose(means, key=lambda name: means[name])


def _distributions(content: Content) -> str:
    charts = []
    for measure in content.measures:
        values = {
            each.name: each.values[measure.key] for each in content.systems if each.values.get(measure.key)
        }
        means = {
            each.name: each.means[measure.key].value for each in content.systems if measure.key in each.means
        }
        if values:
            charts.append((measure, strips(measure.heading, measure.unit, values, means)))
    return _choosable("distributions", "Every file", charts)


def _choosable(key: str, title: str, charts: Sequence[tuple[Measure, str]]) -> str:
    """Returns a section of charts, the first one open."""
    if not charts:
        return ""
    shown = "".join(
        f"<details{' open' if number == 0 else ''}><summary>{html.escape(measure.heading)}</summary>{chart}</details>"
        for number, (measure, chart) in enumerate(charts)
    )
    return f'<section aria-labelledby="{key}"><h2 id="{key}">{html.escape(title)}</h2>{shown}</section>'


def _files(content: Content, chosen: Sequence[str], show: bool) -> str:
    if not chosen:
        return ""
    options = ['<option value="number up">worst first, as chosen</option>']
    for measure in content.measures:
        down = measure.better == "higher"
        for direction, word in (("down", "best" if down else "worst"), ("up", "worst" if down else "best")):
            title = f"{html.escape(measure.name)}, {word} first"
            options.append(f'<option value="{html.escape(measure.key)} {direction}">{title}</option>')
    shown = track(enumerate(chosen), "page", len(chosen), show)
    articles = "".join(_file(content, file, number) for number, file in shown)
    return (
        '<section aria-labelledby="heard"><h2 id="heard">Files</h2>'
        f'<p class="soft">{len(chosen)} of {len(content.files)} files: the worst, the best and some between, by '
        f"{html.escape(content.measures[0].name) if content.measures else 'name'}. "
        "Keys n and p play the next and the previous sound.</p>"
        '<div class="controls"><label>Order<select id="order">'
        f'{"".join(options)}</select></label><label>File name contains<input id="find" type="search"></label>'
        f'<output id="count" for="find order">{len(chosen)} of {len(chosen)} files</output></div>'
        f'<div id="files">{articles}</div></section>'
    )


def _file(content: Content, file: str, number: int) -> str:
    takes = []
    reference = content.references.get(file)
    heard = None
    if reference is not None:
        samples, rate = media.read_sound(reference)
        heard = media.spectrogram(samples, rate), rate
        takes.append(
            _take("recording", media.sound_uri(samples, rate), [("Spectrogram", _picture(heard[0]))], "")
        )
    ranks: dict[str, float] = {}
    for system in content.systems:
        place = system.sounds.get(file)
        if place is None or place == reference:
            continue
        samples, rate = media.read_sound(place)
        levels = media.spectrogram(samples, rate)
        pictures = [("Spectrogram", _picture(levels))]
        if heard is not None and heard[1] == rate and _alike(levels, heard[0]):
            pictures.append(
                ("Louder (red) or quieter (blue) than the recording", media.difference_uri(levels, heard[0]))
            )
        numbers = [
            (measure, system.values[measure.key][file])
            for measure in content.measures
            if file in system.values.get(measure.key, {})
        ]
        for measure, value in numbers:
            ranks.setdefault(measure.key, value)
        takes.append(
            _take(
                system.name, media.sound_uri(samples, rate), pictures, _table(system.said.get(file), numbers)
            )
        )
    values = html.escape(json.dumps(ranks))
    return (
        f'<article class="file" data-name="{html.escape(file)}" data-number="{number}" data-values="{values}">'
        f'<h3>{html.escape(file)}</h3><div class="takes">{"".join(takes)}</div></article>'
    )


def _alike(levels: np.ndarray, others: np.ndarray) -> bool:
    """Returns whether two sounds last as long, so that what happens at one time can be compared."""
    shortest, longest = sorted((levels.shape[1], others.shape[1]))
    return shortest >= (1 - LENGTH_TOLERANCE) * longest


def _picture(levels: np.ndarray) -> str:
    return media.spectrogram_uri(levels, float(levels.max()))


def _take(name: str, sound: str, pictures: Iterable[tuple[str, str]], numbers: str) -> str:
    shown = "".join(f'<img src="{uri}" alt="{html.escape(f"{title} of {name}")}">' for title, uri in pictures)
    label = html.escape(name)
    return (
        f'<div class="take"><h4>{label}</h4>{shown}<audio controls preload="metadata" aria-label="{label}" '
        f'src="{sound}"></audio>{numbers}</div>'
    )


def _table(said: str | None, numbers: Sequence[tuple[Measure, float]]) -> str:
    told = "" if not said else f'<p class="soft">{html.escape(said)}</p>'
    rows = "".join(
        f"<dt>{html.escape(measure.heading)}</dt><dd>{_number(value)}</dd>" for measure, value in numbers
    )
    return told + (f"<dl>{rows}</dl>" if rows else "")


def _plain_table(caption: str, rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    heads = "".join(
        f'<th scope="col"><button type="button">{html.escape(cell)}</button></th>' for cell in head
    )
    lines = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>{"".join(f"<td>{html.escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in body
    )
    return (
        f'<section><h2>{html.escape(caption)}</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(caption)}"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></section>"
    )


def _definitions(content: Content) -> str:
    if not content.measures:
        return ""
    rows = "".join(
        f"<dt><b>{html.escape(each.heading)}</b></dt><dd>{html.escape(each.definition)}</dd>"
        for each in content.measures
    )
    return f"<section><h2>What is measured</h2><dl>{rows}</dl></section>"


def _made(content: Content) -> str:
    if not content.notes:
        return ""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in content.notes)
    return f"<section><h2>Notes</h2><ul>{notes}</ul></section>"


def _asset(name: str) -> str:
    return resources("audiodiff.evaluation.page").joinpath(name).read_text(encoding="utf-8")


def _number(value: float) -> str:
    digits = 1 if abs(value) >= 10 else 3 if abs(value) < 1 else 2
    return f"{value:.{digits}f}"


def _between(low: float, high: float) -> str:
    return f"[{_number(low)}, {_number(high)}]"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
