"""Checkpoints of lmnt's DiffWave (github.com/lmnt-com/diffwave, Apache-2.0) as a WaveNet.

What differs from this library's network: the gate is sigmoid(first half) * tanh(second half), so the two
halves of the convolutions before it change places. The project trains with the absolute error on a table of
50 betas, samples with the posterior variance, and clamps to [-1, 1] after each step. Its checkpoint carries
its `params`; only what tensor shapes cannot show is taken from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audiodiff.audio.mel import LogMel, preset
from audiodiff.errors import InputError
from audiodiff.interop import (
    read_checkpoint,
    require_tensors,
)
from audiodiff.interop.lmnt_family import load_network
from audiodiff.networks.wavenet import WaveNet

MEL_PRESET = "lmnt_diffwave_22k80"
LICENCE = "Apache-2.0"

# The project's own defaults, for files that hold weights alone.
DEFAULT_PARAMS: Mapping[str, Any] = {
    "dilation_cycle_length": 10,
    "noise_schedule": tuple(np.linspace(1e-4, 0.05, 50).tolist()),
    "inference_noise_schedule": (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5),
    "sample_rate": 22050,
    "n_fft": 1024,
    "audio_len": 5 * 22050,
}


@dataclass(frozen=True)
class LmntDiffWave:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise.
        betas: training schedule.
        fast_betas: short schedule for sampling, aligned to the training schedule by equal alpha.
        sample_rate: Hz.
        mel_preset: name of the log-mel that the network was trained with, None if it is unconditional.
        mel_changes: fields in which the log-mel of this model differs from the preset; `mel` has them all.
        audio_length: samples that an unconditional model was trained on.
        clip: bounds to which samples are clamped after every step.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveNet
    betas: tuple[float, ...]
    fast_betas: tuple[float, ...]
    sample_rate: int
    mel_preset: str | None
    mel_changes: Mapping[str, float] = field(default_factory=dict)
    audio_length: int = 5 * 22050
    clip: tuple[float, float] = (-1.0, 1.0)
    noise_label: str = "StepIndex"
    licence: str = LICENCE

    def mel(self) -> LogMel | None:
        """Returns the log-mel that the network was trained with, None if it is unconditional."""
        if self.mel_preset is None:
            return None
        return LogMel.from_definition(preset(self.mel_preset).definition() | dict(self.mel_changes))


def load(path: Path | str, params: Mapping[str, Any] | None = None) -> LmntDiffWave:
    """Reads a checkpoint: the project's `.pt`, or its weights as `.safetensors`.

    Args:
        path: the file.
        params: values under the project's own names that take the place of those in the checkpoint, which
            take the place of the project's defaults: dilation_cycle_length, noise_schedule,
            inference_noise_schedule, sample_rate, n_fft, hop_samples, audio_len. Others are not read.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, or a hop length in the
            params that is not the upsampler's.
    """
    content = read_checkpoint(path)
    state = require_tensors(content.get("model", content), path)
    merged = {**DEFAULT_PARAMS, **content.get("params", {}), **(params or {})}
    network = load_network(state, int(merged["dilation_cycle_length"]), path)
    if network.upsamplers and int(merged.get("hop_samples", network.hop_length)) != network.hop_length:
        raise InputError(
            f"{path}: params say hop_samples {merged['hop_samples']}, the upsampler makes "
            f"{network.hop_length} samples of a frame"
        )
    return LmntDiffWave(
        network=network,
        betas=tuple(float(beta) for beta in merged["noise_schedule"]),
        fast_betas=tuple(float(beta) for beta in merged["inference_noise_schedule"]),
        sample_rate=int(merged["sample_rate"]),
        mel_preset=MEL_PRESET if network.upsamplers else None,
        mel_changes=_mel_changes(merged, network),
        audio_length=int(merged["audio_len"] or DEFAULT_PARAMS["audio_len"]),
    )


def _mel_changes(params: Mapping[str, Any], network: WaveNet) -> dict[str, int]:
    """Returns what the project's params say of the mel; its window is four hops long."""
    if network.condition_shape.local_features is None:
        return {}
    return {
        "sample_rate": int(params["sample_rate"]),
        "n_fft": int(params["n_fft"]),
        "win_length": 4 * network.hop_length,
        "hop_length": network.hop_length,
        "n_mels": network.condition_shape.local_features,
    }
