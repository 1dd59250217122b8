"""The card of a released model: what it is, of what data, how it was made, how good and fast it is. As recorded."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiodiff.evaluation.report import UNKNOWN
from audiodiff.interval import listed
from audiodiff.release.picture import PICTURE
from audiodiff.release.sounds import CHECK, CHECK_SECONDS
from audiodiff.training.record import ancestry


@dataclass(frozen=True)
class CardParts:
    """What a card is made of besides the model's own facts.

    Attributes:
        sheet: numbers, as in release.json.
        recipe: of the model.
        facts: training.json.
        labels: name -> values.
        split: how the corpus was divided, in words.
        sections: about scores.
        limits: in words; empty where nothing was written.
    """

    sheet: Mapping[str, Any]
    recipe: Mapping[str, Any]
    facts: Mapping[str, Any]
    labels: Mapping[str, Sequence[str]]
    split: str
    sections: Sequence[str]
    limits: str


def card(parts: CardParts) -> str:
    """Returns the card as Markdown."""
    sheet = parts.sheet
    table = "\n".join(f"| {name} | {value} |" for name, value in _rows(parts).items())
    labels = "".join(f"\n- {name}: {listed(values)}" for name, values in parts.labels.items())
    text = [
        f"# {sheet['name']}",
        f"{sheet['task'].capitalize()}, {sheet['sample_rate']} Hz. It comes with audiodiff:",
        f"```sh\n{_command(sheet)}\n```",
        f"| | |\n|---|---|\n{table}",
        f"Trained by: `{parts.facts.get('command', UNKNOWN)}`",
        f"Made into this folder by: `{sheet['command']}`",
        *([f"Labels:\n{labels}"] if labels else []),
        f"![Spectrograms]({PICTURE})",
        *parts.sections,
        *([f"## Limits\n\n{parts.limits.strip()}"] if parts.limits.strip() else []),
        "## The recorded sound",
        f"`{CHECK}` holds the first {CHECK_SECONDS:g} s of what this model makes by itself, "
        f"seed {sheet['check']['seed']}, {_told(sheet['check'])}, as float32. A copy that gives another is damaged.",
    ]
    return "\n\n".join(text) + "\n"


def _rows(parts: CardParts) -> dict[str, str]:
    sheet, facts, data = parts.sheet, parts.facts, parts.recipe["data"]
    seconds = facts.get("train_seconds")
    hours = UNKNOWN if seconds is None else f"{seconds / 3600:.2f} h on {facts.get('hardware', UNKNOWN)}"
    audio = facts.get("train_hours")
    steps, update = sheet["steps"], parts.recipe["training"]["global_batch_seconds"]
    rows = {
        "Task": sheet["task"],
        "Main score": score_in_words(sheet["score"], intervals=True),
        "Data": f"{data['name']}" + ("" if audio is None else f", {audio:.2f} hours of training audio"),
        "Licence of the data": data["licence"],
        "Licence of the weights": _licence(str(data["licence"])),
        "Split": parts.split,
        "Audio": f"{sheet['sample_rate']} Hz, {data['channels']} channel(s)",
        "Parameters": f"{sheet['parameters'] / 1e6:.2f} M",
        **ancestry(facts),
        "Updates": f"{facts.get('updates', UNKNOWN)} of {update:g} s of audio",
        "Training time": hours,
        "Validation loss": str(facts.get("validation_loss", UNKNOWN)),
        "Seed": str(facts.get("seed", UNKNOWN)),
        "Commit": str(facts.get("commit", UNKNOWN)),
        "Sampler": f"{sheet['sampler']}, guidance {sheet['guidance']:g}"
        + (f", {sheet['mel_iterations']} mel iterations" if sheet["mel_iterations"] else ""),
        "Network evaluations": f"{sheet['evaluations']} in {steps} step{'' if steps == 1 else 's'}",
        "Speed": speed_in_words(sheet["speed"]),
        "Rounding": _rounding(sheet["rounding"]),
    }
    if sheet["lookahead_seconds"] is not None:
        iterations = ", without the mel iterations" if sheet["mel_iterations"] else ""
        rows["Streaming"] = f"{sheet['lookahead_seconds']:.2f} s of mel ahead{iterations}"
    if sheet["base"] is not None:
        rows["Kept as"] = f"low-rank changes of the shipped model `{sheet['base']}`, which is read with it"
    return rows | ({"Vocoder": f"`{sheet['vocoder']}`"} if sheet["vocoder"] else {})


def score_in_words(score: Mapping[str, Any] | None, intervals: bool = False) -> str:
    """Returns the main score, and those of others beside it."""
    if score is None:
        return UNKNOWN
    unit = f" {score['unit']}".rstrip()
    bounds = ""
    if intervals and score["interval_95"] is not None:
        bounds = " [{:.4g}, {:.4g}]".format(*score["interval_95"])
    beside = "".join(f", {name} {value:.4g}{unit}" for name, value in score["beside"].items())
    return f"{score['name']} {score['value']:.4g}{unit}{bounds} ({score['better']} is better{beside})"


def speed_in_words(speed: Mapping[str, Any]) -> str:
    """Returns how fast a model was, on what."""
    factor = speed["real_time_factor"]
    return (
        f"real-time factor {factor:.3g} ({1 / factor:.3g} times as fast as real time): the median of {speed['rounds']} "
        f"rounds of {speed['audio_seconds']:.3g} s, one sound at a time, on {speed['hardware']}"
    )


def _rounding(rounding: Mapping[str, Any] | None) -> str:
    if rounding is None:
        return "none: float32 weights"
    level = rounding["signal_to_noise_db"]
    heard = "no difference at all" if level is None else f"{level:.1f} dB of signal to difference"
    kept = f"; {len(rounding['kept'])} matrices do not fit and stay in float32" if rounding["kept"] else ""
    return f"matrices in float16; over {rounding['sounds']} sounds of the same seeds {heard} from float32 weights{kept}"


def _licence(licence: str) -> str:
    if "-SA" in licence or "share" in licence.lower():
        return f"that of the data, which is share-alike: {licence}; name the authors, and share alike"
    return "Apache-2.0, as the code; where the data's licence asks for a name, the name goes along"


def _command(sheet: Mapping[str, Any]) -> str:
    """Returns the command that makes sound of the model."""
    name, check = sheet["name"], sheet["check"]
    if check["text"] is not None:
        speaker = check["labels"].get("speaker")
        voice = "" if speaker is None else f" --speaker {speaker}"
        return f"audiodiff synthesize {name} --text {json.dumps(check['text'])}{voice} --out spoken"
    if sheet["task"] == "mel to waveform":
        return f"audiodiff vocode {name} recording.wav --out vocoded"
    labels = "".join(f" --label {label}={value}" for label, value in check["labels"].items())
    return f"audiodiff synthesize {name}{labels} --out sounds"


def _told(check: Mapping[str, Any]) -> str:
    if check["text"] is not None:
        return f"of the text “{check['text']}”"
    if check["seconds"] == 0:
        return "of the mel that lies beside it, a made-up vowel's"
    return ", ".join(f"{name} {value}" for name, value in check["labels"].items()) or "told nothing"


def split_in_words(facts: Mapping[str, Any]) -> str:
    """Returns how the corpus was divided, as its report tells at the place that the training command names."""
    words = shlex.split(str(facts.get("command", "")))
    places = [word.partition("=")[2].strip("'") for word in words if word.startswith("data_dir=")]
    try:
        report = json.loads((Path(places[0]) / "report.json").read_text(encoding="utf-8"))
        counts = ", ".join(
            f"{split} {part['cuts']} clips of {part['seconds'] / 60:.1f} min"
            for split, part in report["splits"].items()
        )
        return f"{report['split_rule']} ({counts})"
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return UNKNOWN


def places(text: str) -> list[str]:
    """Returns the absolute paths that a text names, each once."""
    return list(dict.fromkeys(re.findall(r"(?<![\w./:-])/[\w.-]+(?:/[\w.-]+)+", text)))


def without_place(value: Any, place: Path) -> Any:
    """Returns text, and all text within, with paths told from `place` on: nobody else has this machine's folders."""
    if isinstance(value, str):
        return re.sub(rf"{re.escape(str(place))}/(?:\./)*", "", value)
    if isinstance(value, Mapping):
        return {key: without_place(each, place) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_place(each, place) for each in value]
    return value
