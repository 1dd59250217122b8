"""The files of a corpus with mels of its own: one place for each clip, and manifests whose cuts name them.

Cuts are copied as they stand, with the path of the mel as custom data. Sequences, which no manifest has, get cuts of
their own; they lack the label whose values are their words.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from torch import Tensor

from audiodiff.audio import io as audio
from audiodiff.data.entries import MEL
from audiodiff.data.manifests import Manifest, load_cuts
from audiodiff.files import write_whole


@dataclass(frozen=True)
class Place:
    """Where the files of one clip stand.

    Attributes:
        out: the corpus.
        split: "train", "dev" or "test".
        name: of the clip.
    """

    out: Path
    split: str
    name: str

    @property
    def mel(self) -> Path:
        """[n_mels, F] float32."""
        return self.out / "mel" / self.split / f"{self._stem}.npy"

    @property
    def durations(self) -> Path:
        """What is said when."""
        return self.out / "durations" / self.split / f"{self._stem}.json"

    @property
    def audio(self) -> Path:
        """Audio that no other file holds."""
        return self.out / "audio" / self.split / f"{self._stem}.wav"

    @property
    def picture(self) -> Path:
        """The alignment."""
        return self.out / "alignments" / f"{self.split}-{self._stem}.png"

    @property
    def done(self) -> bool:
        """Whether the clip was written."""
        return self.mel.is_file() and self.durations.is_file()

    def write(self, mel: Tensor, said: Mapping[str, Any]) -> None:
        """Writes the mel [n_mels, F] and what is said when.

        Raises:
            InputError: they cannot be written.
        """
        content = io.BytesIO()
        np.save(content, mel.float().contiguous().numpy())
        text = json.dumps(said, ensure_ascii=False) + "\n"
        write_whole({self.mel: content.getvalue(), self.durations: text.encode()})

    @property
    def _stem(self) -> str:
        return quote(self.name, safe=" ")  # a name may hold what no file name can


@dataclass(frozen=True)
class SequenceFacts:
    """What a manifest says of a sequence: who speaks which text, and how long."""

    place: Place
    labels: Mapping[str, str]
    text: str
    samples: int


def write_manifest(data_dir: Path, places: Sequence[Place]) -> None:
    """Writes the cuts of a split that have a mel, as they were, with its path.

    Args:
        data_dir: the prepared corpus.
        places: of the clips, of one split, named by the cuts' ids.

    Raises:
        InputError: the manifest cannot be written.
    """
    split = places[0].split
    mels = {place.name: place.mel for place in places}
    manifest = load_cuts(data_dir / f"{split}.jsonl.gz")
    _write(places[0].out / f"{split}.jsonl.gz", _with_mels(manifest, mels))


def write_sequences(facts: Sequence[SequenceFacts], sample_rate: int) -> None:
    """Writes the cuts of sequences.

    Args:
        facts: of one split.
        sample_rate: Hz.

    Raises:
        InputError: the manifest cannot be written.
    """
    place = facts[0].place
    _write(place.out / f"{place.split}.jsonl.gz", (_cut(one, sample_rate) for one in facts))


def read_said(place: Place) -> dict[str, Any]:
    """Returns what is said when in a clip that was written."""
    said: dict[str, Any] = json.loads(place.durations.read_text(encoding="utf-8"))
    return said


def write_audio(place: Place, waveform: Tensor, sample_rate: int) -> None:
    """Writes audio [C, T] that no other file holds.

    Raises:
        InputError: it cannot be written.
    """
    audio.write(place.audio, waveform, sample_rate)


def _with_mels(manifest: Manifest, mels: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    for number in range(len(manifest)):
        cut = json.loads(manifest.table.line(number))
        if cut["id"] in mels:
            yield cut | {"custom": {**(cut.get("custom") or {}), MEL: str(mels[cut["id"]].resolve())}}


def _cut(facts: SequenceFacts, sample_rate: int) -> dict[str, Any]:
    name, seconds = facts.place.name, facts.samples / sample_rate
    span = {"start": 0.0, "duration": seconds, "channel": 0}
    others = {label: value for label, value in facts.labels.items() if label != "speaker"}
    supervision = {"id": name, "recording_id": name, **span, "text": facts.text, "custom": others}
    if "speaker" in facts.labels:
        supervision["speaker"] = facts.labels["speaker"]
    source = {"type": "file", "channels": [0], "source": str(facts.place.audio.resolve())}
    recording = {"id": name, "sources": [source], "sampling_rate": sample_rate, "num_samples": facts.samples}
    return {
        "id": name,
        **span,
        "supervisions": [supervision],
        "recording": recording | {"duration": seconds, "channel_ids": [0]},
        "custom": {MEL: str(facts.place.mel.resolve())},
        "type": "MonoCut",
    }


def _write(path: Path, cuts: Iterable[Mapping[str, Any]]) -> None:
    buffer = io.BytesIO()
    # No file name and no time in the gzip header, or two equal manifests would differ.
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as stream:
        for cut in cuts:
            stream.write((json.dumps(cut, ensure_ascii=False) + "\n").encode("utf-8"))
    write_whole({path: buffer.getvalue()})
