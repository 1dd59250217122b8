"""The two ends of an augmented corpus: what is read of the prepared folder, and the manifests that are written.

train.jsonl.gz names the real clips where they lie and the generated ones in OUT/audio; dev and test.jsonl.gz are the
prepared folder's own, byte for byte. A generated cut says how it was made under "generated" in its custom fields,
beside the labels, not among them.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiodiff.data.entries import Entry, entry_of, missing_label, wrong_channels, wrong_rate
from audiodiff.data.manifests import SPLITS, Manifest, encode_cuts, has_cuts, load_cuts
from audiodiff.data.preparation import REPORT
from audiodiff.errors import InputError
from audiodiff.evaluation.augmentation.attempts import Attempt
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion

if TYPE_CHECKING:
    from lhotse.cut import Cut

GENERATED = "generated"  # field of a cut's own custom data


@dataclass(frozen=True)
class Corpus:
    """A prepared folder that training data is made for.

    Attributes:
        folder: with train, dev and test manifests.
        train: its training clips.
        real: entries of those that are not generated.
        digest: of the training manifest.
    """

    folder: Path
    train: Manifest
    real: Sequence[Entry]
    digest: str


@dataclass(frozen=True)
class Made:
    """A sound that is kept, ready for a manifest.

    Attributes:
        id: of the cut.
        path: its file, absolute.
        labels: what was asked for, and what follows from that.
        attempt: how it came out.
        provenance: how it was made.
    """

    id: str
    path: Path
    labels: Mapping[str, str]
    attempt: Attempt
    provenance: Mapping[str, Any]


def read_corpus(folder: Path, model: AudioDiffusion) -> Corpus:
    """Returns what must be known of a prepared folder.

    Raises:
        InputError: no manifest, generated clips among dev or test, another rate, other channels or other labels than
            the model's.
    """
    path = folder / "train.jsonl.gz"
    train = load_cuts(path)
    for split in ("dev", "test"):
        _refuse_generated(folder / f"{split}.jsonl.gz")
    rate = model.sample_rate
    channels = model.recipe["data"]["channels"]
    fault = wrong_rate(train.summary, rate) or wrong_channels(train.summary, channels)
    if fault is not None:
        raise InputError(f"{path}, cut {train[fault[0]].id}: {fault[1]}")
    for name in model.labels:
        number = missing_label(train.summary, name)
        if number is not None:
            entry = train.entry(number)
            known = ", ".join(sorted(entry.labels)) or "none"
            raise InputError(
                f"{path}, cut {entry.id}: no label {name!r}, which this model is told; it has: {known}"
            )
    contents = [json.loads(train.table.line(number)) for number in range(len(train))]
    real = [entry_of(content) for content in contents if not _generated(content)]
    if not real:
        raise InputError(f"{path}: holds generated clips alone; name the folder of the real ones")
    return Corpus(folder, train, real, hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def write_corpus(
    corpus: Corpus, out: Path, made: Sequence[Made], only_generated: bool, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the manifests and report.json.

    Args:
        corpus: the real clips.
        out: folder.
        made: the generated ones.
        only_generated: leave the real clips out of the training split.
        facts: of the generation, for the report: seed, numbers kept and rejected.

    Returns:
        The report, as written.

    Raises:
        InputError: an id that a real clip has, too; a place that cannot be written.
    """
    taken = {entry.id for entry in corpus.real} & {each.id for each in made}
    if taken:
        raise InputError(
            f"{corpus.folder}: holds clips with the ids of new ones, such as {min(taken)}; take another --seed"
        )
    rate, channels = corpus.real[0].sample_rate, len(corpus.real[0].rows)
    cuts: Iterable[Cut] = (generated_cut(each, rate, channels) for each in made)
    files = {
        out / "train.jsonl.gz": encode_cuts(cuts if only_generated else itertools.chain(corpus.train, cuts))
    }
    for split in ("dev", "test"):
        path = corpus.folder / f"{split}.jsonl.gz"
        files[out / path.name] = path.read_bytes() if path.is_file() else encode_cuts([])
    report = _report(corpus, rate, channels, files, out, facts)
    files[out / REPORT] = (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    write_whole(files)
    return report


def generated_cut(made: Made, sample_rate: int, channels: int) -> Cut:
    """Returns the lhotse cut of a generated sound, with one supervision, as those of `prepare`."""
    from lhotse import AudioSource, Recording, SupervisionSegment
    from lhotse.cut import MonoCut, MultiCut

    rows = list(range(channels))
    duration = made.attempt.samples / sample_rate
    channel = 0 if channels == 1 else rows
    labels = {name: value for name, value in made.labels.items() if name not in ("speaker", "text")}
    supervision = SupervisionSegment(
        id=made.id,
        recording_id=made.id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=made.labels.get("text"),
        language=labels.get("language"),
        speaker=made.labels.get("speaker"),
        gender=labels.get("gender"),
        custom=labels or None,
    )
    recording = Recording(
        id=made.id,
        sources=[AudioSource(type="file", channels=rows, source=str(made.path))],
        sampling_rate=sample_rate,
        num_samples=made.attempt.samples,
        duration=duration,
    )
    cut = MonoCut if channels == 1 else MultiCut
    return cut(
        id=made.id,
        start=0.0,
        duration=duration,
        channel=channel,
        supervisions=[supervision],
        recording=recording,
        custom={GENERATED: dict(made.provenance)},
    )


def _report(
    corpus: Corpus, rate: int, channels: int, files: Mapping[Path, bytes], out: Path, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what report.json says, in the words of `prepare`."""
    before = _read_report(corpus.folder)
    splits = {}
    for split in SPLITS:
        lines = gzip.decompress(files[out / f"{split}.jsonl.gz"]).splitlines()
        splits[split] = _summary([entry_of(json.loads(line)) for line in lines if line.strip()])
    return {
        "corpus": before.get("corpus", corpus.folder.name),
        "source": str(corpus.folder.absolute()),
        "sample_rate": rate,
        "channels": channels,
        "seed": facts["seed"],
        "split_rule": f"{before.get('split_rule', 'of the source')}; generated clips in train only",
        "cuts": sum(split["cuts"] for split in splits.values()),
        "seconds": round(sum(split["seconds"] for split in splits.values()), 3),
        "splits": splits,
        "transcoded": before.get("transcoded", {}),
        "excluded": before.get("excluded", 0),
        "problems": before.get("problems", []),
        "notes": [*before.get("notes", []), f"{facts['kept']} generated clips in train"],
        GENERATED: dict(facts),
    }


def _summary(entries: Sequence[Entry]) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {}
    for entry in entries:
        for name, value in entry.labels.items():
            if name != "text":
                counts.setdefault(name, Counter())[value] += 1
    return {
        "cuts": len(entries),
        "seconds": round(sum(entry.length / entry.sample_rate for entry in entries), 3),
        "labels": {name: dict(sorted(values.items())) for name, values in sorted(counts.items())},
    }


def _read_report(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # manifests that lhotse wrote have none
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_generated(path: Path) -> None:
    if not path.is_file() or not has_cuts(path):
        return
    cuts = load_cuts(path)
    for number in range(len(cuts)):
        if _generated(json.loads(cuts.table.line(number))):
            raise InputError(f"{path}: holds generated clips, which belong in train alone; prepare it anew")


def _generated(content: Mapping[str, Any]) -> bool:
    return GENERATED in (content.get("custom") or {})
