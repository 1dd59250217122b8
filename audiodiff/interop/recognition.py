"""Which project a checkpoint looks like, by the names of its parameters.

lmnt's DiffWave, PriorGrad and Amphion name theirs alike; the params or the place of the weights tell them apart, or
nothing does. FreGrad's convolutions are twice as wide as its residual path, SpeechBrain wraps every layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_PLACES = ("model", "model_state_dict", "state_dict", "generator_state_dict", "ema", "params_ema")
_PATTERNS = {
    "speechbrain_diffwave": r"residual_layers\.\d+\.dilated_conv\.(w|conv)\.",
    "philsyn_diffwave": r"residual_layer\.residual_blocks\.\d+\.",
    "lmnt_wavegrad": r"film\.\d+\.(input|output)_conv\.",
    "ivanvovk_wavegrad": r"nn\.(dblocks|ublocks|films)\.",
    "dance_diffusion": r"(.*\.)?timestep_embed\.weight$",
    "gradtts": r"decoder\.estimator\.",
}
_FAMILY = r"residual_layers\.\d+\.dilated_conv\.weight$"


def tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the parameters of a checkpoint by name, from the first place where there are any."""
    for place in (content, *(content.get(name) for name in _PLACES)):
        if isinstance(place, Mapping):
            found = {str(key): value for key, value in place.items() if isinstance(value, Tensor)}
            if found:
                return {key.removeprefix("module."): value for key, value in found.items()}
    return {}


def looks_like(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the projects that name their parameters so; none for a file like that of no project."""
    state = tensors_of(content)
    for project, pattern in _PATTERNS.items():
        if any(re.match(pattern, key) for key in state):
            return (project,)
    return _family(content, state)


def _family(content: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Returns which of the projects with lmnt's names it is, or all that it may be."""
    convolution = next((value for key, value in state.items() if re.match(_FAMILY, key)), None)
    if convolution is None or convolution.dim() != 3:
        return ()
    entrance = state.get("input_projection.weight")
    if entrance is not None and convolution.shape[1] == 2 * entrance.shape[0]:
        return ("fregrad",)
    params = content.get("params")
    if isinstance(params, Mapping) and params:
        return ("priorgrad",) if "std_min" in params or "use_prior" in params else ("lmnt_diffwave",)
    if "generator_state_dict" in content:
        return ("amphion_diffwave",)
    return ("lmnt_diffwave", "priorgrad", "amphion_diffwave")
