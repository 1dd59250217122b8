"""Real speech of the texts that a model spoke: recordings of the same text, or recorded words put one after another.

In a corpus of single words (digits) a text of several has no recording, but test clips of the same speaker, one after
another with the pauses of `word_training`, are as near to one as the corpus goes. In every other corpus the recording
of a text is the cut whose transcript has the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audiodiff.audio import io
from audiodiff.data.manifests import SPLITS, Manifest, load_cuts, whole_file
from audiodiff.data.order import SegmentRequest
from audiodiff.data.segments import SegmentDataset
from audiodiff.data.sequences import ClipSequences, Plan, Sequencing
from audiodiff.errors import InputError
from audiodiff.evaluation.samples import SamplesFolder, find_by_name
from audiodiff.evaluation.word_training import LONGEST_SEQUENCE_SECONDS, PAUSE_SECONDS
from audiodiff.files import write_whole
from audiodiff.progress import track

SPEAKER = "speaker"
RECORDINGS, CONCATENATIONS = "recordings", "real concatenations"


@dataclass(frozen=True)
class SpokenReferences:
    """Real speech of some of the texts.

    Attributes:
        kind: RECORDINGS or CONCATENATIONS.
        files: by the name of the sample whose text it says.
    """

    kind: str
    files: Mapping[str, Path]


def words_of(text: str) -> tuple[str, ...]:
    """Returns the words of a text in small letters, without punctuation."""
    return tuple(re.findall(r"\w+(?:['’]\w+)*", text.casefold()))


def find_spoken(
    samples: SamplesFolder, data: Path, word_label: str | None, out: Path, seed: int, show: bool = False
) -> SpokenReferences:
    """Returns real speech of the texts of samples.

    Args:
        samples: with texts.
        data: prepared folder, manifest, or folder of audio files with the samples' names.
        word_label: label that a recogniser of words recognises; where cuts have it, words are put together.
        out: folder for what is put together.
        seed: of clips and pauses.
        show: a progress bar on the terminal.

    Raises:
        InputError: no such place; no recording of any text; a word that the corpus lacks.
    """
    if data.is_dir() and not any((data / f"{split}.jsonl.gz").is_file() for split in SPLITS):
        return SpokenReferences(RECORDINGS, find_by_name(data, samples.files))
    manifests = [load_cuts(path) for path in _manifests(data)]
    test = manifests[0]
    if word_label is not None and len(test) and word_label in test.entry(0).labels:
        return SpokenReferences(CONCATENATIONS, _put_together(samples, test, word_label, out, seed, show))
    return SpokenReferences(RECORDINGS, _recorded(samples, data, manifests))


def _manifests(data: Path) -> list[Path]:
    """Returns the manifests of a place, the test split's first."""
    found = [data] if data.is_file() else [data / f"{split}.jsonl.gz" for split in reversed(SPLITS)]
    return [path for path in found if path.is_file()]


def _recorded(samples: SamplesFolder, data: Path, manifests: Sequence[Manifest]) -> dict[str, Path]:
    """Returns the recording of each text that has one, by the speaker who was asked for, if any was."""
    wanted: dict[tuple[str, ...], list[str]] = {}
    for name, text in samples.texts.items():
        wanted.setdefault(words_of(text), []).append(name)
    found: dict[str, Path] = {}
    for manifest in manifests:
        for number in range(len(manifest)):
            labels = manifest.entry(number).labels
            for name in wanted.get(words_of(labels.get("text", "")), ()):
                asked = samples.labels[name].get(SPEAKER)
                if name not in found and asked in (None, "", labels.get(SPEAKER)):
                    found[name] = whole_file(manifest[number])
    if not found:
        first = next(iter(samples.texts.values()))
        raise InputError(
            f"{data}: has no recording of any of the {len(samples.texts)} texts, of which the first is {first!r}; "
            "speak texts of the corpus (`audiodiff texts`), or leave out --reference"
        )
    return {name: found[name] for name in samples.texts if name in found}


