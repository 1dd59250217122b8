"""Ground-truth-aligned mels: what a text model makes of the texts of a corpus, in the time of the recordings.

Tokens get the durations that monotonic alignment search finds in the recording, not those that the model would predict,
so that the sampled mel has exactly the frames of the recording. A vocoder fine-tuned on such pairs learns to mend what
the text model smooths (Kong et al. 2020, "HiFi-GAN", section 4.3; arXiv 2010.05646).

    OUT/SPLIT.jsonl.gz          cuts as they were, each with the mel that it is heard as
    OUT/mel/SPLIT/ID.npy        [n_mels, F] float32, in the model's own definition
    OUT/durations/SPLIT/ID.json text, symbols, frames of each symbol
    OUT/alignments/SPLIT-ID.png the first clips of a split
    OUT/audio/SPLIT/ID.wav      sequences, where the model is trained on such
    OUT/aligned.json            definition of the mel, model, sampler, counts
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.conditioning.conditioner import Aligning
from audiodiff.conditioning.text_alignment import speech_alignment
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.data.collate import Item, collate
from audiodiff.data.manifests import SPLITS, has_cuts
from audiodiff.data.order import SegmentRequest
from audiodiff.data.segments import SegmentDataset
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.model import WEIGHTS, AudioDiffusion, find_model
from audiodiff.progress import progress_bar
from audiodiff.text.front_end import TextFrontEnd
from audiodiff.training.aligned_manifest import (
    Place,
    SequenceFacts,
    read_said,
    write_audio,
    write_manifest,
    write_sequences,
)
from audiodiff.training.aligned_picture import draw_aligned
from audiodiff.training.given_mels import RECORD
from audiodiff.training.run import Segments, open_split
from audiodiff.training.texts import front_end_of
from audiodiff.types import Batch, Condition

UNREADABLE, TOO_DENSE = "could not be read", "with more tokens than frames"


@dataclass(frozen=True)
class AlignRequest:
    """What is to be written.

    Attributes:
        splits: which of train, dev and test.
        most: clips of a split at most; None for all.
        batch: clips sampled together; changes speed and memory, not the mels beyond float rounding.
        seed: of the noise.
        pictures: clips of a split whose alignment is drawn.
    """

    splits: Sequence[str] = SPLITS
    most: int | None = None
    batch: int = 8
    seed: int = 0
    pictures: int = 4

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            InputError: an unknown split, or a number out of range.
        """
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits:
            raise InputError(f"split {', '.join(unknown) or 'none'}: choose of {', '.join(SPLITS)}")
        if self.batch < 1 or self.seed < 0 or self.pictures < 0 or (self.most is not None and self.most < 1):
            raise InputError(
                f"align: got {self.most} clips, batches of {self.batch}, seed {self.seed}, {self.pictures} pictures; "
                "expected at least 1, at least 1, 0 or more, 0 or more"
            )


@dataclass(frozen=True)
class Spoken:
    """A clip as the model speaks it.

    Attributes:
        mel: [n_mels, F].
        recorded: [n_mels, F], of the recording.
        frames: [L], of each token.
    """

    mel: Tensor
    recorded: Tensor
    frames: Tensor


@dataclass(frozen=True)
class Aligned:
    """What was written of one split: clips with a mel, those of them that were there, and those left out by reason."""

    split: str
    clips: int
    kept: int
    left_out: Mapping[str, int]

    def describe(self) -> str:
        """Returns one line for people."""
        reasons = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        parts = [f"{self.kept} were there"] if self.kept else []
        parts += [f"left out: {', '.join(reasons)}"] if reasons else []
        return f"{self.split}: {self.clips} clips{'; ' if parts else ''}{'; '.join(parts)}"


class _AsRecorded(nn.Module):
    """A conditioner that tells a text as a recording shows it spoken, where its own would predict."""

    def __init__(self, conditioner: nn.Module, clean: Tensor, frames: Tensor) -> None:
        super().__init__()
        self.conditioner = conditioner
        self._clean, self._frames = clean, frames

    def forward(self, batch: Batch) -> Condition:
        assert isinstance(self.conditioner, Aligning)
        condition, _ = self.conditioner.align(batch, self._clean, self._frames)
        return replace(condition, frames=self._frames)

    def null(self, batch: Batch) -> Condition:
        unlabelled = replace(batch, labels={name: ("",) * batch.size for name in batch.labels})
        return replace(self(batch), vector=self(unlabelled).vector)


