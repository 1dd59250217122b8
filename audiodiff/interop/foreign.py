"""What is known of a foreign model, in the words of a recipe, and what a user says of it beside its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch import nn

from audiodiff.audio.mel import LogMel
from audiodiff.diffusion.denoiser import NoiseLabel
from audiodiff.diffusion.samplers import Sampler
from audiodiff.interop.nodes import Node


@dataclass(frozen=True)
class Options:
    """What a user says of a checkpoint beside its file; None where nothing is said.

    Attributes:
        config: the project's configuration, JSON or YAML.
        schedule: a file of betas for sampling.
        stats: the project's folder `stats_priorgrad`.
        sample_rate: Hz.
        sample_size: samples of a training segment.
        corrected: whether the code that trained it adds the step embedding out of place.
    """

    config: Path | None = None
    schedule: Path | None = None
    stats: Path | None = None
    sample_rate: int | None = None
    sample_size: int | None = None
    corrected: bool | None = None

    def given(self) -> tuple[str, ...]:
        """Returns the names of the options that say something."""
        return tuple(option.name for option in fields(self) if getattr(self, option.name) is not None)


@dataclass(frozen=True)
class Training:
    """How the project trains, as names of recipe groups, and the length of its training segments.

    Attributes:
        objective: of recipes/objective.
        times: of recipes/times.
        segment_seconds: length of a training segment.
    """

    objective: str
    times: str
    segment_seconds: float


@dataclass(frozen=True)
class Foreign:
    """A foreign model: the nodes of its recipe, and the network whose weights are taken.

    Attributes:
        network: its weights, under this library's names.
        plan: the network's node.
        representation: node of what is diffused.
        conditioner: with its weights and statistics.
        told: the conditioner's node.
        log_mel: what a vocoder hears or an acoustic model makes; None for neither.
        sample_rate: Hz.
        channels: of the audio.
        schedule: node of the training schedule.
        prediction: of recipes/prediction, what the network predicts.
        noise_label: what the network is told of t.
        sampler: the project's own.
        training: how the project trains.
        licence: of code and weights.
        unknown: what the file does not say and was assumed, one phrase each.
        labels: names and values of the labels that it is told.
    """

    network: nn.Module
    plan: Node
    representation: Node
    conditioner: nn.Module
    told: Node
    log_mel: LogMel | None
    sample_rate: int
    channels: int
    schedule: Node
    prediction: str
    noise_label: NoiseLabel
    sampler: Sampler
    training: Training
    licence: str
    unknown: tuple[str, ...]
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """A project whose checkpoints are imported.

    Attributes:
        source: where its code is.
        options: the fields of Options that its importer reads.
        read: reads a checkpoint.
    """

    source: str
    options: tuple[str, ...]
    read: Callable[[Path, Options], Foreign]
