"""An adapter's folder: what a fine-tuning changed, kept apart from the model that it changed.

`adapter.safetensors` (A and B by layer, and the weights that were trained whole), `config.yaml` (the recipe of the
model that comes out, rank and scale, and the SHA-256 of the weights that the adapter belongs to) and `README.md`.
`merge` adds it to those weights again, by any share. No pickled code is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.model import CARD, CONFIG, AudioDiffusion, build, read_recipe
from audiodiff.training.initialization import Taken, initialize, provenance
from audiodiff.training.lora import LowRank, adapters, low_rank, trained_weights
from audiodiff.weights import low_rank_product

ADAPTER = "adapter.safetensors"
_DOWN, _UP = ".lora_A", ".lora_B"  # after a layer's name, in the file


@dataclass(frozen=True)
class Adapter:
    """A saved adapter.

    Attributes:
        tensors: A and B by layer, and whole weights by their own names.
        recipe: of the model that comes out.
        base: `name` and `sha256` of the model that it was trained on.
        settings: rank and scale.
        facts: how it was trained.
    """

    tensors: Mapping[str, Tensor]
    recipe: Mapping[str, Any]
    base: Mapping[str, str]
    settings: LowRank
    facts: Mapping[str, Any]

    def parts(self) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
        """Returns A and B by layer, and the tensors that were trained whole or are statistics, by name.

        Raises:
            InputError: one of the two without the other.
        """
        layers = {
            name.removesuffix(_DOWN).removesuffix(_UP) for name in self.tensors if name.endswith((_DOWN, _UP))
        }
        alone = sorted(layer for layer in layers if not {layer + _DOWN, layer + _UP} <= set(self.tensors))
        if alone:
            raise InputError(f"adapter: {alone[0]} has one of its two factors alone; the file is damaged")
        whole = {name: tensor for name, tensor in self.tensors.items() if not name.endswith((_DOWN, _UP))}
        return {
            layer: (self.tensors[layer + _DOWN], self.tensors[layer + _UP]) for layer in sorted(layers)
        }, whole


def save_adapter(
    folder: Path, model: AudioDiffusion, recipe: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    """Writes what was trained of an adapted model.

    Args:
        folder: replaced whole if it is there.
        model: with adapters, for example the averaged one.
        recipe: resolved, with the key `lora`.
        facts: how it was trained, with what `provenance` says of the base.

    Raises:
        InputError: the disk is full or the place cannot be written.
    """
    import yaml

    # What the base lacks may be a statistic, which is no parameter; all of them together are a few numbers.
    saved = model.state_dict()
    tensors = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    tensors |= {name: weight for name, weight in trained_weights(model).items() if ".lora_" not in name}
    for name, (down, up) in adapters(model).items():
        tensors |= {name + _DOWN: down, name + _UP: up}
    base = {"name": facts["init"], "sha256": facts["init_sha256"]}
    config = dict(recipe) | {"adapter": {"base": base, "lora": dict(recipe["lora"]), "facts": dict(facts)}}
    with writing_folder(folder) as draft:
        (draft / ADAPTER).write_bytes(to_bytes({name: t.contiguous().cpu() for name, t in tensors.items()}))
        (draft / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        (draft / CARD).write_text(_card(config), encoding="utf-8")


def find_adapter(folder: str | Path) -> Path | None:
    """Returns where the adapter in a folder or run folder lies; None where there is none."""
    places = (Path(folder), Path(folder) / "adapter")
    return next((place for place in places if (place / ADAPTER).is_file()), None)


def load_adapter(folder: str | Path) -> Adapter:
    """Returns the adapter in a folder, or in the run folder that holds one named `adapter`.

    Raises:
        InputError: there is none, or it is damaged.
    """
    place = find_adapter(folder)
    if place is None:
        raise InputError(
            f"{folder}: holds no {ADAPTER}; expected an adapter, as `audiodiff train` with lora leaves in "
            "exp/NAME/adapter"
        )
    recipe = read_recipe(place)
    node = recipe.pop("adapter", None)
    try:
        base = {key: str(node["base"][key]) for key in ("name", "sha256")}
        settings, facts = low_rank(node["lora"]), dict(node["facts"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{place / CONFIG}: does not say what the adapter belongs to") from error
    try:
        tensors = load_file(place / ADAPTER)
    except Exception as error:  # safetensors raises its own type for a truncated file
        raise InputError(f"{place / ADAPTER}: cannot be read as safetensors ({error})") from error
    return Adapter(tensors, recipe, base, settings, facts)


def merge(
    base: str | Path, adapter: Adapter, scale: float = 1.0, *, force_base: bool = False
) -> AudioDiffusion:
    """Returns base + scale * adapter as an ordinary model, with the adapter's recipe.

    Weights that were trained whole move by the same share from where the base has them; those that the base
    lacks, such as the rows of a new label name, are the adapter's.

    Args:
        base: folder of the model that the adapter was trained on.
        adapter: of load_adapter.
        scale: 1 for the model as it was trained, 0 for the base.
        force_base: take a base with other weights too, as long as the adapter fits it.

    Raises:
        InputError: another base than the adapter's, or one that it does not fit.
    """
    if not math.isfinite(scale):
        raise InputError(f"scale: got {scale}, expected a number such as 0.5")
    found = provenance(base)["init_sha256"]
    if found != adapter.base["sha256"] and not force_base:
        raise InputError(
            f"{base}: is not the model that this adapter was trained on, {adapter.base['name']} (sha256 "
            f"{adapter.base['sha256'][:12]}, here {found[:12]}); give that one, or add --force-base to try this one"
        )
    with torch.random.fork_rng():
        model = build(adapter.recipe)
    taken = initialize(model, base)
    weights = model.state_dict()
    products, whole = _changes(adapter, model, taken)
    with torch.no_grad():
        for name, change in products.items():
            weights[name].add_(change * (adapter.settings.scale * scale))
        for name, change in whole.items():
            if name in taken.new:
                weights[name].copy_(change)
            else:
                weights[name].lerp_(change, scale)
    return model.eval()


def _changes(
    adapter: Adapter, model: AudioDiffusion, taken: Taken
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns B A of each adapted weight, and the weights that were trained whole.

    Raises:
        InputError: tensors that do not fit, or weights that neither the base nor the adapter has.
    """
    weights, buffers = model.state_dict(), dict(model.named_buffers())
    layers, others = adapter.parts()
    products, problems = {}, [name for name in taken.new if name not in adapter.tensors]
    for layer, (down, up) in layers.items():
        weight = weights.get(f"{layer}.weight")
        if weight is None or not _fit(down, up, weight, adapter.settings.rank):
            problems.append(layer)
        else:
            products[f"{layer}.weight"] = low_rank_product(down, up, weight)
    whole = {}
    for name, tensor in others.items():
        if name in buffers and name in taken.same:
            continue  # the base's own statistics hold
        if name not in weights or weights[name].shape != tensor.shape:
            problems.append(name)
        whole[name] = tensor
    if problems:
        raise InputError(
            f"adapter: {len(problems)} of its parts do not fit this base, first {min(problems)}; it was trained on "
            f"{adapter.base['name']}"
        )
    return products, whole


