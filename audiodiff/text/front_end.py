"""Text -> token ids, as one model reads it: normalised, in graphemes or phonemes, by one table of symbols.

A model's recipe holds the front-end beside its network, so that the text of synthesis is read as that of training was:

    text: {_target_: audiodiff.text.front_end.TextFrontEnd, language: en, kind: phonemes, symbols: "", blank: true}

Where phonemes are kept on disk is no matter of a recipe, which may come from anybody: a folder is named by the caller.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audiodiff.errors import InputError
from audiodiff.text.characters import Changes, counted, fit, tidy
from audiodiff.text.languages import language_of
from audiodiff.text.normalization import normalize
from audiodiff.text.phonemes import phonemizer
from audiodiff.text.symbols import IPA, IPA_PUNCTUATION, PAD, graphemes

KINDS = ("graphemes", "phonemes")


@dataclass(frozen=True)
class Reading:
    """A text as a model reads it.

    Attributes:
        normalized: in words.
        symbols: one character a token, blanks aside.
        tokens: ids, blanks among them where the front-end has them.
        changes: characters that were replaced or left out on the way.
    """

    normalized: str
    symbols: str
    tokens: list[int]
    changes: Changes


@dataclass(frozen=True)
class TextFrontEnd:
    """What text a model reads.

    Attributes:
        language: a name of `languages.LANGUAGES`.
        kind: "graphemes" or "phonemes".
        symbols: the table, one character a symbol in the order of ids, padding first; "" for that of the language and
            kind.
        blank: whether the padding symbol stands before, between and after all others (Grad-TTS' add_blank).
    """

    language: str = "en"
    kind: str = "graphemes"
    symbols: str = ""
    blank: bool = False

    def __post_init__(self) -> None:
        """Completes and checks the table.

        Raises:
            InputError: an unknown language or kind, or a table with a symbol twice or without the padding.
        """
        language_of(self.language)
        if self.kind not in KINDS:
            raise InputError(f"kind of text: got {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not isinstance(self.symbols, str) or not isinstance(self.blank, bool):
            raise InputError(
                f"text: got symbols {self.symbols!r} and blank {self.blank!r}, expected text and true or false"
            )
        if not self.symbols:
            own = graphemes(self.language) if self.kind == "graphemes" else IPA
            object.__setattr__(self, "symbols", own)
        twice = sorted({symbol for symbol in self.symbols if self.symbols.count(symbol) > 1})
        if twice or self.symbols[0] != PAD or len(self.symbols) < 2:
            raise InputError(
                f"symbols: got {self.symbols!r}, expected {PAD!r} first and then each symbol once"
                + (f"; {twice} stand there several times" if twice else "")
            )

    @property
    def vocabulary(self) -> int:
        """Number of different tokens."""
        return len(self.symbols)

    def tokens(self, text: str, cache: Path | None = None) -> list[int]:
        """Returns the ids of a text, and warns of characters that had to be left out.

        Args:
            text: as it is written.
            cache: folder of phonemes that were made before; None for none.

        Raises:
            InputError: as `read`.
        """
        reading = self.read(text, cache)
        if reading.changes.dropped:
            warnings.warn(f"text: left out {counted(reading.changes.dropped)}", stacklevel=2)
        return reading.tokens

    def read(self, text: str, cache: Path | None = None) -> Reading:
        """Returns the ids of a text and how they came about.

        Args:
            text: as it is written.
            cache: folder of phonemes that were made before; None for none.

        Raises:
            InputError: no text, an empty one, markup, control characters, nothing that this model can say, or a
                missing library.
        """
        return self.read_many([text], cache)[0]

    def read_many(
        self, texts: Sequence[str], cache: Path | None = None, show_progress: bool = False
    ) -> list[Reading]:
        """Returns the readings of many texts; phonemes of new ones are made in batches.

        Args:
            texts: as they are written.
            cache: folder of phonemes that were made before; None for none.
            show_progress: whether to show a bar on a terminal.

        Raises:
            InputError: as `read`, for the first text that cannot be read.
        """
        spelt = [self._spell(text) for text in texts]
        if self.kind == "graphemes":
            return [self._finish(text, text, changes) for text, changes in spelt]
        spoken = phonemizer(self.language, cache).many([text for text, _ in spelt], show_progress)
        return [
            self._finish(text, said, changes) for (text, changes), said in zip(spelt, spoken, strict=True)
        ]

    def text(self, tokens: Sequence[int]) -> str:
        """Returns the symbols of ids, without padding and blanks.

        Raises:
            InputError: an id that the table lacks.
        """
        wrong = sorted({token for token in tokens if not 0 <= token < self.vocabulary})
        if wrong:
            raise InputError(f"tokens: got {wrong[:10]}, expected ids from 0 to {self.vocabulary - 1}")
        return "".join(self.symbols[token] for token in tokens).replace(PAD, "")

    def _spell(self, text: str) -> tuple[str, Changes]:
        """Returns the text in words, in characters that can be said."""
        tidied, removed = tidy(text)
        words, changes = fit(normalize(tidied, self.language), self._sayable)
        words = " ".join(words.split())
        lost = removed + changes
        if not any(character.isalpha() for character in words):
            raise InputError(
                f"text: got {text.strip()[:40]!r}, of which this model ({self.language}, {self.kind}) can say nothing"
                f"{f' ({lost})' if lost else ''}; expected letters or digits"
            )
        return words, lost

    def _finish(self, normalized: str, spoken: str, changes: Changes) -> Reading:
        fitted, more = fit(spoken, self._known)
        symbols = " ".join(fitted.split())
        ids = [self.symbols.index(symbol) for symbol in symbols]
        if self.blank:
            ids = [0] + [token for symbol in ids for token in (symbol, 0)]
        return Reading(normalized, symbols, ids, changes + more)

    def _known(self, character: str) -> bool:
        return character != PAD and character in self.symbols

    def _sayable(self, character: str) -> bool:
        """Whether a character may reach the table, or espeak-ng."""
        if self.kind == "graphemes":
            return self._known(character)
        if character in IPA_PUNCTUATION or character == "'":
            return True
        script = language_of(self.language).script
        return character.isalpha() and unicodedata.name(character, "").startswith(script)
