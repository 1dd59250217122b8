"""The part of `prepare` that all corpora share: clips -> checked audio -> manifests and report.

A corpus module lists its clips (files, splits, transcripts, labels). Here every file is decoded and checked,
converted where asked, and written as lhotse cuts. Bad files are left out, counted and listed; a corpus of
mixed sample rates or channels is refused, for a model needs one of each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiodiff.data.inspection import Finding, Memory, Wanted, examine, key_of
from audiodiff.data.manifests import SPLITS, encode_cuts
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.progress import track

if TYPE_CHECKING:
    from lhotse.cut import Cut

REPORT = "report.json"


@dataclass(frozen=True)
class PrepareOptions:
    """What is asked of the audio.

    Attributes:
        sample_rate: Hz; files at another rate are converted. None keeps the corpus' own.
        mono: mix files of several channels to one.
        seed: of what a corpus draws at random (`mini`); noted in the report.
        jobs: threads that decode.
    """

    sample_rate: int | None = None
    mono: bool = False
    seed: int = 0
    jobs: int = 2


@dataclass(frozen=True)
class Clip:
    """One clip as its corpus lists it.

    Attributes:
        id: unique in the corpus, usable as a file name.
        path: of the audio, absolute.
        split: "train", "dev" or "test".
        speaker: who; None where nobody speaks.
        text: what is said; None where unknown.
        labels: the corpus' own labels, for example {"digit": "seven"}.
    """

    id: str
    path: Path
    split: str
    speaker: str | None = None
    text: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file.

    Attributes:
        id: of the clip, or the file name.
        reason: in words.
        excluded: whether the file is left out of the manifests; otherwise it is only odd.
        path: of the file.
    """

    id: str
    reason: str
    excluded: bool
    path: str


@dataclass(frozen=True)
class Listing:
    """What a corpus module found in its folder.

    Attributes:
        corpus: its name.
        source: its folder, or None for a corpus that is made on the spot.
        clips: all clips, in any order.
        split_rule: which clip is in which split, in words.
        problems: what the listing itself showed (a transcript missing, a file of no known form).
        notes: what else the reader of the report should know.
    """

    corpus: str
    source: Path | None
    clips: Sequence[Clip]
    split_rule: str
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()


