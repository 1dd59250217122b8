"""What the frame-level network is for: far less arithmetic per second of audio than a sample-level one."""

from __future__ import annotations

import torch

from audiodiff.model import build
from audiodiff.synthesis.cost import arithmetic
from audiodiff.types import Batch
from tests.tiny import recipe_from


def of_an_evaluation(*overrides: str) -> float:
    """Multiply-adds of one evaluation per second of audio."""
    model = build(recipe_from(*overrides)).eval()
    length = 64 * 256
    return arithmetic(model, Batch(torch.zeros(1, 1, length), torch.tensor([length])))[1]


def test_frame_level_vocoder_costs_a_twentieth_of_diffwave() -> None:
    wavenet = of_an_evaluation("experiment=ljspeech_diffwave", "size=base")
    frame_level = of_an_evaluation("experiment=ljspeech_vocoder", "size=base")
    assert wavenet > 20 * frame_level
