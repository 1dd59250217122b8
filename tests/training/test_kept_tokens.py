"""Tokens of a large corpus are read once: found again by every rank, and by nobody who reads otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiodiff.errors import InputError
from audiodiff.text.front_end import TextFrontEnd
from audiodiff.training import kept_tokens
from audiodiff.training.texts import TextReader

TEXTS = ["One two.", "Two ☃ one!", "<break/>", "Four, four."]


def reader(folder: Path, front_end: TextFrontEnd | None = None, keep_from: int = 1) -> TextReader:
    return TextReader(front_end or TextFrontEnd(), folder, keep_from)


def plain(tokens: object) -> list[list[int] | None]:
    return [None if row is None else list(map(int, row)) for row in tokens]  # type: ignore[attr-defined]


def test_a_second_rank_finds_what_the_first_one_read_and_tells_the_same(tmp_path: Path) -> None:
    first, second = reader(tmp_path), reader(tmp_path)
    tokens = first(TEXTS)
    (file,) = tmp_path.glob("*.npz")
    written = file.stat().st_mtime_ns
    assert plain(second(TEXTS)) == plain(tokens) == plain(TextReader(TextFrontEnd())(TEXTS))
    assert file.stat().st_mtime_ns == written
    assert second.describe() == first.describe()
    assert second.dropped == {"☃": 1}


def test_what_is_found_was_not_read_again(tmp_path: Path) -> None:
    path = kept_tokens.path_of(tmp_path, TextFrontEnd(), TEXTS)
    kept_tokens.save(path, kept_tokens.Kept([[1], [2], None, []], {}, ["why"]))
    assert plain(reader(tmp_path)(TEXTS)) == [[1], [2], None, []]


@pytest.mark.parametrize(
    ("front_end", "texts"),
    [(TextFrontEnd(blank=True), TEXTS), (TextFrontEnd(), TEXTS[:2]), (TextFrontEnd(), TEXTS[::-1])],
    ids=["another front-end", "fewer texts", "another order"],
)
def test_tokens_of_another_corpus_or_front_end_are_not_taken(
    front_end: TextFrontEnd, texts: list[str], tmp_path: Path
) -> None:
    reader(tmp_path)(TEXTS)
    assert plain(reader(tmp_path, front_end)(texts)) == plain(TextReader(front_end)(texts))
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_damaged_tokens_are_read_again(tmp_path: Path) -> None:
    expected = plain(reader(tmp_path)(TEXTS))
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert plain(reader(tmp_path)(TEXTS)) == expected
    assert file.stat().st_size > 100


def test_small_corpora_leave_no_files(tmp_path: Path) -> None:
    reader(tmp_path, keep_from=5)(TEXTS)
    assert not list(tmp_path.iterdir())


def test_texts_of_which_none_can_be_read_are_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        reader(tmp_path)(["<a>", "<b>"])
    assert not list(tmp_path.iterdir())
