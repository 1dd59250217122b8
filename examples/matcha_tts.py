"""Matcha-TTS speaks through audiodiff: `matcha.cli.to_waveform(mel, vocoder)`.

python examples/matcha_tts.py [VOCODER_FOLDER [CHECKPOINT]]

Pass no denoiser of Matcha's own: `Finish(bias_removal=...)` of the vocoder is that. Without a folder the vocoder is
Griffin-Lim; without a checkpoint Matcha is a tiny one with random weights, which makes noise.
"""

from __future__ import annotations

import sys

import torch
from matcha.cli import to_waveform
from matcha.models.matcha_tts import MatchaTTS
from omegaconf import OmegaConf
from torch import Tensor

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Contract, Face, HifiGanVocoder

CONTRACT = Contract("hifigan_22k80")


def tiny_matcha(seed: int = 0) -> MatchaTTS:
    """Returns a Matcha-TTS of random weights with the statistics of LJSpeech."""
    torch.manual_seed(seed)
    encoder = {
        "encoder_type": "RoPE Encoder",
        "encoder_params": {
            "n_feats": 80, "n_channels": 32, "filter_channels": 32, "filter_channels_dp": 16, "n_heads": 2,
            "n_layers": 1, "kernel_size": 3, "p_dropout": 0.1, "spk_emb_dim": 8, "n_spks": 1, "prenet": True,
        },
        "duration_predictor_params": {"filter_channels_dp": 16, "kernel_size": 3, "p_dropout": 0.1},
    }  # fmt: skip
    decoder = {
        "channels": [32, 32], "dropout": 0.05, "attention_head_dim": 8, "n_blocks": 1, "num_mid_blocks": 1,
        "num_heads": 2, "act_fn": "snakebeta",
    }  # fmt: skip
    flow = OmegaConf.create({"name": "CFM", "solver": "euler", "sigma_min": 1e-4})
    statistics = {"mel_mean": -5.536622, "mel_std": 2.116101}
    return MatchaTTS(
        n_vocab=30, n_spks=1, spk_emb_dim=8, n_feats=80, encoder=OmegaConf.create(encoder), decoder=decoder, cfm=flow,
        data_statistics=statistics, out_size=None,
    ).eval()  # fmt: skip


def speak(model: MatchaTTS, tokens: Tensor, vocoder: Face) -> Tensor:
    """Returns the waveform [T] of token ids [1, L]."""
    lengths = torch.tensor([tokens.shape[1]])
    with torch.inference_mode():
        mel = model.synthesise(tokens, lengths, n_timesteps=2, temperature=0.3)["mel"]
        waveform: Tensor = to_waveform(mel, HifiGanVocoder(vocoder, CONTRACT))
    return waveform


def main(arguments: list[str]) -> None:
    """Writes matcha.wav."""
    vocoder = (
        audiodiff.Vocoder.load(arguments[0]) if arguments else audiodiff.GriffinLim(preset("hifigan_22k80"))
    )
    model = MatchaTTS.load_from_checkpoint(arguments[1]).eval() if arguments[1:] else tiny_matcha()
    waveform = speak(model, torch.arange(1, 13)[None], vocoder)
    io.write("matcha.wav", waveform[None], vocoder.sample_rate)
    print(f"matcha.wav: {waveform.shape[0] / vocoder.sample_rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
