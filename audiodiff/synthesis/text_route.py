"""How the tokens of a sentence become audio: by a mel and what makes it audible, or straight.

The model tells the way. One that diffuses a mel (MelRepresentation) is followed by a vocoder that hears the same mel,
or by Griffin-Lim; one that diffuses audio needs neither. A model that comes with audiodiff names its vocoder, another
one that comes with it (key `vocoder` of its recipe).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.audio.mel import LogMel
from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.conditioning.text_conditioner import SpokenText
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.model_folder import shipped_model
from audiodiff.synthesis.cost import Work
from audiodiff.synthesis.speech import Manner, Part, Sentence
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Batch

SPEAKER = "speaker"
_SPECTRUM_ITERATIONS = 50  # of Griffin-Lim's magnitudes: what is heard should meet the mel
_LONGEST_SECONDS = 120.0  # of one sentence; a model that predicts more was not trained to the end


@dataclass(frozen=True)
class Diffused:
    """What the model made of one sentence: a mel [n_mels, F] or a waveform [T]; samples; frames of each token [L]."""

    content: Tensor
    length: int
    durations: Tensor


class Route:
    """The way from tokens to audio.

    Attributes:
        model: makes mels or audio of a text.
        vocoder: makes audio of the model's mels; None for a model that makes audio itself.
        companion: name of that vocoder where it is the one that the model itself names; None for another.
        sampler: how the model samples.
        text: the model's part that reads tokens.
    """

    def __init__(self, model: AudioDiffusion, vocoder: Vocoder | GriffinLim | None, sampler: Sampler) -> None:
        """Joins a text model and what makes its mels audible.

        Args:
            model: conditioned on a text.
            vocoder: hears the mel that the model makes; None for the one that the model names, else Griffin-Lim, or
                for a model that makes audio.
            sampler: how the model samples.

        Raises:
            InputError: a model that is told no text, a vocoder that hears another mel or is not there, or one for a
                model that makes none.
        """
        texts = [part for part in model.modules() if isinstance(part, SpokenText)]
        if not texts:
            raise InputError("this model is told no text, its sounds are chosen by labels or made of mels")
        self.model = model
        self.text = texts[0]
        self.companion: str | None = None if vocoder is not None else model.recipe.get("vocoder")
        if self.companion is not None:
            vocoder = Vocoder.load(shipped_model(self.companion), model.device)
        self.vocoder = fitting(model, vocoder)
        self.sampler = sampler

    def __str__(self) -> str:
        """Says how text becomes audio."""
        if self.vocoder is None:
            return "text -> audio"
        if self.companion is not None:
            return f"text -> mel -> audio by the vocoder {self.companion}, which this model names"
        named = isinstance(self.vocoder, Vocoder)
        return (
            f"text -> mel -> audio by {'a vocoder' if named else 'Griffin-Lim, since no vocoder was named'}"
        )

    @property
    def speakers(self) -> tuple[str, ...]:
        """Whom the model can speak as; empty for a model of one speaker."""
        return tuple(self.model.labels.get(SPEAKER, ()))

    @property
    def log_mel(self) -> LogMel:
        """The mel between text and audio.

        Raises:
            InputError: there is none.
        """
        if self.vocoder is None:
            raise InputError("this model makes audio straight from text; it has no mel to return")
        return self.vocoder.log_mel

    def check(self, manner: Manner) -> None:
        """Refuses a speaker that the model does not know.

        Raises:
            InputError: of that kind.
        """
        if manner.speaker and manner.speaker not in self.speakers:
            choices = f"choose one of {', '.join(self.speakers)}" if self.speakers else "it has one voice"
            raise InputError(f"speaker {manner.speaker!r} is unknown to this model; {choices}")

    def sampler_of(self, manner: Manner) -> Sampler:
        """Returns the sampler, at the temperature that is asked for."""
        if manner.temperature is None:
            return self.sampler
        return replace(self.sampler, temperature=manner.temperature)

    def diffuse(self, parts: Sequence[Part], manner: Manner) -> list[Diffused]:
        """Returns what the model makes of sentences, on the CPU."""
        batch = self._batch(parts, manner)
        durations = self._durations(batch, parts)
        sampler = self.sampler_of(manner)
        seeds, items = [manner.seed] * len(parts), [part.item for part in parts]
        if self.vocoder is None:
            waveforms = self.model.synthesize(batch, sampler, seeds, items, self.model.steering)
            made = [(waveform[0].cpu(), waveform.shape[-1]) for waveform in waveforms]
        else:
            made = self._mels(batch, sampler, seeds, items)
        return [Diffused(*one, frames) for one, frames in zip(made, durations, strict=True)]

    def works(self, sentence: Sentence, manner: Manner) -> list[Work]:
        """Returns what each model does for a sentence that was spoken, for a record of costs."""
        batch = self._batch([Part(0, sentence.text, sentence.reading)], manner)
        works = [Work.of(self.model, self.sampler_of(manner), batch, self.model.steering)]
        if isinstance(self.vocoder, Vocoder) and sentence.mel is not None:
            works.append(self.vocoder.work(sentence.mel[None]))
        return works

    def _mels(
        self, batch: Batch, sampler: Sampler, seeds: Sequence[int], items: Sequence[int]
    ) -> list[tuple[Tensor, int]]:
        representation = self.model.representation
        assert isinstance(representation, MelRepresentation)
        x, lengths = self.model.sample(batch, sampler, seeds, items, self.model.steering)
        with torch.inference_mode():
            mels = representation.mel(x)
        made = [
            (mel[:, : representation.shape(length)[1]].cpu(), length)
            for mel, length in zip(mels, lengths, strict=True)
        ]
        for item, (mel, _) in zip(items, made, strict=True):
            if not bool(mel.isfinite().all()):
                raise FloatingPointError(f"sentence {item}: the model gave a mel that is not finite")
        return [(mel.clone(), length) for mel, length in made]

    def _batch(self, parts: Sequence[Part], manner: Manner) -> Batch:
        rows = [torch.tensor(part.reading.tokens) for part in parts]
        return Batch(
            waveform=None,
            lengths=torch.zeros(len(parts), dtype=torch.int64),
            labels={SPEAKER: (manner.speaker or "",) * len(parts)} if self.speakers else {},
            ids=tuple(repr(part.text[:40]) for part in parts),
            tokens=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            token_counts=torch.tensor([len(row) for row in rows]),
            speeds=torch.full((len(parts),), manner.speed),
        )

    def _durations(self, batch: Batch, parts: Sequence[Part]) -> list[Tensor]:
        """Returns the frames of each token [L] of each sentence.

        Raises:
            InputError: a sentence that would last longer than anybody speaks one.
        """
        with torch.inference_mode():
            durations = self.text.durations(batch).cpu()
        hop_length = self.text.hop_length or self.model.representation.hop_length
        for part, row in zip(parts, durations, strict=True):
            seconds = float(row.sum()) * hop_length / self.model.sample_rate
            if seconds > _LONGEST_SECONDS * max(1.0, 1 / float(batch.speeds[0])):  # type: ignore[index]
                raise InputError(
                    f"sentence {part.text[:40]!r}: the model gives it {seconds:.0f} s, expected at most "
                    f"{_LONGEST_SECONDS:g}; its durations were not learned"
                )
        return [row[: len(part.reading.tokens)].clone() for part, row in zip(parts, durations, strict=True)]

    def audible(self, parts: Sequence[Part], made: Sequence[Diffused], manner: Manner) -> list[Tensor]:
        """Returns the waveform [T] of each sentence, on the CPU."""
        if self.vocoder is None:
            return [one.content for one in made]
        lengths = [one.length for one in made]
        longest = max(one.content.shape[1] for one in made)
        # As a vocoder's conditioner pads: the last frame goes on.
        held = [
            torch.cat([m, m[:, -1:].expand(-1, longest - m.shape[1])], 1) for m in (o.content for o in made)
        ]
        mel = torch.stack(held)
        if isinstance(self.vocoder, Vocoder):
            seeds, items = [manner.seed] * len(parts), [part.item for part in parts]
            waveforms = self.vocoder(mel.to(self.model.device), lengths, seed=seeds, items=items)
        else:
            waveforms = self.vocoder(mel, lengths, manner.seed)
        return [waveform[:length].cpu() for waveform, length in zip(waveforms, lengths, strict=True)]


def takes_text(model: AudioDiffusion) -> bool:
    """Whether a model is told a text."""
    return any(isinstance(part, SpokenText) for part in model.modules())


def fitting(model: AudioDiffusion, vocoder: Vocoder | GriffinLim | None) -> Vocoder | GriffinLim | None:
    """Returns what makes a model's mels audible, told where their bands are; None for a model that makes audio.

    Raises:
        InputError: a vocoder that hears another mel, or one for a model that makes none, or more than one channel.
    """
    representation = model.representation
    if not isinstance(representation, MelRepresentation):
        if vocoder is not None:
            raise InputError("vocoder: this model makes audio straight from text; leave the vocoder out")
        if representation.channels != 1:
            raise InputError(
                f"this model makes {representation.channels} channels, speech is expected in one"
            )
        return None
    if vocoder is None:
        return GriffinLim(
            representation.log_mel, representation.griffin_lim.iterations, "bands_first", _SPECTRUM_ITERATIONS
        )
    different = representation.log_mel.difference(vocoder.log_mel)
    if different:
        raise InputError(
            f"vocoder: hears another mel than this model makes: {'; '.join(different)}; take a vocoder trained on "
            "the model's own mel definition"
        )
    if isinstance(vocoder, GriffinLim):
        return GriffinLim(vocoder.log_mel, vocoder.iterations, "bands_first", vocoder.spectrum_iterations)
    return Vocoder(vocoder.model, vocoder.sampler, vocoder.mel_iterations, vocoder.finish, "bands_first")
