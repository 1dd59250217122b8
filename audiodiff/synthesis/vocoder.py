"""Vocoder: mel -> waveform, the face that text-to-speech pipelines call.

vocoder = audiodiff.Vocoder.load(folder)
waveform = vocoder(mel)              # [B, n_mels, F] -> [B, F * hop_length]
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.audio.mel_input import bands_first, check_layout
from audiodiff.conditioning.mel import heard
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.model import UNSTEERED, AudioDiffusion, instantiate, load
from audiodiff.synthesis.cost import Work
from audiodiff.synthesis.finishing import Finish, SilenceGate, mean_spectrum, subtract_spectrum
from audiodiff.synthesis.mel_check import Statistics
from audiodiff.synthesis.mel_consistency import match_mel
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from audiodiff.synthesis.streaming import Lookahead, Stream, StreamRequest, stream
from audiodiff.types import Batch

# A mel whose mean lies this many standard deviations from the training mean is no speech or music that the
# model knows; digital silence lies about 3 below in a natural logarithm.
_MEAN_BOUNDS = (-6.0, 3.0)
_BIAS_FRAMES = 64  # of a silent mel, of which the model's own spectrum is the mean


class Vocoder:
    """A mel-conditional model with its sampler.

    Attributes:
        model: the model.
        sampler: how it samples.
        mel_iterations: how often a waveform is moved towards its mel afterwards.
        finish: what else is done to a waveform.
        layout: of the mels that come: "bands_first", "frames_first", or None to tell it by the number of bands.
        log_mel: the mel definition that it hears; `log_mel(waveform)` makes its input.
    """

    def __init__(
        self,
        model: AudioDiffusion,
        sampler: Sampler | None = None,
        mel_iterations: int | None = None,
        finish: Finish | None = None,
        layout: str | None = None,
    ) -> None:
        """Wraps a loaded model.

        Args:
            model: conditioned on a mel.
            sampler: None takes the sampler that the model was saved with.
            mel_iterations: how often the waveform is moved towards its mel, see `mel_consistency`; None takes
                the number that the model was saved with.
            finish: what else is done to a waveform; None for `Finish()`, which makes silence silent.
            layout: "bands_first" ([B, n_mels, F]), "frames_first" ([B, F, n_mels]), or None: told by the number of
                bands, where a mel with as many frames as bands is refused.

        Raises:
            InputError: the model hears no mel, or an unknown layout.
        """
        check_layout(layout)
        conditioner = heard(model.conditioner)
        if conditioner is None:
            raise InputError(
                "this model is not conditioned on a mel; it makes sounds with `audiodiff synthesize`"
            )
        self.model = model
        self.sampler: Sampler = instantiate(model.recipe["sampler"]) if sampler is None else sampler
        self.mel_iterations: int = (
            model.recipe["mel_iterations"] if mel_iterations is None else mel_iterations
        )
        self.finish = Finish() if finish is None else finish
        self.layout = layout
        self._conditioner = conditioner
        self._bias: tuple[Sampler, Tensor] | None = None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: torch.device | str = "cpu",
        choice: SamplerChoice | None = None,
        temperature: float | None = None,
        finish: Finish | None = None,
        layout: str | None = None,
    ) -> Vocoder:
        """Returns the vocoder saved in a model folder.

        Args:
            folder: the model folder, or the name of a shipped model.
            device: where it runs.
            choice: the sampler by name, steps, grid and eta; None takes what the model was saved with. Steps alone
                take the grid that a search found for so many, where the model has one.
            temperature: divides the noise that sampling starts from; None takes the sampler's own, 1 as a rule.
            finish: see the constructor.
            layout: see the constructor.

        Raises:
            InputError: no model there, one that hears no mel, or a sampler that does not exist.
        """
        model = load(folder, device)
        sampler = None if choice is None else choose_sampler(model.recipe, choice)
        vocoder = cls(model, sampler, finish=finish, layout=layout)
        if temperature is not None:
            vocoder.sampler = replace(vocoder.sampler, temperature=temperature)
        return vocoder

    @property
    def log_mel(self) -> LogMel:
        """The model's mel definition."""
        return self._conditioner.log_mel

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation of each band over the training audio."""
        return Statistics(self._conditioner.mean.cpu(), self._conditioner.std.cpu())

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in hertz."""
        return self.model.sample_rate

    def __call__(
        self,
        mel: Tensor | np.ndarray,
        lengths: Sequence[int] | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
        seed: int | Sequence[int] = 0,
        on_step: Callable[[int, int], None] | None = None,
        items: Sequence[int] | None = None,
    ) -> Tensor:
        """Returns the waveform [B, T], T = F * hop_length, zero beyond an item's length.

        Args:
            mel: [B, n_mels, F] in the convention of `log_mel`, or [B, F, n_mels]; the batch axis may be left out.
            lengths: samples wanted of each item, at most F * hop_length and one hop more for centred mels;
                None for all.
            labels: for models that are also told a label: name -> one value per item.
            seed: the same seed gives the same audio; or one per item, which then sounds as it does alone.
            on_step: told (steps done, steps in all).
            items: item numbers for the noise, by default 0, 1, ..., but 0 for all where each has a seed.

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
        waveforms = self.model.synthesize(request, self.sampler, seed, items, on_step=on_step)
        out = torch.zeros(batch, int(wanted.max()), device=self.model.device)
        for row, waveform, item in zip(out, waveforms, mel, strict=True):
            # A length may reach into the frame after the last one of a mel without centred frames.
            short = max(0, self.log_mel.frames(waveform.shape[-1]) - item.shape[-1])
            held = torch.cat([item, item[:, -1:].expand(-1, short)], dim=1).to(waveform.device)
            row[: waveform.shape[-1]] = self._finished(waveform[0], held)
        return out

    def stream(
        self,
        mel_chunks: Iterable[Tensor | np.ndarray],
        labels: Mapping[str, Sequence[str]] | None = None,
        seed: int = 0,
        *,
        chunk_frames: int | None = None,
        mel_iterations: int | None = None,
    ) -> Iterator[Tensor]:
        """Yields the waveform [T] piece by piece, as soon as the mel that came determines it.

        All pieces together are what a call gives for the whole mel with the same seed and without projection onto
        the mel; the memory does not grow with the length. See docs/streaming.md.

        Args:
            mel_chunks: [n_mels, F] or [1, n_mels, F] each, of any F, in the convention of `log_mel`; the last two
                axes exchanged where the vocoder's layout is "frames_first".
            labels: for models that are also told a label: name -> one value.
            seed: the same seed gives the same audio.
            chunk_frames: mel frames that are worked on at a time, see `lookahead`; fewer shorten the latency and
                raise the cost. None chooses.
            mel_iterations: 0, where the model ends with a projection of the whole waveform, to go without it.

        Raises:
            InputError: a model or sampler that looks at the whole signal; while it runs, a chunk that breaks the
                contract, named by its number.
        """
        if (self.mel_iterations if mel_iterations is None else mel_iterations) != 0:
            raise InputError(
                f"streaming: this vocoder ends with {self.mel_iterations} mel_iterations, which move the whole "
                "waveform; pass mel_iterations=0 to go without them, as Vocoder(model, sampler, mel_iterations=0) does"
            )
        if self.finish.bias_removal > 0:
            raise InputError(
                "streaming: bias removal works on the whole waveform; stream with a strength of 0"
            )
        running = Stream(self.model, self.sampler, StreamRequest(labels or {}, seed, chunk_frames))
        # A chunk may by chance have as many frames as bands, so its layout is never detected.
        bands, layout = self.log_mel.n_mels, self.layout or "bands_first"
        turned = (bands_first(mel, bands, layout, f"mel chunk {n}") for n, mel in enumerate(mel_chunks, 1))
        if self.finish.silence_margin_db is None:
            return stream(running, turned, self.log_mel, self.check_level)
        gate = SilenceGate(self.log_mel, self.finish.silence_margin_db)
        return gate.over(stream(running, self._heard(turned, gate), self.log_mel, self.check_level))

    def lookahead(self, chunk_frames: int | None = None) -> Lookahead:
        """Returns how far the mel must be known for a piece of a stream, and what a stream makes twice.

        Raises:
            InputError: a model or sampler that looks at the whole signal.
        """
        return Stream(self.model, self.sampler, StreamRequest(chunk_frames=chunk_frames)).lookahead

    def work(self, mel: Tensor, labels: Mapping[str, str] | None = None) -> Work:
        """Returns what the model does for mels [B, n_mels, F], for a record of costs."""
        lengths = torch.full((mel.shape[0],), self.log_mel.samples(mel.shape[-1]))
        told = {name: (value,) * mel.shape[0] for name, value in (labels or {}).items()}
        return Work.of(self.model, self.sampler, Batch(None, lengths, told, mel), UNSTEERED)

    def _heard(
        self, mel_chunks: Iterable[Tensor | np.ndarray], gate: SilenceGate
    ) -> Iterator[Tensor | np.ndarray]:
        """Yields the chunks after the gate has heard them."""
        for chunk in mel_chunks:
            with contextlib.suppress(InputError):  # the stream refuses a bad chunk by its number
                gate.hear(self.log_mel.check(chunk)[0])
            yield chunk

    def _finished(self, waveform: Tensor, mel: Tensor) -> Tensor:
        """Returns a sampled waveform [T] without the model's own sound, moved to its mel [n_mels, F], silence muted."""
        strength, margin = self.finish.bias_removal, self.finish.silence_margin_db
        if strength > 0:
            waveform = subtract_spectrum(waveform, self._bias_spectrum(), self.log_mel, strength)
        waveform = match_mel(waveform, mel, self.log_mel, self.mel_iterations)
        if margin is None:
            return waveform
        gate = SilenceGate(self.log_mel, margin)
        gate.hear(mel)
        return waveform * gate.gain(0, waveform.shape[-1]).to(waveform)

    def _bias_spectrum(self) -> Tensor:
        """Returns the mean magnitudes of what the model makes of a silent mel, computed once for a sampler."""
        if self._bias is None or self._bias[0] != self.sampler:
            mel = self.log_mel.silence[None, :, None].expand(1, -1, _BIAS_FRAMES)
            length = torch.tensor([self.log_mel.samples(_BIAS_FRAMES)])
            labels = {name: ("",) for name in self.model.labels}
            (waveform,) = self.model.synthesize(Batch(None, length, labels, mel), self.sampler, 0)
            self._bias = self.sampler, mean_spectrum(waveform[0], self.log_mel)
        return self._bias[1]

    def check(self, mel: Tensor | np.ndarray, name: str = "mel") -> Tensor:
        """Returns the mel as [B, n_mels, F] after checking it against definition and training statistics.

        Raises:
            InputError: layout, shape, bands, range or level that this model was not trained with.
        """
        checked = self.log_mel.check(bands_first(mel, self.log_mel.n_mels, self.layout, name), name)
        self.check_level(checked, name)
        return checked

    def check_level(self, mel: Tensor, name: str) -> None:
        """Checks the mean of a mel [B, n_mels, F] against the training statistics.

        Raises:
            InputError: a level that this model was not trained with.
        """
        mean, std = self.statistics.mean[:, None], self.statistics.std[:, None]
        level = float(((mel.cpu() - mean) / std).mean())
        if not _MEAN_BOUNDS[0] <= level <= _MEAN_BOUNDS[1]:
            raise InputError(
                f"{name}: its mean lies {level:+.1f} standard deviations from the training audio's; "
                "check log base, scale and floor against the model's mel definition (audiodiff check-mel MODEL FILE)"
            )
