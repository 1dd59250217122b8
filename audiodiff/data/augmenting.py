"""What an augmentation is, and what several of them share: see `audiodiff.data.augmentation`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from audiodiff.audio import io
from audiodiff.data.entries import Entry
from audiodiff.data.manifests import load_cuts
from audiodiff.errors import InputError

_SPEED_STEPS = 1000


class Augmentation(Protocol):
    """The contract."""

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns a waveform [C, T'] for a waveform [C, T] in [-1, 1]."""
        ...


@runtime_checkable
class Relabelling(Protocol):
    """An augmentation after which a label may be another: what is played higher has another pitch."""

    def __call__(self, waveform: Tensor, generator: np.random.Generator) -> Tensor:
        """Returns a waveform [C, T'] for a waveform [C, T] in [-1, 1], as `with_labels` does without any label."""
        return self.with_labels(waveform, {}, generator)[0]

    def with_labels(
        self, waveform: Tensor, labels: Mapping[str, str], generator: np.random.Generator
    ) -> tuple[Tensor, Mapping[str, str]]:
        """Returns a waveform [C, T'] for a waveform [C, T] in [-1, 1], and its labels."""
        ...


def augmented(
    augmentation: Callable[[Tensor, np.random.Generator], Tensor],
    waveform: Tensor,
    labels: Mapping[str, str],
    generator: np.random.Generator,
) -> tuple[Tensor, Mapping[str, str]]:
    """Returns a waveform [C, T'] for a waveform [C, T], and the labels that it has now."""
    if isinstance(augmentation, Relabelling):
        return augmentation.with_labels(waveform, labels, generator)
    return augmentation(waveform, generator), labels


def recordings_in(path: Path) -> tuple[Entry, ...]:
    """Returns the recordings of a folder or of a manifest, in the order of their names or of the manifest.

    Raises:
        InputError: there are none, or they cannot be read.
    """
    if not path.is_dir():
        manifest = load_cuts(path)
        return tuple(manifest.entry(number) for number in range(len(manifest)))
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in io.AUDIO_SUFFIXES)
    if not files:
        raise InputError(
            f"{path}: no audio file in it, nor in a folder below; expected {', '.join(io.AUDIO_SUFFIXES)}"
        )
    return tuple(_whole(file) for file in files)


def _whole(file: Path) -> Entry:
    info = io.probe(file)
    return Entry(file.stem, str(file), 0, info.length, info.sample_rate, tuple(range(info.channels)), {})


def fitted(waveform: Tensor) -> Tensor:
    """Returns the waveform, scaled to a peak of 1 where it has a higher one."""
    return waveform / max(1.0, float(waveform.abs().max()))


def played(waveform: Tensor, speed: float) -> tuple[Tensor, float]:
    """Returns the waveform [C, round(T / speed)] played so fast, and the speed: a multiple of a thousandth.

    Such speeds are whole rates to the resampler. Halves of samples are rounded up.
    """
    rate = round(_SPEED_STEPS * speed)
    return fitted(io.resample(waveform, rate, _SPEED_STEPS)), rate / _SPEED_STEPS


def power(waveform: Tensor) -> float:
    """Returns the mean square."""
    return float(waveform.double().square().mean())


def numeric_label(
    what: str, labels: Mapping[str, str], name: str, lowest: float = -math.inf, highest: float = math.inf
) -> float | None:
    """Returns a label as a number, or None where the clip has no such label.

    Raises:
        InputError: it is no finite number, or lies outside of the bounds; the message begins with `what`.
    """
    if name not in labels:
        return None
    try:
        value = float(labels[name])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and lowest <= value <= highest):
        bounds = "" if lowest == -math.inf else f" from {lowest:g} to {highest:g}"
        raise InputError(f"{what}: label {name} is {labels[name]!r}, expected a number{bounds}")
    return value


def kept_within(move: float, start: float, lowest: float, highest: float) -> float:
    """Returns the move, or as much of it as leaves start + move between the bounds."""
    return min(max(move, lowest - start), highest - start)


def check_range(what: str, lowest: float, highest: float, least: float, most: float) -> None:
    """Refuses bounds that are not in order, or beyond what can be.

    Raises:
        InputError: saying so, beginning with `what`.
    """
    if not least <= lowest <= highest <= most:
        raise InputError(
            f"{what}: got {lowest} to {highest}, expected two numbers in this order from {least} to {most}"
        )
