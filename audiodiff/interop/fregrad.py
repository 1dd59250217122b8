"""Checkpoints of FreGrad (github.com/kaistmm/fregrad) as a WaveNet on the two Haar bands of the waveform.

The layers convolve the two bands of a further Haar transform, and each of the two diffused bands has noise of its
own loudness (see `networks.dilated` and `conditioning.prior`). The project trains with the squared error over the
noise's deviation and an STFT loss, on PriorGrad's table moved to leave almost no signal, and samples all 50 steps
with the posterior variance, clamping to [-1, 1] after each; its option for fewer steps has no effect. After
sampling it may filter both bands within 5 Hz of their ends, which is not done here. No licence is given with the
project; its code carries the notice of Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.audio.wavelet import Wavelet
from audiodiff.conditioning.prior import SubbandEnergyPrior
from audiodiff.diffusion.schedules import linear, zero_terminal_snr
from audiodiff.diffusion.times import FAST_SCHEDULES
from audiodiff.errors import InputError
from audiodiff.interop import read_checkpoint, require_tensors
from audiodiff.interop.lmnt_family import check_mel, load_network
from audiodiff.interop.priorgrad import DEFAULT_PARAMS as PRIORGRAD_PARAMS
from audiodiff.interop.priorgrad import MEND, PEAK, Energies, energies_of, mel_of
from audiodiff.networks.dilated import FrequencyAware
from audiodiff.networks.wavenet import WaveNet

MEL_PRESET = "hifigan_22k80"
LICENCE = "none given; the code carries the notice of Apache-2.0"

# The project's own params.py, for files that hold weights alone.
DEFAULT_PARAMS: Mapping[str, Any] = {
    **PRIORGRAD_PARAMS,
    "dilation_cycle_length": 7,
    "noise_schedule": tuple(zero_terminal_snr(linear(1e-4, 0.05, 50), remaining=1e-4).betas.tolist()),
}
_HAAR = {".dwt.h0": (1.0, 1.0), ".dwt.h1": (1.0, -1.0), ".idwt.g0": (1.0, 1.0), ".idwt.g1": (1.0, -1.0)}


@dataclass(frozen=True)
class FreGrad:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise on both bands.
        betas: training schedule, which is also the sampling schedule.
        fast_betas: six betas that the project names but never samples with.
        log_mel: the log-mel that the network was trained with.
        energies: what the prior is scaled by.
        clip: bounds to which the bands are clamped after every step.
        peak: to which the project scales audio before it takes the mel.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveNet
    betas: tuple[float, ...]
    fast_betas: tuple[float, ...]
    log_mel: LogMel
    energies: Energies
    clip: tuple[float, float] = (-1.0, 1.0)
    peak: float = PEAK
    noise_label: str = "StepIndex"
    licence: str = LICENCE

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.log_mel.sample_rate

    def representation(self) -> Wavelet:
        """Returns the bands that are diffused."""
        return Wavelet(self.sample_rate)

    def conditioner(self) -> SubbandEnergyPrior:
        """Returns what tells the network the mel, and the prior of each band."""
        bands = self.representation()
        prior = SubbandEnergyPrior(self.log_mel, bands, self.energies.energy_max, self.energies.std_min)
        prior.set_energy_min(self.energies.energy_min)
        return prior


def load(
    path: Path | str, stats: Path | str | None = None, params: Mapping[str, Any] | None = None
) -> FreGrad:
    """Reads a checkpoint: the project's `.pt`, or its weights as `.safetensors`.

    Args:
        path: the file.
        stats: the project's folder `stats_priorgrad` of the training data; None for silence as the quietest frame.
        params: values under the project's own names that take the place of those in the checkpoint, which take
            the place of the project's defaults. See DEFAULT_PARAMS for those that are read, but for
            inference_noise_schedule, which the project does not read either.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, a network that hears the
            energy beside the mel (condition_prior), another wavelet than Haar, or another number of bands or hop
            than the params say.
    """
    content = read_checkpoint(path)
    state = without_filters(require_tensors(content.get("model", content), path), path)
    merged = {**DEFAULT_PARAMS, **content.get("params", {}), **(params or {})}
    network = load_network(state, int(merged["dilation_cycle_length"]), path, FrequencyAware())
    log_mel = mel_of(merged)
    check_mel(network, log_mel, path, Wavelet.hop_length, mend=MEND)
    return FreGrad(
        network=network,
        betas=tuple(float(beta) for beta in merged["noise_schedule"]),
        fast_betas=FAST_SCHEDULES["fregrad-6"],
        log_mel=log_mel,
        energies=energies_of(merged, log_mel, stats),
    )


def without_filters(state: Mapping[str, Tensor], source: Path | str) -> dict[str, Tensor]:
    """Returns the state without the filters of the layers' wavelet transforms, which the project saves.

    Raises:
        InputError: they are not those of Haar.
    """
    for key, value in state.items():
        taps = next((taps for name, taps in _HAAR.items() if key.endswith(name)), None)
        if taps is not None and not (
            value.numel() == 2 and torch.allclose(value.flatten(), torch.tensor(taps) / 2**0.5, atol=1e-3)
        ):
            raise InputError(f"{source}: {key} is {value.flatten().tolist()}, expected the filter of Haar")
    return {key: value for key, value in state.items() if not key.endswith(tuple(_HAAR))}
