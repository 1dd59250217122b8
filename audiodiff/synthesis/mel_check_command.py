"""A mel file checked against a model: what `audiodiff check-mel` prints and draws."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from audiodiff.audio import io
from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError
from audiodiff.synthesis.mel_check import Verdict, examine, floor_of
from audiodiff.synthesis.mel_check_picture import draw_check
from audiodiff.synthesis.mel_recognition import recognise
from audiodiff.synthesis.resynthesis import MEL_SUFFIXES, read_mel
from audiodiff.synthesis.vocoder import Vocoder


def check_file(model: Path, file: Path, audio: Path | None, out: Path, show: int) -> list[str]:
    """Returns the lines of the report on a mel file, and draws it.

    Args:
        model: the model folder.
        file: a mel, or audio, which is analysed by the model's own definition.
        audio: the audio that the mel was made of; None where it is not at hand.
        out: the picture.
        show: how many verdicts.

    Raises:
        InputError: a file that cannot be read or is no mel of the model's number of bands.
    """
    vocoder = Vocoder.load(model)
    log_mel, statistics = vocoder.log_mel, vocoder.statistics
    if file.suffix.lower() in MEL_SUFFIXES:
        mel = _one(read_mel(file), str(file))
    else:
        mel = log_mel(io.read(file, vocoder.sample_rate, channels=1)[0])[0]
    lines = [] if audio is None else _beside(mel, audio, log_mel, show)
    if log_mel.n_mels not in mel.shape and lines:
        return lines
    verdicts = examine(mel, log_mel, statistics)
    draw_check(mel.numpy(), verdicts[0], statistics, out)
    return [*lines, *_report(mel, verdicts, log_mel, show), f"picture: {out}"]


def _one(mel: Tensor, name: str) -> Tensor:
    """Returns a mel file's tensor as [., .] float32."""
    if mel.dim() == 3 and mel.shape[0] == 1:
        mel = mel[0]
    if mel.dim() != 2 or not mel.is_floating_point():
        raise InputError(f"{name}: {mel.dtype} of shape {tuple(mel.shape)}, expected one floating point mel")
    return mel.float()


def _report(mel: Tensor, verdicts: list[Verdict], log_mel: LogMel, show: int) -> list[str]:
    best = verdicts[0]
    lines = [f"likeliest mistake: {best.mistake}"]
    if best.mend:
        lines.append(f"  mend: {best.mend}")
    floor = floor_of(mel)
    if (
        floor is not None
        and floor > log_mel.floor_value + log_mel.decibel
        and best.mistake.startswith("none")
    ):
        lines.append(
            f"  its floor is {floor:.4g}, the model's {log_mel.floor_value:.4g}: silence will not come as silent"
        )
    lines += [f"  distance from the training audio: {best.distance:.2f} nats a band"]
    lines += [f"next: {other.mistake} ({other.distance:.2f})" for other in verdicts[1:show]]
    return lines


def _beside(mel: Tensor, audio: Path, log_mel: LogMel, show: int) -> list[str]:
    """Returns the lines about which definition made the mel of this audio."""
    waveform, sample_rate = io.read(audio, channels=1)
    turned = mel if mel.shape[0] == log_mel.n_mels or mel.shape[1] != log_mel.n_mels else mel.T
    matches = recognise(turned, waveform, sample_rate, log_mel)[:show]
    return [
        f"{'made by' if number == 0 else 'next'}: {match.name} "
        f"(differs by {match.error_db:.2f} dB and {match.frames} frames)"
        for number, match in enumerate(matches)
    ]
