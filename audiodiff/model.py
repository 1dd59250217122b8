"""AudioDiffusion: representation + conditioner + denoiser, forwards to train and backwards to synthesize.

A saved model is a folder: `model.safetensors` (weights and statistics), `config.yaml` (the resolved recipe,
from which the model is rebuilt and the signal contract is read), `README.md` (model card) and
`training.json` (how it was trained). No pickled code is read, and a recipe may build only this package's
parts and torch.nn layers, since a downloaded recipe would otherwise run any code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from audiodiff.audio.representation import Representation
from audiodiff.conditioning.conditioner import Aligning, Conditioner
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.diffusion.constraints import Constraint
from audiodiff.diffusion.data_space import in_data_space, whitened
from audiodiff.diffusion.denoiser import Denoise, Denoiser
from audiodiff.diffusion.guidance import Guidance, guided
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.priors import color, whiten
from audiodiff.diffusion.samplers import NotFiniteError, Sampler
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.fitting import check_mel, check_text
from audiodiff.hardware import check_device
from audiodiff.instantiation import instantiate
from audiodiff.interval import LabelValues
from audiodiff.model_folder import (
    CARD,
    CONFIG,
    FACTS,
    WEIGHTS,
    check_replaceable,
    find_model,
    read_recipe,
)
from audiodiff.types import Batch, Condition
from audiodiff.weights import read_weights


@dataclass(frozen=True)
class Steering:
    """What sampling moves away from, and how far.

    Attributes:
        guidance: how far.
        against: the model whose estimate under the same condition it moves away from (autoguidance); None for the
            model's own estimate without labels (classifier-free guidance).
        negative: labels to move away from in place of none, name -> value; the sound's other labels stay.
    """

    guidance: Guidance = Guidance()  # noqa: RUF009 a frozen value
    against: AudioDiffusion | None = None
    negative: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.negative and (self.guidance.scale == 1 or self.against is not None):
            raise InputError("guidance: a negative label needs a scale above 1, and no weaker model")


UNSTEERED = Steering()


class AudioDiffusion(nn.Module):
    """A trained or trainable model of audio."""

    representation: Representation
    conditioner: Conditioner

    def __init__(self, representation: nn.Module, conditioner: nn.Module, denoiser: Denoiser) -> None:
        """Joins the three parts.

        Args:
            representation: a Representation: waveform <-> x.
            conditioner: a Conditioner: batch -> condition.
            denoiser: the denoiser of x.

        Raises:
            InputError: a mel of another sample rate or hop length than the other parts have, or a text encoder of
                other features.
        """
        super().__init__()
        for part in conditioner.modules():
            if isinstance(part, Mel):
                check_mel(part.log_mel, representation, denoiser)
            if isinstance(part, Text):
                check_text(part, representation)
        self.representation = representation  # type: ignore[assignment]
        self.conditioner = conditioner  # type: ignore[assignment]
        self.denoiser = denoiser
        self.recipe: dict[str, Any] = {}

    @property
    def sample_rate(self) -> int:
        """Sample rate of the audio in hertz."""
        return self.representation.sample_rate

    @property
    def labels(self) -> dict[str, LabelValues]:
        """The label names that the model was trained with, with values or an interval; empty when it is told none."""
        tables = [part.values for part in self.modules() if isinstance(part, Labels)]
        return {name: values for table in tables for name, values in table.items()}

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.denoiser.parameters()).device

    def encode(self, batch: Batch) -> tuple[Tensor, Condition]:
        """Returns clean x [B, D, F], whitened by the condition's prior, and the condition of a batch with waveforms."""
        return self.encode_with_losses(batch)[:2]

    def encode_with_losses(self, batch: Batch) -> tuple[Tensor, Condition, Mapping[str, Tensor]]:
        """Returns what encode does, and the conditioner's own losses by name, each a mean over the batch."""
        if batch.waveform is None:
            raise InputError("encode needs a batch with waveforms")
        clean = self.representation.encode(batch.waveform)
        condition, losses = self.align(batch, clean)
        return whiten(clean, condition), condition, losses

    def align(self, batch: Batch, clean: Tensor) -> tuple[Condition, Mapping[str, Tensor]]:
        """Returns the condition of a batch whose recordings are clean [B, D, F], and the conditioner's losses."""
        if not isinstance(self.conditioner, Aligning):
            return self.condition(batch), {}
        condition, losses = self.conditioner.align(batch, clean, self._frames(batch.lengths))
        return replace(condition, frames=self._padding(batch.lengths)), losses

    def condition(self, batch: Batch) -> Condition:
        """Returns the condition of a batch, with its valid frames: as the conditioner or else the lengths tell."""
        condition: Condition = self.conditioner(batch)
        if condition.frames is not None:
            return condition
        return replace(condition, frames=self._padding(batch.lengths))

    def lengths(self, batch: Batch, condition: Condition) -> list[int]:
        """Returns the samples of each item: the batch's, but where the condition tells other frames those of these."""
        if condition.frames is None:
            return batch.lengths.tolist()
        pairs = zip(batch.lengths.tolist(), condition.frames.tolist(), strict=True)
        return [
            length if length > 0 and self.representation.shape(length)[1] == frames else self._samples(frames)
            for length, frames in pairs
        ]

    @property
    def steering(self) -> Steering:
        """The guidance that the model was saved with; none for a model without a recipe or without labels."""
        if not self.labels:
            return UNSTEERED
        scale, rescale = self.recipe.get("guidance", 1.0), self.recipe.get("guidance_rescale", 0.0)
        low, high = self.recipe.get("guidance_interval", (0.0, 1.0))
        return Steering(Guidance(scale, rescale, (low, high)))

    def bind(self, batch: Batch, steering: Steering) -> tuple[Denoise, Condition]:
        """Returns (x, t) -> clean for a batch, guided, and its condition.

        Raises:
            InputError: unknown label, mel that breaks the contract, guidance of a model that never saw a batch
                without labels, a model to guide against that diffuses something else or from other noise.
        """
        condition = self.condition(batch)
        denoise = self.denoiser.bind(condition)
        other = steering.against
        if steering.guidance.scale == 1:
            return denoise, condition
        if steering.negative:
            return guided(denoise, self._negative(batch, steering), steering.guidance), condition
        if other is None:
            self._check_null()
            nothing = replace(self.conditioner.null(batch), frames=condition.frames)
            return guided(denoise, self.denoiser.bind(nothing), steering.guidance), condition
        if other.representation.shape(self.sample_rate) != self.representation.shape(self.sample_rate):
            raise InputError("guidance: the model to guide against has another representation than this one")
        mirrored = other.condition(batch)
        if not mirrored.same_prior(condition):
            raise InputError("guidance: the model to guide against starts from other noise (prior)")
        return guided(denoise, other.denoiser.bind(mirrored), steering.guidance), condition

    def synthesize(
        self,
        batch: Batch,
        sampler: Sampler,
        seed: int | Sequence[int],
        items: Sequence[int] | None = None,
        steering: Steering = UNSTEERED,
        constraint: Constraint | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Tensor]:
        """Returns one waveform [C, T] per item, made from noise.

        Args:
            batch: what the model is conditioned on, and lengths, unless that tells them as a text does.
            sampler: step and grid.
            seed: non-negative integer; the same seed and item number give the same audio in any batch. Or one per item.
            items: item numbers for the noise, by default 0, 1, ..., but 0 for all where each has a seed.
            steering: guidance; UNSTEERED evaluates the plain conditional model.
            constraint: applied to x after each step.
            on_step: told (steps done, steps in all).

        Raises:
            InputError: unknown label, mel that breaks the contract, unreadable text, length below one sample.
            FloatingPointError: the model gave a number that is not finite.
        """
        items = _items(batch, seed, items)
        x, lengths = self.sample(batch, sampler, seed, items, steering, constraint, on_step)
        with torch.inference_mode():
            waveforms = [
                self.representation.decode(x[i : i + 1, :, : self.representation.shape(length)[1]], length)[0]
                for i, length in enumerate(lengths)
            ]
        for i, waveform in enumerate(waveforms):
            if not bool(waveform.isfinite().all()):
                raise FloatingPointError(f"item {items[i]}: the model gave samples that are not finite")
        # Copies made outside inference mode are tensors that the caller may change in place.
        return [waveform.clone() for waveform in waveforms]

    def sample(
        self,
        batch: Batch,
        sampler: Sampler,
        seed: int | Sequence[int],
        items: Sequence[int] | None = None,
        steering: Steering = UNSTEERED,
        constraint: Constraint | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> tuple[Tensor, list[int]]:
        """Returns what `synthesize` decodes: x [B, D, F], and the samples that each item's frames stand for.

        Args and errors are those of `synthesize`.
        """
        items = _items(batch, seed, items)
        noise = KeyedNoise(seed, items)
        schedule = self.denoiser.schedule
        with torch.inference_mode():
            denoise, condition = self.bind(batch, steering)
            lengths = self.lengths(batch, condition)
            shape = (batch.size, *self.representation.shape(max(lengths)))
            try:
                x = in_data_space(sampler, condition)(
                    denoise,
                    schedule,
                    sampler.start(schedule, noise(0, shape, self.device)),
                    lambda step, draw: noise(step, shape, self.device, draw),
                    None if constraint is None else whitened(constraint, condition),
                    on_step,
                )
            except NotFiniteError as error:
                named = ", ".join(str(items[place]) for place in error.places)
                raise FloatingPointError(f"item {named}: {error}") from error
            return color(x, condition), lengths

    def save(
        self, folder: str | Path, recipe: Mapping[str, Any], facts: Mapping[str, Any], card: str
    ) -> None:
        """Writes the model folder: beside it first, then renamed, so that no half folder is ever seen.

        Args:
            folder: where; an existing model folder there is replaced, any other folder with content refused.
            recipe: the resolved recipe with the key `model`.
            facts: how the model was trained (training.json).
            card: text of the model card.

        Raises:
            InputError: the disk is full or the place cannot be written or holds something else.
        """
        place = Path(folder)
        check_replaceable(place)
        with writing_folder(place) as draft:
            self.write(draft, recipe, facts, card)

    def write(self, folder: Path, recipe: Mapping[str, Any], facts: Mapping[str, Any], card: str) -> None:
        """Writes the four files of a model into an existing folder."""
        import yaml

        weights = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        (folder / WEIGHTS).write_bytes(to_bytes(weights))
        (folder / CONFIG).write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(dict(facts), indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card, encoding="utf-8")

    def _negative(self, batch: Batch, steering: Steering) -> Denoise:
        """Returns (x, t) -> clean under the labels to move away from."""
        labels = {name: (value,) * batch.size for name, value in (steering.negative or {}).items()}
        return self.denoiser.bind(self.condition(replace(batch, labels=dict(batch.labels) | labels)))

    def _check_null(self) -> None:
        if not self.labels:
            raise InputError(
                "guidance: this model is told no labels that guidance could exaggerate; use a scale of 1"
            )
        if self.recipe.get("training", {}).get("label_drop") == 0:
            raise InputError(
                "guidance: this model was trained without ever dropping its labels (training.label_drop 0), so it has "
                "no unconditional estimate to move away from; use a scale of 1, or guide against a weaker model"
            )

    def _frames(self, lengths: Tensor) -> Tensor:
        if int(lengths.min()) < 1:
            raise InputError(f"length: got {int(lengths.min())} samples, expected at least 1")
        return torch.tensor([self.representation.shape(length)[1] for length in lengths.tolist()])

    def _padding(self, lengths: Tensor) -> Tensor | None:
        """Returns the valid frames of each item, or None where no item is padded."""
        frames = self._frames(lengths)
        return None if bool((lengths == lengths[0]).all()) else frames

    def _samples(self, frames: int) -> int:
        """Returns the samples that so many frames last: whole hops, to which a representation adds a fixed number."""
        hop_length = self.representation.hop_length
        added = self.representation.shape(hop_length)[1] - 1
        return max((frames - added) * hop_length, 1)


def load(folder: str | Path, device: torch.device | str = "cpu") -> AudioDiffusion:
    """Returns the model saved in a folder, in evaluation mode, with its `recipe`.

    Args:
        folder: a model folder, a run folder that holds one named `model`, or the name of a shipped model.
        device: where the weights go.

    Raises:
        InputError: no model folder, damaged or foreign weights, a recipe that asks for other code than this
            package's parts, a device that cannot be used.
    """
    place = find_model(folder)
    check_device(device)
    recipe = read_recipe(place)
    model = build(recipe)
    weights = read_weights(place)
    expected = model.state_dict()
    problems = sorted(set(expected) ^ set(weights))
    problems += [key for key in expected if key in weights and expected[key].shape != weights[key].shape]
    if problems:
        raise InputError(
            f"{place}: {len(problems)} weights do not fit the recipe in {CONFIG}, first {problems[0]}; "
            "the two files belong to different models"
        )
    model.load_state_dict(weights)
    return model.to(device).eval()


def build(recipe: Mapping[str, Any]) -> AudioDiffusion:
    """Returns the untrained model that a recipe describes.

    Raises:
        InputError: a `_target_` outside the parts that may be built, or arguments that do not fit.
    """
    model = instantiate(recipe["model"])
    if not isinstance(model, AudioDiffusion):
        raise InputError(f"recipe: model builds a {type(model).__name__}, expected an AudioDiffusion")
    model.recipe = dict(recipe)
    return model


def _items(batch: Batch, seed: int | Sequence[int], items: Sequence[int] | None) -> Sequence[int]:
    """Returns the item numbers of a batch's noise."""
    if items is not None:
        return items
    return range(batch.size) if isinstance(seed, int) else [0] * batch.size
