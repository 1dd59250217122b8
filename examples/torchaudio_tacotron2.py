"""Tacotron2 of torchaudio speaks through audiodiff: `waveforms, lengths = vocoder(specgrams, lengths)`.

python examples/torchaudio_tacotron2.py [VOCODER_FOLDER [published]]

Without a folder the vocoder is Griffin-Lim; `published` fetches torchaudio's weights, without it a tiny Tacotron2
of random weights makes noise.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torchaudio.models import Tacotron2

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Contract, Face, TorchaudioVocoder

CONTRACT = Contract("tacotron2_22k80")


def tiny_tacotron2(seed: int = 0) -> Tacotron2:
    """Returns a Tacotron2 of random weights that stops after at most 20 frames."""
    torch.manual_seed(seed)
    model = Tacotron2(
        n_symbol=30, symbol_embedding_dim=16, encoder_embedding_dim=16, attention_rnn_dim=16, attention_hidden_dim=8,
        decoder_rnn_dim=16, prenet_dim=8, postnet_embedding_dim=16, decoder_max_step=20,
    )  # fmt: skip
    return model.eval()


def speak(model: Tacotron2, tokens: Tensor, token_lengths: Tensor, vocoder: Face) -> tuple[Tensor, Tensor]:
    """Returns the waveforms [B, T] of token ids [B, L], and the samples of each [B]."""
    with torch.inference_mode():
        specgrams, lengths, _ = model.infer(tokens, token_lengths)
        waveforms, samples = TorchaudioVocoder(vocoder, CONTRACT)(specgrams, lengths)
    return waveforms, samples


def main(arguments: list[str]) -> None:
    """Writes torchaudio.wav."""
    vocoder = (
        audiodiff.Vocoder.load(arguments[0]) if arguments else audiodiff.GriffinLim(preset("tacotron2_22k80"))
    )
    if arguments[1:] == ["published"]:
        from torchaudio.pipelines import TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH as BUNDLE

        model = BUNDLE.get_tacotron2()
        tokens, token_lengths = BUNDLE.get_text_processor()("Hello.")
    else:
        model, tokens, token_lengths = tiny_tacotron2(), torch.arange(1, 13)[None], torch.tensor([12])
    waveforms, _ = speak(model, tokens, token_lengths, vocoder)
    io.write("torchaudio.wav", waveforms[:1].clamp(-1, 1), vocoder.sample_rate)
    print(f"torchaudio.wav: {waveforms.shape[1] / vocoder.sample_rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
