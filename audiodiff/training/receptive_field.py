"""Says when a network sees too little of a clip to make it from noise.

A vocoder is told by its mel what happens where, a speaker by its text. A model that makes whole sounds must relate
their beginning to their end, and one whose receptive field is a fraction of the clip makes babble: DiffWave's
unconditional network was given 24,571 samples for clips of 16,000 for that reason (Kong et al. 2021, section 5.2).
"""

from __future__ import annotations

import sys

from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.text_conditioner import SpokenText
from audiodiff.model import AudioDiffusion

ENOUGH = 0.5
"""Share of the training segment that the receptive field should cover."""


def short_sighted(model: AudioDiffusion, segment_length: int) -> str | None:
    """Returns a warning when a model without mel or text sees less than ENOUGH of its training segments.

    Args:
        model: the model.
        segment_length: samples of a training segment.
    """
    if any(isinstance(part, Mel | SpokenText) for part in model.modules()):
        return None
    positions = model.denoiser.network.receptive_field()
    samples = positions * model.representation.hop_length
    if positions == sys.maxsize or samples >= ENOUGH * segment_length:
        return None
    return (
        f"the network sees {samples} samples ({samples / model.sample_rate:.2f} s) around each point, the training "
        f"segments have {segment_length}; without a mel to follow it cannot relate their ends. Choose more or wider "
        "dilations, or a larger size"
    )
