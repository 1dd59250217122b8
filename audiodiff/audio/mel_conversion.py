"""From one mel definition to another: exact where a pointwise map does it, approximate on request and labelled so.

Exact: what is applied after the filterbank's sums (logarithm, floor, scale, offset, clip) and factors that are
constant per band (the filterbank's norm, the window's): target.from_magnitude(factor * source.magnitude(mel)).
A floor or clip of the source has lost what lies below it, and nothing brings that back (`limits`).

Approximate: the mel's bands are spread over the bins of the STFT by non-negative least squares, laid on the target's
frequencies, summed by its filterbank and interpolated between frame times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from audiodiff.errors import InputError

if TYPE_CHECKING:
    from audiodiff.audio.mel import LogMel

# Fields that a pointwise map bridges.
POINTWISE = frozenset(
    ("window_normalized", "mel_norm", "log_base", "floor", "floor_mode", "scale", "offset", "clip_low", "clip_high")
)  # fmt: skip
# Fields that touch nothing but the first and last frames, near silence, or audio beyond full scale; or, the shape of
# the Hann window, every value a little. Not exact, yet small: the approximate adapter leaves them as they are.
SLIGHT = frozenset(
    ("pad_mode", "window_periodic", "magnitude_epsilon", "magnitude_epsilon_mode", "clamp_waveform")
)
_TIME = frozenset(("sample_rate", "hop_length", "framing"))
_BANDS = frozenset(("sample_rate", "n_fft", "win_length", "n_mels", "f_min", "f_max", "mel_scale", "power"))
_SETTLED = 50  # iterations of non-negative least squares after which the bands of speech are met within 4e-4
_TINY = 1e-30


def changed(source: LogMel, target: LogMel) -> set[str]:
    """Returns the names of the fields in which two definitions differ with an effect."""
    ours, theirs = target.effective(), source.effective()
    names = {name for name in ours if ours[name] != theirs[name]}
    if source.magnitude_epsilon == target.magnitude_epsilon == 0:
        names -= {"magnitude_epsilon_mode"}
    return names


def obstacles(source: LogMel, target: LogMel) -> list[str]:
    """Returns the differences that no pointwise map bridges, one line a field: "hop_length: 300, expected 256"."""
    bridged = POINTWISE | (set(target.effective()) - changed(source, target))
    return [line for line in target.difference(source) if line.partition(":")[0] not in bridged]


def limits(source: LogMel, target: LogMel) -> list[str]:
    """Returns where an exact conversion loses something, as sentences; empty for none."""
    lost = []
    for end, bound in (("low", source.clip_low), ("high", source.clip_high)):
        if bound is not None:
            lost.append(f"what the source clipped at {bound:g} (clip_{end}) stays there")
    lowest = converted(source.silence[None, :, None], source, target)[0, :, 0]
    if bool((lowest - target.silence > 1e-3 * target.decibel).any()):
        lost.append(
            f"silence comes as {float(lowest.min()):.4g}, not {target.floor_value:.4g}: the source's floor is higher"
        )
    return lost


def convert(mel: Tensor, source: LogMel, target: LogMel) -> Tensor:
    """Returns a mel [..., n_mels, F] of `source` in the convention of `target`.

    Raises:
        InputError: the definitions differ in what no pointwise map bridges; every such field is named.
    """
    lines = obstacles(source, target)
    if lines:
        raise InputError(
            f"mel of another definition: {'; '.join(lines)}; this cannot be converted exactly: make the mel with this "
            "model's definition, or ask for the approximate adapter (audiodiff.audio.mel_conversion.approximate)"
        )
    return converted(mel, source, target)


def converted(mel: Tensor, source: LogMel, target: LogMel) -> Tensor:
    """Returns the mel after the pointwise map from source to target, whatever else differs between them."""
    if not changed(source, target) & POINTWISE:
        return mel
    return target.from_magnitude(source.magnitude(mel) * _factor(source, target).to(mel)[:, None])


def _factor(source: LogMel, target: LogMel) -> Tensor:
    """Returns by what each band's linear value [n_mels] is greater in target."""
    sums = [definition.filterbank.double().sum(1) for definition in (source, target)]
    bands = sums[1] / sums[0] if source.mel_norm != target.mel_norm else torch.ones_like(sums[0])
    bands = torch.where(sums[0] > 0, bands, 1.0)  # a band narrower than a bin hears nothing
    return bands * (window_gain(target) / window_gain(source)) ** target.power


def window_gain(definition: LogMel) -> float:
    """Returns the factor on magnitudes that normalizing the window makes."""
    return 1 / float(definition.window.double().norm()) if definition.window_normalized else 1.0