def _put_together(
    samples: SamplesFolder, cuts: Manifest, word_label: str, out: Path, seed: int, show: bool
) -> dict[str, Path]:
    """Writes real words one after another, of the speaker who was asked for, and returns the files."""
    rate = int(cuts.entry(0).sample_rate)
    clips = SegmentDataset(cuts, rate, 1, (word_label, SPEAKER))
    texts = _Texts(clips, samples, word_label, seed)
    made = {}
    for number, name in track(enumerate(samples.texts), "putting together", len(samples.texts), show):
        item = texts[SegmentRequest(number, 0, 0, 0)]
        if item.problems:
            raise InputError(item.problems[0])
        made[name] = (out / name).with_suffix(".wav")
        io.write(made[name], item.waveform, rate)
    return made


class _Texts(ClipSequences):
    """Sequences whose words are given, not drawn."""

    def __init__(self, clips: SegmentDataset, samples: SamplesFolder, word_label: str, seed: int) -> None:
        longest = round(LONGEST_SEQUENCE_SECONDS * clips.sample_rate)
        how = Sequencing(word_label, SPEAKER, 1, PAUSE_SECONDS, len(samples.texts), longest, True)
        super().__init__(clips, how, lambda text: torch.empty(0), seed)
        self._asked = [(samples.labels[name].get(SPEAKER, ""), text) for name, text in samples.texts.items()]

    def plan(self, number: int, epoch: int = 0) -> Plan:
        """Returns what one text is put together of.

        Raises:
            InputError: a speaker or word that the clips lack.
        """
        generator = np.random.default_rng([self.seed, number])
        speaker, text = self._asked[number]
        speaker = speaker or self._shared[int(generator.integers(len(self._shared)))]
        pools, words = self._pools.get(speaker, {}), words_of(text)
        missing = [word for word in words if word not in pools]
        if missing or not words:
            raise InputError(
                f"text {text!r}: no clip of {', '.join(missing) or 'a word'} by speaker {speaker}; the corpus has "
                f"{', '.join(sorted(pools)) or 'nobody of this name'}"
            )
        clips = tuple(pools[word][int(generator.integers(len(pools[word])))] for word in words)
        seconds = generator.uniform(*self.how.pause_seconds, size=len(words) + 1)
        pauses = tuple(round(float(each) * self.dataset.sample_rate) for each in seconds)
        return Plan(speaker, words, clips, pauses)


def write_texts(cuts: Manifest, out: Path, most: int, by: str | None) -> dict[Path, int]:
    """Writes the texts of a corpus, one a line, and returns how many are in each file.

    Args:
        cuts: with texts; those without are left out.
        out: a file; with `by` a folder of VALUE.txt.
        most: texts at most, spread over the manifest.
        by: label by whose values the texts are sorted into files; None: one file.

    Raises:
        InputError: no text at all, a clip lacks the label, or the place cannot be written.
    """
    if most < 1:
        raise InputError(f"got at most {most} texts, expected at least 1")
    labels = [cuts.entry(number).labels for number in range(len(cuts))]
    spoken = [each for each in labels if each.get("text", "").strip()]
    if not spoken:
        raise InputError(f"{cuts.path}: none of its {len(labels)} clips has a text")
    chosen = [spoken[int(place)] for place in np.linspace(0, len(spoken) - 1, min(most, len(spoken))).round()]
    files: dict[Path, list[str]] = {}
    for each in chosen:
        if by is not None and not each.get(by):
            raise InputError(f"{cuts.path}: a clip has no label {by!r}; it has {', '.join(sorted(each))}")
        file = out if by is None else out / f"{each[by]}.txt"
        files.setdefault(file, []).append(" ".join(each["text"].split()))
    write_whole({file: ("\n".join(lines) + "\n").encode("utf-8") for file, lines in files.items()})
    return {file: len(lines) for file, lines in files.items()}
