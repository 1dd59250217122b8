"""The examples, driven for real: each client's own model at random weights speaks through vocoders of ours."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.audio.mel import LogMel, preset
from audiodiff.errors import InputError
from audiodiff.synthesis.clients import (
    Contract,
    CoquiVocoder,
    EspnetVocoder,
    Face,
    HifiGanVocoder,
    NemoVocoder,
    ParallelWaveGanVocoder,
    SpeechBrainDiffWave,
    SpeechBrainHifiGan,
    TorchaudioVocoder,
    TransformersVocoder,
    VocosVocoder,
)  # fmt: skip
from audiodiff.synthesis.vocoder import Vocoder
from tests.tiny import random_model, recipe_from

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS = ("griffin-lim", "model")


def example(name: str, package: str) -> ModuleType:
    pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def vocoder_of(kind: str, name: str, **change: Any) -> Face:
    """A vocoder that hears the mel of recipes/features/NAME: Griffin-Lim, or a diffusion model of random weights."""
    log_mel = LogMel.from_definition(preset(name).definition() | change)
    if kind == "griffin-lim":
        return GriffinLim(log_mel, iterations=1)
    recipe = recipe_from("experiment=fsdd_vocoder", "size=tiny", "frames.hop_length=256", "frames.n_fft=512")
    node = recipe["model"]
    node["conditioner"]["log_mel"] |= log_mel.definition()
    node["representation"]["sample_rate"] = log_mel.sample_rate
    node["denoiser"]["network"]["local_features"] = log_mel.n_mels
    model = random_model(recipe)
    model.recipe = recipe
    # Random clients make mels about 0, which is loud; a model of trained statistics refuses that.
    model.conditioner.std.fill_(20 * log_mel.decibel)
    return Vocoder(model, mel_iterations=0)


def assert_refused(run: Any) -> None:
    """A vocoder of another mel is refused with the fields named, before anything sounds."""
    for change, words in (
        ({"framing": "same", "n_fft": 2048}, "n_fft: 1024, expected 2048"),
        ({"mel_scale": "htk"}, "mel_scale: slaney, expected htk"),
    ):
        with pytest.raises(InputError, match=words):
            run(change)


@pytest.mark.parametrize("kind", KINDS)
def test_speecht5(kind: str) -> None:
    module = example("transformers_speecht5", "transformers")
    model, speaker = module.tiny_speecht5(), torch.zeros(1, 8)
    tokens = torch.arange(4, 16)[None]
    vocoder = vocoder_of(kind, "speecht5_16k80")
    mel = model.generate_speech(tokens, speaker)
    waveform = module.speak(model, tokens, speaker, vocoder)
    assert waveform.shape == (mel.shape[0] * 256,)
    assert bool(waveform.isfinite().all())
    adapter = TransformersVocoder(vocoder, module.CONTRACT)
    assert torch.equal(model.generate(tokens, speaker_embeddings=speaker, vocoder=adapter), waveform)
    both, lengths = model.generate_speech(
        tokens.expand(2, -1), speaker.expand(2, -1), vocoder=adapter, return_output_lengths=True
    )
    assert both.shape == (2, max(lengths))
    torch.testing.assert_close(both[0], waveform, atol=1e-5, rtol=1e-4)
    assert_refused(
        lambda change: module.speak(
            model, tokens, speaker, vocoder_of("griffin-lim", "speecht5_16k80", **change)
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_pipeline(kind: str, tmp_path: Path) -> None:
    module = example("transformers_pipeline", "transformers")
    tiny = example("transformers_speecht5", "transformers").tiny_speecht5()
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import PreTrainedTokenizerFast

    words = {letter: number for number, letter in enumerate(["<s>", "<pad>", "</s>", "<unk>", *"helo "])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>")
    tokenizer.model_input_names = ["input_ids"]
    pipe = module.make_pipeline(tiny, tokenizer, vocoder_of(kind, "speecht5_16k80"))
    waveform, sample_rate = module.speak(pipe, "hello hello", torch.zeros(1, 8))
    assert sample_rate == 16000
    assert waveform.shape[0] % 256 == 0
    assert waveform.shape[0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_fastspeech2_conformer(kind: str) -> None:
    module = example("transformers_fastspeech2", "transformers")
    tokens = torch.arange(1, 13)[None]
    waveform = module.speak(module.tiny_fastspeech2(), tokens, vocoder_of(kind, "espnet_22k80"))
    assert waveform.shape[0] == 1
    assert waveform.shape[1] % 256 == 0
    assert bool(waveform.isfinite().all())
    assert_refused(
        lambda change: module.speak(
            module.tiny_fastspeech2(), tokens, vocoder_of("griffin-lim", "espnet_22k80", **change)
        )
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("speechbrain_alone")
def test_speechbrain_tacotron2(kind: str) -> None:
    module = example("speechbrain_tacotron2", "speechbrain")
    model, tokens = module.tiny_tacotron2(), torch.arange(1, 13).repeat(2, 1)
    waveforms = module.speak(model, tokens, torch.tensor([12, 12]), vocoder_of(kind, "tacotron2_22k80"))
    assert waveforms.shape[:2] == (2, 1)
    assert waveforms.shape[2] % 256 == 0
    assert_refused(
        lambda change: module.speak(
            model, tokens, torch.tensor([12, 12]), vocoder_of("griffin-lim", "tacotron2_22k80", **change)
        )
    )


@pytest.mark.filterwarnings("ignore:Reached max decoder steps")
@pytest.mark.parametrize("kind", KINDS)
def test_torchaudio_tacotron2(kind: str) -> None:
    module = example("torchaudio_tacotron2", "torchaudio")
    model, tokens, lengths = module.tiny_tacotron2(), torch.arange(1, 13)[None], torch.tensor([12])
    waveforms, samples = module.speak(model, tokens, lengths, vocoder_of(kind, "tacotron2_22k80"))
    assert waveforms.shape == (1, int(samples[0]))
    assert_refused(
        lambda change: module.speak(
            model, tokens, lengths, vocoder_of("griffin-lim", "tacotron2_22k80", **change)
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_espnet_tacotron2(kind: str, tmp_path: Path) -> None:
    module = example("espnet_tacotron2", "espnet2")
    config = module.tiny_config(tmp_path)
    text2speech = module.make_text2speech(config, None, vocoder_of(kind, "espnet_22k80"))
    waveform = module.speak(text2speech, "hello")
    assert text2speech.fs == 22050
    assert waveform.dim() == 1
    assert waveform.shape[0] % 256 == 0
    assert_refused(
        lambda change: module.make_text2speech(
            config, None, vocoder_of("griffin-lim", "espnet_22k80", **change)
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_coqui_glowtts(kind: str, tmp_path: Path) -> None:
    module = example("coqui_glowtts", "TTS")
    paths = module.tiny_glowtts(tmp_path)
    synthesizer = module.make_synthesizer(*paths, vocoder_of(kind, "coqui_22k80"))
    assert (
        module.speak(synthesizer, "hello").shape[0] > 10000
    )  # which ends with the silence that Coqui appends
    assert_refused(
        lambda change: module.make_synthesizer(*paths, vocoder_of("griffin-lim", "coqui_22k80", **change))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_matcha(kind: str) -> None:
    module = example("matcha_tts", "matcha")
    waveform = module.speak(
        module.tiny_matcha(), torch.arange(1, 13)[None], vocoder_of(kind, "hifigan_22k80")
    )
    assert waveform.shape[0] % 256 == 0
    assert float(waveform.abs().max()) <= 1


def mel_of(name: str, frames: int = 9) -> torch.Tensor:
    log_mel = preset(name)
    noise = 0.05 * torch.randn(1, 256 * (frames + 1), generator=torch.Generator().manual_seed(0))
    return log_mel(noise)[..., :frames]


def test_calling_styles_of_clients_that_are_not_installed_everywhere() -> None:
    def lim(name: str) -> Face:
        return GriffinLim(preset(name), iterations=1)

    nemo, hifigan, vocos = mel_of("nemo_22k80"), mel_of("hifigan_22k80"), mel_of("vocos_24k100")
    espnet, coqui, pwg = mel_of("espnet_22k80"), mel_of("coqui_22k80"), mel_of("pwg_22k80_log10")
    samples = 9 * 256
    assert NemoVocoder(lim("nemo_22k80"), Contract("nemo_22k80")).convert_spectrogram_to_audio(
        spec=nemo
    ).shape == (
        1,
        samples,
    )
    assert HifiGanVocoder(lim("hifigan_22k80"), Contract("hifigan_22k80"))(hifigan).shape == (1, 1, samples)
    assert VocosVocoder(lim("vocos_24k100"), Contract("vocos_24k100")).decode(vocos).shape == (1, samples)
    adapter = EspnetVocoder(lim("espnet_22k80"), Contract("espnet_22k80"))
    assert adapter(espnet[0].T).shape == (samples,)
    assert adapter.fs == 22050
    assert CoquiVocoder(lim("coqui_22k80"), Contract("coqui_22k80")).inference(coqui).shape == (1, 1, samples)
    mean, std = torch.full((80,), -2.0), torch.full((80,), 0.5)
    published = ParallelWaveGanVocoder(
        lim("pwg_22k80_log10"), Contract("pwg_22k80_log10", mean=mean, std=std)
    )
    raw = published.inference(pwg[0].T, normalize_before=True)
    assert raw.shape == (samples, 1)
    torch.testing.assert_close(published.inference((pwg[0].T + 2) / 0.5), raw, atol=1e-4, rtol=1e-3)
    plain = ParallelWaveGanVocoder(lim("pwg_22k80_log10"), Contract("pwg_22k80_log10"))
    with pytest.raises(InputError, match="normalize_before=True"):
        plain.inference(pwg[0].T)


def test_an_exact_difference_is_converted_at_every_call() -> None:
    """A log10 client before a vocoder of natural logarithms sounds as if it made natural logarithms."""
    target = GriffinLim(preset("pwg_22k80_ln"), iterations=1)
    mel = mel_of("pwg_22k80_log10")
    adapter = TransformersVocoder(target, Contract("pwg_22k80_log10"))
    expected = target(preset("pwg_22k80_log10").convert(mel, preset("pwg_22k80_ln")))
    torch.testing.assert_close(adapter(mel[0].T), expected[0], atol=1e-5, rtol=1e-4)


def test_what_is_not_exact_is_bridged_on_request_alone() -> None:
    target = GriffinLim(preset("tacotron2_22k80"), iterations=1)
    with pytest.raises(InputError, match=r"framing: same, expected center.*approximation=True"):
        HifiGanVocoder(target, Contract("hifigan_22k80"))
    bridged = HifiGanVocoder(target, Contract("hifigan_22k80", approximation=True))
    assert [line.split(":")[0] for line in bridged.approximation.bridged] == ["framing", "magnitude_epsilon"]
    assert bridged(mel_of("hifigan_22k80")).shape == (1, 1, 9 * 256)


def test_lengths_mute_the_padding_and_as_many_frames_as_bands_are_no_riddle() -> None:
    target = GriffinLim(preset("tacotron2_22k80"), iterations=1)
    mel = mel_of("tacotron2_22k80", 80).repeat(2, 1, 1)
    contract = Contract("tacotron2_22k80")
    waveforms, samples = TorchaudioVocoder(target, contract)(mel, torch.tensor([80, 5]))
    assert samples is not None
    assert samples.tolist() == [80 * 256, 5 * 256]
    assert not waveforms[1, 5 * 256 :].any()
    made = SpeechBrainHifiGan(target, contract).decode_batch(mel, [80, 5], 256)
    assert torch.equal(made[:, 0], waveforms)
    assert torch.equal(SpeechBrainDiffWave(target, contract).decode_batch(mel, 256, [80, 5]), made)
    with pytest.raises(InputError, match="hop_len 300"):
        SpeechBrainDiffWave(target, contract).decode_batch(mel, 300)
    for wrong in (torch.tensor([80]), torch.tensor([80, 0]), torch.tensor([81, 1])):
        with pytest.raises(InputError, match="lengths"):
            TorchaudioVocoder(target, contract)(mel, wrong)


def test_a_mel_in_another_convention_than_the_contract_is_refused_at_the_call() -> None:
    target = GriffinLim(preset("tacotron2_22k80"), iterations=1)
    adapter = HifiGanVocoder(target, Contract("tacotron2_22k80"))
    mel = mel_of("tacotron2_22k80")
    for bad, words in (
        (mel * 8.7, "decibels"),
        (mel.exp(), "logarithm|0..1"),
        (mel[:, :70], "80 bands"),
        (mel * torch.nan, "NaN"),
        (mel[..., :0], "no frames"),
    ):
        with pytest.raises(InputError, match=f"mel of the client: .*({words})"):
            adapter(bad)
