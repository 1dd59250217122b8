"""Log-mel -> condition.local, normalised per band with statistics of the training audio."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.conditioning.conditioner import Conditioner, Joint
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
        """Returns condition.local [B, n_mels, F] of a given mel or of the waveform's.

        Raises:
            InputError: the batch has neither mel nor waveform, or the mel breaks the contract.
        """
        return self.hear(self.analyse(batch), int(batch.lengths.max()))

    def analyse(self, batch: Batch) -> Tensor:
        """Returns the mel [B, n_mels, F] of a batch, as its definition has it.

        What a given mel has beyond the frames of an item's length is padding and is not heard: as where the
        mel is taken from the waveform, the item's last frame is repeated there.

        Raises:
            InputError: the batch has neither mel nor waveform, or the mel breaks the contract.
        """
        if batch.mel is not None:
            mel = self._hold(self.log_mel.check(batch.mel), batch.lengths)
        elif batch.waveform is not None:
            mel = self._analyse(batch.waveform.to(self.mean.device), batch.lengths)
        else:
            raise InputError("this model is conditioned on a mel: give a mel or a waveform to take it from")
        return mel.to(self.mean.device)

    def hear(self, mel: Tensor, length: int) -> Condition:
        """Returns what the network is told of a mel [B, n_mels, F] that was checked, for audio of `length` samples."""
        return Condition(local=self.normalize(mel))

    def normalize(self, mel: Tensor) -> Tensor:
        """Returns a mel [B, n_mels, F], each band less its mean and over its deviation."""
        return (mel - self.mean[:, None]) / self.std[:, None]

    def restore(self, normalized: Tensor) -> Tensor:
        """Returns the mel [B, n_mels, F] that `normalize` would give this; inverts it."""
        return normalized * self.std[:, None] + self.mean[:, None]

    def null(self, batch: Batch) -> Condition:
        """Returns the same mel: guidance steers by labels, not by the mel."""
        return self(batch)

    def _hold(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Returns mel [B, n_mels, F] with each item's last frame repeated over its padding."""
        if mel.shape[0] != lengths.shape[0]:
            raise InputError(f"mel: got {mel.shape[0]} items for {lengths.shape[0]} lengths")
        last = torch.tensor([max(self.log_mel.frames(length), 1) - 1 for length in lengths.tolist()])
        index = torch.minimum(torch.arange(mel.shape[-1]), last[:, None]).to(mel.device)  # [B, F]
        return mel.gather(2, index[:, None].expand_as(mel))

    def _analyse(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        if bool((lengths == waveform.shape[-1]).all()):
            return self._whole(waveform.mean(1))
        # An item's mel may not depend on how far the batch is padded, so each is taken at its own length
        # and then its last frame is repeated.
        mels = [
            self._whole(item[:, :length].mean(0, keepdim=True))[0]
            for item, length in zip(waveform, lengths.tolist(), strict=True)
        ]
        longest = max(mel.shape[-1] for mel in mels)
        return torch.stack(
            [torch.cat([mel, mel[:, -1:].expand(-1, longest - mel.shape[-1])], 1) for mel in mels]
        )

    def _whole(self, waveform: Tensor) -> Tensor:
        """Returns the mel of waveform [B, T], of at least one frame: with framing "same", short audio has none."""
        if self.log_mel.frames(waveform.shape[-1]) == 0:
            missing = self.log_mel.hop_length - waveform.shape[-1]
            waveform = nn.functional.pad(waveform, (0, missing))
        return self.log_mel(waveform)


def heard(conditioner: Conditioner) -> Mel | None:
    """Returns the part of a conditioner that is told a mel by the batch; not one that a text is aligned to."""
    parts = conditioner.parts if isinstance(conditioner, Joint) else [conditioner]
    return next((part for part in parts if isinstance(part, Mel)), None)