def write_corpus(listing: Listing, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Checks all clips and writes train, dev and test.jsonl.gz and report.json.

    Args:
        listing: what the corpus holds.
        out: prepared folder; conversions go to its folder `audio`.
        options: rate, channels, threads.

    Returns:
        The report, as written.

    Raises:
        InputError: no clips, none usable, or mixed sample rates or channels.
    """
    if options.sample_rate is not None and options.sample_rate < 1:
        raise InputError(f"sample rate {options.sample_rate} Hz; expected a positive number")
    out = out.absolute()
    clips, problems = _distinct(listing.clips)
    problems = [*listing.problems, *problems]
    findings = _examine_all(clips, out, options)
    good = [(clip, finding) for clip, finding in zip(clips, findings, strict=True) if not finding.excluded]
    problems += [
        _problem(clip, finding) for clip, finding in zip(clips, findings, strict=True) if _odd(finding)
    ]
    if not good:
        raise InputError(_nothing_left(listing, problems))
    sample_rate = _single([finding.sample_rate for _, finding in good], good, "sample rates", _MEND_RATE)
    channels = _single([finding.channels for _, finding in good], good, "channel counts", _MEND_CHANNELS)
    report: dict[str, Any] = {
        "corpus": listing.corpus,
        "source": None if listing.source is None else str(listing.source.absolute()),
        "sample_rate": sample_rate,
        "channels": channels,
        "seed": options.seed,
        "split_rule": listing.split_rule,
        "cuts": len(good),
        "seconds": round(sum(finding.length for _, finding in good) / sample_rate, 3),
        "splits": {split: _summary(split, good) for split in SPLITS},
        "excluded": sum(problem.excluded for problem in problems),
        "problems": [asdict(problem) for problem in problems],
        "notes": list(listing.notes),
    }
    files = {out / REPORT: (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode("utf-8")}
    for split in SPLITS:
        cuts = [_cut(clip, finding) for clip, finding in good if clip.split == split]
        files[out / f"{split}.jsonl.gz"] = encode_cuts(cuts)
    write_whole(files)
    return report


_MEND_RATE = "pass --sample-rate to convert them all to one"
_MEND_CHANNELS = "pass --mono to mix them all to one channel"


def _distinct(clips: Iterable[Clip]) -> tuple[list[Clip], list[Problem]]:
    """Returns the clips sorted by id, the first of each id, and the others as problems."""
    kept: dict[str, Clip] = {}
    problems = []
    for clip in sorted(clips, key=lambda clip: (clip.id, str(clip.path))):
        if clip.id in kept:
            reason = f"duplicate id, {kept[clip.id].path.name} is kept"
            problems.append(Problem(clip.id, reason, excluded=True, path=str(clip.path)))
        else:
            kept[clip.id] = clip
    return list(kept.values()), problems


def _examine_all(clips: Sequence[Clip], out: Path, options: PrepareOptions) -> list[Finding]:
    """Returns one finding per clip; those of an earlier run are remembered."""
    wanted = Wanted(options.sample_rate, 1 if options.mono else None)
    memory = Memory(out / "inspected.jsonl")

    def known_or_new(clip: Clip) -> tuple[str | None, Finding, bool]:
        converted = out / "audio" / f"{clip.id}.flac"
        key = key_of(clip.path, wanted, converted)
        known = None if key is None else memory.recall(key)
        return key, known or examine(clip.path, wanted, converted), known is None

    findings = []
    for key, finding, new in _in_order(known_or_new, clips, options.jobs):
        if new and key is not None:
            memory.remember(key, finding)
        findings.append(finding)
    memory.compact()
    return findings


def _in_order(work: Callable[[Clip], Any], clips: Sequence[Clip], jobs: int) -> Iterable[Any]:
    """Yields work(clip) in the order of the clips, with a progress bar on a terminal."""
    pool = ThreadPoolExecutor(max(1, jobs))
    try:
        yield from track(pool.map(work, clips), "checking audio", len(clips))
    finally:
        # On Ctrl-C the files being decoded end, the waiting ones are not begun.
        pool.shutdown(cancel_futures=True)


def _odd(finding: Finding) -> bool:
    return finding.excluded is not None or finding.remark is not None


def _problem(clip: Clip, finding: Finding) -> Problem:
    reason = finding.excluded or finding.remark or ""
    return Problem(clip.id, reason, excluded=finding.excluded is not None, path=str(clip.path))


def _nothing_left(listing: Listing, problems: Sequence[Problem]) -> str:
    place = f"{listing.corpus} in {listing.source}"
    if not problems:
        return f"{place}: no clips found"
    return (
        f"{place}: none of {len(problems)} files is usable, the first is {problems[0].path}: "
        f"{problems[0].reason}; expected readable audio"
    )


def _single(values: list[int], good: Sequence[tuple[Clip, Finding]], what: str, mend: str) -> int:
    """Returns the one value that all clips share.

    Raises:
        InputError: they do not share one.
    """
    counts = Counter(values)
    if len(counts) > 1:
        parts = [
            f"{value} in {count} files (for example {good[values.index(value)][0].path})"
            for value, count in counts.most_common()
        ]
        raise InputError(f"mixed {what}: {', '.join(parts)}; expected one, {mend}")
    return values[0]


def _summary(split: str, good: Sequence[tuple[Clip, Finding]]) -> dict[str, Any]:
    """Returns number, seconds and label counts of one split."""
    inside = [(clip, finding) for clip, finding in good if clip.split == split]
    counts: dict[str, Counter[str]] = {}
    for clip, _ in inside:
        speaker = {} if clip.speaker is None else {"speaker": clip.speaker}
        for name, value in {**clip.labels, **speaker}.items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        "cuts": len(inside),
        "seconds": round(sum(finding.length / finding.sample_rate for _, finding in inside), 3),
        "labels": {name: dict(sorted(values.items())) for name, values in sorted(counts.items())},
    }


def _cut(clip: Clip, finding: Finding) -> Cut:
    """Returns the lhotse cut of a whole file, with one supervision."""
    from lhotse import AudioSource, Recording, SupervisionSegment
    from lhotse.cut import MonoCut, MultiCut

    channels = list(range(finding.channels))
    duration = finding.length / finding.sample_rate
    recording = Recording(
        id=clip.id,
        sources=[AudioSource(type="file", channels=channels, source=finding.path)],
        sampling_rate=finding.sample_rate,
        num_samples=finding.length,
        duration=duration,
    )
    channel = 0 if finding.channels == 1 else channels
    supervision = SupervisionSegment(
        id=clip.id,
        recording_id=clip.id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=clip.text,
        speaker=clip.speaker,
        custom=clip.labels or None,
    )
    cut = MonoCut if finding.channels == 1 else MultiCut
    return cut(
        id=clip.id,
        start=0.0,
        duration=duration,
        channel=channel,
        supervisions=[supervision],
        recording=recording,
    )
