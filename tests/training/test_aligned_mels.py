"""Ground-truth-aligned mels: in the time of the recordings, kept when interrupted, and what a vocoder trains on."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from audiodiff.cli.app import app
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.data.collate import Item, collate
from audiodiff.data.manifests import load_cuts
from audiodiff.data.segments import SegmentDataset
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.model import load
from audiodiff.training.aligned_mels import AlignRequest, MelAligner, align_corpus
from audiodiff.training.given_mels import RECORD
from audiodiff.training.loop import train
from audiodiff.training.run import open_split
from tests.tiny import recipe_from
from tests.tiny_text import FRONT_END, random_weights, text_recipe
from tests.training.test_texts import written

RATE, HOP = 8000, 64
TEXTS = ["zero", "one two", "<break/>", "three", "nine " * 40]
TTS = (
    "experiment=spoken_numbers", "size=tiny", "data.segment_seconds=0.7", "data.labels.speaker=[ann,bob]",
    "~data.sequences", "sampler.grid.steps=2",
)  # fmt: skip
VOCODER = (
    "experiment=fsdd_vocoder", "size=tiny", "~data.labels.digit", "data.labels.speaker=[ann,bob]",
    "data.segment_seconds=0.2", "training.global_batch_seconds=0.4", "training.updates=2", "training.warmup_updates=1",
    "training.validation_clips=2", "training.statistics_clips=4", "training.validate_every=2", "training.tracker=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = recipe_from(*TTS)
    folder = tmp_path_factory.mktemp("tts") / "model"
    random_weights(recipe).save(folder, recipe, {"updates": 0}, "# test\n")
    return folder


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = [
        (split, speaker, text, {"digit": "any"})
        for split in ("train", "dev")
        for speaker in ("ann", "bob")
        for text in TEXTS
    ]
    return written(tmp_path_factory.mktemp("spoken"), RATE, 0.5, clips)  # type: ignore[arg-type]


def console() -> Console:
    return Console(file=io.StringIO(), width=300)


def aligned(model: Path, spoken: Path, out: Path, request: AlignRequest | None = None) -> str:
    """Aligns a corpus and returns what was told."""
    trained, told = load(model), console()
    aligner = MelAligner(trained, instantiate(trained.recipe["sampler"]))
    align_corpus(aligner, spoken, out, request or AlignRequest(), {"model": str(model)}, told)
    return told.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def corpus(model: Path, spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("aligned") / "corpus"
    told = aligned(model, spoken, out)
    assert "4 of 10 clips left out" in told
    return out


def test_mels_have_the_frames_of_the_recordings_and_durations_add_up_to_them(
    corpus: Path, spoken: Path
) -> None:
    cuts, before = load_cuts(corpus / "train.jsonl.gz"), load_cuts(spoken / "train.jsonl.gz")
    assert len(cuts) == 6
    originals = {before.entry(number).id: before.entry(number) for number in range(len(before))}
    for number in range(len(cuts)):
        entry = cuts.entry(number)
        assert entry.labels == originals[entry.id].labels
        assert entry.source == originals[entry.id].source
        mel = np.load(entry.mel)
        said = json.loads((corpus / "durations" / "train" / f"{entry.id}.json").read_text())
        assert mel.dtype == np.float32
        assert mel.shape == (40, 1 + entry.length // HOP)
        assert sum(said["frames"]) == mel.shape[1]
        assert len(said["frames"]) == len(said["symbols"])
        assert said["text"] == entry.labels["text"]


def test_durations_are_those_that_training_finds(model: Path, spoken: Path, corpus: Path) -> None:
    trained = load(model)
    text = next(part for part in trained.modules() if isinstance(part, Text))
    dataset = open_split(trained.recipe, spoken, "train")
    assert isinstance(dataset, SegmentDataset)
    for number in range(len(dataset)):
        item = _whole(dataset, number)
        assert item.tokens is not None
        batch = collate([item])
        condition, _ = trained.align(batch, trained.representation.encode(item.waveform[None]))
        said = json.loads((corpus / "durations" / "train" / f"{item.id}.json").read_text())
        means = text.encoder(item.tokens[None], batch.token_counts, text.speaker(batch).vector).mean  # type: ignore
        repeated = means[0].repeat_interleave(torch.tensor(said["frames"]), 1)
        assert condition.prior_mean is not None
        torch.testing.assert_close(repeated, condition.prior_mean[0])


def _whole(dataset: SegmentDataset, number: int) -> Item:
    from audiodiff.data.order import SegmentRequest

    return dataset[SegmentRequest(number, 0, int(dataset.lengths[number]))]


def test_a_clip_is_spoken_alike_alone_and_in_a_batch(model: Path, spoken: Path) -> None:
    trained = load(model)
    aligner = MelAligner(trained, instantiate(trained.recipe["sampler"]))
    dataset = open_split(trained.recipe, spoken, "train")
    assert isinstance(dataset, SegmentDataset)
    items = [_whole(dataset, number) for number in range(3)]
    together = aligner.speak(items, [5, 6, 7], seed=1)
    for number, (item, one) in enumerate(zip(items, together, strict=True)):
        (alone,) = aligner.speak([item], [5 + number], seed=1)
        assert torch.equal(one.frames, alone.frames)
        torch.testing.assert_close(one.mel, alone.mel, atol=1e-4, rtol=1e-4)


def test_an_interrupted_corpus_goes_on_and_keeps_what_is_there(
    model: Path, spoken: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    aligned(model, spoken, out, AlignRequest(splits=("train",), most=2, pictures=1))
    assert len(load_cuts(out / "train.jsonl.gz")) == 2
    assert len(list((out / "alignments").iterdir())) == 1
    first = sorted((out / "mel" / "train").iterdir())
    stamps = {path: path.stat().st_mtime_ns for path in first}
    aligned(model, spoken, out)
    assert {path: path.stat().st_mtime_ns for path in first} == stamps
    assert len(load_cuts(out / "train.jsonl.gz")) == len(load_cuts(out / "dev.jsonl.gz")) == 6
    for path in (corpus / "mel" / "train").iterdir():
        assert np.allclose(np.load(path), np.load(out / "mel" / "train" / path.name), atol=1e-4)


def test_a_folder_of_another_seed_is_refused(model: Path, spoken: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match="begun with another seed"):
        aligned(model, spoken, corpus, AlignRequest(seed=3))


def test_a_vocoder_trains_on_the_given_mels(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_from(*VOCODER)
    dataset = open_split(recipe, corpus, "dev")
    assert isinstance(dataset, SegmentDataset)
    assert _whole(dataset, 0).mel is not None
    load(train(recipe, corpus, tmp_path, "test", console()))


def test_a_text_model_takes_the_corpus_for_any_other(corpus: Path) -> None:
    dataset = open_split(recipe_from(*TTS), corpus, "train")
    assert isinstance(dataset, SegmentDataset)
    item = _whole(dataset, 0)
    assert item.mel is None
    assert item.tokens is not None


def test_a_vocoder_of_another_mel_is_refused_field_by_field(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_from(*VOCODER, "features.f_max=3800")
    with pytest.raises(InputError, match=r"f_max: 4000\.0, expected 3800"):
        train(recipe, corpus, tmp_path, "test", console())


def test_sequences_are_written_with_their_audio(tmp_path: Path) -> None:
    clips = [
        (split, speaker, word, {"digit": word})
        for split in ("train", "dev")
        for speaker in ("george", "theo")
        for word in ("one", "two", "three", "four")
    ]
    digits = written(tmp_path / "digits", RATE, 0.3, clips)  # type: ignore[arg-type]
    recipe = recipe_from(
        "experiment=spoken_numbers", "size=tiny", "sampler.grid.steps=1", "data.sequences.most=2"
    )
    random_weights(recipe).save(tmp_path / "model", recipe, {"updates": 0}, "# test\n")
    aligned(tmp_path / "model", digits, tmp_path / "out", AlignRequest(splits=("train",), most=4))
    cuts = load_cuts(tmp_path / "out" / "train.jsonl.gz")
    assert len(cuts) == 4
    entry = cuts.entry(3)
    assert entry.labels["speaker"] == "theo"
    assert len(entry.labels["text"].split()) == 2
    assert np.load(entry.mel).shape[1] == 1 + entry.length // HOP


def test_command_says_what_it_wrote_and_what_it_left_out(model: Path, spoken: Path, tmp_path: Path) -> None:
    arguments = [
        "align",
        str(model),
        str(spoken),
        "--out",
        str(tmp_path / "o"),
        "--split",
        "dev",
        "--steps",
        "1",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "dev: 6 clips" in result.output
    assert json.loads((tmp_path / "o" / RECORD).read_text())["splits"]["dev"]["clips"] == 6
    with gzip.open(tmp_path / "o" / "dev.jsonl.gz", "rt") as file:
        assert all("mel" in json.loads(line)["custom"] for line in file)


def test_a_model_without_mels_or_texts_is_refused() -> None:
    recipe: dict[str, Any] = text_recipe("straight")
    assert FRONT_END.vocabulary
    trained = random_weights(recipe)
    with pytest.raises(InputError, match="does not make mels from texts"):
        MelAligner(trained, instantiate(recipe["sampler"]))


@pytest.mark.parametrize(
    "wrong", [{"splits": ("all",)}, {"batch": 0}, {"most": 0}, {"seed": -1}, {"splits": ()}]
)
def test_requests_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        AlignRequest(**wrong)
