"""Tacotron2 of SpeechBrain speaks through audiodiff: `decode_batch(mel, mel_lens, hop_len)`.

python examples/speechbrain_tacotron2.py [VOCODER_FOLDER [TACOTRON2_NAME_OR_FOLDER]]

Without a folder the vocoder is Griffin-Lim; without a Tacotron2 a tiny one of random weights makes noise.
"""

from __future__ import annotations

import sys

import torch
from speechbrain.lobes.models.Tacotron2 import Tacotron2
from torch import Tensor

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Contract, Face, SpeechBrainHifiGan

CONTRACT = Contract("tacotron2_22k80")


def tiny_tacotron2(seed: int = 0) -> Tacotron2:
    """Returns a Tacotron2 of random weights that stops after at most 20 frames."""
    torch.manual_seed(seed)
    model = Tacotron2(
        n_symbols=30, symbols_embedding_dim=16, encoder_embedding_dim=16, attention_rnn_dim=16, attention_dim=8,
        attention_location_n_filters=4, attention_location_kernel_size=5, decoder_rnn_dim=16, prenet_dim=8,
        max_decoder_steps=20, postnet_embedding_dim=16,
    )  # fmt: skip
    return model.eval()


def speak(model: Tacotron2, tokens: Tensor, token_lengths: Tensor, vocoder: Face) -> Tensor:
    """Returns the waveforms [B, 1, T] of token ids [B, L]."""
    mel, mel_lengths, _ = model.infer(tokens, token_lengths)
    return SpeechBrainHifiGan(vocoder, CONTRACT).decode_batch(mel, mel_lengths, hop_len=256)


def main(arguments: list[str]) -> None:
    """Writes speechbrain.wav."""
    vocoder = (
        audiodiff.Vocoder.load(arguments[0]) if arguments else audiodiff.GriffinLim(preset("tacotron2_22k80"))
    )
    if len(arguments) > 1:
        from speechbrain.inference.TTS import Tacotron2 as Published

        mel, mel_lengths, _ = Published.from_hparams(arguments[1]).encode_text("Hello.")
        waveforms = SpeechBrainHifiGan(vocoder, CONTRACT).decode_batch(mel, mel_lengths, hop_len=256)
    else:
        waveforms = speak(tiny_tacotron2(), torch.arange(1, 13)[None], torch.tensor([12]), vocoder)
    io.write("speechbrain.wav", waveforms[0].clamp(-1, 1), vocoder.sample_rate)
    print(f"speechbrain.wav: {waveforms.shape[2] / vocoder.sample_rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
