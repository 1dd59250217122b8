"""The page of a listening test in a real browser: opened from disk, played, answered, saved, and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audiodiff.audio import io
from audiodiff.evaluation.listening.design import REFERENCE, Design, Question, design
from audiodiff.evaluation.listening.page import write_test
from audiodiff.evaluation.listening.report import write_results

# The page's policy forbids what playwright waits by.
WAIT = """(met => new Promise((done, fail) => {
    const look = () => (met() ? done() : setTimeout(look, 10));
    setTimeout(() => fail(new Error("in vain")), 30000);
    look();
}))"""
SCORES = {
    "mos": {"fine": 4, "coarse": 2},
    "mushra": {REFERENCE: 100, "fine": 80, "coarse": 35, "anchor-3500": 0},
}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    names = (REFERENCE, "fine", "coarse")
    for place, name in enumerate(names):
        for number in range(3):
            seed = torch.Generator().manual_seed(10 * place + number)
            io.write(tmp_path / name / f"f{number}.wav", 0.2 * torch.randn(1, 1600, generator=seed), 16000)
    return {name: tmp_path / name for name in names}


class Listener:
    """One who works through a page, and what the page complained of and asked for meanwhile."""

    def __init__(self, page: Any, made: Design, place: Path) -> None:
        self.page, self.made, self.place = page, made, place
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url[:60]))

    def begin(self, code: str) -> None:
        """Opens the page, gives a code and sets the level, all by keyboard."""
        self.page.goto(self.place.as_uri())
        self.page.get_by_label("Your code").fill(code)
        self.page.keyboard.press("Enter")
        assert self.page.locator("#levelled").is_disabled()
        self.page.keyboard.press("p")
        self.page.get_by_role("button", name="The level is right").press("Enter")

    def title(self) -> str:
        return str(self.page.locator("#number").inner_text())

    def play_all(self) -> None:
        for button in self.page.locator("#asked button.play").all():
            self.page.keyboard.press(button.get_attribute("data-key"))
            self.page.evaluate(f"{WAIT}(() => heard.has({button.get_attribute('data-sound')!r}))")

    def system(self, sound: str) -> str:
        return str(self.made.key["sounds"][sound]["system"])

    def answer(self) -> None:
        """Plays everything, answers as SCORES has it (ABX: always A) and goes on."""
        following = self.page.locator("#next")
        assert following.is_disabled()
        self.play_all()
        if self.made.kind == "mos":
            sound = self.page.locator("#asked button.play").get_attribute("data-sound")
            self.page.keyboard.press(str(SCORES["mos"][self.system(sound)]))
        elif self.made.kind == "abx":
            self.page.keyboard.press("1")
        else:
            for row in self.page.locator("#asked .rated:has(input)").all():
                score = SCORES["mushra"][self.system(row.locator("button").get_attribute("data-sound"))]
                slider = row.get_by_role("slider")
                if score in (0, 100):
                    slider.press("Home" if score == 0 else "End")
                else:
                    slider.fill(str(score))
        assert self.page.locator("#missing").inner_text() == ""
        following.press("Enter")

    def save(self, folder: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Save the answers").click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path


def made_of(kind: str, folders: dict[str, Path], out: Path) -> tuple[Design, Path, Path]:
    systems = {name: folder for name, folder in folders.items() if name != REFERENCE}
    made = design(Question(kind, systems, folders[REFERENCE] if kind == "mushra" else None), "")
    return made, *write_test(made, out)


@pytest.mark.parametrize("kind", ["mos", "mushra", "abx"])
def test_a_listener_answers_and_the_file_is_read(
    kind: str, folders: dict[str, Path], tmp_path: Path, browser: Any
) -> None:
    made, place, key = made_of(kind, folders, tmp_path / "test")
    context = browser.new_context(accept_downloads=True)
    listener = Listener(context.new_page(), made, place)
    listener.begin("anna")
    for number in range(len(made.practice)):
        assert listener.title() == f"Practice {number + 1} of {len(made.practice)}: does not count"
        listener.answer()
    total = len(made.trials)
    assert listener.title() == f"Question 1 of {total}"
    listener.answer()
    order = [listener.page.evaluate("order().map(each => each.id)")]
    listener.page.reload()  # what was answered is kept
    listener.begin("anna")
    assert listener.title() == f"Question 2 of {total}"
    order.append(listener.page.evaluate("order().map(each => each.id)"))
    assert order[0] == order[1]
    for _ in range(total - 1):
        listener.answer()
    assert listener.page.get_by_role("heading", name="Thank you").is_visible()
    saved = listener.save(tmp_path)
    assert saved.name == f"answers_anna_{made.test[:8]}.json"

    text = write_results([saved], key, tmp_path / "out", 0, "")
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    assert numbers["answered"] == {"anna": total}
    assert numbers["incomplete"] == {}
    if kind == "abx":
        answers = json.loads(saved.read_text())["answers"]
        assert all(each["answer"] == each["a"] for each in answers)
        assert sum(pair["right"] for pair in numbers["pairs"]) == sum(
            each["x"] == each["a"] for each in answers
        )
        assert sum(pair["answers"] for pair in numbers["pairs"]) == total
    else:
        assert {name: each["mean"] for name, each in numbers["systems"].items()} == SCORES[kind]
    assert "0 of 1 listeners left out" in text or kind != "mushra"
    assert listener.complaints == []
    assert [url for url in listener.requests if not url.startswith(("data:", "file:", "blob:"))] == []
    context.close()


def test_listeners_have_orders_of_their_own_and_others_go_on_alone(
    folders: dict[str, Path], tmp_path: Path, browser: Any
) -> None:
    io.write(folders["fine"] / "f3.wav", torch.ones(1, 1600) / 9, 16000)
    io.write(folders["coarse"] / "f3.wav", torch.ones(1, 1600) / 5, 16000)
    made, place, key = made_of("abx", folders, tmp_path / "test")
    listener = Listener(browser.new_page(), made, place)
    orders = {}
    for code in ("anna", "ben"):
        listener.begin(code)
        orders[code] = listener.page.evaluate("order().map(each => each.id)")
        assert "does not count" in listener.title()  # nothing of anna's is ben's
    assert sorted(orders["anna"]) == sorted(orders["ben"]) == sorted(trial["id"] for trial in made.trials)
    assert orders["anna"] != orders["ben"]
    for _ in range(len(made.practice) + 1):
        listener.answer()
    saved = listener.save(tmp_path)
    write_results([saved], key, tmp_path / "out", 0, "")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["incomplete"] == {"ben": 1}


def test_page_can_be_used_by_all(folders: dict[str, Path], tmp_path: Path, browser: Any) -> None:
    made, place, _ = made_of("mushra", folders, tmp_path / "test")
    page = browser.new_page(color_scheme="dark", viewport={"width": 380, "height": 760})
    listener = Listener(page, made, place)
    page.goto(place.as_uri())
    page.get_by_role("button", name="Begin").click()
    assert page.locator("#welcome").is_visible()  # not without a code
    listener.begin("c")
    assert page.evaluate("document.activeElement.id") == "number"  # a screen reader hears the new heading
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = (
        "all => all.filter(e => !(e.innerText || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert page.locator("button:visible, input:visible").evaluate_all(unnamed) == 0
    both = """([first, second]) => {  // one sound at a time
        first.click();
        second.click();
        return [first, second].map(each => each.getAttribute("aria-pressed"));
    }"""
    assert page.locator("#asked .rated button").evaluate_all(both) == ["false", "true"]
    page.evaluate(f"{WAIT}(() => !document.querySelector('[aria-pressed=true].play'))")  # it has ended
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(paper) != dark
    assert listener.complaints == []
