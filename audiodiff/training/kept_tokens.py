"""Tokens of a corpus, kept: a hundred thousand texts take half a minute to read, on every rank and at every restart.

A file is named by all that tokens depend on: the texts, the front-end, the sources of this package's reading and the
versions of the libraries that it calls. What was read by other rules is therefore never found.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import audiodiff.text
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.text.front_end import TextFrontEnd
from audiodiff.text.phonemes import phonemizer


@dataclass(frozen=True)
class Kept:
    """What reading texts gave.

    Attributes:
        tokens: of each text; None for one that cannot be read.
        dropped: how often a character was left out.
        refused: why texts cannot be read.
    """

    tokens: list[Sequence[int] | None]
    dropped: Mapping[str, int]
    refused: Sequence[str]


def path_of(folder: Path, front_end: TextFrontEnd, texts: Sequence[str]) -> Path:
    """Returns the file in which the tokens of these texts are, or would be, kept.

    Raises:
        InputError: phonemes are asked for, and espeak-ng is missing.
    """
    spoken = phonemizer(front_end.language).version if front_end.kind == "phonemes" else ""
    digest = hashlib.sha256("\0".join([repr(front_end), spoken, _rules(), *texts]).encode())
    return folder / f"{digest.hexdigest()[:32]}.npz"


def save(path: Path, kept: Kept) -> None:
    """Writes the tokens; where there is no room for them they are read again."""
    known = [[] if tokens is None else tokens for tokens in kept.tokens]
    content = io.BytesIO()
    np.savez(
        content,
        tokens=np.concatenate([np.asarray(tokens, np.int16) for tokens in known]),
        counts=np.array([-1 if tokens is None else len(tokens) for tokens in kept.tokens], np.int32),
        told=np.array(json.dumps({"dropped": dict(kept.dropped), "refused": list(kept.refused)})),
    )
    with suppress(InputError):
        write_whole({path: content.getvalue()})


def load(path: Path, texts: int) -> Kept | None:
    """Returns the tokens of so many texts, or None where they are not there, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            tokens, counts, told = file["tokens"], file["counts"], json.loads(str(file["told"]))
        ends = np.cumsum(np.maximum(counts, 0))
        if len(counts) != texts or len(tokens) != (ends[-1] if texts else 0):
            return None
        rows: list[Sequence[int] | None] = [
            None if count < 0 else tokens[end - count : end]
            for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
        ]
        return Kept(rows, Counter(told["dropped"]), told["refused"])
    except Exception:  # numpy and zipfile raise their own kinds for a damaged file; it is made again
        return None


@cache
def _rules() -> str:
    """Returns a checksum of how texts are read: this package's sources and the library of numbers."""
    digest = hashlib.sha256()
    for file in sorted(Path(audiodiff.text.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    with suppress(importlib.metadata.PackageNotFoundError):
        digest.update(importlib.metadata.version("num2words").encode())
    return digest.hexdigest()
