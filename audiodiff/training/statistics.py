"""Measures what the model normalises by, over the training split, and hands it to the model.

The representation is divided by its standard deviation per feature, so that x has unit variance. A log-mel,
heard or diffused, also loses its mean, band by band, and so do latents. A prior that follows the mel's energy is
told the energy of the quietest frame; one that follows its spectrum, the ratio of each bin to it. All are buffers
and are saved with the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from audiodiff.audio.latent_representation import LatentRepresentation
from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.audio.statistics import RunningMoments
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.prior import MelEnergyPrior
from audiodiff.conditioning.spectral_prior import SpectralPrior
from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion
from audiodiff.types import Batch

STD_FLOOR = 1e-3
"""Smallest standard deviation as a share of the largest: a bin that is always silent is not blown up."""


def measure(model: AudioDiffusion, batches: Iterable[Batch]) -> dict[str, Any]:
    """Returns the statistics of single-item batches as plain values for a JSON file."""
    mels = [part for part in model.modules() if isinstance(part, Mel | MelRepresentation)]
    power = RunningMoments()
    bands = RunningMoments()
    energies: list[float] = []  # of the quietest frame of each batch
    ratios = RunningMoments()  # squared coefficients over the squared envelope of the mel
    latents = RunningMoments()
    with torch.inference_mode():
        for batch in batches:
            if batch.waveform is None:
                raise ValueError("statistics need batches with waveforms")
            x = model.representation.encode(batch.waveform)
            frames = x.shape[-1]
            scaled = x[0] * model.representation.std[:, None]
            power.update(model.representation.variances(scaled)[:, None].expand(-1, frames))
            if isinstance(model.representation, LatentRepresentation):
                latents.update(scaled + model.representation.mean[:, None])
            for part in mels:
                mel = part.log_mel(batch.waveform.mean(1))
                bands.update(mel[0])
                if isinstance(part, MelEnergyPrior) and mel.shape[-1]:
                    energies.append(float(part.energy(mel).min()))
                if isinstance(part, SpectralPrior) and mel.shape[-1]:
                    whitened = scaled / part.envelope(mel, batch.waveform.shape[-1])[0]
                    ratio = model.representation.variances(whitened)
                    ratios.update(ratio[:, None].expand(-1, frames))
    # Samples and coefficients lie about zero; a mel deviates from its mean.
    centred = isinstance(model.representation, MelRepresentation)
    statistics: dict[str, Any] = {"std": (bands.std if centred else power.mean.sqrt()).tolist()}
    if latents.count:
        statistics |= {"std": latents.std.tolist(), "latent_mean": latents.mean.tolist()}
    if mels:
        statistics |= {"mel_mean": bands.mean.tolist(), "mel_std": bands.std.tolist()}
    if energies:
        statistics["energy_min"] = min(energies)
    if ratios.count:
        statistics["prior_scale"] = ratios.mean.sqrt().tolist()
    return statistics


def apply(model: AudioDiffusion, statistics: dict[str, Any]) -> None:
    """Sets the model's buffers.

    Raises:
        InputError: the statistics were measured for another representation, mel or prior.
    """
    std = torch.tensor(statistics["std"])
    if std.shape != model.representation.std.shape or float(std.max()) == 0:
        raise InputError(
            f"statistics: got {std.numel()} features (largest {float(std.max()):.3g}), the model has "
            f"{model.representation.std.numel()}; measure them again for this recipe"
        )
    model.representation.std.copy_(std.clamp(min=float(std.max()) * STD_FLOOR))
    if isinstance(model.representation, LatentRepresentation):
        if "latent_mean" not in statistics:
            raise InputError("statistics: they have no latent_mean; measure them again for this recipe")
        model.representation.mean.copy_(torch.tensor(statistics["latent_mean"]))
    for part in model.modules():
        if isinstance(part, Mel | MelRepresentation):
            part.mean.copy_(torch.tensor(statistics["mel_mean"]))
            part.std.copy_(torch.tensor(statistics["mel_std"]).clamp(min=1e-3))
        if isinstance(part, MelEnergyPrior):
            if "energy_min" not in statistics:
                raise InputError("statistics: they have no energy_min; measure them again for this recipe")
            part.set_energy_min(statistics["energy_min"])
        if isinstance(part, SpectralPrior):
            if "prior_scale" not in statistics:
                raise InputError("statistics: they have no prior_scale; measure them again for this recipe")
            # Measured on unscaled coefficients; x is divided by the representation's deviation.
            part.set_scale(torch.tensor(statistics["prior_scale"]) / model.representation.std)


def save(statistics: dict[str, Any], path: Path) -> None:
    """Writes the statistics whole."""
    write_whole({path: (json.dumps(statistics) + "\n").encode()})


def load(path: Path) -> dict[str, Any]:
    """Returns the statistics of a file.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"statistics {path}: cannot be read ({error}); run `audiodiff statistics` again"
        ) from error
