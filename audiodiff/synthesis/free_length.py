"""A model of sounds without a length: a denoiser that is told labels alone, and x that becomes audio as it grows.

A mel or a text says how long the sound is, so models that are told one are refused; a label holds at every position.
How many positions a part of the signal needs around it follows from the network, where its reach is bounded, or from
windows of the length of a training segment, where it is not (`diffusion.windows`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from audiodiff.audio.latent_representation import Autoencoder, LatentRepresentation
from audiodiff.audio.representation import Representation
from audiodiff.conditioning.mel import Mel
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.windows import around
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, Steering
from audiodiff.networks.streaming import Margins, Windowed
from audiodiff.types import Batch

_WINDOW_SECONDS = 1.5  # of models that do not say how long their training segments were
_MARGIN = 64  # positions that a decoder is shown on either side where it looks at all of them


def check_free(model: AudioDiffusion, what: str) -> None:
    """Refuses a model whose sounds have a length of their own.

    Raises:
        InputError: it is told a mel or a text.
    """
    told = next((part for part in model.modules() if isinstance(part, Mel | Text)), None)
    if told is not None:
        source = (
            "a mel; use `audiodiff vocode`" if isinstance(told, Mel) else "a text; use --text or --text-file"
        )
        raise InputError(
            f"{what}: needs a model that is told nothing or labels, this one makes the sound of {source}"
        )


def open_denoise(model: AudioDiffusion, labels: Sequence[Mapping[str, str]], steering: Steering) -> Denoise:
    """Returns (x, t) -> clean for x [B, D, F] of any F, one item per mapping of labels.

    Raises:
        InputError: unknown label, guidance that the model does not admit, a prior, which has a length.
    """
    columns = {name: tuple(label.get(name, "") for label in labels) for name in model.labels}
    lengths = torch.full((len(labels),), model.representation.hop_length)
    denoise, condition = model.bind(Batch(waveform=None, lengths=lengths, labels=columns), steering)
    if condition.prior_mean is not None or condition.prior_std is not None:
        raise InputError("this model starts from noise shaped by its condition, which fixes the length")
    return denoise


def margins_of(model: AudioDiffusion, steering: Steering) -> Margins | None:
    """Returns what a window has to show around its inside, None where a network looks at the whole signal."""
    networks = [model.denoiser.network]
    if steering.against is not None:
        networks.append(steering.against.denoiser.network)
    margins = [network.margins() for network in networks if isinstance(network, Windowed)]
    if len(margins) < len(networks):
        return None
    return Margins(
        max(margin.before for margin in margins),
        max(margin.after for margin in margins),
        math.lcm(*(margin.grain for margin in margins)),
    )


def grain_of(model: AudioDiffusion) -> int:
    """Returns how many positions a window is to be a multiple of: those that a strided network makes one of."""
    network = model.denoiser.network
    if isinstance(network, Windowed):
        return network.margins().grain
    return int(max(getattr(network, "strides", (1,))))


def segment_seconds(model: AudioDiffusion) -> float:
    """Returns how long the clips were that the model was trained on."""
    return float(model.recipe.get("data", {}).get("segment_seconds") or _WINDOW_SECONDS)


def positions_of(model: AudioDiffusion, seconds: float, grain: int) -> int:
    """Returns the positions of x that last about so many seconds, a multiple of the grain and of at least one."""
    positions = seconds * model.sample_rate / model.representation.hop_length
    return max(1, round(positions / grain)) * grain


def margin_of(representation: Representation) -> int:
    """Returns the positions around one that decoding looks at, beyond those that its own samples lie in."""
    if not isinstance(representation, LatentRepresentation):
        return 0
    assert isinstance(representation.autoencoder, Autoencoder)
    margin = representation.autoencoder.margin
    return _MARGIN if margin is None else margin


class Decoder:
    """Turns x that grows at its end into the waveform."""

    def __init__(self, representation: Representation) -> None:
        """Stands at the first sample."""
        self._representation = representation
        self._extra = representation.shape(representation.hop_length)[1] - 1
        self._margin = margin_of(representation)
        self._kept: Tensor | None = None  # from the first position that a coming sample depends on
        self._lead = 0  # positions of it that are decoded

    @property
    def lag(self) -> int:
        """Positions by which the waveform lags behind x."""
        return self._extra + self._margin

    def push(self, x: Tensor, samples: int | None = None) -> Tensor:
        """Returns the samples [B, C, n] that x [B, D, F] completes.

        Args:
            x: the next positions.
            samples: n, where x ends the signal; None: all that are complete.

        Raises:
            FloatingPointError: samples that are not finite.
        """
        x = x if self._kept is None else torch.cat([self._kept, x], dim=-1)
        hop, lead = self._representation.hop_length, self._lead
        count = max(0, x.shape[-1] - lead - self.lag)
        shown = (x.shape[-1] - self._extra) * hop if samples is None else lead * hop + samples
        wanted = slice(lead * hop, (lead + count) * hop if samples is None else shown)
        if wanted.stop <= wanted.start:
            self._kept = x
            return x.new_zeros(x.shape[0], self._representation.channels, 0)
        waveform = self._representation.decode(x[..., : self._representation.shape(shown)[1]], shown)
        self._lead = min(lead + count, self._margin)
        self._kept = x[..., lead + count - self._lead :].clone()
        if not bool(waveform.isfinite().all()):
            raise FloatingPointError("the model gave samples that are not finite")
        return waveform[..., wanted]


def decode_circle(representation: Representation, x: Tensor) -> Tensor:
    """Returns the waveform [B, C, F * hop] of x [B, D, F] on a circle: its last sample is followed by its first."""
    margin, hop = margin_of(representation), representation.hop_length
    extra = representation.shape(hop)[1] - 1
    length = (x.shape[-1] + 2 * margin) * hop
    waveform = representation.decode(around(x, margin, margin + extra), length)
    return waveform[..., margin * hop : length - margin * hop]
