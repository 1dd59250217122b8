"""SpeechT5 of transformers speaks through audiodiff: `generate_speech(..., vocoder=...)`.

python examples/transformers_speecht5.py [VOCODER_FOLDER [SPEECHT5_NAME_OR_FOLDER]]

Without a folder the vocoder is Griffin-Lim; without a SpeechT5 it is a tiny one with random weights, which makes noise.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from transformers import SpeechT5Config, SpeechT5ForTextToSpeech

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Contract, Face, TransformersVocoder

CONTRACT = Contract("speecht5_16k80")


def tiny_speecht5(seed: int = 0) -> SpeechT5ForTextToSpeech:
    """Returns a SpeechT5 of random weights."""
    torch.manual_seed(seed)
    small = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}
    config = SpeechT5Config(
        vocab_size=30, hidden_size=32, speaker_embedding_dim=8, speech_decoder_prenet_units=16,
        speech_decoder_postnet_units=16, speech_decoder_postnet_layers=2,
        **{f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in small.items()},
    )  # fmt: skip
    return SpeechT5ForTextToSpeech(config).eval()


def speak(model: SpeechT5ForTextToSpeech, tokens: Tensor, speaker: Tensor, vocoder: Face) -> Tensor:
    """Returns the waveform [T] of token ids [1, L] in the voice of a speaker embedding [1, D]."""
    waveform: Tensor = model.generate_speech(tokens, speaker, vocoder=TransformersVocoder(vocoder, CONTRACT))
    return waveform


def main(arguments: list[str]) -> None:
    """Writes speecht5.wav."""
    vocoder = (
        audiodiff.Vocoder.load(arguments[0]) if arguments else audiodiff.GriffinLim(preset("speecht5_16k80"))
    )
    if len(arguments) > 1:
        from transformers import SpeechT5Processor

        model = SpeechT5ForTextToSpeech.from_pretrained(arguments[1])
        tokens = SpeechT5Processor.from_pretrained(arguments[1])(text="Hello.", return_tensors="pt")[
            "input_ids"
        ]
    else:
        model, tokens = tiny_speecht5(), torch.arange(4, 16)[None]
    speaker = torch.zeros(1, model.config.speaker_embedding_dim)
    waveform = speak(model, tokens, speaker, vocoder)
    io.write("speecht5.wav", waveform[None].clamp(-1, 1), vocoder.sample_rate)
    print(f"speecht5.wav: {waveform.shape[0] / vocoder.sample_rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
