"""EnCodec as a frozen autoencoder: the continuous latents between its encoder and its quantiser (Défossez et al. 2023).

Built from the configuration of `transformers`' EncodecModel, so that a model of its latents is rebuilt from its own
folder, without the network and without running code from it. Its LSTM depends on all that came before: with no
margin long audio passes through it whole; with one it passes in chunks, exact as far as the LSTM forgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from audiodiff.errors import InputError


class EncodecLatents(nn.Module):
    """Encoder and decoder of an EncodecModel, without its quantiser."""

    def __init__(self, features: int, config: Mapping[str, Any], margin: int | None = None) -> None:
        """Builds the two with random weights.

        Args:
            features: latents D of a frame, which recipes read here: the configuration's hidden_size.
            config: values of EncodecConfig that differ from its defaults, as `EncodecConfig.to_diff_dict` gives them.
            margin: frames around a chunk of long audio, for example 50; None to take long audio whole.

        Raises:
            InputError: transformers is absent, another hidden_size, or a model that normalises the level of its
                chunks, which its latents do not tell.
        """
        super().__init__()
        try:
            from transformers import EncodecConfig, EncodecModel
        except ImportError as error:
            raise InputError(
                "EnCodec needs the package transformers, which is not installed; install it with pip install "
                "transformers"
            ) from error
        settings = EncodecConfig(**config)
        if settings.hidden_size != features:
            raise InputError(
                f"EnCodec: got features {features} and hidden_size {settings.hidden_size}, expected equal ones"
            )
        if settings.normalize:
            raise InputError(
                "EnCodec: this one normalises the level of what it hears, which its latents do not tell"
            )
        model = EncodecModel(settings)
        self.encoder, self.decoder = model.encoder, model.decoder
        self.sample_rate, self.channels = settings.sampling_rate, settings.audio_channels
        self.hop_length, self.features = settings.hop_length, features
        self.margin = margin

    def encode(self, waveform: Tensor) -> Tensor:
        """Returns the latents [B, D, ceil(T / hop_length)] of waveform [B, C, T]."""
        latents: Tensor = self.encoder(waveform)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Returns the waveform [B, C, F * hop_length] of latents [B, D, F]."""
        waveform: Tensor = self.decoder(latents)
        return waveform
