"""Which mel is this? A foreign mel against the statistics of the mels that a model was trained on.

Every mistake that is often made is undone in turn (the logarithm's base, the filterbank's norm, ...), and what comes
out is compared with the training audio, band by band: the divergence of two normal distributions,

    KL = (m^2 + s^2 - 1 - ln s^2) / 2,   m, s: mean and deviation of the mel in units of the training's,

averaged over bands. The mistake whose undoing fits best is the likeliest. A mel alone tells its level and its shape
over frequency; hop length and framing show beside the audio that it was made of (`mel_recognition`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from audiodiff.audio.mel import LogMel, preset, preset_names
from audiodiff.audio.mel_conversion import POINTWISE, changed, converted, limits, obstacles
from audiodiff.errors import InputError

RIGHT = "none: this is the model's mel"
LOWER_FLOOR = "a lower floor"
TURNED = "frames before bands: [F, n_mels]"
# A mistake is named only where undoing it takes away so much of the distance, as a share and in nats a band. Audio is
# loud or quiet by nature, so what changes the level alone needs more.
_CLEARLY, _LEAST, _LEAST_LEVEL = 0.6, 0.01, 0.6
_LEAST_STD = 1e-3  # of a band that never moves, in units of the training's
_INT16_DB = 90.309  # 20 log10(32768)
_AT_FLOOR = 0.01  # share of values at one lowest value from which on that is a floor


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation [n_mels] of each band over the training audio."""

    mean: Tensor
    std: Tensor

    def distance(self, mel: Tensor) -> float:
        """Returns how far a mel [n_mels, F] is from the training audio, in nats a band."""
        z = (mel - self.mean[:, None]) / self.std[:, None]
        mean, variance = z.mean(1), z.var(1, correction=0).clamp_min(_LEAST_STD**2)
        return float((mean.square() + variance - 1 - variance.log()).mean() / 2)


@dataclass(frozen=True)
class Mistake:
    """What may be wrong with a mel, and what undoes it.

    Attributes:
        name: in words.
        mend: one line of Python, or what to do, that mends it.
        undo: mel [n_mels, F] -> about the model's own.
        level: whether undoing it makes the mel louder or quieter and nothing else.
    """

    name: str
    mend: str
    undo: Callable[[Tensor], Tensor]
    level: bool = False


@dataclass(frozen=True)
class Verdict:
    """A mistake with how well its undoing fits.

    Attributes:
        mistake: name of the mistake, or RIGHT.
        mend: what to do.
        distance: of the mended mel from the training audio, nats a band.
        mended: [n_mels, F].
        least: by how many nats a band it has to fit better than the mel as it is to be named.
    """

    mistake: str
    mend: str
    distance: float
    mended: Tensor
    least: float = _LEAST


def examine(
    mel: Tensor, log_mel: LogMel, statistics: Statistics, others: Sequence[tuple[str, LogMel]] | None = None
) -> list[Verdict]:
    """Returns verdicts on a mel, the likeliest first.

    Args:
        mel: [n_mels, F] or [F, n_mels]; finite.
        log_mel: the model's definition.
        statistics: of the model's training audio.
        others: definitions to think of; None for `definitions(log_mel)`.

    Raises:
        InputError: the mel has no axis of n_mels entries, or values that are not finite.
    """
    _check(mel, log_mel)
    others = list(definitions(log_mel)) if others is None else others
    verdicts = []
    for turned in (False, True):
        given = mel.T if turned else mel
        if given.shape[0] == log_mel.n_mels:
            found = _verdicts(given, log_mel, statistics, others)
            verdicts += [_turned(verdict) for verdict in found] if turned else found
    verdicts.sort(key=lambda verdict: verdict.distance)
    # A value below the model's floor is seen, not guessed, so that mistake stands until another fits clearly better.
    plain = next(v for v in verdicts if v.mistake in (RIGHT, TURNED) or v.mistake.startswith(LOWER_FLOOR))
    gained = [plain.distance - verdict.distance for verdict in verdicts]
    named = [
        verdict
        for verdict, gain in zip(verdicts, gained, strict=True)
        if verdict.distance < _CLEARLY * plain.distance and gain > verdict.least
    ]
    first = named[0] if named else plain
    return [first, *(verdict for verdict in verdicts if verdict is not first)]


