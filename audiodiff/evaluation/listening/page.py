"""The page of a listening test: one HTML file with all its sounds, which a listener opens from disk.

It asks nothing of the network and knows no system's name. Progress is kept in the browser (localStorage), so that a
closed page goes on where it was; at the end the answers are saved as a JSON file that the listener sends back.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files as resources
from pathlib import Path

from audiodiff.errors import InputError
from audiodiff.evaluation.listening.design import ABX, MOS, MUSHRA, Design
from audiodiff.evaluation.page import media
from audiodiff.files import write_whole
from audiodiff.progress import track

PAGE, KEY = "listening_test.html", "key.json"
LARGEST_BYTES = 300 * 10**6  # a page beyond it is slow to open
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src data:"
_HOW = {
    MOS: "You hear one sound at a time. Play it, as often as you like, and say how good it is. "
    "Keys: p plays, 1 to 5 rate, Enter goes on.",
    MUSHRA: "You hear several versions of one sound beside a reference. Give each a number from 0 to 100, compared "
    "with the reference. One of them is the reference itself and should have 100. "
    "Keys: r plays the reference, 1 to 9 play the versions; arrow keys move a slider.",
    ABX: "You hear A, B and X. X is the same as one of the two: say which. If you cannot tell, guess. "
    "Keys: a, b and x play; 1 says that X is A, 2 that X is B, Enter goes on.",
}


def write_test(design: Design, folder: Path, show: bool = False) -> tuple[Path, Path]:
    """Writes the page and the key and returns where they are.

    Args:
        design: the test.
        folder: for both; only the page is for listeners.
        show: a progress bar on the terminal.

    Raises:
        InputError: the page would be too large, or the place cannot be written.
    """
    page, key = folder / PAGE, folder / KEY
    content = json.dumps(design.key, indent=1, ensure_ascii=False) + "\n"
    write_whole({page: render(design, show).encode("utf-8"), key: content.encode("utf-8")})
    return page, key


def render(design: Design, show: bool = False) -> str:
    """Returns the HTML of the page.

    Raises:
        InputError: it would be too large.
    """
    sounds, size = {}, 0
    for name, samples in track(design.sounds.items(), "page", len(design.sounds), show):
        sounds[name] = media.sound_uri(samples, design.sample_rate)
        size += len(sounds[name])
        if size > LARGEST_BYTES:
            raise InputError(
                f"the page would be larger than {LARGEST_BYTES / 1e6:.0f} MB with its {len(design.sounds)} sounds; "
                "pass --files N, or shorter sounds"
            )
    told = {
        "test": design.test,
        "kind": design.kind,
        "question": design.question,
        "trials": list(design.trials),
        "practice": list(design.practice),
        "loudest": design.loudest,
        "sounds": sounds,
    }
    data = json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")
    style = _asset("audiodiff.evaluation.page", "style.css") + _asset(__package__, "page.css")
    count, first = len(design.trials), len(design.practice)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>Listening test</title>\n<style>{style}</style>\n</head>\n<body>\n"
        "<header><h1>Listening test</h1>"
        '<button id="theme" type="button" aria-pressed="false">Light or dark</button></header>\n'
        f'<main id="main">\n<section id="welcome"><p>{html.escape(_HOW[design.kind])}</p>'
        f"<p>There are {count} questions, after {first} to practise. Use headphones, in a quiet room. You may close "
        "this page at any time and go on later in the same browser.</p>"
        '<form id="begin"><label>Your code (a name or number that the experimenter gave you)'
        '<input id="listener" required maxlength="60" autocomplete="off" spellcheck="false"></label>'
        '<button type="submit">Begin</button></form></section>\n'
        '<section id="level" hidden><h2 tabindex="-1">Level</h2><p>Play this sound, the loudest of the test, and set '
        "the volume of your computer so that it is comfortable. Do not change it afterwards.</p>"
        '<p><button type="button" id="loudest" class="play" aria-pressed="false" data-key="p">Play</button></p>'
        '<button type="button" id="levelled" disabled>The level is right</button></section>\n'
        '<section id="trial" hidden><h2 tabindex="-1" id="number"></h2><progress id="bar" max="1" value="0" '
        'aria-labelledby="number"></progress><p id="question"></p><div id="asked"></div>'
        '<div class="onward"><button type="button" id="next" disabled>Next</button>'
        '<span id="missing" class="soft" role="status"></span></div></section>\n'
        '<section id="done" hidden><h2 tabindex="-1">Thank you</h2><p>Save the file with your answers and send it to '
        "the experimenter.</p></section>\n"
        '<p id="saving" hidden><button type="button" id="save">Save the answers</button> '
        '<span id="saved" class="soft" role="status"></span></p>\n</main>\n'
        f'<script type="application/json" id="test">{data}</script>\n'
        f"<script>{_asset(__package__, 'page.js')}</script>\n</body>\n</html>\n"
    )


def _asset(package: str | None, name: str) -> str:
    return resources(package or "").joinpath(name).read_text(encoding="utf-8")
