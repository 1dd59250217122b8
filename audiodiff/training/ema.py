"""Exponential moving average of the weights, the ones that are saved and sampled from.

torch.optim.swa_utils.AveragedModel keeps it; here is only its rule. The decay grows from 0 with the number
of updates, so that a short run's average is not mostly its random start. Averages of other widths, chosen after the
training, are in posthoc_ema.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Returns the average of a model's weights, to be updated after each optimizer update.

    Args:
        model: the trained model; buffers are copied, not averaged.
        decay: largest share of the old average kept per update, in [0, 1).
    """

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        # The count that torch hands over lies on the weights' device, where reading it would wait for the device.
        updates = int(whole.n_averaged)
        kept = min(decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(average), list(current), 1 - kept)

    whole = AveragedModel(model, multi_avg_fn=update)
    return whole
