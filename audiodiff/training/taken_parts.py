"""Takes named parts of a saved model into one of another kind: the text encoder of a model of mels into one of audio.

The parts have to be the same in both. A text encoder's mean frames are mels normalised by the statistics of its model,
so that these come with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.text import TextEncoder
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, load
from audiodiff.training.initialization import Taken, parts_of


def take_parts(model: AudioDiffusion, folder: str | Path, parts: Sequence[str]) -> Taken:
    """Copies parts of a saved model into `model`; everything else stays as it is.

    Args:
        model: changed in place.
        folder: of the other model.
        parts: dotted names, such as conditioner.encoder, the same in both models.

    Raises:
        InputError: no model there, a part that one of them lacks or has in other shapes, or text encoders that speak
            of different mels.
    """
    source = load(folder)
    if source.sample_rate != model.sample_rate:
        raise InputError(
            f"init {folder}: a model of {source.sample_rate} Hz for audio of {model.sample_rate} Hz; take one of the "
            "same rate"
        )
    chosen = parts_of(model, parts, "init_parts")
    ours, theirs = model.state_dict(), source.state_dict()
    names = [name for name in ours if any(name == part or name.startswith(f"{part}.") for part in chosen)]
    unlike = [name for name in names if name not in theirs or theirs[name].shape != ours[name].shape]
    if unlike:
        theirs_has = "lacks it" if unlike[0] not in theirs else f"has {list(theirs[unlike[0]].shape)}"
        raise InputError(
            f"init_parts: {len(unlike)} weights do not fit {folder}, first {unlike[0]} {list(ours[unlike[0]].shape)}, "
            f"that model {theirs_has}; choose sizes, labels and text as that model has them"
        )
    with torch.no_grad():
        for name in names:
            ours[name].copy_(theirs[name])
    if any(isinstance(each, TextEncoder) for part in chosen.values() for each in _modules(part)):
        names += _take_scale(model, source, folder)
    return Taken(
        tuple(names), (), tuple(sorted(ours.keys() - set(names))), tuple(sorted(theirs.keys() - set(names)))
    )


def _modules(part: torch.nn.Module | torch.nn.Parameter) -> list[torch.nn.Module]:
    return list(part.modules()) if isinstance(part, torch.nn.Module) else []


def _take_scale(model: AudioDiffusion, source: AudioDiffusion, folder: str | Path) -> list[str]:
    """Takes the statistics of the mel that a text encoder speaks of, and returns their names.

    Raises:
        InputError: the two mels are defined differently.
    """
    (name, ours), (_, theirs) = _mel_of(model), _mel_of(source)
    lines = theirs.log_mel.difference(ours.log_mel)
    if lines:
        raise InputError(
            f"init {folder}: its text encoder speaks of another mel than this recipe has: {'; '.join(lines)}; choose "
            "its features"
        )
    with torch.no_grad():
        ours.mean.copy_(theirs.mean)
        ours.std.copy_(theirs.std)
    return [f"{name}.mean", f"{name}.std"]


def _mel_of(model: AudioDiffusion) -> tuple[str, MelRepresentation | Mel]:
    """Returns the mel that a model's text encoder speaks of, with its name: what is diffused, or what is heard."""
    if isinstance(model.representation, MelRepresentation):
        return "representation", model.representation
    return next((name, part) for name, part in model.named_modules() if isinstance(part, Mel))