class MelAligner:
    """A text model that speaks in the time of recordings.

    Attributes:
        model: makes mels from texts.
        sampler: how.
        front_end: how it reads.
    """

    def __init__(self, model: AudioDiffusion, sampler: Sampler) -> None:
        """Checks the model.

        Raises:
            InputError: it makes no mel, or is told no text.
        """
        front_end = front_end_of(model.recipe)
        texts = [part for part in model.modules() if isinstance(part, Text)]
        if not isinstance(model.representation, MelRepresentation) or front_end is None or not texts:
            raise InputError(
                "align: this model does not make mels from texts; give the acoustic model of a cascade"
            )
        self.model, self.sampler = model, sampler
        self.front_end: TextFrontEnd = front_end
        self._representation, self._text = model.representation, texts[0]

    @property
    def log_mel(self) -> LogMel:
        """Definition of the mels."""
        return self._representation.log_mel

    @torch.inference_mode()
    def speak(self, items: Sequence[Item], numbers: Sequence[int], seed: int) -> list[Spoken]:
        """Returns recorded texts as the model speaks them, each as it is alone, on the CPU.

        Args:
            items: clips with their tokens, at most as many as frames.
            numbers: of each clip, for its noise.
            seed: of the noise.

        Raises:
            FloatingPointError: the model gave a number that is not finite.
        """
        batch = collate(items).to(self.model.device)
        # Each alone: in a batch its last frames would see the padding.
        each = [self._representation.encode(item.waveform[None].to(self.model.device))[0] for item in items]
        counts = torch.tensor([clean.shape[1] for clean in each])
        clean = nn.utils.rnn.pad_sequence([one.T for one in each], batch_first=True).transpose(1, 2)
        durations = self._durations(batch, clean, counts)
        speaking = AudioDiffusion(
            self._representation,
            _AsRecorded(self.model.conditioner, clean, counts),  # type: ignore[arg-type]
            self.model.denoiser,
        ).eval()
        speaking.recipe = self.model.recipe
        x, _ = speaking.sample(batch, self.sampler, seed, numbers, self.model.steering)
        mels, recorded = self._representation.mel(x).cpu(), self._representation.mel(clean).cpu()
        if not bool(mels.isfinite().all()):
            raise FloatingPointError("align: the model gave a mel that is not finite")
        return [
            Spoken(mel[:, :count], own[:, :count], row[: len(item.tokens)])  # type: ignore[arg-type]
            for mel, own, row, item, count in zip(
                mels, recorded, durations, items, counts.tolist(), strict=True
            )
        ]

    def _durations(self, batch: Batch, clean: Tensor, frames: Tensor) -> Tensor:
        assert batch.tokens is not None
        assert batch.token_counts is not None
        text = self._text
        vector = None if text.speaker is None else text.speaker(batch).vector
        encoded = text.encoder(batch.tokens, batch.token_counts, vector)
        return speech_alignment(encoded, clean, frames).sum(2).long().cpu()


def align_corpus(
    aligner: MelAligner,
    data_dir: Path,
    out: Path,
    request: AlignRequest,
    facts: Mapping[str, Any],
    console: Console,
) -> list[Aligned]:
    """Writes a corpus with the mels of a text model; clips that are there from an earlier call are kept.

    Args:
        aligner: what speaks.
        data_dir: a prepared folder.
        out: where, see above.
        request: what.
        facts: for the record: "model", the folder, and what else is known of the call.
        console: told what is left out.

    Raises:
        InputError: the corpus lacks the texts or labels that the model needs, none of its clips can be aligned, or the
            folder holds the mels of another model, sampler or seed.
        FloatingPointError: the model gave a number that is not finite.
    """
    if data_dir.resolve() == out.resolve():
        raise InputError(f"{out}: holds the corpus itself; give another folder with --out")
    found = [split for split in request.splits if _present(data_dir / f"{split}.jsonl.gz")]
    if not found:
        raise InputError(
            f"{data_dir}: holds no manifest of {', '.join(request.splits)}; make them with `audiodiff prepare`, and "
            "give the prepared folder, not its shards"
        )
    _claim(out, _identity(aligner, request, facts))
    done = [_align_split(aligner, data_dir, out, split, request, console) for split in found]
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    counts = {one.split: {"clips": one.clips, "left_out": dict(one.left_out)} for one in done}
    _write_json(out / RECORD, record | dict(facts) | {"splits": record.get("splits", {}) | counts})
    return done


