"""Words -> phonemes in the International Phonetic Alphabet, by espeak-ng through phonemizer (Bernard and Titeux 2021).

Both are GPL, optional and imported only here, when asked. Punctuation never reaches them: a text is cut at it, each
piece of words between is phonemised once, and the pieces are put back in their places. Pieces are kept in a folder,
under language and versions, in a few hundred files that are written whole: several processes may share it (of two that
write one file at the same time the later wins, and what the earlier added is made again when it is asked for).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.progress import track
from audiodiff.text.languages import language_of

_WORDS = re.compile(r"[^\W_]+(?:[ '’-][^\W_]+)*")
_BATCH = 4096
_REMEMBERED = 500_000


def default_cache() -> Path:
    """Returns the folder of the user's caches in which phonemes are kept unless another is named."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "audiodiff" / "phonemes"


class Phonemizer:
    """Phonemes of one language, kept on disk."""

    def __init__(self, language: str = "en", cache: Path | None = None) -> None:
        """Starts espeak-ng.

        Args:
            language: a name of `languages.LANGUAGES`.
            cache: folder of what is phonemised already; None keeps it in memory alone.

        Raises:
            InputError: an unknown language, or phonemizer or espeak-ng is not installed.
        """
        voice = language_of(language).voice
        self._backend = _espeak(voice)
        version = ".".join(map(str, self._backend.version()))
        self.version = f"espeak-ng-{version}-phonemizer-{importlib.metadata.version('phonemizer')}"
        self._folder = None if cache is None else Path(cache) / self.version / voice
        self._known: dict[str, str] = {}
        self._read: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> str:
        """Returns the text in phonemes; punctuation and spaces stay where they are."""
        return self.many([text])[0]

    def many(self, texts: Sequence[str], show_progress: bool = False) -> list[str]:
        """Returns each text in phonemes; pieces that are new are phonemised in batches and kept.

        Args:
            texts: normalised texts of the language.
            show_progress: whether to show a bar on a terminal.

        Raises:
            InputError: the cache is damaged or cannot be written.
        """
        with self._lock:
            pieces = dict.fromkeys(piece for text in texts for piece in _WORDS.findall(text))
            self._load(pieces)
            new = [piece for piece in pieces if piece not in self._known]
            batches = [new[i : i + _BATCH] for i in range(0, len(new), _BATCH)]
            for batch in track(batches, "phonemes", len(batches), show_progress):
                self._keep(dict(zip(batch, self._phonemize(batch), strict=True)))
            spoken = [_WORDS.sub(lambda match: self._known[match[0]], text) for text in texts]
            if len(self._known) > _REMEMBERED:  # a server runs for months
                self._known.clear()
                self._read.clear()
            return spoken

    def _phonemize(self, pieces: list[str]) -> list[str]:
        spoken: list[str] = self._backend.phonemize(pieces, strip=True)
        if len(spoken) != len(pieces):
            raise RuntimeError(f"espeak-ng made {len(spoken)} texts of {len(pieces)}")
        return [" ".join(words.split()) for words in spoken]

    def _load(self, pieces: Iterable[str]) -> None:
        """Reads the files in which the pieces would be."""
        if self._folder is None:
            return
        for name in {_file(piece) for piece in pieces if piece not in self._known} - self._read:
            self._known.update(_stored(self._folder / name))
            self._read.add(name)

    def _keep(self, fresh: Mapping[str, str]) -> None:
        """Adds pieces to memory and to their files, with what other processes put there meanwhile."""
        self._known.update(fresh)
        if self._folder is None:
            return
        by_file: dict[str, dict[str, str]] = {}
        for piece, phonemes in fresh.items():
            by_file.setdefault(_file(piece), {})[piece] = phonemes
        contents = {}
        for name, added in by_file.items():
            content = _stored(self._folder / name) | added
            contents[self._folder / name] = json.dumps(content, ensure_ascii=False, indent=0).encode()
        write_whole(contents)


@lru_cache(maxsize=32)
def phonemizer(language: str, cache: Path | None = None) -> Phonemizer:
    """Returns the process's one Phonemizer of a language and a folder: to start espeak-ng takes longer than to use it.

    Raises:
        InputError: as Phonemizer.
    """
    return Phonemizer(language, cache)


def _file(piece: str) -> str:
    return f"{hashlib.sha256(piece.encode()).hexdigest()[:2]}.json"


def _stored(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it, it is made again") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise InputError(f"{path}: is no cache of phonemes; remove it, it is made again")
    return content


def _espeak(voice: str) -> Any:
    """Returns phonemizer's backend for the voice."""
    try:
        backend = importlib.import_module("phonemizer.backend").EspeakBackend
    except ImportError as error:
        raise InputError(
            "phonemes need phonemizer, which is not installed: pip install 'audiodiff[tts]'"
        ) from error
    logger = logging.getLogger(__name__)
    logger.setLevel(logging.ERROR)  # that espeak-ng joins some words is no news
    try:
        # Flags such as (en) around words of another language are no phonemes.
        return backend(voice, with_stress=True, language_switch="remove-flags", logger=logger)
    except RuntimeError as error:
        raise InputError(
            f"phonemes need espeak-ng, which does not run here ({error}); install it: "
            "apt install espeak-ng (Debian, Ubuntu), brew install espeak-ng (macOS)"
        ) from error
