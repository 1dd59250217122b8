"""FastSpeech2Conformer of transformers speaks through audiodiff: the adapter takes its vocoder's place.

python examples/transformers_fastspeech2.py [VOCODER_FOLDER [NAME_OR_FOLDER]]

Its mel comes normalized, and only the vocoder that it was published with knows how: `fastspeech2_contract` asks it.
Without a folder the vocoder is Griffin-Lim; without a model it is a tiny one with random weights, which makes noise.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from transformers import (
    FastSpeech2ConformerConfig,
    FastSpeech2ConformerHifiGanConfig,
    FastSpeech2ConformerWithHifiGan,
    FastSpeech2ConformerWithHifiGanConfig,
)

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Face, TransformersVocoder, fastspeech2_contract


def tiny_fastspeech2(seed: int = 0) -> FastSpeech2ConformerWithHifiGan:
    """Returns a FastSpeech2Conformer of random weights, its mel normalized about as speech is."""
    torch.manual_seed(seed)
    config = FastSpeech2ConformerConfig(
        hidden_size=24, vocab_size=30, encoder_layers=1, decoder_layers=1,
        encoder_linear_units=16, decoder_linear_units=16, encoder_num_attention_heads=2,
        decoder_num_attention_heads=2, speech_decoder_postnet_units=16,
        duration_predictor_channels=16, energy_predictor_channels=16, pitch_predictor_channels=16,
    )  # fmt: skip
    hifigan = FastSpeech2ConformerHifiGanConfig(upsample_initial_channel=16)
    model = FastSpeech2ConformerWithHifiGan(
        FastSpeech2ConformerWithHifiGanConfig(model_config=config.to_dict(), vocoder_config=hifigan.to_dict())
    ).eval()
    model.vocoder.mean.fill_(-2.3)
    model.vocoder.scale.fill_(0.8)
    return model


def speak(model: FastSpeech2ConformerWithHifiGan, tokens: Tensor, vocoder: Face) -> Tensor:
    """Returns the waveform [1, T] of token ids [1, L]; the model keeps the adapter."""
    if not isinstance(model.vocoder, TransformersVocoder):
        model.vocoder = TransformersVocoder(vocoder, fastspeech2_contract(model.vocoder))
    with torch.inference_mode():
        waveform: Tensor = model(tokens, return_dict=True)["waveform"]
    return waveform


def main(arguments: list[str]) -> None:
    """Writes fastspeech2.wav."""
    vocoder = (
        audiodiff.Vocoder.load(arguments[0]) if arguments else audiodiff.GriffinLim(preset("espnet_22k80"))
    )
    if len(arguments) > 1:
        from transformers import FastSpeech2ConformerTokenizer

        model = FastSpeech2ConformerWithHifiGan.from_pretrained(arguments[1])
        tokens = FastSpeech2ConformerTokenizer.from_pretrained(arguments[1])("Hello.", return_tensors="pt")[
            "input_ids"
        ]
    else:
        model, tokens = tiny_fastspeech2(), torch.arange(1, 13)[None]
    waveform = speak(model, tokens, vocoder)
    io.write("fastspeech2.wav", waveform.clamp(-1, 1), vocoder.sample_rate)
    print(f"fastspeech2.wav: {waveform.shape[1] / vocoder.sample_rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
