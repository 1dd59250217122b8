"""What the frame-level network is for: far less arithmetic per second of audio than a sample-level one."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from audiodiff.model import build
from audiodiff.types import Batch
from tests.tiny import recipe_from


def flops_per_second(*overrides: str) -> float:
    """Floating point operations of one evaluation per second of audio."""
    model = build(recipe_from(*overrides)).eval()
    length = 64 * 256
    batch = Batch(torch.zeros(1, 1, length), torch.tensor([length]))
    with torch.inference_mode():
        x, condition = model.encode(batch)
        network = model.denoiser.network.bind(condition)
        network(x, torch.ones(1))  # what depends on the condition alone is done once, not per evaluation
        with FlopCounterMode(display=False) as counter:
            network(x, torch.ones(1))
    return counter.get_total_flops() * model.sample_rate / length


def test_frame_level_vocoder_costs_a_twentieth_of_diffwave() -> None:
    wavenet = flops_per_second("experiment=ljspeech_diffwave", "size=base")
    frame_level = flops_per_second("experiment=ljspeech_vocoder", "size=base")
    assert wavenet > 20 * frame_level