@dataclass(frozen=True)
class Approximation:
    """Turns mels of one definition into about those of another; see `approximate`.

    Attributes:
        source: the definition of the mels that come.
        target: the definition wanted.
        bridged: the differences that are bridged by approximation, one line a field; empty where all is exact.
    """

    source: LogMel
    target: LogMel
    bridged: tuple[str, ...]

    def __call__(self, mel: Tensor) -> Tensor:
        """Returns about the mel [B, n_mels', F'] that the target's analysis would have given.

        Args:
            mel: [B, n_mels, F]; the frames cover F * hop_length samples of the source.
        """
        names = changed(self.source, self.target)
        if names & _BANDS:
            mel = torch.stack([self._bands(item) for item in mel])
        else:
            mel = converted(mel, self.source, self.target)
        return self._frames(mel) if names & _TIME else mel

    def frames(self, frames: int) -> int:
        """Returns how many frames `frames` frames of the source become."""
        if not changed(self.source, self.target) & _TIME:
            return frames
        seconds = frames * self.source.hop_length / self.source.sample_rate
        return max(round(seconds * self.target.sample_rate / self.target.hop_length), 1)

    def _bands(self, mel: Tensor) -> Tensor:
        """Returns [n_mels', F] of [n_mels, F]."""
        source, target = self.source, self.target
        # A window of another length gives noise-like sound magnitudes in the ratio of the windows' norms.
        gain = float(target.window.norm() / source.window.norm())
        spectrum = _laid_on(linear_spectrum(source, mel) * gain, source, target)
        bands = target.filterbank.to(mel) @ (spectrum * window_gain(target)) ** target.power
        return target.from_magnitude(bands)

    def _frames(self, mel: Tensor) -> Tensor:
        """Returns [B, n_mels', F'] of [B, n_mels', F], linear in the logarithm between frame centres."""
        count = self.frames(mel.shape[-1])
        times = frame_times(self.target, count)
        places = times * self.source.sample_rate / self.source.hop_length - _first_centre(self.source)
        places = places.clamp(0, mel.shape[-1] - 1)
        left = places.floor().long().clamp_max(max(mel.shape[-1] - 2, 0)).to(mel.device)
        right = (left + 1).clamp_max(mel.shape[-1] - 1)
        share = (places.to(mel.device) - left).to(mel)
        return mel[..., left] * (1 - share) + mel[..., right] * share


def approximate(source: LogMel, target: LogMel) -> Approximation:
    """Returns an adapter from source to target that estimates what no pointwise map can know.

    Bands above the source's highest frequency come as silence, and detail between its bands or frames does not come
    back; docs/vocoder.md has its error on real speech.
    """
    return Approximation(source, target, tuple(obstacles(source, target)))


def linear_spectrum(log_mel: LogMel, mel: Tensor, iterations: int = _SETTLED) -> Tensor:
    """Returns the magnitudes [n_fft/2 + 1, F] of the STFT with the plain window, by non-negative least squares.

    Args:
        log_mel: the definition of the mel.
        mel: [n_mels, F].
        iterations: see `non_negative`.
    """
    spectrum = non_negative(log_mel.filterbank.to(mel), log_mel.magnitude(mel), iterations)
    return spectrum.pow(1 / log_mel.power) / window_gain(log_mel)


def non_negative(filterbank: Tensor, bands: Tensor, iterations: int) -> Tensor:
    """Returns x >= 0 [bins, F] whose bands filterbank @ x are near to `bands`, after a fixed number of iterations.

    Accelerated projected gradients (Beck and Teboulle 2009, "FISTA"; restarts of O'Donoghue and Candes 2015) from
    the least-norm solution, clipped. Each bin has its own step: diag(A'A 1) bounds A'A from above where A has no
    negative entries, so that no step is too long, whatever the bands are.

    Args:
        filterbank: A [n_mels, bins], without negative entries.
        bands: [n_mels, F].
        iterations: 0 leaves the clipped least-norm solution.
    """
    inverse = torch.linalg.pinv(filterbank.double().cpu()).to(filterbank)
    bound = (filterbank.T @ filterbank.sum(1, keepdim=True)).clamp_min(_TINY)
    before = (inverse @ bands).clamp_min(0)
    ahead, momentum = before, 1.0
    for _ in range(iterations):
        x = (ahead - filterbank.T @ (filterbank @ ahead - bands) / bound).clamp_min(0)
        step, following = x - before, (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        # A frame whose step goes uphill loses its momentum.
        uphill = ((ahead - x) * bound * step).sum(0) > 0
        ahead = x + step * torch.where(uphill, 0.0, (momentum - 1) / following)
        before, momentum = x, following
    return before


def frame_times(definition: LogMel, frames: int) -> Tensor:
    """Returns the centres of the frames [F] in seconds, float64."""
    places = torch.arange(frames, dtype=torch.float64) + _first_centre(definition)
    return places * definition.hop_length / definition.sample_rate


def _first_centre(definition: LogMel) -> float:
    """Returns the centre of frame 0 in hops: framing "same" centres it within the first hop."""
    return 0.0 if definition.framing == "center" else 0.5


def _laid_on(spectrum: Tensor, source: LogMel, target: LogMel) -> Tensor:
    """Returns magnitudes on the target's bins of [bins, F] on the source's, zero above what the source heard."""
    step = (target.sample_rate / target.n_fft) / (source.sample_rate / source.n_fft)
    places = torch.arange(target.n_fft // 2 + 1, dtype=torch.float64) * step
    last = spectrum.shape[0] - 1
    left = places.floor().long().clamp(0, max(last - 1, 0))
    share = (places - left).clamp(0, 1).to(spectrum)[:, None]
    laid = spectrum[left] * (1 - share) + spectrum[left + 1] * share
    heard = (places <= last + 1e-9).to(spectrum)[:, None]
    return laid * heard
