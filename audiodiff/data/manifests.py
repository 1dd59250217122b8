"""Manifests: lhotse cuts in a gzipped JSON-lines file, the same bytes for the same cuts, read one at a time.

A prepared folder holds train, dev and test.jsonl.gz. Each cut spans one recording and carries one supervision
with the speaker, the text where it is known, and the labels of the corpus in `custom`. All cuts are looked at once,
when the manifest is indexed (`cut_index`); a million of them then take no memory.
lhotse takes seconds to import, so it is imported where it is used.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from audiodiff.data.cut_index import CutTable, TableWriter, open_or_build
from audiodiff.data.entries import Entry, Summary, entry_of, labels_from, missing_label
from audiodiff.errors import InputError
from audiodiff.progress import progress_bar

if TYPE_CHECKING:
    from lhotse.cut import Cut

SPLITS = ("train", "dev", "test")

# Audio files looked for whenever a manifest is opened, spread over it; indexing looks for all.
_LOOKED_FOR = 2000
_BAR_FROM_BYTES = 1 << 22


def encode_cuts(cuts: Iterable[Cut]) -> bytes:
    """Returns the content of a .jsonl.gz file of cuts; the same cuts give the same bytes."""
    lines = "".join(json.dumps(cut.to_dict(), ensure_ascii=False) + "\n" for cut in cuts)
    buffer = io.BytesIO()
    # No file name and no time in the gzip header, or two equal manifests would differ.
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as stream:
        stream.write(lines.encode("utf-8"))
    return buffer.getvalue()


class Manifest(Sequence["Cut"]):
    """The cuts of an indexed manifest, each parsed when it is asked for."""

    shards = None  # the clips lie in files of their own, in no order

    def __init__(self, path: Path, table: CutTable) -> None:
        self.path = path
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, number: int) -> Cut: ...

    @overload
    def __getitem__(self, number: slice) -> list[Cut]: ...

    def __getitem__(self, number: int | slice) -> Cut | list[Cut]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        return _cut(self.table.line(number), f"{self.path}, cut {number + 1}")

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each cut, int64."""
        return self.table.lengths

    @property
    def summary(self) -> Summary:
        """Rates, channels and labels of all cuts."""
        return self.table.summary

    def entry(self, number: int) -> Entry:
        """Returns what training reads of one cut."""
        return entry_of(json.loads(self.table.line(number).decode("utf-8")))

    def content(self, number: int) -> None:
        """Returns None: the audio of a cut is the file that its entry names."""

    def fetch_ahead(self, clips: np.ndarray) -> None:
        """Does nothing: the files are here."""


def load_cuts(path: Path | str) -> Manifest:
    """Returns the cuts of a manifest, after checking that their audio files are there.

    The first time, every cut is checked and indexed, with a progress bar where that takes long; later calls take
    milliseconds and look for the audio of some 2000 cuts.

    Args:
        path: a .jsonl.gz (or .jsonl) file that `audiodiff prepare` or lhotse wrote.

    Raises:
        InputError: the file is missing, cut off, holds no cuts or something else than cuts, or the audio that
            it names is gone.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"manifest {path}: no such file; make it with `audiodiff prepare CORPUS --out {path.parent}`"
        )
    cuts = Manifest(path, open_or_build(path, lambda writer: _fill(writer, path)))
    step = -(-len(cuts) // _LOOKED_FOR)
    gone = _Gone(path)
    for number in range(0, len(cuts), step):
        gone.look_for(cuts.entry(number))
    gone.refuse(f" of {len(range(0, len(cuts), step))} looked for" if step > 1 else "")
    return cuts


def has_cuts(path: Path) -> bool:
    """Returns whether a manifest, which exists, holds anything: prepared folders may have an empty split."""
    return any(line.strip() for line in _lines(path))


def _fill(writer: TableWriter, path: Path) -> None:
    """Adds every cut of a manifest to its index."""
    gone = _Gone(path)
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            entry = _entry(line, f"{path}, line {number}")
            gone.look_for(entry)
            writer.add(line if line.endswith(b"\n") else line + b"\n", entry)
    if not writer.summary.cuts:
        raise InputError(f"{path}: holds no cuts; run `audiodiff prepare` again or name another split")
    gone.refuse()


class _Gone:
    """Counts audio files that are not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count, self._first, self._last = 0, "", ""

    def look_for(self, entry: Entry) -> None:
        if entry.source != self._last and not Path(entry.source).is_file():
            self._count += 1
            self._first = self._first or entry.source
        self._last = entry.source

    def refuse(self, among: str = "") -> None:
        if self._count:
            raise InputError(
                f"{self._path}: {self._count} audio files{among} that it names are gone, the first is {self._first}; "
                "bring them back or run `audiodiff prepare` again"
            )


def _lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a manifest, with a progress bar when it is large."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file, progress_bar() as bar:
            task = bar.add_task(f"index of {path.name}", total=size, visible=size > _BAR_FROM_BYTES)
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            for number, line in enumerate(gzip.GzipFile(fileobj=file) if zipped else file):
                if number % 4096 == 0:
                    bar.update(task, completed=file.tell())
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: cut off or damaged ({error}); run `audiodiff prepare` again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _entry(line: bytes, where: str) -> Entry:
    """Returns the entry of a line of a manifest; only where that fails is lhotse asked what the line is."""
    try:
        entry = entry_of(json.loads(line))
        if entry.source:
            return entry
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not a manifest, it holds no text; expected JSON lines of cuts") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _cut(line, where)
        raise InputError(f"{where}: a cut that is not read here: {error}") from error
    cut = _cut(line, where)
    raise InputError(f"{where}: cut {cut.id} names no audio file; expected a recording on disk")


def _cut(line: bytes, where: str) -> Cut:
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


def whole_file(cut: Cut) -> Path:
    """Returns the audio file of a cut that is all of it.

    Raises:
        InputError: the cut is a part of a longer recording, or has several files.
    """
    sources = [Path(source.source) for source in cut.recording.sources]
    if len(sources) > 1 or cut.start > 0 or cut.num_samples < cut.recording.num_samples:
        raise InputError(
            f"cut {cut.id}: a part of {sources[0]}, where whole files are taken; save its clips as files of their own "
            "and name their folder"
        )
    return sources[0]


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
    return labels_from(supervision.speaker, supervision.text, supervision.custom)


def label_values(cuts: Iterable[Cut], name: str) -> tuple[str, ...]:
    """Returns the different values of a label, sorted.

    Raises:
        InputError: a cut has no such label.
    """
    if isinstance(cuts, Manifest) and missing_label(cuts.summary, name) is None:
        values = cuts.summary.labels[name].values
        if values is not None:
            return tuple(sorted(values))
    return tuple(sorted({label_of(cut, name) for cut in cuts}))


def total_seconds(cuts: Iterable[Cut]) -> float:
    """Returns the duration of all cuts together."""
    summary = getattr(cuts, "summary", None)  # of a manifest or of shards: known without reading them
    return float(summary.seconds if summary is not None else sum(cut.duration for cut in cuts))
