"""Mels from files: a segment carries the frames that belong to it, and nothing that belongs to other audio."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.mel import Mel
from audiodiff.data.collate import Item, collate
from audiodiff.data.manifests import Manifest, load_cuts
from audiodiff.data.order import SegmentBatchSampler, SegmentRequest
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.reading import MelGrid
from audiodiff.data.segments import SegmentDataset, training_loader
from audiodiff.errors import InputError
from tests.tiny import MEL

RATE, HOP = MEL["sample_rate"], MEL["hop_length"]
LENGTHS = (4000, 2571, 40)


def corpus(folder: Path, log_mel: LogMel, without: int | None = None) -> Manifest:
    """A prepared corpus of noise whose cuts name the mels of their own audio, each value plus 1."""
    clips = []
    for number, length in enumerate(LENGTHS):
        path = folder / f"c{number}.wav"
        generator = torch.Generator().manual_seed(number)
        io.write(path, torch.randn(1, length, generator=generator) / 8, RATE)
        clips.append(Clip(path.stem, path, "train", "ann", "", {}))
    write_corpus(Listing("made up", folder, clips, "given"), folder / "out", PrepareOptions())
    manifest = folder / "out" / "train.jsonl.gz"
    lines = []
    for number, line in enumerate(gzip.decompress(manifest.read_bytes()).splitlines()):
        cut = json.loads(line)
        waveform, _ = io.read(cut["recording"]["sources"][0]["source"])
        path = folder / f"{cut['id']}.npy"
        np.save(path, Mel(log_mel)._whole(waveform)[0].numpy() + 1)
        lines.append(json.dumps(cut if number == without else cut | {"custom": {"mel": str(path)}}) + "\n")
    with gzip.open(manifest, "wt", encoding="utf-8") as file:
        file.writelines(lines)
    return load_cuts(manifest)


def grid_of(log_mel: LogMel) -> MelGrid:
    return MelGrid(log_mel.n_mels, HOP, log_mel.framing == "center")


@pytest.mark.parametrize("framing", ["center", "same"])
@pytest.mark.parametrize("start", [0, 1, HOP - 1, HOP, 1000])
def test_segment_begins_on_a_frame_and_has_the_frames_of_its_samples(
    framing: str, start: int, tmp_path: Path
) -> None:
    log_mel = LogMel.from_definition(MEL | {"framing": framing})
    clips = corpus(tmp_path, log_mel)
    dataset = SegmentDataset(clips, RATE, mels=grid_of(log_mel))
    item = dataset[SegmentRequest(0, start, 1500)]
    frame = start // HOP
    whole = np.load(clips.entry(0).mel)
    recording, _ = io.read(clips.entry(0).source)
    assert item.mel is not None
    assert item.mel.shape[1] == log_mel.frames(1500)
    assert torch.equal(item.mel, torch.from_numpy(whole[:, frame : frame + item.mel.shape[1]]))
    assert torch.equal(item.waveform, recording[:, frame * HOP : frame * HOP + 1500])
    # Away from the ends of the segment they are what its own samples give.
    inner = slice(MEL["n_fft"] // HOP, -(MEL["n_fft"] // HOP))
    torch.testing.assert_close(
        item.mel[:, inner] - 1, log_mel(item.waveform)[0][:, inner], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("framing", ["center", "same"])
def test_a_batch_is_heard_as_its_files_say(framing: str, tmp_path: Path) -> None:
    log_mel = LogMel.from_definition(MEL | {"framing": framing})
    dataset = SegmentDataset(corpus(tmp_path, log_mel), RATE, mels=grid_of(log_mel))
    sampler = SegmentBatchSampler(dataset.lengths, 2000, len(LENGTHS), seed=0)
    batch = next(iter(training_loader(dataset, sampler, 0)))
    assert batch.mel is not None
    assert batch.problems == ()
    assert batch.mel.shape[2] == max(grid_of(log_mel).frames(length) for length in batch.lengths.tolist())
    heard = Mel(log_mel)(batch).local
    assert heard is not None
    for row, mel, length in zip(heard, batch.mel, batch.lengths.tolist(), strict=True):
        own = max(log_mel.frames(length), 1)
        assert torch.equal(row[:, :own], mel[:, :own])
        assert torch.equal(row[:, own:], mel[:, own - 1 : own].expand(-1, row.shape[1] - own))


def test_without_a_grid_the_recording_is_heard(tmp_path: Path) -> None:
    dataset = SegmentDataset(corpus(tmp_path, LogMel.from_definition(MEL)), RATE)
    item = dataset[SegmentRequest(0, 17, 1500)]
    assert item.mel is None
    assert collate([item]).mel is None


def test_a_clip_whose_mel_is_of_other_audio_is_replaced_and_told(tmp_path: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    clips = corpus(tmp_path, log_mel)
    np.save(clips.entry(0).mel, np.zeros((MEL["n_mels"], 5), np.float32))
    item = SegmentDataset(clips, RATE, mels=grid_of(log_mel))[SegmentRequest(0, 0, 1500)]
    assert item.id != clips.entry(0).id
    assert "got float32 of shape [40, 5], expected float32 of [40, 63]" in item.problems[0]


def test_a_clip_without_a_mel_among_others_is_replaced_and_told(tmp_path: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    clips = corpus(tmp_path, log_mel, without=0)
    item = SegmentDataset(clips, RATE, mels=grid_of(log_mel))[SegmentRequest(0, 0, 1500)]
    assert "names no mel" in item.problems[0]


def test_augmentation_of_audio_whose_mel_is_given_is_refused(tmp_path: Path) -> None:
    log_mel = LogMel.from_definition(MEL)
    with pytest.raises(InputError, match="augmentation"):
        SegmentDataset(corpus(tmp_path, log_mel), RATE, augment=lambda x, _: x, mels=grid_of(log_mel))


def test_items_with_and_without_a_mel_are_not_joined() -> None:
    item = Item(torch.zeros(1, 64), 64, {}, "a", mel=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="b has no mel"):
        collate([item, Item(torch.zeros(1, 64), 64, {}, "b")])
