"""The part of `prepare` that all corpora share: clips -> checked audio -> manifests and report.

A corpus module lists its clips (files, splits, transcripts, labels). Here every file is decoded and checked,
converted where asked or where it has to be, and written as lhotse cuts. Bad files are left out, counted and
listed; a corpus of mixed sample rates or channels is refused, for a model needs one of each.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from audiodiff.data.inspection import Finding, Memory, Wanted, examine, key_of
from audiodiff.data.listing import Clip, Listing, PrepareOptions, Problem, file_name
from audiodiff.data.manifests import SPLITS, encode_cuts
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.progress import track

if TYPE_CHECKING:
    from lhotse.cut import Cut

__all__ = ["RECIPE", "REPORT", "Clip", "Listing", "PrepareOptions", "Problem", "write_corpus"]

REPORT = "report.json"
RECIPE = "recipe.txt"
# A part may end this much after its recording (Kaldi's extract-segments --max-overshoot); it is cut there.
_OVERSHOOT_SECONDS = 0.5
# Files examined ahead of the one that is waited for, per thread.
_AHEAD = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Part:
    """A clip that can be used.

    Attributes:
        clip: as listed.
        finding: of its recording.
        start: first sample.
        length: samples.
    """

    clip: Clip
    finding: Finding
    start: int
    length: int


def write_corpus(listing: Listing, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Checks all clips and writes train, dev and test.jsonl.gz and report.json.

    A listing with `open_labels` also leaves recipe.txt: what a recipe has to be told of this folder, as overrides.

    Args:
        listing: what the corpus holds.
        out: prepared folder; conversions go to its folder `audio`.
        options: rate, channels, level, threads.

    Returns:
        The report, as written.

    Raises:
        InputError: no clips, none usable, or mixed sample rates or channels.
    """
    if options.sample_rate is not None and options.sample_rate < 1:
        raise InputError(f"sample rate {options.sample_rate} Hz; expected a positive number")
    if options.peak is not None and not 0 < options.peak <= 1:
        raise InputError(f"peak {options.peak:g}; expected a number above 0, 1 at most")
    out = out.absolute()
    clips, duplicates = _distinct(listing.clips)
    findings = _examine_all(clips, out, options)
    good, bad = _usable(clips, findings)
    problems = [*listing.problems, *duplicates, *bad]
    if not good:
        raise InputError(_nothing_left(listing, problems))
    _check_single(good)
    report = _report(listing, options, good, problems)
    files = {out / REPORT: (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode("utf-8")}
    for split in SPLITS:
        cuts = (_cut(part) for part in good if part.clip.split == split)
        files[out / f"{split}.jsonl.gz"] = encode_cuts(cuts)
    if listing.open_labels is not None:
        files[out / RECIPE] = "".join(f"{line}\n" for line in _overrides(report, listing)).encode("utf-8")
    write_whole(files)
    return report


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


def _examine_all(
    clips: Sequence[Clip], out: Path, options: PrepareOptions
) -> dict[tuple[str, Path], Finding]:
    """Returns the finding of every recording by id and path; those of an earlier run are remembered."""
    channels = 1 if options.mono else None
    wanted = Wanted(options.sample_rate, channels, options.peak, options.remove_offset)
    memory = Memory(out / "inspected.jsonl")

    def known_or_new(recording: tuple[str, Path]) -> Finding:
        identifier, path = recording
        converted = out / "audio" / f"{file_name(identifier)}.flac"
        key = key_of(path, wanted, converted)
        known = None if key is None else memory.recall(key)
        finding = known or examine(path, wanted, converted)
        if known is None and key is not None:
            memory.remember(key, finding)
        return finding

    recordings = list(dict.fromkeys((clip.recording_id, clip.path) for clip in clips))
    findings = _in_order(known_or_new, recordings, options.jobs)
    found = dict(zip(recordings, track(findings, "checking audio", len(recordings)), strict=True))
    memory.compact()
    return found


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Yields work(item) in the order of the items, made by threads that stay some items ahead."""
    pool = ThreadPoolExecutor(max(1, jobs))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= _AHEAD * max(1, jobs):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # On Ctrl-C the files being decoded end, the waiting ones are not begun.
        pool.shutdown(cancel_futures=True)


def _usable(
    clips: Sequence[Clip], findings: Mapping[tuple[str, Path], Finding]
) -> tuple[list[_Part], list[Problem]]:
    """Returns the clips that can be used, and what is wrong with the others or odd about the recordings of these."""
    good, problems, remarked = [], [], set()
    for clip in clips:
        part = _part(clip, findings[clip.recording_id, clip.path])
        if isinstance(part, str):
            problems.append(Problem(clip.id, part, excluded=True, path=str(clip.path)))
            continue
        good.append(part)
        if part.finding.remark is not None and clip.path not in remarked:
            remarked.add(clip.path)
            problems.append(Problem(clip.id, part.finding.remark, excluded=False, path=str(clip.path)))
    return good, problems


def _part(clip: Clip, finding: Finding) -> _Part | str:
    """Returns which samples a clip is, or why it cannot be used."""
    if finding.excluded is not None:
        return finding.excluded
    rate, length = finding.sample_rate, finding.length
    start = round(clip.start_seconds * rate)
    stop = length if clip.end_seconds is None else round(clip.end_seconds * rate)
    if not 0 <= start < min(stop, length) or stop > length + _OVERSHOOT_SECONDS * rate:
        return (
            f"from {clip.start_seconds} s to {clip.end_seconds} s is no part of its recording of "
            f"{length / rate:.3f} s"
        )
    return _Part(clip, finding, start, min(stop, length) - start)


def _nothing_left(listing: Listing, problems: Sequence[Problem]) -> str:
    place = f"{listing.corpus} in {listing.source}"
    if not problems:
        return f"{place}: no clips found"
    return (
        f"{place}: none of {len(problems)} files is usable, the first is {problems[0].path}: "
        f"{problems[0].reason}; expected readable audio"
    )


def _check_single(good: Sequence[_Part]) -> None:
    """Raises InputError where the clips have not one sample rate and one channel count."""
    rates = [part.finding.sample_rate for part in good]
    channels = [part.finding.channels for part in good]
    for values, what, mend in (
        (rates, "sample rates", "pass --sample-rate to convert them all to one"),
        (channels, "channel counts", "pass --mono to mix them all to one channel"),
    ):
        counts = Counter(values)
        if len(counts) > 1:
            parts = [
                f"{value} in {count} files (for example {good[values.index(value)].clip.path})"
                for value, count in counts.most_common()
            ]
            raise InputError(f"mixed {what}: {', '.join(parts)}; expected one, {mend}")


def _report(
    listing: Listing, options: PrepareOptions, good: Sequence[_Part], problems: Sequence[Problem]
) -> dict[str, Any]:
    """Returns what report.json says."""
    recordings = {part.clip.recording_id: part.finding for part in good}
    lossy = Counter(finding.lossy for finding in recordings.values() if finding.lossy is not None)
    return {
        "corpus": listing.corpus,
        "source": None if listing.source is None else str(listing.source.absolute()),
        "sample_rate": good[0].finding.sample_rate,
        "channels": good[0].finding.channels,
        "seed": options.seed,
        "split_rule": listing.split_rule,
        "cuts": len(good),
        "seconds": _seconds(good),
        "splits": {split: _summary([part for part in good if part.clip.split == split]) for split in SPLITS},
        "transcoded": dict(sorted(lossy.items())),
        "excluded": sum(problem.excluded for problem in problems),
        "problems": [asdict(problem) for problem in problems],
        "notes": list(listing.notes),
    }


def _seconds(parts: Sequence[_Part]) -> float:
    return round(sum(part.length / part.finding.sample_rate for part in parts), 3)


def _summary(inside: Sequence[_Part]) -> dict[str, Any]:
    """Returns number, seconds and label counts of one split."""
    counts: dict[str, Counter[str]] = {}
    for part in inside:
        speaker = {} if part.clip.speaker is None else {"speaker": part.clip.speaker}
        for name, value in {**part.clip.labels, **speaker}.items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        "cuts": len(inside),
        "seconds": _seconds(inside),
        "labels": {name: dict(sorted(values.items())) for name, values in sorted(counts.items())},
    }


def _overrides(report: Mapping[str, Any], listing: Listing) -> list[str]:
    """Returns what a recipe has to be told of the folder, as `key=value` of the command line."""
    lines = [f"data.sample_rate={report['sample_rate']}", f"data.channels={report['channels']}"]
    for name in listing.open_labels or ():
        values = {value for split in report["splits"].values() for value in split["labels"].get(name, ())}
        lines.append(f"data.labels.{name}=[{','.join(map(_quoted, sorted(values)))}]")
    return lines


def _quoted(value: str) -> str:
    """Returns a text as a quoted value of Hydra's command line; backslashes count only before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value) + "'"


def _cut(part: _Part) -> Cut:
    """Returns the lhotse cut of a clip, with one supervision."""
    from lhotse import AudioSource, Recording, SupervisionSegment
    from lhotse.cut import MonoCut, MultiCut

    clip, finding = part.clip, part.finding
    channels = list(range(finding.channels))
    duration = part.length / finding.sample_rate
    recording = Recording(
        id=clip.recording_id,
        sources=[AudioSource(type="file", channels=channels, source=finding.path)],
        sampling_rate=finding.sample_rate,
        num_samples=finding.length,
        duration=finding.length / finding.sample_rate,
    )
    channel = 0 if finding.channels == 1 else channels
    supervision = SupervisionSegment(
        id=clip.id,
        recording_id=clip.recording_id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=clip.text,
        language=clip.labels.get("language"),
        speaker=clip.speaker,
        gender=clip.labels.get("gender"),
        custom=clip.labels or None,
    )
    cut = MonoCut if finding.channels == 1 else MultiCut
    return cut(
        id=clip.id,
        start=part.start / finding.sample_rate,
        duration=duration,
        channel=channel,
        supervisions=[supervision],
        recording=recording,
        custom=dict(clip.custom) or None,
    )
