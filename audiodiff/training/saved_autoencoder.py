"""Autoencoders in folders, and how a model of latents gets its own.

A folder holds `model.safetensors` (weights), `config.yaml` (the recipe, whose node `autoencoder` says what to build),
`README.md` and `training.json`, as a model's does, and no pickle; only parts of this package are built. A model of
latents takes node and weights over when its training starts and is saved with both, so that it needs no second folder;
its own folder can be named for an autoencoder's as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from audiodiff.audio.latent_representation import Autoencoder, LatentRepresentation
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.instantiation import instantiate
from audiodiff.model import CARD, CONFIG, FACTS, WEIGHTS, AudioDiffusion, find_model
from audiodiff.model_folder import model_name
from audiodiff.weights import read_weights, weights_digest

_WITHIN = "representation.autoencoder."  # its weights' names begin so in a model of latents
_ADVICE = "expected the folder of `audiodiff train-autoencoder`, or of a model of latents"


@dataclass(frozen=True)
class SavedAutoencoder:
    """What a folder is written of.

    Attributes:
        network: an Autoencoder.
    """

    network: nn.Module

    def write(self, folder: Path, recipe: Mapping[str, Any], facts: Mapping[str, Any], card: str) -> None:
        """Writes the four files into an existing folder; the recipe has a node `autoencoder`."""
        import yaml

        weights = {name: tensor.contiguous().cpu() for name, tensor in self.network.state_dict().items()}
        (folder / WEIGHTS).write_bytes(to_bytes(weights))
        (folder / CONFIG).write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
        (folder / FACTS).write_text(json.dumps(dict(facts), indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(card, encoding="utf-8")


def save_autoencoder(
    folder: str | Path, network: nn.Module, recipe: Mapping[str, Any], facts: Mapping[str, Any], card: str
) -> None:
    """Writes an autoencoder's folder whole, in place of what is there.

    Args:
        folder: where.
        network: an Autoencoder that the recipe's node builds.
        recipe: with the key `autoencoder`.
        facts: how it was trained.
        card: text of README.md.

    Raises:
        InputError: the place holds something else or cannot be written.
    """
    place = Path(folder)
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / CONFIG).is_file()):
        raise InputError(f"{place}: holds something that is no autoencoder; give another place to save to")
    with writing_folder(place) as draft:
        SavedAutoencoder(network).write(draft, recipe, facts, card)


def load_autoencoder(folder: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Returns the autoencoder in a folder, frozen, in evaluation mode.

    Raises:
        InputError: there is none, it is damaged, or its recipe asks for other code than this package's parts.
    """
    node, place = _find(folder)
    network = instantiate(node)
    if not isinstance(network, nn.Module) or not isinstance(network, Autoencoder):
        raise InputError(f"{place / CONFIG}: describes a {type(network).__name__}; {_ADVICE}")
    _fill(network, _weights(place), place)
    frozen: nn.Module = network.to(device).eval().requires_grad_(False)
    return frozen


def autoencoder_node(folder: str | Path) -> dict[str, Any]:
    """Returns the recipe node that builds the autoencoder in a folder.

    Raises:
        InputError: there is none.
    """
    return _find(folder)[0]


def adopt(model: AudioDiffusion, folder: str | None) -> dict[str, str]:
    """Gives a model of latents the weights of its autoencoder; returns facts that name it.

    Args:
        model: changed in place; another kind of model stays as it is.
        folder: of the autoencoder, None for none.

    Raises:
        InputError: a model of latents without an autoencoder, the other way round, or one that does not fit.
    """
    representation = model.representation
    if not isinstance(representation, LatentRepresentation):
        if folder is None:
            return {}
        raise InputError(
            f"autoencoder {folder}: this model diffuses a {type(representation).__name__} and no latents; "
            "choose model=latent"
        )
    if folder is None:
        raise InputError(
            "this model diffuses the latents of an autoencoder; name its folder with autoencoder=FOLDER"
        )
    place = _find(folder)[1]
    _fill(representation.autoencoder, _weights(place), place)
    return {"autoencoder": model_name(place), "autoencoder_sha256": weights_digest(place)}


def frozen_weights(model: AudioDiffusion) -> dict[str, Tensor]:
    """Returns copies of the weights of a model's autoencoder; none where it diffuses no latents."""
    if not isinstance(model.representation, LatentRepresentation):
        return {}
    return {name: weight.clone() for name, weight in model.representation.autoencoder.state_dict().items()}


def check_kept(model: AudioDiffusion, before: Mapping[str, Tensor], folder: str) -> None:
    """Refuses weights of a model whose latents mean something else.

    Args:
        model: after weights were taken from another model.
        before: its `frozen_weights` before that.
        folder: of the other model.

    Raises:
        InputError: the other model has another autoencoder.
    """
    after = frozen_weights(model)
    if any(not torch.equal(before[name], after[name]) for name in before):
        raise InputError(
            f"init {folder}: that model diffuses the latents of another autoencoder; name it for this one too, with "
            f"autoencoder={folder}"
        )


def _find(folder: str | Path) -> tuple[dict[str, Any], Path]:
    """Returns node and place of the autoencoder in a folder."""
    import yaml

    place = find_model(folder)
    try:
        recipe = yaml.safe_load((place / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{place / CONFIG}: cannot be read ({str(error).splitlines()[0]})") from error
    node = recipe.get("autoencoder") if isinstance(recipe, dict) else None
    if not isinstance(
        node, dict
    ):  # a model's recipe names there the folder that it was made with, or nothing
        node = recipe if isinstance(recipe, dict) else {}
        for key in ("model", "representation", "autoencoder"):
            node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise InputError(f"{place}: is no autoencoder; {_ADVICE}")
    return node, place


def _weights(place: Path) -> dict[str, Tensor]:
    weights = read_weights(place)
    within = {name.removeprefix(_WITHIN): w for name, w in weights.items() if name.startswith(_WITHIN)}
    return within or weights


def _fill(network: nn.Module, weights: Mapping[str, Tensor], place: Path) -> None:
    expected = network.state_dict()
    problems = sorted(set(expected) ^ set(weights))
    problems += [key for key in expected if key in weights and expected[key].shape != weights[key].shape]
    if problems:
        raise InputError(
            f"{place}: {len(problems)} weights do not fit the autoencoder that is built, first {problems[0]}"
        )
    network.load_state_dict(dict(weights))
