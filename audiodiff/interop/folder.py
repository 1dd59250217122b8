"""A foreign checkpoint as an ordinary model folder: recipe, weights, record and card.

`import_checkpoint` reads the file of a project, writes the recipe that builds the same model of this library's parts,
builds it, takes the weights, and saves the folder as training does. Beside the usual four files it holds
`experiment/PROJECT.yaml`, the recipe under which training goes on from the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import audiodiff
from audiodiff.diffusion.denoiser import Denoiser
from audiodiff.diffusion.parameterizations import epsilon, score, velocity
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.instantiation import instantiate
from audiodiff.interop import nodes, read_checkpoint
from audiodiff.interop.foreign import Foreign, Options
from audiodiff.interop.projects import PROJECTS
from audiodiff.interop.recognition import looks_like, tensors_of
from audiodiff.model import FACTS, AudioDiffusion, build

_PARAMETERIZATIONS = {"epsilon": epsilon, "score": score, "velocity": velocity}
NOTHING_SAID = Options()


@dataclass(frozen=True)
class Imported:
    """What was imported, and where it lies.

    Attributes:
        folder: the model folder.
        foreign: what was found.
        facts: what training.json says.
    """

    folder: Path
    foreign: Foreign
    facts: Mapping[str, Any]


def import_checkpoint(
    project: str, file: Path | str, folder: Path | str, options: Options = NOTHING_SAID
) -> Imported:
    """Writes the model folder of another project's checkpoint.

    Args:
        project: one of PROJECTS.
        file: the project's checkpoint, or its weights as `.safetensors`.
        folder: where the model goes; an earlier import there is replaced.
        options: what the file does not say.

    Raises:
        InputError: an unknown project, an option that it does not have, a file that is no checkpoint of it or whose
            tensors fit no model of it, a folder that holds something else.
    """
    path, place = Path(file), Path(folder)
    _check_options(project, options)
    _check_place(place)
    content = read_checkpoint(path)
    _check_project(project, content, path)
    foreign = _read(project, path, options)
    recipe = recipe_of(project, foreign)
    model = build(recipe).eval()
    model.denoiser.network.load_state_dict(foreign.network.state_dict())  # type: ignore[attr-defined]
    model.conditioner.load_state_dict(foreign.conditioner.state_dict())  # type: ignore[attr-defined]
    facts = _facts(project, path, len(tensors_of(content)), foreign)
    with writing_folder(place) as draft:
        model.write(draft, recipe, facts, card(foreign, facts))
        (draft / "experiment").mkdir()
        experiment = experiment_of(project, foreign, recipe)
        (draft / "experiment" / f"{project}.yaml").write_text(experiment, encoding="utf-8")
    return Imported(place, foreign, facts)


def recipe_of(project: str, foreign: Foreign) -> dict[str, Any]:
    """Returns the recipe of the imported model, in the form that training saves."""
    parameterization = nodes.function(_PARAMETERIZATIONS[foreign.prediction])
    model = nodes.target(AudioDiffusion) | {
        "representation": foreign.representation,
        "conditioner": foreign.told,
        "denoiser": nodes.target(Denoiser)
        | {
            "network": foreign.plan,
            "schedule": foreign.schedule,
            "parameterization": parameterization,
            "noise_label": nodes.node_of(foreign.noise_label),
        },
    }
    features = {} if foreign.log_mel is None else {"features": nodes.node_of(foreign.log_mel)}
    return _plain(
        {
            "experiment": project,
            "data": {
                "name": "unknown",
                "licence": "unknown",
                "sample_rate": foreign.sample_rate,
                "channels": foreign.channels,
                "segment_seconds": round(foreign.training.segment_seconds, 5),
                "labels": foreign.labels,
            },
            **features,
            "conditioner": foreign.told,
            "schedule": foreign.schedule,
            "model": model,
            "sampler": nodes.node_of(foreign.sampler),
            "training": {"label_drop": 0.0},  # none of the projects drops a label
            "mel_iterations": 0,
            "guidance": 1.0,
            "guidance_rescale": 0.0,
            "guidance_interval": [0.0, 1.0],
        }
    )


def experiment_of(project: str, foreign: Foreign, recipe: Mapping[str, Any]) -> str:
    """Returns the recipe under which training goes on from the model, as a file of recipes/experiment."""
    import yaml

    groups = {
        **dict.fromkeys(("conditioner", "schedule", "model", "sampler")),
        "prediction": foreign.prediction,
        "objective": foreign.training.objective,
        "times": foreign.training.times,
    }
    own = {key: recipe[key] for key in ("features", "conditioner", "schedule", "sampler") if key in recipe}
    elsewhere = {"log_mel": "${features}", "representation": "${model.representation}"}
    own["conditioner"] = {name: elsewhere.get(name, part) for name, part in own["conditioner"].items()}
    model = recipe["model"]
    content = {
        "defaults": [{f"override /{group}": name} for group, name in groups.items()],
        "experiment": project,
        **own,
        # The corpus says its own rate: one that does not fit is refused where the model is built.
        "model": model
        | {
            "representation": model["representation"] | {"sample_rate": "${data.sample_rate}"},
            "conditioner": "${conditioner}",
            "denoiser": model["denoiser"] | {"schedule": "${schedule}"},
        },
    }
    return (
        "# @package _global_\n# Training that goes on from this model:\n"
        f"# audiodiff train --config-dir FOLDER experiment={project} data=CORPUS init=FOLDER\n"
        + yaml.safe_dump(_plain(content), sort_keys=False)
    )


def card(foreign: Foreign, facts: Mapping[str, Any]) -> str:
    """Returns the model card."""
    rows = {
        "From": f"{facts['source']}, file `{facts['file']}`",
        "SHA-256": facts["sha256"],
        "Licence of code and weights": foreign.licence,
        "Training data": "not said by the file",
        "Audio": f"{foreign.sample_rate} Hz, {foreign.channels} channel(s)",
        "Mel": describe_mel(foreign),
        "Sampler": describe_sampler(foreign),
        "Trained with": f"objective {foreign.training.objective}, times {foreign.training.times}",
        "Parameters": f"{facts['parameters'] / 1e6:.2f} M",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    unknown = "".join(f"\n- {phrase}" for phrase in foreign.unknown)
    return (
        f"# {facts['project']}\n\nAn imported model: weights of another project in audiodiff's network.\n\n"
        f"| | |\n|---|---|\n{table}\n"
        + (f"\nWhat the file does not say:\n{unknown}\n" if unknown else "")
        + "\nLoad it with `audiodiff.load(folder)`. Its licence is the other project's, not audiodiff's.\n"
    )


def describe_mel(foreign: Foreign) -> str:
    """Returns the signal contract of the mel in one phrase."""
    log_mel = foreign.log_mel
    if log_mel is None:
        return "none"
    top = log_mel.f_max or log_mel.sample_rate / 2
    return (
        f"{log_mel.n_mels} bands of {log_mel.f_min:g} to {top:g} Hz ({log_mel.mel_scale}), every {log_mel.hop_length} "
        f"samples, FFT {log_mel.n_fft}, window {log_mel.win_length}, logarithm {log_mel.log_base}"
    )


def describe_sampler(foreign: Foreign) -> str:
    """Returns the project's sampler in one phrase."""
    sampler = foreign.sampler
    steps = len(sampler.times(instantiate(foreign.schedule))) - 1
    limits = {"x": sampler.constraint, "the clean estimate": sampler.projection}
    clamped = [f", {name} clamped to {part.low:g}..{part.high:g}" for name, part in limits.items() if part]  # type: ignore[attr-defined]
    return f"{type(sampler.step).__name__}, {steps} steps{''.join(clamped)}"