def _fit(down: Tensor, up: Tensor, weight: Tensor, rank: int) -> bool:
    return down.shape == (rank, *weight.shape[1:]) and up.flatten(1).shape == (weight.shape[0], rank)


def _card(config: Mapping[str, Any]) -> str:
    """Returns the adapter's card: what it belongs to, from what data, how it was trained."""
    node, facts, data = config["adapter"], config["adapter"]["facts"], config["data"]
    settings = low_rank(node["lora"])
    rows = {
        "Belongs to": f"{node['base']['name']}, weights of SHA-256 {node['base']['sha256']}",
        "Rank": f"{settings.rank}, counted {settings.scale:g} times",
        "Trained": f"{facts['trained_parameters'] / 1e3:.1f} thousand numbers",
        "Corpus": f"{data['name']} ({facts['train_hours']:.2f} hours of training audio)",
        "Licence of the data": data["licence"],
        "Updates": f"{facts['updates']} of {config['training']['global_batch_seconds']:g} s of audio",
        "Validation loss": facts.get("validation_loss", "not recorded"),
        "Seed": facts["seed"],
        "Commit": facts["commit"],
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# {facts['experiment']}, adapter\n\nAn audiodiff adapter: what a fine-tuning changed, to be added to the "
        f"model that it was trained on.\n\n| | |\n|---|---|\n{table}\n\nCommand: `{facts['command']}`\n\n"
        f"Make a model of the two with `audiodiff merge {node['base']['name']} ADAPTER --out FOLDER`.\n"
    )
