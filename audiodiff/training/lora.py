"""Low-rank adapters: a fine-tuning that leaves the model's weights as they were.

    W' = W + (alpha / rank) B A        A [rank, in x kernel], B [out, rank]

(Hu et al. 2022, "LoRA", section 4.1; for a convolution A has the kernel and B is 1x1.) A and B are trained, by peft's
layers, and beside them the parts that `train` names, whole. B starts at zero, so training starts from the model
itself. The average of the weights is that of A and B. Adding the products up gives an ordinary model; `adapter` keeps
what was trained in a folder of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.training.initialization import Taken, parts_of
from audiodiff.weights import low_rank_product

_DEFAULT_TARGETS = ("denoiser.network.*",)


@dataclass(frozen=True)
class LowRank:
    """The recipe's node `lora`.

    Attributes:
        rank: rows of A.
        alpha: the product counts alpha / rank.
        targets: patterns of module names, as "denoiser.network.blocks.*.expand"; None for every layer of the
            network that can have an adapter.
        train: parts that are trained whole, such as conditioner, where labels are new.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] | None = None
    train: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.alpha / self.rank


def low_rank(node: Mapping[str, Any]) -> LowRank:
    """Returns the settings of a recipe's node (recipes/lora/).

    Raises:
        InputError: keys that are not those of LowRank, or a value that is not of its kind.
    """
    names = [each.name for each in fields(LowRank)]
    if set(node) != set(names):
        raise InputError(f"lora: got {', '.join(map(str, node)) or 'nothing'}; expected {', '.join(names)}")
    settings = LowRank(
        rank=node["rank"],
        alpha=node["alpha"],
        targets=_names(node["targets"], "lora.targets"),
        train=_names(node["train"], "lora.train") or (),
    )
    if type(settings.rank) is not int or settings.rank < 1:
        raise InputError(f"lora.rank: got {settings.rank!r}, expected a whole number from 1 on, such as 8")
    if not (type(settings.alpha) in (int, float) and 0 < settings.alpha < math.inf):
        raise InputError(f"lora.alpha: got {settings.alpha!r}, expected a number above 0, such as 16")
    return settings


def adapt(model: AudioDiffusion, settings: LowRank, seed: int) -> None:
    """Gives layers of a model their adapters, and takes all else out of training but the parts in `train`.

    Parts that are frozen already get no adapter.

    Args:
        model: changed in place.
        settings: rank, scale and which layers.
        seed: of A.

    Raises:
        InputError: peft is absent, a part or pattern that names nothing, or no layer for an adapter.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError(
            "lora needs the package peft, which is not installed; install it with pip install 'audiodiff[lora]'"
        ) from error
    whole = _trained_whole(model, settings)
    names = _targets(model, settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(
            LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=names),  # type: ignore[arg-type]
            model,
        )
    for weight in whole:
        weight.requires_grad_(True)


def check_new(taken: Taken, settings: LowRank) -> None:
    """Refuses weights that the base lacks and that would stay as they began.

    Raises:
        InputError: new weights, or label tables with new rows, outside of `train`.
    """
    left = [name for name in (*taken.extended, *taken.new) if not _within(name, settings.train)]
    if left:
        parts = sorted({"conditioner" if name.startswith("conditioner.") else name for name in left})
        raise InputError(
            f"lora: {', '.join(left[:4])} {'is' if len(left) == 1 else 'are'} new and no adapter teaches it; "
            f"train it whole with lora.train=[{','.join((*settings.train, *parts))}]"
        )


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights in training by name."""
    return {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}


def adapters(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns A and B of each adapted layer by its name."""
    return {
        name: (layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach())
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A")
    }


def merged(model: AudioDiffusion, settings: LowRank) -> AudioDiffusion:
    """Returns a copy of an adapted model that is an ordinary one: every adapter added to its layer's weight."""
    plain = deepcopy(model)
    for name, (down, up) in adapters(model).items():
        base = plain.get_submodule(name).base_layer
        assert isinstance(base, nn.Module)
        with torch.no_grad():
            base.weight.add_(low_rank_product(down, up, base.weight) * settings.scale)  # type: ignore[arg-type, operator]
        plain.set_submodule(name, base)
    return plain


def _names(value: Any, key: str) -> tuple[str, ...] | None:
    """Returns a list of names of the recipe."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{key}: got {value!r}, expected a list of names such as [conditioner]")
    return tuple(value)


def _within(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _trained_whole(model: AudioDiffusion, settings: LowRank) -> list[nn.Parameter]:
    parts = parts_of(model, settings.train, "lora.train").values()
    weights = [
        weight
        for part in parts
        for weight in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]
    return [weight for weight in weights if weight.requires_grad]


def _targets(model: AudioDiffusion, settings: LowRank) -> list[str]:
    """Returns the names of the layers that get an adapter."""
    able = sorted(name for name, module in model.named_modules() if _able(module))
    patterns = settings.targets or _DEFAULT_TARGETS
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in able):
            raise InputError(
                f"lora.targets: {pattern!r} matches no layer that can have an adapter (linear layers and convolutions "
                f"without dilation or groups, in training); there are {', '.join(able[:8])}, ..."
            )
    names = [name for name in able if any(fnmatchcase(name, pattern) for pattern in patterns)]
    names = [name for name in names if not _within(name, settings.train)]
    if not names:
        raise InputError(
            "lora: lora.train names every layer that could have an adapter; leave one to lora.targets, "
            "or train without lora"
        )
    return names


def _able(module: nn.Module) -> bool:
    """Returns whether peft's layer computes what the module does, and the product fits its weight."""
    # peft gives A the kernel's size, stride and padding and nothing else; a subclass may do anything in its forward.
    if type(module) not in (nn.Linear, nn.Conv1d, nn.Conv2d):
        return False
    if isinstance(module, nn.Conv1d | nn.Conv2d) and (
        module.groups != 1 or set(module.dilation) != {1} or module.padding_mode != "zeros"
    ):
        return False
    assert isinstance(module.weight, nn.Parameter)
    return module.weight.requires_grad
