"""The sounds of a listening test: one of each system for each file, alike in all but what is to be heard.

All are brought to the highest sample rate among them. Where sounds are compared with one another (ABX, MUSHRA) those of
a file are cut to the shortest, if they differ by less than 2 %; longer differences are refused, since they could be
told by length. Levels stay as they are unless matching is asked: then every sound is brought to the level of the
reference, or of the first system, by the loudest 50 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audiodiff.audio import io
from audiodiff.audio.loudness import loudness_db
from audiodiff.errors import InputError
from audiodiff.evaluation.samples import audio_files
from audiodiff.evaluation.signals import LENGTH_TOLERANCE
from audiodiff.progress import track

_LISTED = 10  # names in a message
_ANCHOR_STOP = 4 / 3.5  # where ITU-R BS.1534-3 wants the anchor 25 dB down, over its cut-off
_STOP_DB = 60.0  # so that it also has the 50 dB that are wanted at 4.5 kHz


@dataclass(frozen=True)
class Stimuli:
    """Sounds of equal rate and channels.

    Attributes:
        sounds: file -> system -> samples [T, C] in [-1, 1].
        sample_rate: Hz.
        notes: what was done to them, one sentence each.
    """

    sounds: Mapping[str, Mapping[str, np.ndarray]]
    sample_rate: int
    notes: Sequence[str]


def pair_up(systems: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Returns file -> system -> path, files named by their stem, in order.

    Args:
        systems: folder of each.

    Raises:
        InputError: a folder without sounds, or files that not every system has.
    """
    found = {
        name: {Path(file).stem: path for file, path in audio_files(folder).items()}
        for name, folder in systems.items()
    }
    for name, folder in systems.items():
        if not found[name]:
            reason = "no audio files in it" if folder.is_dir() else "no such folder"
            raise InputError(f"{folder}: {reason}; expected the sounds of {name}")
    every = {file for files in found.values() for file in files}
    lacking = [f"{file} ({name})" for name in systems for file in sorted(every - set(found[name]))]
    if lacking:
        more = f" and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
        raise InputError(
            f"names do not pair up: missing are {', '.join(lacking[:_LISTED])}{more}; every system needs a sound of "
            "every name"
        )
    return {file: {name: found[name][file] for name in systems} for file in sorted(every)}


def prepare(
    files: Mapping[str, Mapping[str, Path]], compared: bool, match_loudness: bool, show: bool = False
) -> Stimuli:
    """Returns the sounds of a test.

    Args:
        files: file -> system -> path, see `pair_up`.
        compared: the sounds of a file are heard against one another, so that they must be as long.
        match_loudness: to that of the first system of each file.
        show: a progress bar on the terminal.

    Raises:
        InputError: a sound that cannot be read or is silent, other channels or another length than its partners.
    """
    rates = {io.probe(path).sample_rate for systems in files.values() for path in systems.values()}
    rate = max(rates)
    notes = [] if len(rates) == 1 else [f"Sounds of other rates were resampled to {rate} Hz."]
    sounds, cut, quieter = {}, 0, 0
    for file, systems in track(files.items(), "sounds", len(files), show):
        read = {name: _read(path, rate) for name, path in systems.items()}
        channels = {name: sound.shape[1] for name, sound in read.items()}
        if len(set(channels.values())) > 1:
            raise InputError(f"{file}: channels differ ({_told(channels)}); expected as many in every system")
        if compared:
            lengths = {name: sound.shape[0] for name, sound in read.items()}
            shortest = min(lengths.values())
            if shortest < (1 - LENGTH_TOLERANCE) * max(lengths.values()):
                seconds = {name: f"{length / rate:.2f} s" for name, length in lengths.items()}
                raise InputError(
                    f"{file}: lengths differ ({_told(seconds)}), so that systems could be told by them; expected less "
                    f"than {100 * LENGTH_TOLERANCE:g} % between them, or --kind mos"
                )
            cut += shortest < max(lengths.values())
            read = {name: sound[:shortest] for name, sound in read.items()}
        if match_loudness:
            read, scaled = _matched(read, rate)
            quieter += scaled
        sounds[file] = read
    if cut:
        notes.append(f"In {cut} of {len(files)} files the sounds were cut to the shortest.")
    if match_loudness:
        notes.append(
            "Levels were matched by the loudest 50 ms, to those of the first system or the reference"
            + (
                f"; {quieter} files were then lowered as a whole to stay below full scale."
                if quieter
                else "."
            )
        )
    return Stimuli(sounds, rate, notes)


def removes_something(cutoff: float, sample_rate: int) -> bool:
    """Returns whether a low-pass of so many Hz takes away anything to speak of at a sample rate."""
    return cutoff * _ANCHOR_STOP <= 0.5 * sample_rate * 0.9


def low_pass(samples: np.ndarray, sample_rate: int, cutoff: float) -> np.ndarray:
    """Returns an anchor of MUSHRA: samples [T, C] without what lies above a cut-off.

    ITU-R BS.1534-3: passed within 0.1 dB up to 3.5 kHz, 25 dB down at 4 kHz and 50 dB at 4.5 kHz; other
    cut-offs in proportion. A linear-phase filter by Kaiser's window, its delay removed.

    Raises:
        InputError: a sample rate at which nothing to speak of would be removed.
    """
    from scipy.signal import firwin, kaiserord, oaconvolve

    stop = cutoff * _ANCHOR_STOP
    if cutoff <= 0 or not removes_something(cutoff, sample_rate):
        raise InputError(
            f"anchor: a low-pass of {cutoff:g} Hz leaves audio of {sample_rate} Hz as it is; pass --anchor "
            f"{sample_rate / 5:.0f} or less, and say so where the result is told"
        )
    taps, beta = kaiserord(_STOP_DB, (stop - cutoff) / (0.5 * sample_rate))
    window = firwin(taps | 1, (cutoff + stop) / 2, window=("kaiser", beta), fs=sample_rate)
    filtered: np.ndarray = oaconvolve(samples, window[:, None], mode="full", axes=0)
    delay = len(window) // 2
    return filtered[delay : delay + len(samples)]


def _read(path: Path, rate: int) -> np.ndarray:
    waveform, _ = io.read(path, rate)
    if float(waveform.abs().max()) < io.SILENCE_PEAK:
        raise InputError(f"{path}: is silent; a listener cannot judge it")
    return waveform.T.numpy()


def _matched(read: Mapping[str, np.ndarray], rate: int) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the sounds at the level of the first, and whether all had to be lowered for it."""
    levels = {name: loudness_db(torch.from_numpy(sound.T), rate) for name, sound in read.items()}
    wanted = next(iter(levels.values()))
    scaled = {name: sound * 10 ** ((wanted - levels[name]) / 20) for name, sound in read.items()}
    peak = max(float(np.abs(sound).max()) for sound in scaled.values())
    if peak <= 1:
        return scaled, False
    return {name: sound / peak for name, sound in scaled.items()}, True


def _told(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
