"""Log-mel -> condition.local, normalised per band with statistics of the training audio."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.errors import InputError
from audiodiff.types import Batch, Condition


class Mel(nn.Module):
    """Conditioner that hears a log-mel, given or computed from the waveform."""

    mean: Tensor
    std: Tensor

    def __init__(self, log_mel: LogMel) -> None:
        """Takes the one mel definition.

        Args:
            log_mel: the mel of the recipe; a mel that is handed in must be in its convention.
        """
        super().__init__()
        self.log_mel = log_mel
        self.register_buffer("mean", torch.zeros(log_mel.n_mels))
        self.register_buffer("std", torch.ones(log_mel.n_mels))

    def forward(self, batch: Batch) -> Condition:
        """Returns condition.local [B, n_mels, F].

        Raises:
            InputError: the batch has neither mel nor waveform, or the mel breaks the contract.
        """
        if batch.mel is not None:
            mel = self.log_mel.check(batch.mel)
        elif batch.waveform is not None:
            mel = self._analyse(batch.waveform, batch.lengths)
        else:
            raise InputError("this model is conditioned on a mel: give a mel or a waveform to take it from")
        mel = mel.to(self.mean.device)
        return Condition(local=(mel - self.mean[:, None]) / self.std[:, None])

    def null(self, batch: Batch) -> Condition:
        """Returns the same mel: guidance steers by labels, not by the mel."""
        return self(batch)

    def _analyse(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        if bool((lengths == waveform.shape[-1]).all()):
            return self.log_mel(waveform[:, 0])
        # An item's mel may not depend on how far the batch is padded, so each is taken at its own length
        # and then its last frame is repeated.
        mels = [
            self.log_mel(item[:1, :length])[0]
            for item, length in zip(waveform, lengths.tolist(), strict=True)
        ]
        longest = max(mel.shape[-1] for mel in mels)
        return torch.stack(
            [torch.cat([mel, mel[:, -1:].expand(-1, longest - mel.shape[-1])], 1) for mel in mels]
        )
