"""What is written down of a run: facts (training.json) and the model card made from them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import audiodiff
from audiodiff.hardware import cpu_name
from audiodiff.interval import listed


def run_facts(
    recipe: Mapping[str, Any], command: str, hours: float, accelerator: Accelerator
) -> dict[str, Any]:
    """Returns experiment, corpus, hours of audio, hardware, seed, commit, command and versions."""
    return {
        "experiment": recipe["experiment"],
        "corpus": recipe["data"]["name"],
        "train_hours": round(hours, 4),
        "hardware": hardware(accelerator),
        "seed": recipe["training"]["seed"],
        "commit": commit(),
        "command": command,
        "torch": str(torch.__version__),
        "audiodiff": audiodiff.__version__,
    }


def hardware(accelerator: Accelerator) -> str:
    """Returns the name of the device and how many of them."""
    if accelerator.device.type == "cuda":
        return f"{accelerator.num_processes} x {torch.cuda.get_device_name(accelerator.device)}"
    return f"{cpu_name()}, {torch.get_num_threads()} threads x {accelerator.num_processes}"


def commit() -> str:
    """Returns the commit of the checkout that runs, with + when it has changes, or the version."""
    here = Path(audiodiff.__file__).resolve().parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return f"version {audiodiff.__version__}"
    return result.stdout.strip() or f"version {audiodiff.__version__}"


def model_card(
    recipe: Mapping[str, Any], facts: Mapping[str, Any], known_labels: Mapping[str, Sequence[str]]
) -> str:
    """Returns the model card: what it is, from what data, how it was trained. Only what was recorded."""
    table = _table(_material(recipe, facts) | ancestry(facts) | _course(recipe, facts))
    labels = "".join(f"\n- {name}: {listed(values)}" for name, values in known_labels.items())
    return (
        f"# {facts['experiment']}\n\nAn audiodiff model.\n\n| | |\n|---|---|\n{table}\n\n"
        f"Command: `{facts['command']}`\n"
        + (f"\nLabels:{labels}\n" if labels else "")
        + "\nLoad it with `audiodiff.load(folder)`.\n"
    )


def autoencoder_card(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Returns the card of an autoencoder."""
    table = _table(_material(recipe, facts) | _course(recipe, facts))
    return (
        f"# {facts['experiment']}\n\nAn autoencoder of audio, made by audiodiff.\n\n| | |\n|---|---|\n{table}\n\n"
        f"Command: `{facts['command']}`\n\nDiffuse its latents with `audiodiff train experiment=music_latent "
        "autoencoder=FOLDER`.\n"
    )


def _material(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    data = recipe["data"]
    return {
        "Corpus": f"{data['name']} ({facts['train_hours']:.2f} hours of training audio)",
        "Licence of the data": data["licence"],
        "Audio": f"{data['sample_rate']} Hz, {data['channels']} channel(s)",
        "Parameters": f"{facts['parameters'] / 1e6:.2f} M",
    }


def _course(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    return {
        "Updates": f"{facts['updates']} of {recipe['training']['global_batch_seconds']:g} s of audio",
        "Training time": f"{facts['train_seconds'] / 3600:.2f} h on {facts['hardware']}",
        "Validation loss": facts.get("validation_loss", "not recorded"),
        "Seed": facts["seed"],
        "Commit": facts["commit"],
    }


def _table(rows: Mapping[str, Any]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def ancestry(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the card's row about the model that training started from, if it did."""
    if "init" not in facts:
        return {}
    merged = f", adapter counted {facts['adapter_scale']:g} times" if "adapter_scale" in facts else ""
    trained = f"{facts['trained_parameters'] / 1e6:.3g} M of the parameters trained{merged}"
    return {"Fine-tuned from": f"{facts['init']} (SHA-256 {facts['init_sha256'][:16]}), {trained}"}
