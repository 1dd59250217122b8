"""Coqui TTS (the maintained fork, coqui-tts) speaks through audiodiff: the adapter is put into its Synthesizer.

python examples/coqui_glowtts.py [VOCODER_FOLDER [MODEL_PATH CONFIG_PATH]]

coqui-tts has no place to register a vocoder, so the Synthesizer's attributes are set, as its own loader does. Without a
folder the vocoder is Griffin-Lim; without a model it is a tiny GlowTTS with random weights, which makes noise.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from TTS.tts.configs.glow_tts_config import GlowTTSConfig
from TTS.tts.models.glow_tts import GlowTTS
from TTS.utils.synthesizer import Synthesizer

import audiodiff
from audiodiff.audio import io
from audiodiff.audio.mel import preset
from audiodiff.synthesis.clients import Contract, CoquiVocoder, Face

CONTRACT = Contract("coqui_22k80")


def tiny_glowtts(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Writes a GlowTTS of random weights and returns (checkpoint, config)."""
    torch.manual_seed(seed)
    config = GlowTTSConfig(
        hidden_channels_enc=16, hidden_channels_dec=16, hidden_channels_dp=16, num_flow_blocks_dec=2,
        num_block_layers=2, encoder_params={
            "kernel_size": 3, "dropout_p": 0.1, "num_layers": 1, "num_heads": 2, "hidden_channels_ffn": 16,
        },
        use_phonemes=False, text_cleaner="basic_cleaners", run_eval=False,
    )  # fmt: skip
    model = GlowTTS.init_from_config(config)
    config.save_json(str(folder / "config.json"))
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    return folder / "model.pth", folder / "config.json"


def make_synthesizer(checkpoint: Path, config: Path, vocoder: Face) -> Synthesizer:
    """Returns a Synthesizer of coqui-tts that speaks through the vocoder."""
    synthesizer = Synthesizer(tts_checkpoint=str(checkpoint), tts_config_path=str(config))
    synthesizer.vocoder_model = CoquiVocoder(vocoder, CONTRACT)
    synthesizer.vocoder_ap = synthesizer.tts_model.ap  # hands on the model's own normalized mel
    synthesizer.vocoder_config = {"audio": {"sample_rate": vocoder.sample_rate}}
    synthesizer.output_sample_rate = vocoder.sample_rate
    return synthesizer


def speak(synthesizer: Synthesizer, text: str) -> Tensor:
    """Returns the waveform [T] of a text."""
    return torch.tensor(synthesizer.tts(text, split_sentences=False))


def main(arguments: list[str]) -> None:
    """Writes coqui.wav."""
    vocoder = (
        audiodiff.Vocoder.load(arguments[0]) if arguments else audiodiff.GriffinLim(preset("coqui_22k80"))
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(Path(name) for name in arguments[1:3]) or tiny_glowtts(Path(folder))
        waveform = speak(make_synthesizer(paths[0], paths[1], vocoder), "hello there")
    io.write("coqui.wav", waveform[None].clamp(-1, 1), vocoder.sample_rate)
    print(f"coqui.wav: {waveform.shape[0] / vocoder.sample_rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
