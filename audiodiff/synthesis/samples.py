"""A samples folder: wav files, samples.json that says how each was made, spectrograms.png to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.pictures import spectrogram_grid
from audiodiff.files import write_whole
from audiodiff.synthesis.cost import Cost

RECORD, PICTURE = "samples.json", "spectrograms.png"
COST = "cost"  # in samples.json
_PICTURED_ROWS, _PICTURED_COLUMNS = 12, 6


@dataclass(frozen=True)
class Sample:
    """One file of a samples folder.

    Attributes:
        file: name within the folder.
        labels: what was asked for.
        seconds: length.
        reference: the recording it was made from, None for a sound from noise.
        clipped: samples that had to be limited to full scale.
        text: what is spoken, None for a sound that was not asked for by text.
    """

    file: str
    labels: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reference: str | None = None
    clipped: int = 0
    text: str | None = None


def write_sample(folder: Path, sample: Sample, waveform: Tensor, sample_rate: int) -> Sample:
    """Writes the wav file of a sample [C, T] and returns the sample with its length and clipped count."""
    clipped = io.write(folder / sample.file, waveform.cpu(), sample_rate)
    facts = asdict(sample) | {"seconds": round(waveform.shape[-1] / sample_rate, 4), "clipped": clipped}
    return Sample(**facts)


def write_record(
    folder: Path, record: Mapping[str, Any], samples: Sequence[Sample], cost: Cost | None = None
) -> None:
    """Writes samples.json: model, seed, sampler, command, what it cost where that was measured, and the samples."""
    content = dict(record) | ({} if cost is None else {COST: cost.record()})
    content |= {"files": [asdict(sample) for sample in samples]}
    write_whole({folder / RECORD: (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8")})


def draw_samples(folder: Path, rows: Mapping[str, Sequence[Tensor]], sample_rate: int) -> None:
    """Draws the first samples [C, T] of the first titles into spectrograms.png."""
    titles = list(rows)[:_PICTURED_ROWS]
    waveforms = [[w.mean(0).cpu().numpy() for w in rows[title][:_PICTURED_COLUMNS]] for title in titles]
    spectrogram_grid(waveforms, titles, sample_rate, folder / PICTURE)
