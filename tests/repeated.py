"""What a released model's recorded commands give when they are run again, on the few files whose values are kept."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import typer

from audiodiff.audio import io
from audiodiff.audio.loudness import loudness_db
from audiodiff.cli.app import app
from audiodiff.evaluation.note_pitch import note_pitch
from audiodiff.evaluation.speech_scores import figures_of
from audiodiff.model import Steering, load
from audiodiff.synthesis.sampling import SamplerChoice, choose_sampler
from audiodiff.synthesis.text_to_speech import TextToSpeech
from audiodiff.types import Batch

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def options_of(command: str) -> dict[str, Any]:
    """What a recorded command line asks for, by the command line's own parser."""
    verb, *words = shlex.split(re.sub(r" \(the first of \d+\)$", "", command))[1:]
    return dict(COMMANDS[verb].make_context(verb, words).params)


def own_system(evaluation: Mapping[str, Any]) -> str:
    return str(evaluation["title"]).removeprefix("Results of ")


def sounds_command(evaluation: Mapping[str, Any], system: str | None = None) -> str:
    """The command that made the sounds of a system, by default the model's own."""
    return str(evaluation["facts"][system or own_system(evaluation)]["samples"]["command"])


def asked_files(evaluation: Mapping[str, Any], system: str | None = None) -> dict[str, dict[str, Any]]:
    """Labels and text of the few files of a system that are kept."""
    return dict(evaluation["asked"].get(system or own_system(evaluation), {}).get("files", {}))


def vocode_again(folder: Path, evaluation: Mapping[str, Any], recordings: list[Path], out: Path) -> None:
    """Runs the recorded `audiodiff vocode` of a model on some recordings."""
    asked = options_of(sounds_command(evaluation))
    changed = {"model": folder, "inputs": [str(each) for each in recordings], "out": out}
    COMMANDS["vocode"].callback(**(asked | changed))


def evaluate_again(folder: Path, evaluation: Mapping[str, Any], samples: Path, out: Path) -> dict[str, Any]:
    """Runs the recorded `audiodiff evaluate` on other sounds and returns its numbers; of the model's own row."""
    asked = options_of(evaluation["command"])
    changed = {
        "samples": samples,
        "model": folder,
        "out": out,
        "reference": None,
        "system": None,
    }
    COMMANDS["evaluate"].callback(**(asked | changed))
    return dict(json.loads((out / "metrics.json").read_text()))


def controls_again(
    folder: Path, evaluation: Mapping[str, Any], most: int
) -> dict[tuple[str, str], tuple[float, float]]:
    """Loudness and pitch of sounds made again, beside what was recorded: (measure, file) -> (recorded, found)."""
    model, compared = load(folder), {}
    for measure, systems in evaluation["control"].items():
        system, values = next(iter(systems.items()))  # the model's sounds for it, whatever they are called
        asked, files = options_of(sounds_command(evaluation, system)), asked_files(evaluation, system)
        choice = SamplerChoice(asked["sampler"], asked["steps"], asked["grid"], asked["eta"])
        sampler, guidance = choose_sampler(model.recipe, choice), model.steering.guidance
        steering = Steering(guidance.changed(asked["guidance"], None, None))
        seconds = asked["seconds"] or json.loads((folder / "training.json").read_text())["median_seconds"]
        for file, value in [(f, v) for f, v in values["files"].items() if f in files and v["measured"]][
            :most
        ]:
            told = {name: (files[file]["labels"].get(name, ""),) for name in model.labels}
            batch = Batch(None, torch.tensor([round(seconds * model.sample_rate)]), told)
            item = int(file.removesuffix(".wav").rpartition("_")[2])
            waveform = model.synthesize(batch, sampler, asked["seed"], [item], steering)[0]
            compared[measure, file] = value["measured"], _measured(measure, waveform, model.sample_rate)
    return compared


def _measured(measure: str, waveform: torch.Tensor, sample_rate: int) -> float:
    heard = waveform.clamp(-1, 1)
    if measure == "loudness":
        return loudness_db(heard, sample_rate)
    return note_pitch(heard.mean(0).numpy(), sample_rate)


def figures_again(
    folder: Path, evaluation: Mapping[str, Any], most: int
) -> dict[tuple[str, str], tuple[float, float]]:
    """Length and level of texts spoken again, beside what was recorded: (figure, file) -> (recorded, found)."""
    asked = options_of(sounds_command(evaluation))
    tts = TextToSpeech.load(
        folder, choice=SamplerChoice(asked["sampler"], asked["steps"], asked["grid"], asked["eta"])
    )
    recorded = evaluation["speech"]["systems"][own_system(evaluation)]["figures"]
    compared = {}
    for file, told in list(asked_files(evaluation).items())[:most]:
        speaker = told["labels"].get("speaker")
        speech = tts(told["text"], asked["seed"], speaker, asked["speed"] or 1.0, asked["temperature"])
        found = figures_of(speech.waveform.clamp(-1, 1).numpy(), tts.sample_rate, len(told["text"].split()))
        for name in ("seconds", "level"):
            compared[name, file] = recorded[name]["files"][file], found[name]
    return compared


def recording_of(file: str, data: Path) -> Path | None:
    """The recording of which a file was made, among real audio."""
    found = (path for path in sorted(data.rglob(f"{Path(file).stem}.*")) if path.suffix in io.AUDIO_SUFFIXES)
    return next(found, None)
