"""audiodiff: audio diffusion for speech and music synthesis.

model = audiodiff.load(folder)                      # a trained model
vocoder = audiodiff.Vocoder.load(folder)            # mel -> waveform, for pipelines
tts = audiodiff.TextToSpeech.load(folder)           # text -> speech
waveforms = model.synthesize(batch, sampler, seed)  # waveforms from noise
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AudioDiffusion": "model",
    "load": "model",
    "Vocoder": "synthesis.vocoder",
    "TextToSpeech": "synthesis.text_to_speech",
    "GriffinLim": "audio.griffin_lim",
    "LogMel": "audio.mel",
    "Sampler": "diffusion.samplers",
    "Ancestral": "diffusion.samplers",
    "DDIM": "diffusion.samplers",
    "UniformGrid": "diffusion.times",
    "LogSnrGrid": "diffusion.times",
    "published_grid": "diffusion.times",
    "Batch": "types",
    "InputError": "errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that the command line starts quickly."""
    if name not in _HOMES:
        raise AttributeError(f"module 'audiodiff' has no attribute {name!r}")
    return getattr(importlib.import_module(f"audiodiff.{_HOMES[name]}"), name)
