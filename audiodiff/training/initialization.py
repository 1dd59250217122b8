"""Starts a training from another model's weights, and freezes parts of it.

What has the same name and shape is taken, weights and statistics alike: the new audio is normalised as the old was,
since the network knows no other scale. Label tables are matched by value: known values keep their rows, new ones
begin as "any"; a label name that is new begins by saying nothing, one that is gone counts as "any" for good. So the
model starts as the one that it came from. A number of the same interval keeps its function, one of another interval is
a new label. A weight that fits nowhere is named, never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiodiff.audio.mel_representation import MelRepresentation
from audiodiff.conditioning.label import IntervalTable, Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.text_conditioner import SpokenText
from audiodiff.errors import InputError
from audiodiff.interval import Interval
from audiodiff.model import AudioDiffusion, find_model, load
from audiodiff.model_folder import model_name
from audiodiff.weights import weights_digest

_NETWORK = "denoiser.network."
_LEAST_SHARE = (
    0.5  # of the network's weights; one of another size has its embedding and a few biases in common
)
_LOUDER = 1.5  # from here on the scale of the new audio is worth a word
# Settings of a network that change neither what it computes nor, beyond what is named anyway, its weights.
_UNTOLD = ("_target_", "checkpointing", "local_features", "vector_features")


@dataclass(frozen=True)
class Taken:
    """What an initialization did.

    Attributes:
        same: names taken as they were.
        extended: label tables of which some rows are new.
        new: names that the other model lacks, or has in another shape.
        left: names that only the other model has.
        notes: what else differs between the two models.
    """

    same: tuple[str, ...]
    extended: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def describe(self, folder: str | Path) -> str:
        """Returns one line for people."""
        line = f"{len(self.same)} weights and statistics from {folder}"
        for word, names in (("extended", self.extended), ("new", self.new), ("left out", self.left)):
            if names:
                line += f"; {len(names)} {word}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        return "; ".join((line, *self.notes))


def initialize(model: AudioDiffusion, folder: str | Path) -> Taken:
    """Copies the weights and statistics of a saved model into `model`.

    Raises:
        InputError: no model there, another sample rate, mel, representation or network, or a network of another
            size.
    """
    source = load(folder)
    _check_signal(model, source, folder)
    theirs, ours = source.state_dict(), model.state_dict()
    tables = _tables(model, source)
    places = {name: _place(name, model, source) for name in ours if name not in tables}
    same = [
        name for name, place in places.items() if place in theirs and ours[name].shape == theirs[place].shape
    ]
    _check_network(model, source, folder, same)
    notes = _notes(model, source)
    with torch.no_grad():
        for name in same:
            ours[name].copy_(theirs[places[name]])
        for name, table in tables.items():
            ours[name].copy_(table.rows)
    used = {places[name] for name in same} | {table.source for table in tables.values()}
    return Taken(
        same=(*same, *(name for name, table in tables.items() if table.known == "all")),
        extended=tuple(name for name, table in tables.items() if table.known == "some"),
        new=tuple(sorted(ours.keys() - set(same) - {n for n, t in tables.items() if t.known != "none"})),
        left=tuple(sorted(theirs.keys() - used)),
        notes=notes,
    )


def provenance(folder: str | Path) -> dict[str, str]:
    """Returns the facts that name a saved model: the name of its folder and the SHA-256 of its weights.

    Raises:
        InputError: no model there.
    """
    place = find_model(folder)
    return {"init": model_name(place), "init_sha256": weights_digest(place)}


def freeze(model: nn.Module, parts: Sequence[str]) -> int:
    """Takes every parameter under the named parts out of training and returns how many numbers that are.

    Raises:
        InputError: a name that is no part of the model, or nothing left to train.
    """
    for part in parts_of(model, parts, "training.freeze").values():
        part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("training.freeze: nothing is left to train")
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)


def parts_of(model: nn.Module, parts: Sequence[str], key: str) -> dict[str, nn.Module | nn.Parameter]:
    """Returns modules and parameters by their dotted names.

    Args:
        model: whose parts.
        parts: names, as training.freeze and lora.train list them.
        key: of the recipe, for messages.

    Raises:
        InputError: a name that is no part of the model; the choices at the place where it goes wrong are listed.
    """
    if isinstance(parts, str):
        raise InputError(f"{key}: got {parts!r}, expected a list such as [{parts}]")
    names: dict[str, nn.Module | nn.Parameter] = {
        **dict(model.named_modules()),
        **dict(model.named_parameters()),
    }
    for part in parts:
        if not part or part not in names:
            known = part
            while known and known not in names:
                known = known.rpartition(".")[0]
            start = f"{known}." if known else ""
            children = [name for name in names if name.startswith(start) and "." not in name[len(start) :]]
            raise InputError(
                f"{key}: {part!r} is no part of this model; choose from "
                f"{', '.join(name for name in children if name) or known}, or below"
            )
    return {part: names[part] for part in parts}


@dataclass(frozen=True)
class _Table:
    """A label table as it starts.

    Attributes:
        rows: [values + 1, features], the last is "any".
        source: name of the other model's table, "" if it has none.
        known: how many of the values the other model knows: "all", "some", or "none" for a new label name.
    """

    rows: Tensor
    source: str
    known: str


def _tables(model: AudioDiffusion, source: AudioDiffusion) -> dict[str, _Table]:
    """Returns the model's label tables by their weights' names, where the source is told labels of as many features."""
    (prefix, ours), (their_prefix, theirs) = (_part(each, Labels) for each in (model, source))
    if ours is None or theirs is None:
        return {}
    assert isinstance(ours, Labels)
    assert isinstance(theirs, Labels)
    if _features(ours) != _features(theirs):
        return {}
    tables: dict[str, _Table] = {}
    for label, values in ours.values.items():
        name, their_name = f"{prefix}tables.{label}.", f"{their_prefix}tables.{label}."
        before = theirs.values.get(label)
        if isinstance(values, Interval):
            known = before == values
            table = (theirs if known else ours).tables[label]
            tables |= _numbers(table, name, their_name if known else "")
        elif before is None or isinstance(before, Interval):
            tables[name + "weight"] = _Table(torch.zeros(len(values) + 1, _features(ours)), "", "none")
        else:
            index = [before.index(value) if value in before else len(before) for value in (*values, None)]
            rows = theirs.tables[label].get_parameter("weight").detach()[index].clone()
            known_names = "all" if set(values) <= set(before) else "some"
            tables[name + "weight"] = _Table(rows, their_name + "weight", known_names)
    # What the source heard of a label that is gone was at best its "any": it now belongs to every row of one table.
    first = f"{prefix}tables.{next(iter(ours.values))}."
    for label in theirs.values:
        if label not in ours.values:
            for name in (first + "weight", first + "any", first + "layers.2.bias"):
                if name in tables:
                    tables[name].rows.add_(_any(theirs, label))
    return tables


def _numbers(table: nn.Module, name: str, source: str) -> dict[str, _Table]:
    """Returns the weights of a function of numbers as they are, or without a source such that it says nothing."""
    weights = {key: weight.detach().clone() for key, weight in table.state_dict().items()}
    if source:
        return {name + key: _Table(weight, source + key, "all") for key, weight in weights.items()}
    for key in ("layers.2.weight", "layers.2.bias", "any"):
        weights[key].zero_()
    return {name + key: _Table(weight, "", "none") for key, weight in weights.items()}


def _any(labels: Labels, name: str) -> Tensor:
    """Returns the vector [features] that a label says when its value is left open."""
    table = labels.tables[name]
    return (table.any if isinstance(table, IntervalTable) else table.get_parameter("weight")[-1]).detach()


def _features(labels: Labels) -> int:
    return _any(labels, next(iter(labels.values))).shape[0]


def _part(model: AudioDiffusion, kind: type[nn.Module]) -> tuple[str, nn.Module | None]:
    """Returns the conditioner's first part of a kind and the start of its weights' names."""
    for name, part in model.named_modules():
        if name.startswith("conditioner") and isinstance(part, kind):
            return f"{name}.", part
    return "", None


def _place(name: str, model: AudioDiffusion, source: AudioDiffusion) -> str:
    """Returns where the source has a weight: elsewhere if it hears a mel or text alone and the model jointly."""
    for kind in (Mel, SpokenText):
        (ours, part), (theirs, other) = _part(model, kind), _part(source, kind)
        if part is not None and other is not None and name.startswith(ours):
            return theirs + name[len(ours) :]
    return name


def _check_signal(model: AudioDiffusion, source: AudioDiffusion, folder: str | Path) -> None:
    """Refuses a source that learned another signal."""
    if source.sample_rate != model.sample_rate:
        raise InputError(
            f"init {folder}: a model of {source.sample_rate} Hz for audio of {model.sample_rate} Hz; what it learned "
            f"lies at other frequencies, so prepare the corpus at {source.sample_rate} Hz, or train without init"
        )
    for ours, theirs in zip(_mels(model), _mels(source), strict=True):
        if ours is not None and theirs is not None and (lines := theirs.log_mel.difference(ours.log_mel)):
            raise InputError(
                f"init {folder}: that model was trained with another mel than this recipe has: {'; '.join(lines)}; "
                "choose its features, or train without init"
            )
    lines = [
        f"{name}: {ours}, expected {theirs}"
        for (name, ours), (_, theirs) in zip(_signal(model), _signal(source), strict=True)
        if ours != theirs
    ]
    if lines:
        raise InputError(
            f"init {folder}: that model diffuses another signal than this recipe: {'; '.join(lines)}; "
            "choose its representation, or train without init"
        )


def _mels(model: AudioDiffusion) -> tuple[Mel | MelRepresentation | None, ...]:
    """Returns what hears a mel, and what diffuses one."""
    heard = _part(model, Mel)[1]
    assert heard is None or isinstance(heard, Mel)
    diffused = model.representation
    return heard, diffused if isinstance(diffused, MelRepresentation) else None


def _signal(model: AudioDiffusion) -> list[tuple[str, Any]]:
    part = model.representation
    return [
        ("representation", type(part).__name__),
        ("hop_length", part.hop_length),
        ("channels", part.channels),
        ("features", part.shape(part.sample_rate)[0]),
    ]


def _check_network(
    model: AudioDiffusion, source: AudioDiffusion, folder: str | Path, same: Sequence[str]
) -> None:
    """Refuses a source whose network is another one, or so unlike in size that next to nothing is taken."""
    ours, theirs = type(model.denoiser.network).__name__, type(source.denoiser.network).__name__
    own = {name for name, _ in model.named_parameters() if name.startswith(_NETWORK)}
    taken = [name for name in same if name in own]
    if ours == theirs and len(taken) >= _LEAST_SHARE * len(own):
        return
    recipe, size = source.recipe.get("experiment", "its own"), source.recipe.get("size")
    reason = (
        f"a {theirs} for a {ours}"
        if ours != theirs
        else "; ".join(_settings(model, source)) or "another size"
    )
    fitting = f"only {', '.join(taken[:4])}{', ...' if len(taken) > 4 else ''}" if taken else "none"
    raise InputError(
        f"init {folder}: its network is another one ({reason}): of {len(own)} weights {len(taken)} fit, {fitting}; "
        f"it was trained by the recipe {recipe}{f' with size={size}' if size else ''}: choose that network and size"
    )


def _notes(model: AudioDiffusion, source: AudioDiffusion) -> tuple[str, ...]:
    """Returns what changes for the network though its weights fit."""
    notes = [f"the network has {line}" for line in _settings(model, source)]
    ours, theirs = model.denoiser, source.denoiser
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    levels = [(part.schedule.alpha(t), part.schedule.sigma(t)) for part in (ours, theirs)]
    if not all(torch.allclose(one, other) for one, other in zip(*levels, strict=True)):
        notes.append("the noise schedule is another one")
    asked, learned = (torch.stack(part.parameterization(*levels[0])) for part in (ours, theirs))
    if not torch.allclose(asked, learned):
        notes.append("the network has to predict something else than it learned to")
    if type(ours.noise_label) is not type(theirs.noise_label):
        notes.append("the noise level is told in another way")
    measured, known = model.representation.std, source.representation.std
    ratio = float(measured.norm() / known.norm())
    # A model of another project that normalises nothing has ones.
    if bool((known != 1).any()) and not 1 / _LOUDER < ratio < _LOUDER:
        notes.append(
            f"this audio has {ratio:.2g} times the deviation of the source's, by which it is normalised"
        )
    return tuple(notes)


def _settings(model: AudioDiffusion, source: AudioDiffusion) -> list[str]:
    """Returns the settings of the networks that both recipes state and that differ, one line each."""
    ours, theirs = (_leaves(each.recipe.get("model", {})) for each in (model, source))
    start = "denoiser.network."
    return [
        f"{name.removeprefix(start)} {value}, the source {theirs[name]}"
        for name, value in ours.items()
        if name.startswith(start)
        and name in theirs
        and theirs[name] != value
        and name.rpartition(".")[2] not in _UNTOLD
    ]


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of a nested mapping by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= (
            _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        )
    return leaves
