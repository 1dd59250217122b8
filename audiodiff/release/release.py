"""Makes a trained model one that comes with audiodiff: rounded, measured, described, in a folder of its own.

Everything that the folder says is measured here or taken from what training and evaluation recorded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

import audiodiff
from audiodiff.errors import InputError
from audiodiff.evaluation.samples import training_facts
from audiodiff.evaluation.schedule_record import PICTURE as SCHEDULE_PICTURE
from audiodiff.evaluation.schedule_record import draw_schedules, with_section
from audiodiff.files import writing_folder
from audiodiff.hardware import device_name
from audiodiff.model import AudioDiffusion, build, find_model, read_recipe
from audiodiff.model_folder import SHEET, WEIGHTS, check_replaceable, folder_bytes, shipped_model
from audiodiff.release import picture
from audiodiff.release.card import CardParts, card, places, split_in_words, without_place
from audiodiff.release.kept import kept_weights
from audiodiff.release.results import Scored, beside_section, kept_numbers, main_score, read_scored, sections
from audiodiff.release.rounding import signal_to_noise_db
from audiodiff.release.sounds import CHECK, Asked, Instrument, half_second, recorded_tensors
from audiodiff.synthesis.cost import Meter, evaluations
from audiodiff.synthesis.sampling import SamplerChoice, describe, sampler_node

SCORES = "results.json"
MOST_BYTES = 12_000_000
DEFAULT_TEXT = "three one four"
_ROUNDING_SEEDS = range(1, 5)
_SPEED_SECONDS = 5.0  # of a vocoder's mel
_PICTURED_ROWS, _PICTURED_COLUMNS = 10, 3


@dataclass(frozen=True)
class Changes:
    """What is kept with the model instead of what its recipe has; None leaves that.

    Attributes:
        sampler: by name, steps, grid and eta.
        guidance: scale.
        mel_iterations: of a vocoder.
        vocoder: name of the shipped vocoder that makes a text model's mels audible.
    """

    sampler: SamplerChoice = field(default_factory=SamplerChoice)
    guidance: float | None = None
    mel_iterations: int | None = None
    vocoder: str | None = None

    def apply(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the changed recipe.

        Raises:
            InputError: a sampler that does not exist, a vocoder that is not shipped.
        """
        changed = deepcopy(dict(recipe))
        if self.sampler != SamplerChoice():
            changed["sampler"] = sampler_node(recipe, self.sampler)
        if self.guidance is not None:
            changed["guidance"] = self.guidance
        if self.mel_iterations is not None:
            changed["mel_iterations"] = self.mel_iterations
        if self.vocoder is not None:
            shipped_model(self.vocoder)
            changed["vocoder"] = self.vocoder
        return changed


@dataclass(frozen=True)
class Release:
    """What is to be released.

    Attributes:
        source: the trained model's folder.
        name: that it will have.
        results: folders that `audiodiff evaluate` wrote; the first one's first measure is the main score.
        half: whether matrices are rounded to float16.
        changes: to what the recipe keeps for synthesis.
        labels: of the recorded sound.
        text: of the recorded sound, for a model that speaks.
        beside: published figures: where they come from, and their file.
        limits: file that says what is weak; None for none.
        picture: to show; None for the one of the first results, or sounds of the model itself.
        rounds: of the measurement of speed.
        seed: of the recorded sound.
    """

    source: Path
    name: str
    results: Sequence[Path] = ()
    half: bool = True
    changes: Changes = field(default_factory=Changes)
    labels: Sequence[str] = ()
    text: str = DEFAULT_TEXT
    beside: Sequence[tuple[str, Path]] = ()
    limits: Path | None = None
    picture: Path | None = None
    rounds: int = 7
    seed: int = 0