def _verdicts(
    mel: Tensor, log_mel: LogMel, statistics: Statistics, others: Sequence[tuple[str, LogMel]]
) -> list[Verdict]:
    found = []
    for mistake in mistakes(mel, log_mel, statistics, others):
        mended = mistake.undo(mel)
        if bool(mended.isfinite().all()):
            least = _LEAST_LEVEL if mistake.level else _LEAST
            found.append(Verdict(mistake.name, mistake.mend, statistics.distance(mended), mended, least))
    return found


def _check(mel: Tensor, log_mel: LogMel) -> None:
    if mel.dim() != 2 or log_mel.n_mels not in mel.shape or 0 in mel.shape:
        raise InputError(
            f"mel: shape {tuple(mel.shape)}, expected [{log_mel.n_mels}, F] or [F, {log_mel.n_mels}]: another number "
            "of bands has no conversion but the approximate one"
        )
    if not bool(mel.isfinite().all()):
        raise InputError(f"mel: {int((~mel.isfinite()).sum())} of {mel.numel()} values are NaN or infinite")


def _turned(found: Verdict) -> Verdict:
    mend = "mel = mel.transpose(-1, -2)"
    if found.mistake == RIGHT:
        return replace(found, mistake=TURNED, mend=mend)
    return replace(found, mistake=f"{TURNED}, and {found.mistake}", mend=f"{mend}; {found.mend}")


def mistakes(
    mel: Tensor, log_mel: LogMel, statistics: Statistics, others: Sequence[tuple[str, LogMel]]
) -> Iterator[Mistake]:
    """Yields what may be wrong with a mel [n_mels, F] whose axes stand right."""
    yield Mistake(RIGHT, "", lambda given: given)
    low, silence = float(mel.min()), log_mel.floor_value
    if low < silence - log_mel.decibel:
        yield Mistake(
            f"{LOWER_FLOOR}: values down to {low:.4g}, the model's floor is {silence:.4g}",
            f"mel = mel.clamp(min={silence:.6g})", lambda given: given.clamp_min(silence),
        )  # fmt: skip
    if low >= 0:
        yield Mistake(
            "linear: no logarithm was taken",
            "mel = vocoder.log_mel.from_magnitude(mel)",
            log_mel.from_magnitude,
        )
    yield Mistake(
        "made of 16-bit integers: the audio was not scaled to [-1, 1]",
        "waveform = waveform / 32768, then analyse again",
        lambda given: (given - _INT16_DB * log_mel.decibel).clamp_min(silence), level=True,
    )  # fmt: skip
    yield Mistake(
        "normalized to mean 0 and deviation 1 per band",
        "mel = mel * std + mean, with the mean and std of whoever made the mel",
        lambda given: given * statistics.std[:, None] + statistics.mean[:, None],
    )
    for name, source in others:
        level = changed(source, log_mel) == {"window_normalized"}
        yield Mistake(
            name, _mend(source, log_mel), functools.partial(estimate, source=source, target=log_mel), level
        )


def definitions(log_mel: LogMel) -> Iterator[tuple[str, LogMel]]:
    """Yields (what it is called, definition) of mels that could be mistaken for the model's, of as many bands."""
    for name, change in _changes(log_mel):
        yield name, LogMel.from_definition(log_mel.definition() | change)
    for name in preset_names():
        other = preset(name)
        fits = (other.n_mels, other.sample_rate) == (log_mel.n_mels, log_mel.sample_rate)
        if fits and len(changed(other, log_mel)) > 1:
            yield f"the mel {name}: {'; '.join(log_mel.difference(other))}", other