def _present(manifest: Path) -> bool:
    return manifest.is_file() and has_cuts(manifest)


def _identity(aligner: MelAligner, request: AlignRequest, facts: Mapping[str, Any]) -> dict[str, Any]:
    weights = (find_model(facts["model"]) / WEIGHTS).read_bytes()
    return {
        "mel": aligner.log_mel.definition(),
        "weights": hashlib.sha256(weights).hexdigest(),
        "sampler": repr(aligner.sampler),
        "seed": request.seed,
    }


def _claim(out: Path, identity: Mapping[str, Any]) -> None:
    """Writes the record of a new folder; refuses one that was begun with another model, sampler or seed."""
    record = out / RECORD
    if not record.is_file():
        _write_json(record, identity)
        return
    try:
        there = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{record}: damaged ({error}); give another folder with --out") from error
    other = [name for name, value in identity.items() if there.get(name) != value]
    if other:
        raise InputError(
            f"{out}: was begun with another {', '.join(other)}; give another folder with --out, or remove this one"
        )


def _align_split(
    aligner: MelAligner, data_dir: Path, out: Path, split: str, request: AlignRequest, console: Console
) -> Aligned:
    recipe = aligner.model.recipe
    plain = recipe | {"augmentation": None, "training": {**recipe["training"], "cache_megabytes": 0}}
    clips = open_split(plain, data_dir, split, console)
    count = len(clips) if request.most is None else min(len(clips), request.most)
    places = [Place(out, split, _name(clips, number)) for number in range(count)]
    waiting = [number for number in range(count) if not places[number].done]
    waiting.sort(key=lambda number: int(clips.lengths[number]))  # so that a batch pads little
    left_out: Counter[str] = Counter()
    with progress_bar() as progress:
        task = progress.add_task(f"align {split}", total=count, completed=count - len(waiting))
        for first in range(0, len(waiting), request.batch):
            numbers = waiting[first : first + request.batch]
            _align_few(aligner, clips, {number: places[number] for number in numbers}, request, left_out)
            progress.advance(task, len(numbers))
    written = [place for place in places if place.done]
    if not written:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
        raise InputError(f"align: none of {count} clips of {split} can be aligned ({reasons})")
    if isinstance(clips, SegmentDataset):
        write_manifest(data_dir, written)
    else:
        write_sequences([_facts(place) for place in written], aligner.model.sample_rate)
    return Aligned(split, len(written), count - len(waiting), left_out)


def _name(clips: Segments, number: int) -> str:
    return clips.clips.entry(number).id if isinstance(clips, SegmentDataset) else f"{number:06d}"


def _facts(place: Place) -> SequenceFacts:
    said = read_said(place)
    return SequenceFacts(place, said["labels"], said["text"], said["samples"])


def _align_few(
    aligner: MelAligner,
    clips: Segments,
    places: Mapping[int, Place],
    request: AlignRequest,
    left_out: Counter[str],
) -> None:
    """Writes the mels of those of a few clips, by number, that can be aligned; counts the others."""
    chosen: dict[int, Item] = {}
    for number in places:
        item = _whole(clips, number)
        if item is None:
            left_out[UNREADABLE] += 1
        elif item.tokens is None or len(item.tokens) > aligner.model.representation.shape(item.length)[1]:
            left_out[TOO_DENSE] += 1
        else:
            chosen[number] = item
    spoken = aligner.speak(list(chosen.values()), list(chosen), request.seed) if chosen else []
    for (number, item), one in zip(chosen.items(), spoken, strict=True):
        assert item.tokens is not None
        tokens, place = item.tokens.tolist(), places[number]
        symbols = [aligner.front_end.symbols[token] for token in tokens]
        if number < request.pictures:
            draw_aligned(one.recorded, one.mel, one.frames, symbols, place.picture)
        if not isinstance(clips, SegmentDataset):
            write_audio(place, item.waveform, aligner.model.sample_rate)
        said = {"text": aligner.front_end.text(tokens), "symbols": symbols, "frames": one.frames.tolist()}
        place.write(one.mel, said | {"labels": dict(item.labels), "samples": item.length})


def _whole(clips: Segments, number: int) -> Item | None:
    try:
        item = clips[SegmentRequest(number, 0, int(clips.lengths[number]))]
    except InputError:
        return None
    return None if item.problems else item


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole({path: (json.dumps(content, indent=2) + "\n").encode()})
