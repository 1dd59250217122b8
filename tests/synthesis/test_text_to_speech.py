"""Text becomes speech by both routes: the same whatever the batch, whole or in a stream, and wrong text is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import audiodiff
from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.errors import InputError
from audiodiff.interop import gradtts
from audiodiff.synthesis.speech import Manner, Phrasing
from audiodiff.synthesis.text_to_speech import TextToSpeech
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.text.front_end import TextFrontEnd
from audiodiff.text.phonemes import phonemizer
from tests.tiny_text import random_weights, saved, text_recipe, vocoder_recipe

ROUTES = ("griffin-lim", "vocoder", "straight", "aligned")
STRAIGHT = ("straight", "aligned")
LONG = "First a sentence. Then Mr. Roe came at 9:05! And what is the third?"
HOP = 16


def made(route: str, kind: str = "mel", phrasing: Phrasing | None = None) -> TextToSpeech:
    model = random_weights(text_recipe(route if route in STRAIGHT else kind))
    vocoder = Vocoder(random_weights(vocoder_recipe())) if route == "vocoder" else None
    return TextToSpeech(model, vocoder, phrasing=phrasing)


@pytest.fixture(scope="module", params=ROUTES)
def tts(request: pytest.FixtureRequest) -> TextToSpeech:
    return made(request.param)


@pytest.fixture(scope="module")
def two_voices() -> TextToSpeech:
    return made("griffin-lim", "speakers")


def near(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.shape == other.shape
    assert float((one - other).abs().max()) < 1e-4 * float(other.abs().max())


def test_a_long_text_is_its_sentences_with_pauses_between(tts: TextToSpeech) -> None:
    speech = tts(LONG, seed=3)
    assert [sentence.text for sentence in speech.sentences] == [
        "First a sentence.", "Then Mr. Roe came at 9:05!", "And what is the third?",
    ]  # fmt: skip
    assert speech.sentences[1].reading.normalized == "then mister roe came at nine oh five!"
    pause = round(0.2 * 8000 / HOP) * HOP
    silence = torch.zeros(pause)
    first, second, third = (sentence.waveform for sentence in speech.sentences)
    assert torch.equal(speech.waveform, torch.cat([first, silence, second, silence, third]))
    assert all(float(part.abs().max()) > 1e-4 for part in (first, second, third))
    assert bool(speech.waveform.isfinite().all())


def test_the_same_seed_gives_the_same_audio_and_another_seed_another(tts: TextToSpeech) -> None:
    one = tts("Hello there.", seed=1).waveform
    assert torch.equal(tts("Hello there.", seed=1).waveform, one)
    assert not torch.equal(tts("Hello there.", seed=2).waveform, one)


def test_a_sentence_sounds_the_same_whatever_comes_after_it_and_in_any_batch(tts: TextToSpeech) -> None:
    whole = tts(LONG, seed=5)
    near(tts("First a sentence.", seed=5).waveform, whole.sentences[0].waveform)
    others = [*tts.many(["Well, well.", LONG, "Yes."], Manner(seed=5))]
    assert len(others) == 3
    near(others[1].waveform, whole.waveform)
    near(others[2].waveform, tts("Yes.", seed=5).waveform)


def test_a_stream_is_the_whole_speech_sentence_by_sentence(tts: TextToSpeech) -> None:
    pieces = [*tts.stream(LONG, Manner(seed=2))]
    assert len(pieces) == 3
    near(torch.cat(pieces), tts(LONG, seed=2).waveform)


def test_speech_lasts_as_long_as_its_durations_and_speed_divides_them(tts: TextToSpeech) -> None:
    for speed in (1.0, 1.5, 0.5):
        (sentence,) = tts("An ordinary sentence", speed=speed).sentences
        assert len(sentence.durations) == len(sentence.reading.tokens)
        frames = len(sentence.waveform) / HOP
        assert abs(frames - float(sentence.durations.sum())) <= 1
    normal, fast = (tts("An ordinary sentence", speed=s).sentences[0].durations for s in (1.0, 1.5))
    torch.testing.assert_close(fast * 1.5, normal)


def test_temperature_divides_the_starting_noise(tts: TextToSpeech) -> None:
    assert tts.route.sampler.temperature == 1
    usual = tts("Hello.", temperature=1.0).waveform
    assert torch.equal(usual, tts("Hello.").waveform)
    assert not torch.equal(tts("Hello.", temperature=2.0).waveform, usual)
    with pytest.raises(InputError, match="temperature"):
        tts("Hello.", temperature=0.0)


@pytest.mark.parametrize("route", ["griffin-lim", "vocoder"])
def test_the_mel_is_what_the_speech_was_made_of(route: str) -> None:
    tts = made(route)
    speech, mel = tts(LONG, seed=4), tts.mel(LONG, Manner(seed=4))
    parts = [sentence.mel for sentence in speech.sentences]
    assert all(part is not None for part in parts)
    assert torch.equal(mel, tts.joined_mel([part for part in parts if part is not None]))
    assert mel.shape[0] == 6
    assert tts.route.vocoder is not None
    first = speech.sentences[0]
    assert first.mel is not None
    again = tts.route.vocoder(first.mel[None], [len(first.waveform)], seed=4)
    near(again[0], first.waveform)


@pytest.mark.parametrize("route", STRAIGHT)
def test_a_straight_model_has_no_mel_and_takes_no_vocoder(route: str) -> None:
    tts = made(route)
    assert tts("Hello.").sentences[0].mel is None
    with pytest.raises(InputError, match="straight from text"):
        tts.mel("Hello.")
    with pytest.raises(InputError, match="leave the vocoder out"):
        TextToSpeech(tts.route.model, GriffinLim(made("griffin-lim").route.log_mel))


def test_the_route_is_told_by_the_model_and_said(tmp_path: Path) -> None:
    speaks, vocoder = saved(tmp_path / "a", text_recipe("mel")), saved(tmp_path / "v", vocoder_recipe())
    straight = saved(tmp_path / "s", text_recipe("straight"))
    assert "Griffin-Lim, since no vocoder was named" in str(audiodiff.TextToSpeech.load(speaks).route)
    cascade = audiodiff.TextToSpeech.load(speaks, vocoder)
    assert str(cascade.route).endswith("by a vocoder")
    assert str(audiodiff.TextToSpeech.load(straight).route) == "text -> audio"
    near(cascade("Hello.").waveform, made("vocoder")("Hello.").waveform)


def test_speakers_are_chosen_by_name(two_voices: TextToSpeech) -> None:
    assert two_voices.speakers == ("anna", "bob")
    anna, bob = (two_voices("Hello.", speaker=name).sentences[0] for name in ("anna", "bob"))
    assert anna.mel is not None
    assert bob.mel is not None
    assert anna.mel.shape != bob.mel.shape or not torch.allclose(anna.mel, bob.mel)
    with pytest.raises(InputError, match=r"speaker 'eve' is unknown .* anna, bob"):
        two_voices("Hello.", speaker="eve")
    with pytest.raises(InputError, match="one voice"):
        made("griffin-lim")("Hello.", speaker="anna")


def test_contracts_that_differ_are_refused_by_field(tmp_path: Path) -> None:
    speaks = saved(tmp_path / "a", text_recipe("mel"))
    other = saved(tmp_path / "v", vocoder_recipe(f_max=3000.0, log_base="10"))
    with pytest.raises(InputError, match=r"another mel .*f_max: 3000.0, expected 4000.0.*log_base") as error:
        audiodiff.TextToSpeech.load(speaks, other)
    assert "hop_length" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \n\t ", "is empty"),
        ("😀 🎉", "can say nothing"),
        ("Привет, мир", "can say nothing"),
        ("?!...", "can say nothing"),
        ("bell\x07 rings", "U\\+0007"),
        ("half \ud83d of a pair", "no text"),
        ("<speak>Hello</speak>", "markup is not read"),
        (None, "expected text"),
    ],
)
def test_text_that_cannot_be_spoken_is_refused(text: str, says: str) -> None:
    tts = made("griffin-lim")
    with pytest.raises(InputError, match=says):
        tts(text)
    with pytest.raises(InputError, match=says):
        tts.stream(text)  # before the first sentence


def test_what_is_left_out_is_told(recwarn: pytest.WarningsRecorder) -> None:
    tts = made("griffin-lim")
    with pytest.warns(UserWarning, match=r"GRINNING FACE.*'Привет!', of which"):
        speech = tts("Hello 😀. Привет! Goodbye.")
    assert [sentence.text for sentence in speech.sentences] == ["Hello 😀.", "Goodbye."]
    assert speech.unsaid == ("Привет!",)
    assert speech.changes.dropped == {"😀": 1}
    recwarn.clear()
    assert tts("Hello.").left_out == ""
    assert not recwarn.list


def test_ten_thousand_characters_are_spoken() -> None:
    tts = made("straight", phrasing=Phrasing(longest=200, pause_seconds=0.0, batch=16))
    text = ("word " * 2000).strip()
    told: list[tuple[int, int]] = []
    (speech,) = tts.many([text], on_sentence=lambda done, total: told.append((done, total)))
    assert len(text) == 9999
    assert " ".join(sentence.text for sentence in speech.sentences) == text
    assert told[-1] == (len(speech.sentences), len(speech.sentences))
    assert len(speech.waveform) == sum(len(sentence.waveform) for sentence in speech.sentences)


def test_a_missing_espeak_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("phonemizer")
    monkeypatch.setenv("PHONEMIZER_ESPEAK_LIBRARY", "/nowhere/libespeak.so")
    phonemizer.cache_clear()
    recipe = text_recipe("mel")
    front_end = TextFrontEnd(kind="phonemes")
    recipe["text"] = recipe["text"] | {"kind": "phonemes", "symbols": front_end.symbols}
    recipe["model"]["conditioner"]["encoder"]["vocabulary"] = front_end.vocabulary
    with pytest.raises(InputError, match="apt install espeak-ng"):
        TextToSpeech(random_weights(recipe))("Hello there. Again.")


@pytest.mark.parametrize(("speed", "seed"), [(0.0, 0), (-1.0, 0), (float("nan"), 0), (100.0, 0), (1.0, -1)])
def test_speeds_and_seeds_out_of_range_are_refused(speed: float, seed: int) -> None:
    with pytest.raises(InputError, match=r"speed: got|seed: got"):
        made("griffin-lim")("Hello.", seed=seed, speed=speed)


def test_durations_that_were_not_learned_are_refused_before_they_cost_memory() -> None:
    tts = made("griffin-lim")
    with torch.no_grad():
        tts.route.text.encoder.durations.projection.bias.fill_(14.0)
    with pytest.raises(InputError, match="durations were not learned"):
        tts("Hello.")


def test_a_model_that_does_not_say_how_it_reads_needs_a_front_end(fixtures_dir: Path, tmp_path: Path) -> None:
    recipe = text_recipe("mel") | {"text": None}
    model = random_weights(recipe)
    with pytest.raises(InputError, match="front_end=TextFrontEnd"):
        TextToSpeech(model)
    assert TextToSpeech(model, front_end=TextFrontEnd())("Hello.").left_out == ""
    with pytest.raises(InputError, match="belong to different models"):
        TextToSpeech(model, front_end=TextFrontEnd(kind="phonemes"))
    imported = gradtts.load(fixtures_dir / "gradtts" / "weights.safetensors")
    with pytest.raises(InputError, match="front_end=TextFrontEnd"):
        TextToSpeech(imported)


def test_a_model_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="told no text"):
        audiodiff.TextToSpeech.load(saved(tmp_path / "v", vocoder_recipe()))
