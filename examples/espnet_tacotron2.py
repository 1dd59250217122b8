"""ESPnet2's Text2Speech speaks through audiodiff: `text2speech.vocoder = ...`.

python examples/espnet_tacotron2.py [VOCODER_FOLDER [TRAIN_CONFIG MODEL_FILE]]

Without a folder the vocoder is Griffin-Lim; without a model a tiny Tacotron 2 of random weights makes noise.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import yaml
from espnet2.bin.tts_inference import Text2Speech
from torch import Tensor

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Contract, EspnetVocoder, Face

CONTRACT = Contract("espnet_22k80")
_SMALL = {
    "embed_dim": 16, "eunits": 16, "econv_chans": 16, "adim": 16, "aconv_chans": 4, "dunits": 16, "prenet_units": 16,
    "postnet_chans": 16,
}  # fmt: skip
_FEATURES = {
    "fs": 22050, "n_fft": 1024, "win_length": 1024, "hop_length": 256, "n_mels": 80, "fmin": 80, "fmax": 7600,
}  # fmt: skip


def tiny_config(folder: Path) -> Path:
    """Writes the training configuration of a tiny Tacotron 2 and returns its path."""
    absent = ("pitch_extract", "pitch_normalize", "energy_extract", "energy_normalize", "normalize")
    config = {
        "token_list": ["<blank>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "<space>", "<sos/eos>"],
        "token_type": "char", "cleaner": None, "g2p": None, "odim": None, "bpemodel": None,
        "non_linguistic_symbols": None, "use_preprocessor": True,
        "feats_extract": "fbank", "feats_extract_conf": _FEATURES, "tts": "tacotron2",
        "tts_conf": _SMALL, "model_conf": {}, "init": None, "distributed": False,
        **dict.fromkeys(absent), **{f"{name}_conf": {} for name in absent},
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def make_text2speech(config: Path, weights: Path | None, vocoder: Face, seed: int = 0) -> Text2Speech:
    """Returns ESPnet's Text2Speech that speaks through the vocoder."""
    torch.manual_seed(seed)
    text2speech = Text2Speech(config, weights, maxlenratio=2.0)
    text2speech.vocoder = EspnetVocoder(vocoder, CONTRACT)
    return text2speech


def speak(text2speech: Text2Speech, text: str) -> Tensor:
    """Returns the waveform [T] of a text."""
    waveform: Tensor = text2speech(text)["wav"]
    return waveform


def main(arguments: list[str]) -> None:
    """Writes espnet.wav."""
    vocoder = (
        audiodiff.Vocoder.load(arguments[0]) if arguments else audiodiff.GriffinLim(preset("espnet_22k80"))
    )
    with tempfile.TemporaryDirectory() as folder:
        config, weights = (
            (Path(name) for name in arguments[1:3]) if arguments[2:] else (tiny_config(Path(folder)), None)
        )
        text2speech = make_text2speech(config, weights, vocoder)
    waveform = speak(text2speech, "hello")
    io.write("espnet.wav", waveform[None].clamp(-1, 1), text2speech.fs)
    print(f"espnet.wav: {waveform.shape[0] / text2speech.fs:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
