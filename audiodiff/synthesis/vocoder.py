"""Vocoder: mel -> waveform, the face that text-to-speech pipelines call.

vocoder = audiodiff.Vocoder.load(folder)
waveform = vocoder(mel)              # [B, n_mels, F] -> [B, F * hop_length]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.mel import Mel
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, instantiate, load
from audiodiff.synthesis.mel_consistency import match_mel
from audiodiff.types import Batch

# A mel whose mean lies this many standard deviations from the training mean is no speech or music that the
# model knows; digital silence lies about 3 below in a natural logarithm.
_MEAN_BOUNDS = (-6.0, 3.0)


class Vocoder:
    """A mel-conditional model with its sampler.

    Attributes:
        model: the model.
        sampler: how it samples.
        mel_iterations: how often a waveform is moved towards its mel afterwards.
        log_mel: the mel definition that it hears; `log_mel(waveform)` makes its input.
    """

    def __init__(
        self, model: AudioDiffusion, sampler: Sampler | None = None, mel_iterations: int | None = None
    ) -> None:
        """Wraps a loaded model.

        Args:
            model: conditioned on a mel.
            sampler: None takes the sampler that the model was saved with.
            mel_iterations: how often the waveform is moved towards its mel, see `mel_consistency`; None takes
                the number that the model was saved with.

        Raises:
            InputError: the model hears no mel.
        """
        mels = [part for part in model.modules() if isinstance(part, Mel)]
        if not mels:
            raise InputError(
                "this model is not conditioned on a mel; it makes sounds with `audiodiff synthesize`"
            )
        self.model = model
        self.sampler: Sampler = instantiate(model.recipe["sampler"]) if sampler is None else sampler
        self.mel_iterations: int = (
            model.recipe["mel_iterations"] if mel_iterations is None else mel_iterations
        )
        self._conditioner = mels[0]

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Vocoder:
        """Returns the vocoder saved in a model folder.

        Raises:
            InputError: no model there, or one that hears no mel.
        """
        return cls(load(folder, device))

    @property
    def log_mel(self) -> LogMel:
        """The model's mel definition."""
        return self._conditioner.log_mel

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in hertz."""
        return self.model.sample_rate

    def __call__(
        self,
        mel: Tensor | np.ndarray,
        lengths: Sequence[int] | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Returns the waveform [B, T], T = F * hop_length, zero beyond an item's length.

        Args:
            mel: [B, n_mels, F] or [n_mels, F] in the convention of `log_mel`.
            lengths: samples wanted of each item, at most F * hop_length and one hop more for centred mels;
                None for all.
            labels: for models that are also told a label: name -> one value per item.
            seed: the same seed gives the same audio.
            on_step: told (steps done, steps in all).

        Raises:
            InputError: a mel that breaks the contract, or lengths that do not fit it.
        """
        mel = self.check(mel)
        batch, frames = mel.shape[0], mel.shape[-1]
        longest = self.log_mel.samples(frames)
        wanted = torch.as_tensor([longest] * batch if lengths is None else list(lengths), dtype=torch.int64)
        if (
            wanted.numel() != batch
            or int(wanted.min()) < 1
            or int(wanted.max()) > longest + self.log_mel.hop_length
        ):
            raise InputError(
                f"lengths: got {wanted.tolist()}, expected {batch} numbers from 1 to {longest} for {frames} frames"
            )
        values = {name: tuple(value) for name, value in (labels or {}).items()}
        request = Batch(waveform=None, lengths=wanted, labels=values, mel=mel)
        waveforms = self.model.synthesize(request, self.sampler, seed, on_step=on_step)
        out = torch.zeros(batch, int(wanted.max()), device=self.model.device)
        for row, waveform, item in zip(out, waveforms, mel, strict=True):
            # A length may reach into the frame after the last one of a mel without centred frames.
            short = max(0, self.log_mel.frames(waveform.shape[-1]) - item.shape[-1])
            held = torch.cat([item, item[:, -1:].expand(-1, short)], dim=1).to(waveform.device)
            row[: waveform.shape[-1]] = match_mel(waveform[0], held, self.log_mel, self.mel_iterations)
        return out

    def check(self, mel: Tensor | np.ndarray, name: str = "mel") -> Tensor:
        """Returns the mel as [B, n_mels, F] after checking it against definition and training statistics.

        Raises:
            InputError: shape, bands, range or level that this model was not trained with.
        """
        checked = self.log_mel.check(mel, name)
        mean, std = self._conditioner.mean.cpu(), self._conditioner.std.cpu()
        level = float(((checked.cpu() - mean[:, None]) / std[:, None]).mean())
        if not _MEAN_BOUNDS[0] <= level <= _MEAN_BOUNDS[1]:
            raise InputError(
                f"{name}: its mean lies {level:+.1f} standard deviations from the training audio's; "
                "check log base, scale and floor against the model's mel definition (audiodiff info)"
            )
        return checked