def release(asked: Release, out: Path, command: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Writes the folder of a released model and returns its sheet.

    Args:
        asked: what is released.
        out: its folder; a model there is replaced.
        command: for the record.
        tell: told what is being done.

    Raises:
        InputError: no model there, results or files that cannot be read, a name that is no plain one, a folder of
            more than MOST_BYTES or that cannot be written.
    """
    if not asked.name or Path(asked.name).name != asked.name or asked.rounds < 1 or asked.seed < 0:
        raise InputError(
            f"--name {asked.name!r}, --rounds {asked.rounds}, --seed {asked.seed}: expected a plain name, one round or "
            "more, a seed of 0 or more"
        )
    check_replaceable(out)
    place = find_model(asked.source)
    scored = [read_scored(folder) for folder in asked.results]
    more = [beside_section(source, path) for source, path in asked.beside]
    limits = "" if asked.limits is None else _read_text(asked.limits)
    shown = picture.read(asked.picture) if asked.picture is not None else _picture_of(scored)
    full = _loaded(place, asked.changes)
    kept = kept_weights(full, place, asked.half)
    if kept.base is not None:
        tell(f"kept as changes to the shipped model {kept.base}")
    model = build(full.recipe)
    model.load_state_dict(kept.weights)
    model.eval()
    instrument = Instrument(model)
    sound = instrument.asked(place, asked.labels, asked.text)
    rounding = None
    if asked.half:
        tell("the effect of rounding ...")
        rounding = _rounding(Instrument(full), instrument, sound) | {"kept": kept.full}
    tell(f"speed, {asked.rounds} rounds ...")
    speed = _speed(instrument, instrument.longer(sound, _SPEED_SECONDS), asked.rounds)
    facts = training_facts(place)
    sheet = _sheet(asked, instrument, command) | {
        "base": kept.base,
        "score": main_score(scored[0]) if scored else None,
        "speed": speed,
        "rounding": rounding,
        "check": sound.record() | {"seed": asked.seed, "torch": str(torch.__version__)},
    }
    here = Path.cwd()
    parts = CardParts(
        sheet, full.recipe, facts, model.labels, split_in_words(facts), [*sections(scored), *more], limits
    )
    tell("the recorded sound and the picture ...")
    waveform = half_second(instrument(sound, asked.seed), model.sample_rate)
    drawn = shown if shown is not None else _drawn(instrument, sound, asked.seed)
    with writing_folder(out) as draft:
        text = without_place(_with_schedules(card(parts), model, draft), here)
        model.write(draft, without_place(full.recipe, here), without_place(facts, here), text)
        (draft / WEIGHTS).write_bytes(kept.content)
        (draft / CHECK).write_bytes(to_bytes(recorded_tensors(waveform, sound)))
        (draft / picture.PICTURE).write_bytes(drawn)
        numbers = without_place([kept_numbers(each) for each in scored], here)
        (draft / SCORES).write_text(_json(numbers, indent=None), encoding="utf-8")
        (draft / SHEET).write_text(_json(without_place(sheet, here), indent=1), encoding="utf-8")
        _check_size(draft)
    for left in places(text):
        tell(f"note: the card names a folder of this machine, {left}; give paths from the current folder on")
    return sheet


def _loaded(place: Path, changes: Changes) -> AudioDiffusion:
    """Returns the model with its changed recipe, in float32."""
    model = audiodiff.load(place)
    model.recipe = changes.apply(read_recipe(place))
    return model


def _sheet(asked: Release, instrument: Instrument, command: str) -> dict[str, Any]:
    model = instrument.model
    sampler = instrument.sampler
    own, other = evaluations(sampler, model.denoiser.schedule, model.steering)
    return {
        "name": asked.name,
        "task": instrument.task,
        "sample_rate": model.sample_rate,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": "float16" if asked.half else "float32",
        "sampler": ", ".join(describe(sampler).values()),
        "steps": len(sampler.times(model.denoiser.schedule)) - 1,
        "evaluations": own + other,
        "guidance": model.steering.guidance.scale,
        "mel_iterations": model.recipe.get("mel_iterations", 0),
        "lookahead_seconds": instrument.lookahead_seconds,
        "vocoder": model.recipe.get("vocoder"),
        "audiodiff": audiodiff.__version__,
        "command": command,
    }


def _rounding(full: Instrument, rounded: Instrument, sound: Asked) -> dict[str, Any]:
    """Returns how far the sounds of rounded weights are from those of the weights as they were."""
    pairs = [(full(sound, seed), rounded(sound, seed)) for seed in _ROUNDING_SEEDS]
    length = min(waveform.shape[-1] for pair in pairs for waveform in pair)
    whole, half = (torch.cat([pair[side][:, :length] for pair in pairs], -1) for side in (0, 1))
    level = signal_to_noise_db(whole, half)
    return {"signal_to_noise_db": None if level == float("inf") else round(level, 2), "sounds": len(pairs)}


def _speed(instrument: Instrument, sound: Asked, rounds: int) -> dict[str, Any]:
    """Returns the median real-time factor of some rounds, after one that warms up."""
    waveform = instrument(sound, 0)
    seconds = waveform.shape[-1] / instrument.model.sample_rate
    factors = []
    for seed in range(1, rounds + 1):
        meter = Meter(instrument.model.device)
        with meter:
            waveform = instrument(sound, seed)
        factors.append(meter.seconds * instrument.model.sample_rate / waveform.shape[-1])
    return {
        "real_time_factor": float(f"{median(factors):.4g}"),
        "audio_seconds": round(seconds, 3),
        "rounds": rounds,
        "hardware": device_name(instrument.model.device),
    }


def _drawn(instrument: Instrument, sound: Asked, seed: int) -> bytes:
    """Returns a picture of a model's own sounds: values of its first label, several seeds each."""
    labels = instrument.model.labels
    rows: dict[str, list[Tensor]] = {}
    name = next(iter(labels), None)
    values = [""] if name is None else list(labels[name])
    for value in values[:: -(-len(values) // _PICTURED_ROWS)]:
        told = dict(sound.labels) if name is None else dict(sound.labels) | {name: value}
        one = Asked(told, sound.text, sound.mel, sound.seconds)
        rows[value or instrument.task] = [instrument(one, seed + n) for n in range(_PICTURED_COLUMNS)]
    return picture.draw(rows, instrument.model.sample_rate)


def _picture_of(scored: Sequence[Scored]) -> bytes | None:
    """Returns the picture that the first evaluation left, None where it left none."""
    path = scored[0].folder / picture.PICTURE if scored else None
    return picture.read(path) if path is not None and path.is_file() else None


def _with_schedules(text: str, model: AudioDiffusion, folder: Path) -> str:
    """Returns the card with a section on the grids that were searched for the model, and draws them."""
    searched = model.recipe.get("searched_grids")
    if not searched:
        return text
    path = folder / SCHEDULE_PICTURE
    draw_schedules(searched, model.denoiser.schedule, path)
    path.write_bytes(picture.read(path))
    return with_section(text, searched)


def _check_size(folder: Path) -> None:
    """Refuses a folder that is too large to come with a package."""
    size = folder_bytes(folder)
    if size > MOST_BYTES:
        weights = (folder / WEIGHTS).stat().st_size
        raise InputError(
            f"{size / 1e6:.2f} MB, {weights / 1e6:.2f} of them weights: expected at most {MOST_BYTES / 1e6:g} MB; "
            "train a smaller model (size=small), or round its weights (--half)"
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error


def _json(content: Any, indent: int | None) -> str:
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
