"""Checkpoints of SpeechBrain's DiffWave (github.com/speechbrain/speechbrain, Apache-2.0) as a WaveNet.

The network is lmnt's DiffWave, conditional or not, whose convolutions see the signal turned round at its ends where
lmnt's see silence. The vocoder recipe for LJSpeech trains with the absolute error on a table of 50 betas, samples
six betas with the posterior variance, and clamps to [-1, 1] after each step. What its file `diffwave.ckpt` does not
hold, the recipe's hyperparameters, is taken from that recipe or given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiodiff.audio.mel import LogMel, preset
from audiodiff.diffusion.schedules import linear
from audiodiff.errors import InputError
from audiodiff.interop import read_checkpoint, require_tensors
from audiodiff.interop.lmnt_family import check_mel, load_network
from audiodiff.networks.dilated import Reflected
from audiodiff.networks.wavenet import WaveNet

MEL_PRESET = "tacotron2_22k80"
LICENCE = "Apache-2.0"

# recipes/LJSpeech/TTS/vocoder/diffwave/hparams/train.yaml of the project.
DEFAULT_HPARAMS: Mapping[str, Any] = {
    "sample_rate": 22050,
    "dilation_cycle_length": 10,
    "train_timesteps": 50,
    "beta_start": 0.0001,
    "beta_end": 0.05,
    "fast_sampling_noise_schedule": (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5),
    "spec_n_fft": 1024,
    "spec_win_length": 1024,
    "spec_hop_length": 256,
    "spec_n_mels": 80,
    "spec_f_min": 0,
    "spec_f_max": 8000,
}
_INFIXES = (".w.", ".conv.")  # of the project's own wrappers round torch's layers


@dataclass(frozen=True)
class SpeechBrainDiffWave:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise.
        betas: training schedule.
        fast_betas: short schedule for sampling, aligned to the training schedule by equal alpha.
        sample_rate: Hz.
        log_mel: the log-mel that the network was trained with, None if it is unconditional.
        clip: bounds to which samples are clamped after every step.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveNet
    betas: tuple[float, ...]
    fast_betas: tuple[float, ...]
    sample_rate: int
    log_mel: LogMel | None
    clip: tuple[float, float] = (-1.0, 1.0)
    noise_label: str = "StepIndex"
    licence: str = LICENCE


def load(path: Path | str, hparams: Mapping[str, Any] | None = None) -> SpeechBrainDiffWave:
    """Reads a checkpoint: the project's `diffwave.ckpt`, or its weights as `.safetensors`.

    Args:
        path: the file.
        hparams: hyperparameters under the project's own names that differ from its LJSpeech recipe. See
            DEFAULT_HPARAMS for those that are read.

    Raises:
        InputError: no checkpoint or one without the names of the project's layers, parameters missing, unknown or
            of another shape, or another number of bands or hop than the hyperparameters say.
    """
    state = require_tensors(read_checkpoint(path), path)
    if not any(infix in key for key in state for infix in _INFIXES):
        raise InputError(
            f"{path}: no parameter is named as SpeechBrain's layers name theirs (.w., .conv.); import it as a "
            "checkpoint of lmnt's DiffWave, or of another project that kept lmnt's names (PriorGrad, Amphion)"
        )
    for infix in _INFIXES:
        state = {key.replace(infix, "."): value for key, value in state.items()}
    merged = {**DEFAULT_HPARAMS, **(hparams or {})}
    network = load_network(state, int(merged["dilation_cycle_length"]), path, Reflected())
    ends = float(merged["beta_start"]), float(merged["beta_end"])
    return SpeechBrainDiffWave(
        network=network,
        betas=tuple(linear(*ends, int(merged["train_timesteps"])).betas.tolist()),
        fast_betas=tuple(float(beta) for beta in merged["fast_sampling_noise_schedule"]),
        sample_rate=int(merged["sample_rate"]),
        log_mel=_mel_of(merged, network, path) if network.upsamplers else None,
    )


def _mel_of(hparams: Mapping[str, Any], network: WaveNet, source: Path | str) -> LogMel:
    changes = {
        "sample_rate": int(hparams["sample_rate"]),
        "n_fft": int(hparams["spec_n_fft"]),
        "win_length": int(hparams["spec_win_length"]),
        "hop_length": int(hparams["spec_hop_length"]),
        "n_mels": int(hparams["spec_n_mels"]),
        "f_min": float(hparams["spec_f_min"]),
        "f_max": float(hparams["spec_f_max"]),
    }
    log_mel = LogMel.from_definition(preset(MEL_PRESET).definition() | changes)
    check_mel(network, log_mel, source, mend="give spec_n_mels and spec_hop_length of its recipe")
    return log_mel
