"""The optimizer and the learning rate as a function of the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from audiodiff.errors import InputError


def build_optimizer(node: Mapping[str, Any], model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Returns Adam or AdamW, in its fused form.

    Weight decay leaves out biases, norms and embeddings of one dimension, which it would only shrink.

    Args:
        node: `name` (Adam or AdamW), `lr`, `betas`, `weight_decay`.
        model: whose parameters are trained.
        device: of the parameters.

    Raises:
        InputError: unknown optimizer.
    """
    kinds = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}
    if node["name"] not in kinds:
        raise InputError(f"optimizer.name: got {node['name']!r}, expected one of {', '.join(kinds)}")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": node["weight_decay"]},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = device.type in ("cpu", "cuda")
    return kinds[node["name"]](groups, lr=node["lr"], betas=tuple(node["betas"]), fused=fused)


def learning_rate(highest: float, settings: Mapping[str, Any]) -> Callable[[int], float]:
    """Returns update -> learning rate: linear warm-up, then cosine down to `final_lr_factor` of the highest.

    Args:
        highest: the rate after the warm-up.
        settings: `warmup_updates`, `updates`, `final_lr_factor` (1 keeps the rate constant).
    """
    warmup, updates, final = settings["warmup_updates"], settings["updates"], settings["final_lr_factor"]

    def rate(update: int) -> float:
        rise = min(1.0, (update + 1) / max(1, warmup))
        progress = min(1.0, max(0, update - warmup) / max(1, updates - warmup))
        return highest * rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))

    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Sets the learning rate of all groups and returns it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
