"""Small checkpoints of every project, written as the projects write them.

Weights of the projects that the fixtures folder does not hold are drawn by the rule that their stored numbers were
made with, see tests/parity.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from audiodiff.interop.foreign import Options
from tests.parity import test_dance_diffusion, test_fregrad, test_ivanvovk_wavegrad, test_priorgrad
from tests.parity.stored_numbers import arrays, rebuilt

Written = tuple[Path, Options]
"""A checkpoint, and what has to be said of it."""


def meta_of(path: Path) -> dict[str, Any]:
    """What a fixture says of itself."""
    with np.load(path, allow_pickle=False) as content:
        return json.loads(str(content["meta_json"]))


def lmnt_diffwave(folder: Path, fixtures: Path, name: str = "small") -> Written:
    """The project's `.pt`: weights and params."""
    weights = load_file(fixtures / "lmnt_diffwave" / f"{name}_weights.safetensors")
    params = meta_of(fixtures / "lmnt_diffwave" / f"{name}_io.npz")["params"]
    torch.save(
        {"step": 1, "model": weights, "optimizer": {}, "params": params, "scaler": {}}, folder / "lmnt.pt"
    )
    return folder / "lmnt.pt", Options()


def lmnt_diffwave_unconditional(folder: Path, fixtures: Path) -> Written:
    """A model that hears nothing."""
    return lmnt_diffwave(folder, fixtures, "uncond_small")


def lmnt_wavegrad(folder: Path, fixtures: Path) -> Written:
    """Weights alone."""
    return fixtures / "lmnt_wavegrad" / "small_weights.safetensors", Options()


def philsyn_vocoder(folder: Path, fixtures: Path) -> Written:
    """The project's `.pkl`, config.json beside it."""
    return fixtures / "philsyn_vocoder" / "123.pkl", Options()


def philsyn_unconditional(folder: Path, fixtures: Path) -> Written:
    """The project's `.pkl` of a model that hears nothing."""
    return fixtures / "philsyn_unconditional" / "123.pkl", Options(corrected=True)


def ivanvovk_wavegrad(folder: Path, fixtures: Path) -> Written:
    """The project's `.pt`, config.json beside it, and betas for sampling."""
    weights = test_ivanvovk_wavegrad.rebuilt() | {"betas": torch.linspace(1e-6, 0.01, 50)}
    torch.save({"iteration": 3, "model": weights, "optimizer": {}}, folder / "checkpoint_3.pt")
    (folder / "config.json").write_text(json.dumps(test_ivanvovk_wavegrad.config()))
    torch.save(torch.tensor([1e-6, 1e-4, 0.01, 0.3]), folder / "4steps.pt")
    return folder / "checkpoint_3.pt", Options(config=folder / "config.json", schedule=folder / "4steps.pt")


def priorgrad(folder: Path, fixtures: Path) -> Written:
    """The project's `.pt`, and its stats."""
    return test_priorgrad.checkpoint(folder), Options(stats=test_priorgrad.stats(folder))


def fregrad(folder: Path, fixtures: Path) -> Written:
    """The project's `.pt`, and its stats."""
    np.save(folder / "energy_min_train.npy", test_fregrad.DATA["energy_min"].numpy())
    return test_fregrad.checkpoint(folder), Options(stats=folder)


def speechbrain_diffwave(folder: Path, fixtures: Path) -> Written:
    """The project's `.ckpt`, hyperparameters beside it."""
    _, meta = arrays("speechbrain_diffwave")
    torch.save(rebuilt(meta["shapes"]["vocoder"], meta["seed"]), folder / "diffwave.ckpt")
    (folder / "hparams.yaml").write_text(json.dumps(meta["hparams"]))  # JSON is YAML
    return folder / "diffwave.ckpt", Options(config=folder / "hparams.yaml")


def amphion_diffwave(folder: Path, fixtures: Path) -> Written:
    """The project's `.bin`, args.json beside it."""
    _, meta = arrays("amphion_diffwave")
    torch.save(rebuilt(meta["shapes"], meta["seed"]), folder / "pytorch_model.bin")
    (folder / "args.json").write_text(json.dumps(meta["config"]))
    return folder / "pytorch_model.bin", Options(config=folder / "args.json")


def dance_diffusion(folder: Path, fixtures: Path) -> Written:
    """The project's `.ckpt`, raw and averaged weights under their prefixes."""
    data, meta = arrays("dance_diffusion")
    kernels = {"main.0.kernel": data["down_kernel"], "main.14.kernel": data["up_kernel"]}
    state = {
        key: kernels["main." + key.split("main.")[-1]]
        if key.endswith(".kernel")
        else test_dance_diffusion.drawn(key, tuple(shape))
        for key, shape in meta["shapes"].items()
    }
    both = {f"diffusion.{key}": torch.zeros_like(value) for key, value in state.items()}
    both |= {f"diffusion_ema.{key}": value for key, value in state.items()}
    torch.save({"state_dict": both, "epoch": 1}, folder / "model.ckpt")
    return folder / "model.ckpt", Options(sample_rate=48000, sample_size=8192)


def gradtts(folder: Path, fixtures: Path) -> Written:
    """Weights alone, of text encoder and decoder."""
    return fixtures / "gradtts" / "weights.safetensors", Options()


WRITERS: dict[str, tuple[str, Callable[[Path, Path], Written]]] = {
    "lmnt_diffwave": ("lmnt_diffwave", lmnt_diffwave),
    "lmnt_diffwave unconditional": ("lmnt_diffwave", lmnt_diffwave_unconditional),
    "lmnt_wavegrad": ("lmnt_wavegrad", lmnt_wavegrad),
    "philsyn_diffwave": ("philsyn_diffwave", philsyn_vocoder),
    "philsyn_diffwave unconditional": ("philsyn_diffwave", philsyn_unconditional),
    "ivanvovk_wavegrad": ("ivanvovk_wavegrad", ivanvovk_wavegrad),
    "priorgrad": ("priorgrad", priorgrad),
    "fregrad": ("fregrad", fregrad),
    "speechbrain_diffwave": ("speechbrain_diffwave", speechbrain_diffwave),
    "amphion_diffwave": ("amphion_diffwave", amphion_diffwave),
    "gradtts": ("gradtts", gradtts),
    "dance_diffusion": ("dance_diffusion", dance_diffusion),
}
"""The project of each kind of file, and what writes one."""
