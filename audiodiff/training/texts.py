"""The texts of a corpus as a model reads them, and the parts of a recipe that depend on its table of symbols.

The recipe's node `text` is the front-end, which is saved with the model. Every transcript is read once, when a run
opens; phonemes, and the tokens of large corpora, are kept in the user's cache folder, so that ranks, restarts and
further runs find them there (`kept_tokens`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.audio.representation import Representation
from audiodiff.data.segments import Clips
from audiodiff.data.transcripts import Limits, TranscribedClips
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.text.characters import counted
from audiodiff.text.front_end import TextFrontEnd
from audiodiff.text.phonemes import default_cache
from audiodiff.training import kept_tokens

_WORTH_KEEPING = 2000  # texts; fewer are read within half a second
_AT_ONCE = 2048  # texts; where one of them cannot be read, these are read one by one


class TextReader:
    """Texts -> tokens, counting what is lost on the way.

    Attributes:
        dropped: how often a character was left out.
        refused: why texts cannot be read, the first few.
    """

    def __init__(
        self, front_end: TextFrontEnd, cache: Path | None = None, keep_from: int = _WORTH_KEEPING
    ) -> None:
        """Keeps the front-end.

        Args:
            front_end: how texts are read.
            cache: folder of tokens; None for the user's.
            keep_from: texts from which on their tokens are kept there.
        """
        self.front_end = front_end
        self.dropped: Counter[str] = Counter()
        self.refused: list[str] = []
        self._cache = default_cache().parent / "tokens" if cache is None else cache
        self._keep_from = keep_from

    def __call__(self, texts: Sequence[str]) -> list[Sequence[int] | None]:
        """Returns the tokens of each text, or None for one that cannot be read.

        Raises:
            InputError: none of them can be read, as where espeak-ng is missing.
        """
        if len(texts) < self._keep_from:
            return self._all(texts)
        path = kept_tokens.path_of(self._cache, self.front_end, texts)
        kept = kept_tokens.load(path, len(texts))
        if kept is None:
            tokens = self._all(texts)
            kept_tokens.save(path, kept_tokens.Kept(tokens, self.dropped, self.refused))
            return tokens
        self.dropped.update(kept.dropped)
        self.refused += kept.refused
        return kept.tokens

    def describe(self) -> str | None:
        """Returns which characters were left out and why texts were, in one line; None where none were."""
        parts = [f"characters left out: {counted(self.dropped)}"] if self.dropped else []
        parts += (
            [f"{len(self.refused)} texts cannot be read, the first: {self.refused[0]}"]
            if self.refused
            else []
        )
        return "; ".join(parts) or None

    def _all(self, texts: Sequence[str]) -> list[Sequence[int] | None]:
        tokens: list[Sequence[int] | None] = []
        for first in range(0, len(texts), _AT_ONCE):
            tokens += self._read(texts[first : first + _AT_ONCE])
        if texts and len(self.refused) == len(texts):
            raise InputError(self.refused[0])
        return tokens

    def _read(self, texts: Sequence[str]) -> list[Sequence[int] | None]:
        try:
            readings = self.front_end.read_many(texts, default_cache(), show_progress=True)
        except InputError as error:
            if len(texts) > 1:
                return [tokens for text in texts for tokens in self._read([text])]
            self.refused.append(str(error))
            return [None]
        for reading in readings:
            self.dropped.update(reading.changes.dropped)
        return [reading.tokens for reading in readings]


class TokensOf:
    """A text -> its tokens [L] int64; what was read once is remembered."""

    def __init__(self, front_end: TextFrontEnd) -> None:
        self.front_end = front_end
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> Tensor:
        """Returns the tokens of a text.

        Raises:
            InputError: it cannot be read.
        """
        if text not in self._known:
            self._known[text] = self.front_end.tokens(text, default_cache())
        return torch.tensor(self._known[text])


def front_end_of(recipe: dict[str, Any]) -> TextFrontEnd | None:
    """Returns the front-end of a recipe; None for a model that is told no text."""
    node = recipe.get("text")
    return None if node is None else instantiate(node)


def transcribed(clips: Clips, recipe: dict[str, Any], console: Console) -> Clips:
    """Returns the clips whose texts can be learnt from, with their tokens; all as they are where no text is told.

    Args:
        clips: of one split.
        recipe: resolved.
        console: told what is left out.

    Raises:
        InputError: none is left, or the front-end cannot read.
    """
    front_end = front_end_of(recipe)
    if front_end is None:
        return clips
    data = recipe["data"]
    limits = Limits(
        round(data["segment_seconds"] * data["sample_rate"]),
        _frames_of(recipe),
        data["labels"],
    )
    reader = TextReader(front_end)
    chosen = TranscribedClips(clips, reader, limits)
    for line in (chosen.describe(), reader.describe()):
        if line is not None:
            console.print(f"text: {line}", style="yellow", soft_wrap=True, markup=False)
    return chosen


def _frames_of(recipe: dict[str, Any]) -> Callable[[int], int]:
    """Returns samples -> the frames that tokens are aligned to: those of the mel, and of what is diffused at most."""
    representation: Representation = instantiate(recipe["model"]["representation"])
    if recipe.get("features") is None:
        return lambda samples: representation.shape(samples)[1]
    log_mel: LogMel = instantiate(recipe["features"])
    return lambda samples: min(representation.shape(samples)[1], log_mel.frames(samples))