def _changes(log_mel: LogMel) -> Iterator[tuple[str, dict[str, Any]]]:
    words = {"e": "ln", "10": "log10", "db20": "decibels (20 log10)"}
    plain = {"scale": 1.0, "offset": 0.0, "clip_low": None, "clip_high": None}
    for base, word in words.items():
        if base != log_mel.log_base or log_mel.scale != 1:
            yield f"{word} instead of {_convention(log_mel, words)}", {"log_base": base} | plain
    zero_one = {"log_base": "db20", "scale": 0.01, "offset": 0.8, "clip_low": 0.0, "clip_high": 1.0}
    yield "decibels scaled to 0..1", zero_one
    yield (
        "decibels scaled to -4..4",
        zero_one | {"scale": 0.08, "offset": 2.4, "clip_low": -4.0, "clip_high": 4.0},
    )
    norm = None if log_mel.mel_norm else "slaney"
    yield f"mel_norm {norm} instead of {log_mel.mel_norm}", {"mel_norm": norm}
    scale = "htk" if log_mel.mel_scale == "slaney" else "slaney"
    yield f"mel_scale {scale} instead of {log_mel.mel_scale}", {"mel_scale": scale}
    power = 3 - log_mel.power
    yield f"power {power} instead of {log_mel.power}", {"power": power}
    window = not log_mel.window_normalized
    yield f"window_normalized {window} instead of {log_mel.window_normalized}", {"window_normalized": window}
    ours = log_mel.effective()["f_max"]
    for f_max in (7600.0, 8000.0, log_mel.sample_rate / 2):
        if f_max != ours and log_mel.f_min < f_max <= log_mel.sample_rate / 2:
            yield f"f_max {f_max:g} instead of {ours:g}", {"f_max": f_max}


def _convention(log_mel: LogMel, words: dict[str, str]) -> str:
    if (log_mel.scale, log_mel.offset) == (1, 0):
        return words[log_mel.log_base]
    return f"{log_mel.scale:g} * {words[log_mel.log_base]} + {log_mel.offset:g}"


def _mend(source: LogMel, log_mel: LogMel) -> str:
    if obstacles(source, log_mel):
        return "make the mel again with the model's definition; mel_conversion.approximate estimates it"
    own = log_mel.definition()
    change = {name: value for name, value in source.definition().items() if value != own[name]}
    line = (
        f"mel = LogMel.from_definition(vocoder.log_mel.definition() | {change}).convert(mel, vocoder.log_mel)"
    )
    return f"{line}  # {'; '.join(lost)}" if (lost := limits(source, log_mel)) else line


def estimate(mel: Tensor, source: LogMel, target: LogMel) -> Tensor:
    """Returns about the target's mel [n_mels, F] of the source's, good enough to compare it with statistics.

    Where the filterbanks differ, the spectral density that a band stands for is read off between band centres.
    """
    if not changed(source, target) - POINTWISE:
        return converted(mel[None], source, target)[0]
    area, wanted = source.filterbank.sum(1), target.filterbank.sum(1)
    linear = source.magnitude(mel).clamp_min(1e-12)
    density = (linear / area.clamp_min(1e-8)[:, None]).pow(1 / source.power).log()
    at = torch.searchsorted(_centres(source), _centres(target)).clamp(1, source.n_mels - 1)
    left, right = _centres(source)[at - 1], _centres(source)[at]
    share = ((_centres(target) - left) / (right - left).clamp_min(1e-6)).clamp(0, 1)[:, None]
    read = (density[at - 1] * (1 - share) + density[at] * share).exp()
    return target.from_magnitude(read**target.power * wanted[:, None])


def _centres(definition: LogMel) -> Tensor:
    """Returns the mean frequency of each band [n_mels], rising."""
    bank = definition.filterbank
    hertz = torch.linspace(0, definition.sample_rate / 2, bank.shape[1])
    centres = (bank * hertz).sum(1) / bank.sum(1).clamp_min(1e-12)
    return centres.cummax(0).values


def floor_of(mel: Tensor) -> float | None:
    """Returns the lowest value of a mel if so many values are at it that it must be a floor; else None."""
    low = mel.min()
    share = float((mel <= low + 1e-4 * low.abs().clamp_min(1)).float().mean())
    return float(low) if share >= _AT_FLOOR else None