def _facts(project: str, file: Path, tensors: int, foreign: Foreign) -> dict[str, Any]:
    parameters = [*foreign.network.parameters(), *foreign.conditioner.parameters()]
    with file.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "project": project,
        "source": PROJECTS[project].source,
        "file": file.name,
        "sha256": checksum,
        "licence": foreign.licence,
        "tensors_in_file": tensors,
        "weights": len(parameters),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "unknown": list(foreign.unknown),
        "audiodiff": audiodiff.__version__,
    }


def _read(project: str, path: Path, options: Options) -> Foreign:
    try:
        return PROJECTS[project].read(path, options)
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        # Sizes that no model of the project has break an importer anywhere.
        raise InputError(
            f"{path}: its tensors or settings have sizes that no model of {project} has "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error


def _check_options(project: str, options: Options) -> None:
    if project not in PROJECTS:
        raise InputError(f"project {project!r} is unknown; choose one of {', '.join(PROJECTS)}")
    known = PROJECTS[project].options
    foreign = [name for name in options.given() if name not in known]
    if foreign:
        raise InputError(
            f"{_flag(foreign[0])}: says nothing about a checkpoint of {project}, which takes "
            f"{', '.join(_flag(name) for name in known)}"
        )


def _flag(name: str) -> str:
    return "--corrected" if name == "corrected" else "--" + name.replace("_", "-")


def _check_place(place: Path) -> None:
    """Refuses a place that holds anything but an earlier import."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    try:
        earlier = "project" in json.loads((place / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        earlier = False
    if not earlier:
        raise InputError(f"{place}: holds something that is no imported model; give another --out")


def _check_project(project: str, content: Mapping[str, Any], path: Path) -> None:
    found = looks_like(content)
    if found and project not in found:
        other = found[0]
        way = (
            f"import it with `audiodiff import {other} {path}`"
            if other in PROJECTS
            else "it is not imported yet"
        )
        raise InputError(f"{path}: looks like a checkpoint of {' or '.join(found)}, not of {project}; {way}")


def _plain(node: Any) -> Any:
    """Returns the node with lists for tuples, and no part shared, so that YAML needs no anchors."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, list | tuple) else node
