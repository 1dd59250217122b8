"""Sounds that a released model is known by: one that is recorded with it, and what its speed and rounding are told on.

A model of sounds is asked by its labels, one that speaks by a text, a vocoder by the mel of a sung vowel that the
corpus `mini` makes. The recorded sound is the first half second of what the model makes with its own sampler from one
seed; the mel is kept beside it, so that whoever checks a copy asks for exactly the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.mel import heard
from audiodiff.data.corpora import mini
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.interval import Interval
from audiodiff.model import AudioDiffusion
from audiodiff.model_folder import read_sheet
from audiodiff.synthesis.generation import default_seconds, label_sets
from audiodiff.synthesis.text_route import SPEAKER, takes_text
from audiodiff.synthesis.text_to_speech import TextToSpeech
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Batch

CHECK = "check.safetensors"
CHECK_SECONDS = 0.5
_WAVEFORM, _MEL = "waveform", "mel"
_VOWEL = "a"


@dataclass(frozen=True)
class Asked:
    """What a model is asked for.

    Attributes:
        labels: name -> value.
        text: what is spoken; None for a model that is told no text.
        mel: [n_mels, F] for a vocoder; None for other models.
        seconds: length of a sound by labels; 0 where text or mel tell it.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    mel: Tensor | None = None
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """Returns it for the sheet, without the mel, which is kept with the sound."""
        return {"labels": dict(self.labels), "text": self.text, "seconds": self.seconds}


class Instrument:
    """A model with what belongs to it, ready to be asked.

    Attributes:
        model: the model.
        sampler: its own.
        task: what it does, in words.
    """

    def __init__(self, model: AudioDiffusion) -> None:
        """Joins the model with its own sampler and, where it names one, its vocoder.

        Raises:
            InputError: a vocoder that is not there or hears another mel.
        """
        self.model = model
        self._speaker = TextToSpeech(model) if takes_text(model) else None
        hears = self._speaker is None and heard(model.conditioner) is not None
        self._vocoder = Vocoder(model) if hears else None
        self.sampler = instantiate(model.recipe["sampler"])
        self.task = self._task()

    def _task(self) -> str:
        if self._speaker is not None:
            return "text to speech"
        if self._vocoder is not None:
            return "mel to waveform"
        names = " and ".join(self.model.labels)
        return f"sounds by {names}" if names else "sounds"

    def __call__(self, asked: Asked, seed: int) -> Tensor:
        """Returns one waveform [C, T], as the model makes it by itself.

        Raises:
            InputError: what this model cannot be asked for.
        """
        if self._speaker is not None:
            if asked.text is None:
                raise InputError("this model speaks: give it a text")
            return self._speaker(asked.text, seed, asked.labels.get(SPEAKER)).waveform[None]
        told = {name: (asked.labels.get(name, ""),) for name in self.model.labels}
        if self._vocoder is not None:
            if asked.mel is None:
                raise InputError("this model hears a mel: give it one")
            return self._vocoder(asked.mel[None], labels=told, seed=seed).cpu()
        samples = max(1, round(asked.seconds * self.model.sample_rate))
        batch = Batch(None, torch.tensor([samples]), told)
        return self.model.synthesize(batch, self.sampler, seed, steering=self.model.steering)[0].cpu()

    @property
    def lookahead_seconds(self) -> float | None:
        """How far a mel must be known for a piece of a stream; None where nothing streams from a mel."""
        if self._vocoder is None:
            return None
        try:
            return self._vocoder.lookahead().seconds
        except InputError:  # a part of it looks at the whole signal
            return None

    def asked(self, source: Path, wanted: Sequence[str], text: str) -> Asked:
        """Returns what the recorded sound is asked by.

        Args:
            source: the model's folder, for the length of its sounds.
            wanted: "value" or "name=value"; other labels take their first value, intervals their middle.
            text: for a model that speaks.

        Raises:
            InputError: an unknown label.
        """
        given = label_sets(self.model.labels, wanted, [], 1)[0]
        others = {name: _first(values) for name, values in self.model.labels.items() if name not in given}
        labels = {name: (given | others)[name] for name in self.model.labels}
        if self._speaker is not None:
            return Asked(labels, text=text)
        if self._vocoder is not None:
            return Asked(labels, mel=vowel_mel(self._vocoder.log_mel, CHECK_SECONDS))
        return Asked(labels, seconds=default_seconds(self.model, source))

    def longer(self, asked: Asked, seconds: float) -> Asked:
        """Returns the same for a vocoder with a mel of so many seconds; other models' sounds have their own length."""
        if self._vocoder is None:
            return asked
        return Asked(asked.labels, mel=vowel_mel(self._vocoder.log_mel, seconds))


def vowel_mel(log_mel: LogMel, seconds: float) -> Tensor:
    """Returns the mel [n_mels, F] of a sung vowel, again and again for so many seconds."""
    vowel = mini.synthesize(_VOWEL, log_mel.sample_rate, np.random.default_rng(0))
    wanted = round(seconds * log_mel.sample_rate)
    repeated = np.tile(vowel, -(-wanted // len(vowel)))[:wanted]
    return log_mel(torch.from_numpy(repeated)[None])[0].cpu()


def _first(values: Sequence[str]) -> str:
    return values[len(values) // 2 if isinstance(values, Interval) else 0]


def half_second(waveform: Tensor, sample_rate: int) -> Tensor:
    """Returns the beginning of a waveform [C, T] that is recorded, float32."""
    return waveform[:, : round(CHECK_SECONDS * sample_rate)].float().contiguous()


def recorded_tensors(waveform: Tensor, asked: Asked) -> dict[str, Tensor]:
    """Returns what the file of the recorded sound holds: the waveform, and the mel it was made from where it was."""
    mel = {} if asked.mel is None else {_MEL: asked.mel.contiguous()}
    return {_WAVEFORM: waveform, **mel}


@dataclass(frozen=True)
class Recorded:
    """The sound that was recorded with a model: its waveform [C, T], what was asked for, and the seed."""

    waveform: Tensor
    asked: Asked
    seed: int


def read_recorded(folder: Path) -> Recorded:
    """Returns the recorded sound of a released model.

    Raises:
        InputError: there is none, or it is damaged.
    """
    told = read_sheet(folder)
    try:
        tensors = load_file(folder / CHECK)
        check = told["check"]
        asked = Asked(check["labels"], check["text"], tensors.get(_MEL), float(check["seconds"]))
        return Recorded(tensors[_WAVEFORM], asked, int(check["seed"]))
    except Exception as error:  # safetensors raises its own type for a damaged file
        raise InputError(f"{folder / CHECK}: cannot be read ({error})") from error
