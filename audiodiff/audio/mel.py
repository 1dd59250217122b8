"""LogMel: the one definition of a mel spectrogram, with every convention of the field as a named field.

    waveform -> pad -> |STFT| (window w) -> power -> filterbank -> floor -> log -> scale * y + offset -> clip

A definition is data: it lives in one node of recipes/features/, is saved with each model and compared field
by field before a foreign mel is believed. `preset` loads the definitions of other projects, which reproduce
those projects' own numbers. `convert` goes from one definition to another where that is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiodiff.audio.mel_conversion import convert
from audiodiff.audio.mel_input import checked
from audiodiff.errors import InputError

# y = unit * ln(magnitude): natural logarithm, log10, and 20 log10 (decibels)
LOG_UNITS = {"e": 1.0, "10": 1 / math.log(10), "db20": 20 / math.log(10)}
_CHOICES: dict[str, tuple[object, ...]] = {
    "mel_scale": ("slaney", "htk"),
    "mel_norm": ("slaney", None),
    "power": (1, 2),
    "framing": ("center", "same"),
    "pad_mode": ("reflect", "constant"),
    "magnitude_epsilon_mode": ("add", "clamp"),
    "log_base": tuple(LOG_UNITS),
    "floor_mode": ("clamp", "add"),
}


@dataclass(eq=False, kw_only=True)
class LogMel(nn.Module):
    """Log-mel analysis of waveforms, and the definition that says exactly which.

    Attributes:
        sample_rate: of the waveforms, hertz.
        n_fft: FFT size, samples, even.
        win_length: length of the Hann window, samples, at most n_fft (centred in the FFT).
        hop_length: between frames, samples, at most win_length.
        n_mels: number of bands.
        f_min: lower edge of the first band, hertz.
        f_max: upper edge of the last band, hertz; None: sample_rate / 2.
        mel_scale: "slaney" (linear below 1 kHz) or "htk" (2595 log10(1 + f/700)).
        mel_norm: "slaney" gives each band the area 1 Hz; None leaves its peak at 1.
        power: 1 sums magnitudes in a band, 2 sums squared magnitudes.
        framing: "center" centres frame f on sample f * hop_length (n_fft/2 padding on both sides) and gives
            1 + floor(T / hop_length) frames; "same" pads (n_fft - hop_length)/2 and gives
            floor(T / hop_length).
        pad_mode: "reflect" or "constant" (zeros).
        window_periodic: Hann window of period win_length; False: symmetric, of period win_length - 1.
        window_normalized: divides the window by its L2 norm.
        magnitude_epsilon: added to the squared magnitude (or a lower bound of it) before the square root.
        magnitude_epsilon_mode: "add" or "clamp".
        log_base: "e", "10", or "db20" for 20 log10.
        floor: smallest band value before the logarithm.
        floor_mode: "clamp": log(max(x, floor)); "add": log(x + floor).
        scale: factor on the logarithm.
        offset: added after `scale`.
        clip_low: lower bound of the result; None: none.
        clip_high: upper bound of the result; None: none.
        clamp_waveform: limits the waveform to [-1, 1] first.

    Raises:
        InputError: a value is not of its kind, or not one of its choices.
    """

    sample_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    f_min: float = 0.0
    f_max: float | None = None
    mel_scale: str = "slaney"
    mel_norm: str | None = "slaney"
    power: int = 1
    framing: str = "center"
    pad_mode: str = "reflect"
    window_periodic: bool = True
    window_normalized: bool = False
    magnitude_epsilon: float = 0.0
    magnitude_epsilon_mode: str = "add"
    log_base: str = "e"
    floor: float = 1e-5
    floor_mode: str = "clamp"
    scale: float = 1.0
    offset: float = 0.0
    clip_low: float | None = None
    clip_high: float | None = None
    clamp_waveform: bool = False

    filterbank: Tensor = field(init=False, repr=False)  # [n_mels, n_fft/2 + 1]
    window: Tensor = field(init=False, repr=False)  # [win_length]

    def __post_init__(self) -> None:
        super().__init__()
        self.log_base = str(self.log_base)  # 10 in yaml is a number
        problem = _problem(self)
        if problem:
            raise InputError(f"mel definition: {problem}")
        self.register_buffer("filterbank", _filterbank(self), persistent=False)
        self.register_buffer("window", _window(self), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns the mel [B, n_mels, F] float32 of waveform [B, T] or [B, 1, T], differentiable.

        A waveform shorter than the padding is reflected at its ends as often as needed (as numpy.pad does;
        one sample repeats), so any length has its frames; with framing "same", none below hop_length.

        Raises:
            InputError: the waveform has another shape, no samples, or integer samples.
        """
        waveform = _mono(waveform)
        frames = self.frames(waveform.shape[-1])
        if frames == 0:
            return waveform.new_zeros(waveform.shape[0], self.n_mels, 0, dtype=torch.float32)
        # The definition holds in float32 whatever precision the caller's network runs in.
        with torch.autocast(waveform.device.type, enabled=False):
            magnitude = self.filterbank @ self._spectrum(waveform.float())
        return self.from_magnitude(magnitude)

    def frames(self, length: int) -> int:
        """Returns how many frames a waveform of `length` samples has."""
        return length // self.hop_length + (self.framing == "center")

    def samples(self, frames: int) -> int:
        """Returns how many samples a vocoder makes from `frames` frames: frames * hop_length."""
        return frames * self.hop_length

    def from_magnitude(self, magnitude: Tensor) -> Tensor:
        """Returns the mel of linear band values: floor, logarithm, affine map, clip (inverse: magnitude)."""
        floored = magnitude.clamp_min(self.floor) if self.floor_mode == "clamp" else magnitude + self.floor
        mel = floored.log() * (LOG_UNITS[self.log_base] * self.scale) + self.offset
        if self.clip_low is None and self.clip_high is None:
            return mel
        return mel.clamp(self.clip_low, self.clip_high)

    def magnitude(self, mel: Tensor) -> Tensor:
        """Returns the linear band values of a mel, exact where neither floor nor clip held it.

        They are magnitudes for power 1, squared magnitudes for power 2.
        """
        linear = ((mel - self.offset) / (LOG_UNITS[self.log_base] * self.scale)).exp()
        return linear if self.floor_mode == "clamp" else (linear - self.floor).clamp_min(0)

    @property
    def silence(self) -> Tensor:
        """The mel [n_mels] of digital silence."""
        return self.level(0.0)

    @property
    def floor_value(self) -> float:
        """The mel's value for digital silence (of the lowest band, where bands differ)."""
        return float(self.silence.min())

    @property
    def decibel(self) -> float:
        """By how much the mel grows when the audio gets 1 dB louder."""
        return math.log(10) / 20 * self.power * self.scale * LOG_UNITS[self.log_base]

    def definition(self) -> dict[str, Any]:
        """Returns every field as a plain JSON value; `from_definition` rebuilds the module."""
        return {name: getattr(self, name) for name in _names()}

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> LogMel:
        """Builds the mel from `definition()`; absent fields take their defaults.

        Raises:
            InputError: a field is unknown, a required one absent, or a value not allowed.
        """
        unknown = ", ".join(str(name) for name in definition if name not in _names())
        if unknown:
            raise InputError(f"mel definition: unknown {unknown}; expected {', '.join(_names())}")
        required = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels")
        absent = [name for name in required if name not in definition]
        if absent:
            raise InputError(f"mel definition: {', '.join(absent)} missing; needed are {', '.join(required)}")
        return cls(**definition)

    def difference(self, other: LogMel) -> list[str]:
        """Returns what is different in `other`, one line a field: "hop_length: 300, expected 256"."""
        ours, theirs = self.effective(), other.effective()
        return [
            f"{name}: {theirs[name]}, expected {ours[name]}" for name in ours if ours[name] != theirs[name]
        ]

    def check(self, mel: Tensor | np.ndarray, name: str = "mel") -> Tensor:
        """Returns a mel from elsewhere as [B, n_mels, F] float32, after refusing what cannot be one of ours.

        Args:
            mel: [B, n_mels, F], or [n_mels, F] for one item. It may leave the range between silence and full
                scale by a tenth of that range, since predicted mels do. What lies inside the range is
                believed: a log10 mel that never comes near silence passes for a natural logarithm.
            name: what the messages call it.

        Raises:
            InputError: wrong number of dimensions or bands, transposed, empty, not finite, or in a range that
                this definition cannot give (the message names the likeliest other convention).
        """
        return checked(self, mel, name)

    def convert(self, mel: Tensor, to: LogMel) -> Tensor:
        """Returns a mel [B, n_mels, F] of this definition in another that differs after the filterbank alone.

        Raises:
            InputError: the definitions differ in what no pointwise map bridges; every such field is named.
        """
        return convert(mel, self, to)

    def _spectrum(self, waveform: Tensor) -> Tensor:
        """Returns (squared) magnitudes [B, n_fft/2 + 1, F] of waveform [B, T]."""
        if self.clamp_waveform:
            waveform = waveform.clamp(-1, 1)
        total = self.n_fft if self.framing == "center" else self.n_fft - self.hop_length
        padded = _pad(waveform, total // 2, total - total // 2, self.pad_mode)
        sizes = self.n_fft, self.hop_length, self.win_length
        spectrum = torch.stft(padded, *sizes, self.window, center=False, return_complex=True)
        if self.window_normalized:
            spectrum = spectrum / self.window.norm()
        if self.power == 1 and self.magnitude_epsilon == 0 and spectrum.requires_grad:
            return spectrum.abs()  # unlike the square root, its gradient at 0 is 0; a third as fast
        energy = spectrum.real.square() + spectrum.imag.square()
        if self.magnitude_epsilon_mode == "add":
            energy = energy + self.magnitude_epsilon
        else:
            energy = energy.clamp_min(self.magnitude_epsilon)
        return energy.sqrt() if self.power == 1 else energy

    def level(self, magnitude: float) -> Tensor:
        """Returns each band's value [n_mels] where every frequency has this magnitude."""
        least = math.sqrt(self.magnitude_epsilon)
        return self.from_magnitude(self.filterbank.sum(1) * max(magnitude, least) ** self.power)

    def effective(self) -> dict[str, Any]:
        """Returns the definition with f_max as a number, so that equal mels have equal values."""
        definition = self.definition()
        return definition | {"f_max": self.sample_rate / 2 if self.f_max is None else self.f_max}

    def _apply(self, fn: Any, recurse: bool = True) -> LogMel:
        # model.half() must not round the definition, so the buffers follow the device only.
        super()._apply(fn, recurse)
        self.filterbank = _filterbank(self).to(self.filterbank.device)
        self.window = _window(self).to(self.window.device)
        return self


def preset(name: str) -> LogMel:
    """Returns the definition recipes/features/NAME.yaml, for example "hifigan_22k80" or "vocos_24k100".

    Raises:
        InputError: there is no such file; the message lists those there are.
    """
    from omegaconf import OmegaConf

    files = _preset_files()
    if name not in files:
        raise InputError(f"no mel preset '{name}'; expected one of {', '.join(sorted(files))}")
    definition = OmegaConf.to_container(OmegaConf.load(files[name]), resolve=True)
    assert isinstance(definition, dict)
    return LogMel.from_definition({str(key): value for key, value in definition.items() if key != "_target_"})


def preset_names() -> list[str]:
    """Returns the names of recipes/features/."""
    return sorted(_preset_files())


def _preset_files() -> dict[str, Path]:
    package = Path(__file__).resolve().parents[1]
    # A wheel carries the recipes inside the package; a checkout has them beside it.
    folders = [package / "recipes" / "features", package.parent / "recipes" / "features"]
    return {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.yaml"))}


def _names() -> tuple[str, ...]:
    return tuple(f.name for f in fields(LogMel) if f.init)


def _problem(mel: LogMel) -> str | None:
    """Returns what is wrong with a definition's values, or None."""
    for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels"):
        value = getattr(mel, name)
        if type(value) is not int or value <= 0:
            return f"{name} is {value!r}, expected a positive whole number"
    for name, choices in _CHOICES.items():
        value = getattr(mel, name)
        if value not in choices or isinstance(value, bool):
            return f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}"
    for name in ("f_min", "f_max", "magnitude_epsilon", "floor", "scale", "offset", "clip_low", "clip_high"):
        value = getattr(mel, name)
        optional = value is None and name in ("f_max", "clip_low", "clip_high")
        if not optional and (
            isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
        ):
            return f"{name} is {value!r}, expected a number"
    for name in ("window_periodic", "window_normalized", "clamp_waveform"):
        if type(getattr(mel, name)) is not bool:
            return f"{name} is {getattr(mel, name)!r}, expected true or false"
    return _inconsistency(mel)


def _inconsistency(mel: LogMel) -> str | None:
    """Returns which values contradict each other, or None; each is of its kind already."""
    if mel.n_fft % 2:
        return f"n_fft is {mel.n_fft}, expected an even number"
    if not 2 <= mel.win_length <= mel.n_fft:
        return f"win_length is {mel.win_length}, expected 2 to n_fft ({mel.n_fft})"
    if mel.hop_length > mel.win_length:
        return f"hop_length is {mel.hop_length}, expected at most win_length ({mel.win_length})"
    nyquist = mel.sample_rate / 2
    f_max = nyquist if mel.f_max is None else mel.f_max
    if not 0 <= mel.f_min < f_max <= nyquist:
        return (
            f"f_min {mel.f_min} and f_max {f_max}, expected 0 <= f_min < f_max <= sample_rate / 2 = {nyquist}"
        )
    if mel.floor <= 0:
        return f"floor is {mel.floor}, expected above 0 (silence has no logarithm)"
    if mel.magnitude_epsilon < 0:
        return f"magnitude_epsilon is {mel.magnitude_epsilon}, expected 0 or more"
    if mel.scale <= 0:
        return f"scale is {mel.scale}, expected above 0"
    if mel.clip_low is not None and mel.clip_high is not None and mel.clip_low >= mel.clip_high:
        return f"clip_low is {mel.clip_low}, expected below clip_high ({mel.clip_high})"
    return None


def _filterbank(mel: LogMel) -> Tensor:
    from librosa.filters import mel as librosa_mel  # half a second, only where a mel is computed

    weights = librosa_mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_mels, fmin=mel.f_min, fmax=mel.f_max,
        htk=mel.mel_scale == "htk", norm=None if mel.mel_norm is None else "slaney",
    )  # fmt: skip
    return torch.from_numpy(weights)


def _window(mel: LogMel) -> Tensor:
    # In float32 from the start, as other projects have it: their mels are then met bit for bit.
    return torch.hann_window(mel.win_length, mel.window_periodic, dtype=torch.float32, device="cpu")


def _mono(waveform: Tensor) -> Tensor:
    """Returns [B, T] of [B, T] or [B, 1, T]."""
    if waveform.dim() == 3 and waveform.shape[1] == 1:
        waveform = waveform[:, 0]
    if waveform.dim() != 2 or waveform.shape[-1] == 0:
        raise InputError(
            f"waveform of shape {tuple(waveform.shape)}, expected [B, T] or [B, 1, T] with samples"
        )
    if not waveform.is_floating_point():
        raise InputError(f"waveform of type {waveform.dtype}, expected floating point in [-1, 1]")
    return waveform


def _pad(waveform: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pads [B, T]; reflection turns back at both ends as often as the padding needs."""
    length = waveform.shape[-1]
    if mode == "constant" or max(left, right) < length:
        return F.pad(waveform[:, None], (left, right), mode=mode)[:, 0]
    period = max(2 * (length - 1), 1)
    positions = torch.arange(-left, length + right, device=waveform.device).remainder(period)
    return waveform[:, torch.minimum(positions, period - positions)]
