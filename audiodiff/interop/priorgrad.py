"""Checkpoints of PriorGrad's vocoder (github.com/microsoft/NeuralSpeech, PriorGrad-vocoder, MIT) as a WaveNet.

The network is lmnt's DiffWave; the noise is as loud as the mel (see `conditioning.prior`). The project trains with
the squared error over the noise's deviation on a table of 50 betas, of audio scaled to a peak of 0.95, samples six
betas with the posterior variance, and clamps to [-1, 1] after each step. The energy of the quietest training frame
is not in the checkpoint but in a folder `stats_priorgrad`, which the project publishes beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audiodiff.audio.mel import LogMel, preset
from audiodiff.audio.representation import Waveform
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.prior import MelEnergyPrior
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import FAST_SCHEDULES
from audiodiff.errors import InputError
from audiodiff.interop import read_checkpoint, require_tensors
from audiodiff.interop.lmnt_family import check_mel, load_network
from audiodiff.networks.wavenet import WaveNet

MEL_PRESET = "hifigan_22k80"
LICENCE = "MIT"
PEAK = 0.95
MEND = "models that hear the energy beside the mel (condition_prior) are not read"

# The project's own params.py, for files that hold weights alone.
DEFAULT_PARAMS: Mapping[str, Any] = {
    "sample_rate": 22050,
    "n_mels": 80,
    "n_fft": 1024,
    "hop_samples": 256,
    "fmin": 0,
    "fmax": 8000,
    "std_min": 0.1,
    "max_energy_override": 4.0,
    "dilation_cycle_length": 10,
    "noise_schedule": tuple(linear(1e-4, 0.05, 50).betas.tolist()),
    "inference_noise_schedule": FAST_SCHEDULES["diffwave-base-6"],
}


@dataclass(frozen=True)
class Energies:
    """What the project's prior is scaled by; fields as in `MelEnergyPrior`."""

    energy_min: float
    energy_max: float
    std_min: float


@dataclass(frozen=True)
class PriorGrad:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise.
        betas: training schedule.
        fast_betas: short schedule for sampling, aligned to the training schedule by equal alpha.
        log_mel: the log-mel that the network was trained with.
        energies: what the prior is scaled by; None for a model that the project trained with plain noise.
        clip: bounds to which samples are clamped after every step.
        peak: to which the project scales audio before it takes the mel.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveNet
    betas: tuple[float, ...]
    fast_betas: tuple[float, ...]
    log_mel: LogMel
    energies: Energies | None
    clip: tuple[float, float] = (-1.0, 1.0)
    peak: float = PEAK
    noise_label: str = "StepIndex"
    licence: str = LICENCE

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.log_mel.sample_rate

    def conditioner(self) -> Mel:
        """Returns what tells the network the mel, and the prior."""
        if self.energies is None:
            return Mel(self.log_mel)
        waveform = Waveform(self.sample_rate)
        prior = MelEnergyPrior(self.log_mel, waveform, self.energies.energy_max, self.energies.std_min)
        prior.set_energy_min(self.energies.energy_min)
        return prior


def load(
    path: Path | str, stats: Path | str | None = None, params: Mapping[str, Any] | None = None
) -> PriorGrad:
    """Reads a checkpoint: the project's `.pt`, or its weights as `.safetensors`.

    Args:
        path: the file.
        stats: the project's folder `stats_priorgrad` of the training data; None for silence as the quietest frame.
        params: values under the project's own names that take the place of those in the checkpoint, which take
            the place of the project's defaults. See DEFAULT_PARAMS for those that are read, and use_prior.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, a network that hears the
            energy beside the mel (condition_prior), or another number of bands or hop than the params say.
    """
    content = read_checkpoint(path)
    state = require_tensors(content.get("model", content), path)
    merged = {**DEFAULT_PARAMS, **content.get("params", {}), **(params or {})}
    network = load_network(state, int(merged["dilation_cycle_length"]), path)
    log_mel = mel_of(merged)
    check_mel(network, log_mel, path, mend=MEND)
    return PriorGrad(
        network=network,
        betas=tuple(float(beta) for beta in merged["noise_schedule"]),
        fast_betas=tuple(float(beta) for beta in merged["inference_noise_schedule"]),
        log_mel=log_mel,
        energies=energies_of(merged, log_mel, stats) if merged.get("use_prior", True) else None,
    )


def mel_of(params: Mapping[str, Any]) -> LogMel:
    """Returns the log-mel that the project's params describe; the window is four hops long."""
    changes = {
        "sample_rate": int(params["sample_rate"]),
        "n_fft": int(params["n_fft"]),
        "win_length": 4 * int(params["hop_samples"]),
        "hop_length": int(params["hop_samples"]),
        "n_mels": int(params["n_mels"]),
        "f_min": float(params["fmin"]),
        "f_max": float(params["fmax"]),
    }
    return LogMel.from_definition(preset(MEL_PRESET).definition() | changes)


def energies_of(params: Mapping[str, Any], log_mel: LogMel, stats: Path | str | None) -> Energies:
    """Returns what the prior is scaled by.

    Raises:
        InputError: the folder lacks a number, or there is none and the params leave energy_max to it.
    """
    override = params.get("max_energy_override")
    if stats is None and override is None:
        raise InputError(
            "stats: max_energy_override is None, give the folder stats_priorgrad of the training data"
        )
    silence = log_mel.from_magnitude(torch.zeros(1, log_mel.n_mels, 1))
    return Energies(
        energy_min=float(log_mel.magnitude(silence).sum().sqrt())
        if stats is None
        else _read(stats, "energy_min"),
        energy_max=_read(stats, "energy_max") if override is None else float(override),
        std_min=float(params["std_min"]),
    )


def _read(stats: Path | str | None, name: str) -> float:
    path = Path(str(stats)) / f"{name}_train.npy"
    try:
        return float(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}), expected one number of the project's stats"
        ) from error
