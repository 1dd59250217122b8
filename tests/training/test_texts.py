"""A run of a text: transcripts are read at its start, the table of symbols is saved with the model, and it trains."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from audiodiff.audio import io as audio
from audiodiff.data.collate import collate
from audiodiff.data.order import fixed_requests
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.data.segments import SegmentDataset
from audiodiff.errors import InputError
from audiodiff.model import load
from audiodiff.synthesis.text_to_speech import TextToSpeech
from audiodiff.text.front_end import TextFrontEnd
from audiodiff.training.loop import train
from audiodiff.training.run import open_split
from audiodiff.training.texts import TextReader, TokensOf, front_end_of
from tests.tiny import recipe_from

SHORT = (
    "size=tiny",
    "data.segment_seconds=0.7",
    "training.global_batch_seconds=1.4",
    "training.updates=4",
    "training.log_every=2",
    "training.checkpoint_every=2",
    "training.validate_every=4",
    "training.validation_clips=2",
    "training.sample_every=4",
    "training.sample_clips=2",
    "training.tracker=none",
)
TTS = ("experiment=ljspeech_tts", "text=graphemes", "training.window_seconds=0.2", *SHORT)
TEXTS = ["One two.", "Two ☃ one!", "Three.", "<break/>", "Four, four.", "Five six."]


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def written(
    folder: Path, rate: int, seconds: float, clips: list[tuple[str, str, str, dict[str, str]]]
) -> Path:
    """A prepared corpus of noise: (split, speaker, text, labels) of each clip."""
    listed = []
    for number, (split, speaker, text, labels) in enumerate(clips):
        generator = torch.Generator().manual_seed(number)
        length = round(seconds * rate) + 100 * (number % 7)
        path = folder / f"c{number}.wav"
        audio.write(path, torch.randn(1, length, generator=generator) / 8, rate)
        listed.append(Clip(path.stem, path, split, speaker, text, labels))
    write_corpus(Listing("made up", folder, listed, "given"), folder / "out", PrepareOptions())
    return folder / "out"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips: list[tuple[str, str, str, dict[str, str]]] = [
        (split, "ann", text, {}) for split in ("train", "dev", "test") for text in TEXTS
    ]
    return written(tmp_path_factory.mktemp("spoken"), 22050, 0.6, clips)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = recipe_from("experiment=spoken_numbers")
    words = ["zero", "one", "two", "three", "four", "five"]
    clips = [
        (split, speaker, word, {"digit": word})
        for split in ("train", "dev", "test")
        for speaker in recipe["data"]["labels"]["speaker"][:2]
        for word in words
    ]
    return written(tmp_path_factory.mktemp("digits"), 8000, 0.2, clips)


def test_items_have_the_tokens_of_their_transcripts_and_what_is_lost_is_said(spoken: Path) -> None:
    recipe, told = recipe_from(*TTS), console()
    dataset = open_split(recipe, spoken, "train", told)
    assert isinstance(dataset, SegmentDataset)
    front_end = front_end_of(recipe)
    assert front_end is not None
    batch = collate([dataset[request] for request in fixed_requests(dataset.lengths, 100_000)])
    assert batch.tokens is not None
    assert batch.token_counts is not None
    said = [
        front_end.text(row[:count].tolist())
        for row, count in zip(batch.tokens, batch.token_counts.tolist(), strict=True)
    ]
    assert said == ["one two.", "two one!", "three.", "four, four.", "five six."]
    report = told.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of 6 clips left out: 1 with a text that cannot be read" in report
    assert "1 x '☃' (SNOWMAN)" in report
    assert "<break/>" in report


def test_the_table_of_symbols_is_in_the_recipe_and_sizes_the_encoder() -> None:
    recipe = recipe_from(*TTS)
    assert recipe["text"]["symbols"] == TextFrontEnd().symbols
    encoder = recipe["model"]["conditioner"]["encoder"]
    assert encoder["vocabulary"] == recipe["vocabulary"] == len(TextFrontEnd().symbols)
    with pytest.raises(InputError, match="language"):
        recipe_from(*TTS, "text.language=xx")


@pytest.mark.parametrize(
    "more",
    [
        ["training.window_seconds=null"],
        ["experiment=ljspeech_tts_flow"],
        [
            "model=mel_wavenet",
            "prediction=epsilon",
            "objective=mse",
            "model.denoiser.noise_label._target_=audiodiff.diffusion.denoiser.Time",
        ],
        ["experiment=ljspeech_tts_direct", "text_size=tiny"],
        ["experiment=ljspeech_tts_direct", "text_size=tiny", "model=wavenet", "schedule=linear_1000"],
    ],
    ids=["whole clips", "flow", "wavenet", "straight to frames", "straight to samples"],
)
def test_a_text_model_trains_goes_on_and_keeps_its_front_end(
    spoken: Path, tmp_path: Path, more: list[str]
) -> None:
    given = [each for each in TTS if not any(each.split("=")[0] == one.split("=")[0] for one in more)]
    recipe = recipe_from(*given, *more)
    folder = train(recipe, spoken, tmp_path, "test", console())
    model = load(folder)
    assert front_end_of(model.recipe) == front_end_of(recipe)
    facts = json.loads((folder / "training.json").read_text())
    assert facts["updates"] == 4
    assert facts["validation_loss"] > 0


def test_a_run_that_was_stopped_goes_on_with_the_same_windows(spoken: Path, tmp_path: Path) -> None:
    def trained(folder: Path, *updates: int) -> dict[str, Any]:
        for count in updates:
            recipe = recipe_from(*TTS)
            recipe["training"]["updates"] = count
            model = load(train(recipe, spoken, folder, "test", console()))
        return model.state_dict()

    # The learning rate's way down depends on the number of updates: none here.
    once, twice = trained(tmp_path / "once", 4), trained(tmp_path / "twice", 2, 4)
    assert all(torch.equal(once[name], twice[name]) for name in once)


@pytest.mark.parametrize("experiment", ["spoken_numbers", "spoken_numbers_direct"])
def test_spoken_numbers_train_on_sequences_of_the_words_and_speak(
    digits: Path, tmp_path: Path, experiment: str
) -> None:
    more = ("data.segment_seconds=2.6", "data.sequences.per_epoch=24", "training.global_batch_seconds=10.4")
    recipe = recipe_from(f"experiment={experiment}", "text_size=tiny", *SHORT[:1], *more, *SHORT[3:])
    dataset = open_split(recipe, digits, "dev")
    item = dataset[fixed_requests(dataset.lengths, 100_000)[23]]
    front_end = front_end_of(recipe)
    assert front_end is not None
    assert item.tokens is not None
    words = front_end.text(item.tokens.tolist()).split()
    # Of 24 sequences, 1 to 6 words by two speakers and again, this is the last.
    assert len(words) == recipe["data"]["sequences"]["most"]
    model = load(train(recipe, digits, tmp_path, "test", console()))
    assert model.labels == {"speaker": tuple(recipe["data"]["labels"]["speaker"])}
    tts = TextToSpeech(model)
    assert str(tts.route).startswith("text -> audio" if experiment.endswith("direct") else "text -> mel")
    (sentence,) = tts("three one four", speaker="theo").sentences
    assert abs(len(sentence.waveform) / 64 - float(sentence.durations.sum())) <= 1
    assert float(sentence.waveform.abs().max()) > 0


def test_sequences_without_a_text_are_refused(digits: Path) -> None:
    recipe = recipe_from("experiment=spoken_numbers", "size=tiny") | {"text": None}
    with pytest.raises(InputError, match="text=graphemes"):
        open_split(recipe, digits, "train")


def test_a_reader_that_can_read_nothing_says_why() -> None:
    with pytest.raises(InputError, match=r"markup|tag"):
        TextReader(TextFrontEnd())(["<a>", "<b>"])
    reader = TextReader(TextFrontEnd())
    assert reader(["ab", "<a>"]) == [TextFrontEnd().tokens("ab"), None]


def test_a_text_read_again_is_the_same() -> None:
    tokens = TokensOf(TextFrontEnd())
    assert torch.equal(tokens("three one"), tokens("three one"))
    assert tokens("three one").tolist() == TextFrontEnd().tokens("three one")
