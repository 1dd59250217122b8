"""The page of an evaluation: complete in itself, right in its numbers, and alive in a real browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audiodiff.audio import io
from audiodiff.errors import InputError
from audiodiff.evaluation.page import media
from audiodiff.evaluation.page.content import Mean, content_of
from audiodiff.evaluation.page.page import chosen_files, render, write_page
from audiodiff.evaluation.page.trade_off import Point, frontier
from audiodiff.synthesis.cost import Cost

RATE = 8000
FILES = [f"take_{number}.wav" for number in range(9)]


def tone(path: Path, frequency: float, seconds: float = 0.3) -> Path:
    time = torch.arange(round(seconds * RATE)) / RATE
    io.write(path, 0.3 * torch.sin(2 * torch.pi * frequency * time)[None], RATE)
    return path


def metric(better: str) -> dict[str, str]:
    return {
        "name": "Error" if better == "lower" else "Quality",
        "unit": "dB",
        "better": better,
        "definition": "D <&>.",
    }


def score(values: dict[str, float]) -> dict[str, Any]:
    mean = sum(values.values()) / len(values)
    return {"mean": mean, "interval_95": [mean - 1, mean + 1], "files": values, "not_measurable": {}}


def numbers() -> dict[str, Any]:
    good = {file: 10.0 + place for place, file in enumerate(FILES)}
    bad = {file: 5.0 - place for place, file in enumerate(FILES)}
    systems = {"good": {"pesq_wb": score(good)}, "bad </td>": {"pesq_wb": score(bad)}}
    facts = {"good": {"samples": {"seed": 1}, "training": {}}, "bad </td>": {"samples": {}, "training": {}}}
    costs = {"good": Cost(5.0, 10.0, 24, 1000, 2e9, 10**8, "a <machine>").record()}
    costs["bad </td>"] = Cost(1.0, 10.0, 6, 1000, 2e9, None, "another").record()
    return {
        "title": "Results of <script>alert(1)</script>",
        "command": "audiodiff evaluate 'a & b'",
        "facts": facts,
        "costs": costs,
        "notes": ["A note."],
        "vocoder": {"metrics": {"pesq_wb": metric("higher")}, "systems": systems},
    }


@pytest.fixture
def sounds(tmp_path: Path) -> dict[str, dict[str, Path]]:
    return {
        name: {
            file: tone(tmp_path / name.strip("</td> ") / file, 200 + 50 * place)
            for place, file in enumerate(FILES)
        }
        for name in ("good", "bad </td>")
    }


@pytest.fixture
def references(tmp_path: Path) -> dict[str, Path]:
    return {file: tone(tmp_path / "reference" / file, 210 + 50 * place) for place, file in enumerate(FILES)}


class Tags(HTMLParser):
    """Collects the tags, and whether they close in the order in which they opened."""

    VOID = ("meta", "img", "input", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.identifiers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        told = dict(attrs)
        self.addresses += [str(told[key]) for key in ("src", "href") if key in told]
        self.identifiers += [str(told["id"])] if "id" in told else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_html_and_asks_nothing_of_the_network(
    sounds: dict[str, dict[str, Path]], references: dict[str, Path]
) -> None:
    page = render(content_of(numbers(), sounds, references), 24)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(set(tags.identifiers)) == len(tags.identifiers)
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert "http" not in re.sub(r"http-equiv|data:[a-z/]+;base64,[\w+/=]+", "", page)
    assert "<script>alert" not in page
    assert len([address for address in tags.addresses if address.startswith("data:audio")]) == 3 * len(FILES)


def test_same_content_gives_the_same_page(
    sounds: dict[str, dict[str, Path]], references: dict[str, Path]
) -> None:
    content = content_of(numbers(), sounds, references)
    assert render(content, 9) == render(content, 9)


def test_sounds_inside_are_the_sounds(tmp_path: Path) -> None:
    import base64
    import io as bytes_io

    import soundfile

    samples, rate = media.read_sound(tone(tmp_path / "a.wav", 300))
    uri = media.sound_uri(samples, rate)
    heard, found = soundfile.read(bytes_io.BytesIO(base64.b64decode(uri.partition(",")[2])), always_2d=True)
    assert found == rate
    np.testing.assert_allclose(heard, samples, atol=2**-15)


def test_worst_and_best_are_among_the_chosen(sounds: dict[str, dict[str, Path]]) -> None:
    content = content_of(numbers(), {"good": sounds["good"]}, {})
    chosen = chosen_files(content, 6)
    assert chosen[:2] == FILES[:2]
    assert chosen[-2:] == FILES[-2:]
    assert len(set(chosen)) == 6
    assert chosen_files(content, 100) == FILES
    assert chosen_files(content, 0) == []


def test_more_or_less_than_no_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 or more"):
        write_page(content_of(numbers(), {}, {}), tmp_path / "report.html", -1)


def test_difference_of_equal_sounds_is_white_and_of_a_louder_one_red() -> None:
    import base64
    import io as bytes_io

    from matplotlib.image import imread

    samples = np.random.default_rng(0).normal(0, 0.1, (RATE, 1))
    levels = media.spectrogram(samples, RATE)

    def colours(estimate: np.ndarray) -> np.ndarray:
        uri = media.difference_uri(estimate, levels)
        return imread(bytes_io.BytesIO(base64.b64decode(uri.partition(",")[2])))[..., :3]

    assert colours(levels).min() > 0.95
    louder = colours(levels + 20).mean((0, 1))
    assert louder[0] > louder[2] + 0.2


@pytest.mark.parametrize(("better", "best"), [("higher", ["fast", "even"]), ("lower", ["fast", "poor"])])
def test_frontier_is_of_those_that_no_other_beats_in_both(better: str, best: list[str]) -> None:
    scores = {
        "fast": (1.0, 2.0),
        "even": (2.0, 3.0),
        "slow": (4.0, 3.0),
        "poor": (3.0, 1.0),
        "odd": (5.0, 2.5),
    }
    points = {name: Point(cost, Mean(score, None)) for name, (cost, score) in scores.items()}
    assert frontier(points, better) == best


def test_scores_are_drawn_against_what_two_systems_have_measured() -> None:
    page = render(content_of(numbers(), {}, {}), 0)
    assert "Best in both: bad &lt;/td&gt;, good" in page
    assert 'data-cost="multiply_adds"' in page
    assert 'data-cost="peak_memory"' not in page  # known of one system alone
    alone = numbers()
    del alone["costs"]["good"]
    assert "Score against cost" not in render(content_of(alone, {}, {}), 0)


def test_scores_of_sets_are_on_the_page_too() -> None:
    rows = {
        name: {"values": {"frechet": value}} for name, value in (("real training split", 4.0), ("good", 24.0))
    }
    content = content_of(numbers() | {"sets": {"features": {"name": "mel"}, "rows": rows}}, {}, {})
    assert [measure.key for measure in content.measures] == ["pesq_wb", "frechet"]
    means = {
        system.name: system.means["frechet"].value for system in content.systems if "frechet" in system.means
    }
    assert means == {"real training split": 4.0, "good": 24.0}


def test_page_lives_in_a_browser(
    tmp_path: Path, sounds: dict[str, dict[str, Path]], references: dict[str, Path], browser: Any
) -> None:
    path = tmp_path / "report.html"
    write_page(content_of(numbers(), sounds, references), path, 24)
    page = browser.new_page(color_scheme="dark")
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url[:60]))
    page.goto(path.as_uri())

    # A heading sorts by value, by mouse and by keyboard.
    first = page.locator("table.sortable tbody tr th").first
    assert first.inner_text() == "good"
    heading = page.get_by_role("button", name="Quality")
    heading.click()
    assert first.inner_text() == "bad </td>"
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    heading.focus()
    page.keyboard.press("Enter")
    assert first.inner_text() == "good"

    # What sounds cost stands beside the scores, and one is drawn against the other.
    row = page.locator("table.sortable tbody tr").first
    assert row.locator("td").all_inner_texts()[1:7] == ["0.5", "24", "2", "0.001", "100", "a <machine>"]
    charts = page.locator("div.cost:visible")
    assert charts.count() == 1
    point = charts.locator("[role=img]").first
    assert point.get_attribute("aria-label") == "good: Quality 14 dB, real-time factor 0.5"
    assert not charts.get_by_text("good: Quality 14 dB").is_visible()
    page.locator("#cost").focus()
    page.keyboard.press("ArrowDown")
    assert charts.count() == 1
    evaluations = charts.get_by_label("good: Quality 14 dB, network evaluations 24", exact=True)
    page.locator("#cost").focus()
    for _ in range(2):  # past the heading of the measure, to its first system
        page.keyboard.press("Tab")
    assert evaluations.evaluate("e => e === document.activeElement")
    assert charts.get_by_text("good: Quality 14 dB").is_visible()

    # Files are found by name and ordered.
    page.get_by_label("File name contains").fill("take_3")
    assert page.locator("article.file:visible").count() == 1
    assert page.locator("#count").inner_text() == f"1 of {len(FILES)} files"
    page.get_by_label("File name contains").fill("")
    page.get_by_label("Order").select_option("pesq_wb down")
    assert page.locator("article.file h3").first.inner_text() == FILES[-1]

    # Every sound can be played, one at a time.
    ready = "new Promise(r => { e.onloadedmetadata = () => r(true); e.onerror = () => r(false) })"
    wait = f"e => e.readyState >= 1 ? true : {ready}"
    players = page.locator("audio")
    assert players.count() == 3 * len(FILES)
    assert all(player.evaluate(wait) for player in players.all())
    assert players.first.evaluate("e => e.duration") == pytest.approx(0.3, abs=0.01)
    players.nth(0).evaluate("e => { e.loop = true; return e.play() }")
    players.nth(1).evaluate("e => e.play()")
    page.wait_for_function("document.querySelectorAll('audio')[0].paused")

    # Every picture is one, and has words for those who do not see it.
    assert page.locator("img").evaluate_all("all => all.every(e => e.naturalWidth > 10 && e.alt.length > 5)")
    unnamed = (
        "all => all.filter(e => !(e.innerText || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert page.locator("button, audio, select, input").evaluate_all(unnamed) == 0

    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(paper) != dark

    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
