"""Texts into a samples folder: wav files, how each text was read, its alignment, and on request its mels."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.progress import progress_bar
from audiodiff.synthesis.alignment_picture import draw_alignment
from audiodiff.synthesis.cost import Meter, Work
from audiodiff.synthesis.recordings import stream_file, write_pcm, writing_blocks
from audiodiff.synthesis.samples import Sample, draw_samples, write_record, write_sample
from audiodiff.synthesis.sampling import describe
from audiodiff.synthesis.speech import Manner, Speech
from audiodiff.synthesis.text_route import SPEAKER
from audiodiff.synthesis.text_to_speech import TextToSpeech

_PICTURED = 12


@dataclass(frozen=True)
class SpeakingRequest:
    """What is to be spoken.

    Attributes:
        texts: one a file.
        manner: how.
        return_mel: whether the mels are written too, as .npy files of [n_mels, F].
    """

    texts: Sequence[str]
    manner: Manner
    return_mel: bool = False


def read_lines(path: Path) -> tuple[list[str], int]:
    """Returns the lines of a text file that are not empty, and how many are.

    Raises:
        InputError: no such file, not UTF-8, or nothing in it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InputError(f"{path}: cannot be read as text ({reason})") from error
    lines = lines[:-1] if lines[-1] == "" else lines  # what follows the last end of line is no line
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise InputError(f"{path}: has no text in it, expected one text a line")
    return texts, len(lines) - len(texts)


def speak(tts: TextToSpeech, request: SpeakingRequest, facts: Mapping[str, Any], out: Path) -> list[str]:
    """Speaks the texts, writes the folder and returns one line for each file of whose text something was left out.

    Args:
        tts: what speaks.
        request: what is spoken.
        facts: for the record, besides what is known here.
        out: the samples folder; files of the same name are replaced.

    Raises:
        InputError: a text that cannot be spoken, mels of a model without one, a place that cannot be written.
    """
    if request.return_mel:
        _ = tts.route.log_mel
    samples: list[Sample] = []
    spoken: list[dict[str, Any]] = []
    pictured: dict[str, list[Tensor]] = {}
    meter, works = Meter(tts.route.model.device), list[Work]()
    with progress_bar() as progress:
        task = progress.add_task("speak", total=None)
        speeches = tts.many(
            request.texts,
            request.manner,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
        for number, (text, speech) in enumerate(zip(request.texts, meter.over(speeches), strict=True)):
            name = f"text_{number:04d}"
            labels = {SPEAKER: request.manner.speaker} if request.manner.speaker else {}
            sample = Sample(f"{name}.wav", labels, text=text)
            samples.append(write_sample(out, sample, speech.waveform[None], tts.sample_rate))
            spoken.append({"file": f"{name}.wav", **_described(speech)})
            draw_alignment(speech, tts.front_end, out / f"{name}.alignment.png")
            if request.return_mel:
                _write_mel(tts, speech, out / f"{name}.npy")
            works = works or tts.route.works(speech.sentences[0], request.manner)
            if number < _PICTURED:
                pictured[name] = [speech.waveform[None]]
    manner = request.manner
    record: dict[str, Any] = {"seed": manner.seed, "speaker": manner.speaker, "speed": manner.speed}
    record |= {"route": str(tts.route), "sampler": describe(tts.route.sampler_of(manner))}
    cost = meter.cost(sum(sample.seconds for sample in samples), works)
    write_record(out, {**facts, **record, "spoken": spoken}, samples, cost)
    draw_samples(out, pictured, tts.sample_rate)
    return [f"{one['file']}: left out {one['left_out']}" for one in spoken if one["left_out"]]


def speak_into(tts: TextToSpeech, text: str, manner: Manner, target: str) -> float:
    """Speaks a text sentence by sentence into a wav file, or as 16-bit samples without header to stdout for "-".

    Returns:
        Seconds that were written.

    Raises:
        InputError: a text that cannot be spoken, a name that is not that of a wav file, a place that cannot be written.
    """
    path = None if target == "-" else stream_file(target)
    pieces = (piece[None] for piece in tts.stream(text, manner))
    if path is None:
        return write_pcm(pieces, sys.stdout.buffer) / tts.sample_rate
    with writing_blocks(path, tts.sample_rate, 1) as file:
        for piece in pieces:
            file.write(piece)
    return file.samples / tts.sample_rate


def _described(speech: Speech) -> dict[str, Any]:
    sentences = [
        {
            "text": sentence.text,
            "normalized": sentence.reading.normalized,
            "symbols": sentence.reading.symbols,
            "frames": [round(frames, 3) for frames in sentence.durations.tolist()],
        }
        for sentence in speech.sentences
    ]
    return {"left_out": speech.left_out, "sentences": sentences}


def _write_mel(tts: TextToSpeech, speech: Speech, path: Path) -> None:
    mels = [sentence.mel for sentence in speech.sentences if sentence.mel is not None]
    content = io.BytesIO()
    np.save(content, tts.joined_mel(mels).numpy())
    write_whole({path: content.getvalue()})
