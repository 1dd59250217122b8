"""Checkpoints of Amphion's DiffWave (github.com/open-mmlab/Amphion, MIT) as a WaveNet.

The network is lmnt's DiffWave; its upsampler takes any factors. The project trains with the absolute error on a
table of 50 betas, at 24 kHz and on 100 bands by default, samples six betas with the posterior variance, and clamps
to [-1, 1] after each step. Newer versions save the weights alone (`pytorch_model.bin`, `model.safetensors`), older
ones a `.pt` that holds them under a name; the configuration lies beside them in `args.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiodiff.audio.mel import LogMel, preset
from audiodiff.diffusion.schedules import linear
from audiodiff.interop import read_checkpoint, require_tensors
from audiodiff.interop.lmnt_family import check_mel, load_network
from audiodiff.networks.wavenet import WaveNet

MEL_PRESET = "bigvgan_24k100"
LICENCE = "MIT"

# The project's config/vocoder.json and egs/vocoder/diffusion/diffwave/exp_config.json.
DEFAULT_CONFIG: Mapping[str, Mapping[str, Any]] = {
    "preprocess": {
        **{"sample_rate": 24000, "n_fft": 1024, "win_size": 1024, "hop_size": 256},
        **{"n_mel": 100, "fmin": 0, "fmax": 12000},
    },
    "diffwave": {
        "dilation_cycle_length": 10,
        "noise_schedule_factors": (1.0e-4, 0.05, 50),
        "inference_noise_schedule": (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5),
    },
}
_WEIGHTS = ("generator_state_dict", "state_dict")  # where older files have them


@dataclass(frozen=True)
class AmphionDiffWave:
    """An imported model: the network and how the project trains and samples it.

    Attributes:
        network: predicts the noise.
        betas: training schedule.
        fast_betas: short schedule for sampling, aligned to the training schedule by equal alpha.
        log_mel: the log-mel that the network was trained with.
        clip: bounds to which samples are clamped after every step.
        noise_label: what the network is told of t.
        licence: of the project's code and weights.
    """

    network: WaveNet
    betas: tuple[float, ...]
    fast_betas: tuple[float, ...]
    log_mel: LogMel
    clip: tuple[float, float] = (-1.0, 1.0)
    noise_label: str = "StepIndex"
    licence: str = LICENCE

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.log_mel.sample_rate


def load(path: Path | str, config: Mapping[str, Any] | None = None) -> AmphionDiffWave:
    """Reads a checkpoint of the project, or its weights as `.safetensors`.

    Args:
        path: the file.
        config: content of the `args.json` that the project writes beside its checkpoints, None for its default.
            Read are `preprocess` and `model.diffwave`, see DEFAULT_CONFIG.

    Raises:
        InputError: no checkpoint, parameters missing, unknown or of another shape, or another number of bands or
            hop than the configuration says.
    """
    content = read_checkpoint(path)
    state = require_tensors(next((content[key] for key in _WEIGHTS if key in content), content), path)
    given = config or {}
    preprocess = {**DEFAULT_CONFIG["preprocess"], **given.get("preprocess", {})}
    diffwave = {**DEFAULT_CONFIG["diffwave"], **given.get("model", {}).get("diffwave", {})}
    network = load_network(state, int(diffwave["dilation_cycle_length"]), path)
    low, high, steps = diffwave["noise_schedule_factors"]
    return AmphionDiffWave(
        network=network,
        betas=tuple(linear(float(low), float(high), int(steps)).betas.tolist()),
        fast_betas=tuple(float(beta) for beta in diffwave["inference_noise_schedule"]),
        log_mel=_mel_of(preprocess, network, path),
    )


def _mel_of(preprocess: Mapping[str, Any], network: WaveNet, source: Path | str) -> LogMel:
    changes = {
        "sample_rate": int(preprocess["sample_rate"]),
        "n_fft": int(preprocess["n_fft"]),
        "win_length": int(preprocess["win_size"]),
        "hop_length": int(preprocess["hop_size"]),
        "n_mels": int(preprocess["n_mel"]),
        "f_min": float(preprocess["fmin"]),
        "f_max": float(preprocess["fmax"]),
    }
    log_mel = LogMel.from_definition(preset(MEL_PRESET).definition() | changes)
    check_mel(network, log_mel, source, mend="give the args.json of this checkpoint")
    return log_mel
