"""Text -> speech: in sentences, each read by the model's front end, diffused and made audible.

tts = audiodiff.TextToSpeech.load(folder, vocoder=folder)
speech = tts("A long text. In sentences.", seed=1)   # speech.waveform [T] at speech.sample_rate

Whether a vocoder is needed is told by the model, see `text_route`. Sentence i of a text draws the noise of item i, so
that it sounds the same whatever comes after it, in whatever batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path

import torch
from torch import Tensor

from audiodiff.audio.griffin_lim import GriffinLim
from audiodiff.diffusion.samplers import Sampler
from audiodiff.errors import InputError
from audiodiff.instantiation import instantiate
from audiodiff.model import AudioDiffusion, load
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from audiodiff.synthesis.speech import Manner, Part, Phrasing, Sentence, Speech, left_out, read_sentences
from audiodiff.synthesis.text_route import Route
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.text.front_end import TextFrontEnd


class TextToSpeech:
    """A text model with what makes it audible.

    Attributes:
        route: the model, its sampler and its vocoder; `str(route)` says how text becomes audio.
        front_end: how the model reads.
        phrasing: how a long text is divided.
    """

    def __init__(
        self,
        model: AudioDiffusion,
        vocoder: Vocoder | GriffinLim | None = None,
        sampler: Sampler | None = None,
        front_end: TextFrontEnd | None = None,
        phrasing: Phrasing | None = None,
    ) -> None:
        """Joins a loaded model and a vocoder.

        Args:
            model: conditioned on a text.
            vocoder: hears the mel that the model makes; None for the one that the model names, else Griffin-Lim, or
                for a model that makes audio.
            sampler: None takes the sampler that the model was saved with.
            front_end: None takes the one that the model was trained with.
            phrasing: None for `Phrasing()`.

        Raises:
            InputError: a model that is told no text or whose recipe does not say how it reads, a vocoder that hears
                another mel, or one for a model that makes none.
        """
        self.route = Route(
            model, vocoder, instantiate(model.recipe["sampler"]) if sampler is None else sampler
        )
        self.front_end = _front_end(model) if front_end is None else front_end
        self.phrasing = Phrasing() if phrasing is None else phrasing
        known = self.route.text.encoder.embedding.num_embeddings
        if self.front_end.vocabulary != known:
            raise InputError(
                f"text: the front end has {self.front_end.vocabulary} symbols, the model knows {known}; they belong "
                "to different models"
            )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        vocoder: str | Path | None = None,
        device: torch.device | str = "cpu",
        choice: SamplerChoice | None = None,
    ) -> TextToSpeech:
        """Returns the text model saved in a folder, with the vocoder saved in another.

        Args:
            folder: the text model, or the name of a shipped one.
            vocoder: the vocoder; None for the one that the model names, else Griffin-Lim, or for a model that makes
                audio itself.
            device: where both run.
            choice: the text model's sampler by name, steps, grid and eta; None takes what it was saved with.

        Raises:
            InputError: as the constructor, no model there, or a sampler that does not exist.
        """
        model = load(folder, device)
        sampler = None if choice is None else choose_sampler(model.recipe, choice)
        return cls(model, None if vocoder is None else Vocoder.load(vocoder, device), sampler)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the speech in hertz."""
        return self.route.model.sample_rate

    @property
    def speakers(self) -> tuple[str, ...]:
        """Whom the model can speak as; empty for a model of one voice."""
        return self.route.speakers

    def __call__(
        self,
        text: str,
        seed: int = 0,
        speaker: str | None = None,
        speed: float = 1.0,
        temperature: float | None = None,
    ) -> Speech:
        """Returns a text spoken, and warns of what had to be left out.

        Args:
            text: as it is written, of any length.
            seed: the same seed gives the same audio.
            speaker: one of `speakers`; None for any.
            speed: 2 for twice as fast as the model's own.
            temperature: divides the noise that sampling starts from; None for the model's own.

        Raises:
            InputError: text of which nothing can be said, markup, control characters, a missing espeak-ng, an unknown
                speaker, or a speed or temperature out of range.
            FloatingPointError: the model gave a number that is not finite.
        """
        (speech,) = self.many([text], Manner(seed, speaker, speed, temperature))
        _warn(speech.left_out)
        return speech

    def many(
        self,
        texts: Sequence[str],
        manner: Manner | None = None,
        on_sentence: Callable[[int, int], None] | None = None,
    ) -> Iterator[Speech]:
        """Yields texts spoken, each as it sounds alone; sentences of several texts are diffused together.

        All texts are read before the first is spoken. What is left out is told in each `Speech`, without a warning.

        Args:
            texts: as they are written.
            manner: how they are spoken; None for `Manner()`.
            on_sentence: told (sentences done, sentences in all).

        Raises:
            InputError: as a call, for the first text that cannot be spoken.
            FloatingPointError: the model gave a number that is not finite.
        """
        manner = Manner() if manner is None else manner
        self.route.check(manner)
        read = [self._read(number, texts) for number in range(len(texts))]
        waiting = [part for parts, _ in read for part in parts]
        speaking, spoken, done = self._speak(waiting, manner), list[Sentence](), 0
        for parts, unsaid in read:
            while len(spoken) < len(parts):
                few = next(speaking)
                spoken, done = [*spoken, *few], done + len(few)
                if on_sentence is not None:
                    on_sentence(done, len(waiting))
            own, spoken = spoken[: len(parts)], spoken[len(parts) :]
            yield Speech(self._joined(own), self.sample_rate, tuple(own), unsaid)

    def stream(self, text: str, manner: Manner | None = None) -> Iterator[Tensor]:
        """Returns the waveform [T] of a text sentence by sentence, each with the pause before it.

        Together they are what a call gives, within float rounding: a call diffuses several sentences at once. The
        text is read before the first sentence is spoken; errors are those of a call.

        Args:
            text: as it is written.
            manner: how it is spoken; None for `Manner()`.
        """
        manner = Manner() if manner is None else manner
        return self._stream(self._read_alone(text, manner), manner)

    def mel(self, text: str, manner: Manner | None = None) -> Tensor:
        """Returns the mel [n_mels, F] of a text in the model's own convention, silence between the sentences.

        Args:
            text: as it is written.
            manner: how it is spoken; None for `Manner()`.

        Raises:
            InputError: as a call, or a model that makes audio without a mel.
        """
        manner = Manner() if manner is None else manner
        _ = self.route.log_mel
        parts = self._read_alone(text, manner)
        made = (one for few in self._batches(parts) for one in self.route.diffuse(few, manner))
        return self.joined_mel([one.content for one in made])

    def joined_mel(self, mels: Sequence[Tensor]) -> Tensor:
        """Returns the mels [n_mels, F] of sentences as one, silence between them.

        Raises:
            InputError: a model that makes audio without a mel.
        """
        silence = self.route.log_mel.silence.to(mels[0])[:, None].expand(-1, self._pause_frames())
        return torch.cat([mels[0], *(part for mel in mels[1:] for part in (silence, mel))], dim=1)

    def _read(self, number: int, texts: Sequence[str]) -> tuple[list[Part], tuple[str, ...]]:
        """Returns what one of the texts says, and what of it cannot be said.

        Raises:
            InputError: as `read_sentences`, with the number of the text where there are several.
        """
        try:
            return read_sentences(self.front_end, texts[number], self.phrasing.longest)
        except InputError as error:
            if len(texts) == 1:
                raise
            raise InputError(f"text {number + 1} of {len(texts)}: {error}") from error

    def _read_alone(self, text: str, manner: Manner) -> list[Part]:
        self.route.check(manner)
        parts, unsaid = self._read(0, [text])
        _warn(left_out(reduce(add, (part.reading.changes for part in parts)), unsaid))
        return parts

    def _stream(self, parts: Sequence[Part], manner: Manner) -> Iterator[Tensor]:
        for part in parts:
            (waveform,) = self.route.audible([part], self.route.diffuse([part], manner), manner)
            yield waveform if part.item == 0 else torch.cat([self._pause(waveform), waveform])

    def _batches(self, parts: Sequence[Part]) -> Iterator[Sequence[Part]]:
        ends = [*range(0, len(parts), self.phrasing.batch), len(parts)]
        return (parts[first:end] for first, end in pairwise(ends))

    def _speak(self, parts: Sequence[Part], manner: Manner) -> Iterator[list[Sentence]]:
        for few in self._batches(parts):
            diffused = self.route.diffuse(few, manner)
            waveforms = self.route.audible(few, diffused, manner)
            mels = [None if self.route.vocoder is None else one.content for one in diffused]
            yield [
                Sentence(part.text, part.reading, one.durations, mel, waveform)
                for part, one, mel, waveform in zip(few, diffused, mels, waveforms, strict=True)
            ]

    def _joined(self, spoken: Sequence[Sentence]) -> Tensor:
        first, *others = (sentence.waveform for sentence in spoken)
        return torch.cat([first, *(piece for one in others for piece in (self._pause(one), one))])

    def _pause(self, like: Tensor) -> Tensor:
        return like.new_zeros(self._pause_frames() * self.route.model.representation.hop_length)

    def _pause_frames(self) -> int:
        hop_length = self.route.model.representation.hop_length
        return round(self.phrasing.pause_seconds * self.sample_rate / hop_length)


def _front_end(model: AudioDiffusion) -> TextFrontEnd:
    """Returns the front end that a model was trained with.

    Raises:
        InputError: its recipe names none.
    """
    node = model.recipe.get("text")
    front_end = None if node is None else instantiate(node)
    if not isinstance(front_end, TextFrontEnd):
        raise InputError(
            "this model's recipe does not say how it reads text (key `text`); give its front end: "
            "TextToSpeech(model, front_end=TextFrontEnd(...))"
        )
    return front_end


def _warn(text: str) -> None:
    if text:
        warnings.warn(f"text: left out {text}", stacklevel=3)
