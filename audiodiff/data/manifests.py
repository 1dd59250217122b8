"""Manifests: lhotse cuts in a gzipped JSON-lines file, the same bytes for the same cuts.

A prepared folder holds train, dev and test.jsonl.gz. Each cut spans one recording and carries one supervision
with the speaker, the text where it is known, and the labels of the corpus in `custom`.
lhotse takes seconds to import, so it is imported where it is used.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiodiff.errors import InputError

if TYPE_CHECKING:
    from lhotse.cut import Cut

SPLITS = ("train", "dev", "test")


def encode_cuts(cuts: Iterable[Cut]) -> bytes:
    """Returns the content of a .jsonl.gz file of cuts; the same cuts give the same bytes."""
    lines = "".join(json.dumps(cut.to_dict(), ensure_ascii=False) + "\n" for cut in cuts)
    buffer = io.BytesIO()
    # No file name and no time in the gzip header, or two equal manifests would differ.
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as stream:
        stream.write(lines.encode("utf-8"))
    return buffer.getvalue()


def load_cuts(path: Path | str) -> list[Cut]:
    """Returns all cuts of a manifest, after checking that their audio files are there.

    Args:
        path: a .jsonl.gz (or .jsonl) file that `audiodiff prepare` or lhotse wrote.

    Raises:
        InputError: the file is missing, cut off, holds no cuts or something else than cuts, or the audio that
            it names is gone.
    """
    path = Path(path)
    lines = enumerate(_lines(path), start=1)
    cuts = [_cut(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not cuts:
        raise InputError(f"{path}: holds no cuts; run `audiodiff prepare` again or name another split")
    _check_unique(cuts, path)
    gone = [source for cut in cuts for source in audio_paths(cut) if not Path(source).is_file()]
    if gone:
        raise InputError(
            f"{path}: {len(gone)} audio files that it names are gone, the first is {gone[0]}; "
            "bring them back or run `audiodiff prepare` again"
        )
    return cuts


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(
            f"manifest {path}: no such file; make it with `audiodiff prepare CORPUS --out {path.parent}`"
        )
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8").splitlines()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: cut off or damaged ({error}); run `audiodiff prepare` again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a manifest, it holds no text; expected JSON lines of cuts") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _cut(line: str, where: str) -> Cut:
    from lhotse.cut import MonoCut, MultiCut
    from lhotse.serialization import deserialize_item

    try:
        item = deserialize_item(json.loads(line))
    except Exception as error:  # lhotse raises whatever its constructors raise
        raise InputError(f"{where}: not a cut ({type(error).__name__}: {error})") from error
    if not isinstance(item, MonoCut | MultiCut):
        raise InputError(f"{where}: got a {type(item).__name__}, expected a cut of one recording")
    if not item.has_recording or any(source.type != "file" for source in item.recording.sources):
        raise InputError(f"{where}: cut {item.id} names no audio file; expected a recording on disk")
    if item.recording.transforms:
        raise InputError(
            f"{where}: cut {item.id} has lhotse transforms, which are not applied here; save its audio first"
        )
    return item


def _check_unique(cuts: Sequence[Cut], path: Path) -> None:
    seen: set[str] = set()
    for cut in cuts:
        if cut.id in seen:
            raise InputError(f"{path}: two cuts have the id {cut.id}; expected each id once")
        seen.add(cut.id)


def audio_paths(cut: Cut) -> list[str]:
    """Returns the audio files of a cut."""
    return [source.source for source in cut.recording.sources]


def label_of(cut: Cut, name: str) -> str:
    """Returns one label of a cut.

    Args:
        cut: a cut with one supervision.
        name: "speaker", "text", or a label of the corpus such as "digit".

    Raises:
        InputError: the cut has no such label.
    """
    labels = labels_of(cut)
    if name not in labels:
        known = ", ".join(sorted(labels)) or "none"
        raise InputError(f"cut {cut.id}: no label {name!r}; this cut has: {known}")
    return labels[name]


def labels_of(cut: Cut) -> dict[str, str]:
    """Returns all labels of a cut: those of the corpus, and "speaker" and "text" where known."""
    if not cut.supervisions:
        return {}
    supervision = cut.supervisions[0]
    labels: dict[str, Any] = {"speaker": supervision.speaker, "text": supervision.text}
    labels |= supervision.custom or {}
    return {name: str(value) for name, value in labels.items() if value is not None}


def label_values(cuts: Iterable[Cut], name: str) -> tuple[str, ...]:
    """Returns the different values of a label, sorted.

    Raises:
        InputError: a cut has no such label.
    """
    return tuple(sorted({label_of(cut, name) for cut in cuts}))


def total_seconds(cuts: Iterable[Cut]) -> float:
    """Returns the duration of all cuts together."""
    return float(sum(cut.duration for cut in cuts))
