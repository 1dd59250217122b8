"""Text -> what every token sounds like, and how long it lasts: a token encoder.

It is that of Kim et al. 2020 ("Glow-TTS", appendix A.1; arXiv 2005.11129): a convolutional prenet and a transformer
whose attention knows distances within a window (Shaw et al. 2018; arXiv 1803.02155). Durations are predicted with no
gradient into the encoder. What becomes of both is in `text_alignment`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.conditioning.alignment import valid_positions
from audiodiff.errors import InputError

_NORM_EPSILON = 1e-4


@dataclass(frozen=True)
class TextEncoderSize:
    """Sizes of a text encoder; the defaults are Grad-TTS'.

    Attributes:
        channels: width of the token embedding and the prenet.
        filter_channels: width within the transformer's feed-forward layers.
        layers: transformer layers.
        heads: attention heads; they share the channels, a speaker vector's among them.
        kernel_size: taps of the convolutions in feed-forward layers and duration predictor, odd.
        window: largest distance in tokens that attention tells apart.
        dropout: of transformer and duration predictor.
        prenet_layers: convolutions before the transformer.
        prenet_kernel_size: their taps, odd.
        prenet_dropout: of the prenet.
        duration_channels: width of the duration predictor.
    """

    channels: int = 192
    filter_channels: int = 768
    layers: int = 6
    heads: int = 2
    kernel_size: int = 3
    window: int = 4
    dropout: float = 0.1
    prenet_layers: int = 3
    prenet_kernel_size: int = 5
    prenet_dropout: float = 0.5
    duration_channels: int = 256


GRAD_TTS_SIZE = TextEncoderSize()


@dataclass(frozen=True)
class EncodedText:
    """What an encoder says of a text.

    Attributes:
        mean: [B, C, L], the mean frame of every token; zero beyond an item's tokens.
        log_durations: [B, L], predicted natural logarithm of the frames of every token; zero beyond.
        tokens: [B] int64, tokens of each item.
        hidden: [B, W, L], what mean and durations are made of, W of TextEncoder.width.
    """

    mean: Tensor
    log_durations: Tensor
    tokens: Tensor
    hidden: Tensor


class TextEncoder(nn.Module):
    """Token ids [B, L] -> mean frames and log-durations of the tokens."""

    def __init__(
        self,
        vocabulary: int,
        features: int,
        size: TextEncoderSize = GRAD_TTS_SIZE,
        *,
        speaker_features: int | None = None,
    ) -> None:
        """Builds the encoder.

        Args:
            vocabulary: number of different tokens.
            features: C of the mean frames (n_mels).
            size: widths and depths.
            speaker_features: length of the speaker vector, which joins every token's channels after the
                prenet; None for an encoder that is told no speaker.

        Raises:
            InputError: an even kernel, or channels that the heads do not divide.
        """
        super().__init__()
        width = size.channels + (speaker_features or 0)
        if size.kernel_size % 2 == 0 or size.prenet_kernel_size % 2 == 0:
            raise InputError(
                f"text encoder: got kernel sizes {size.kernel_size} and {size.prenet_kernel_size}, expected odd ones"
            )
        if width % size.heads:
            raise InputError(
                f"text encoder: got {size.heads} heads for {width} channels, expected a divisor of the channels"
            )
        self.speaker_features = speaker_features
        self.width = width
        self.embedding = nn.Embedding(vocabulary, size.channels)
        nn.init.normal_(self.embedding.weight, std=size.channels**-0.5)
        self.prenet = Prenet(size.channels, size.prenet_layers, size.prenet_kernel_size, size.prenet_dropout)
        self.layers = nn.ModuleList(TransformerLayer(width, size) for _ in range(size.layers))
        self.mean = nn.Linear(width, features)
        self.durations = DurationPredictor(width, size.duration_channels, size.kernel_size, size.dropout)

    def forward(self, ids: Tensor, tokens: Tensor, speaker: Tensor | None = None) -> EncodedText:
        """Returns what every token sounds like and how long it lasts.

        Args:
            ids: [B, L] int64, from 0 to vocabulary - 1; anything valid beyond an item's tokens.
            tokens: [B] int64, tokens of each item, at least 1.
            speaker: [B, S] if the encoder has speaker_features S, else None.

        Raises:
            InputError: ids outside the vocabulary, an item without tokens or with more than there are ids,
                or a speaker vector where none is known or none where one is needed.
        """
        self._check(ids, tokens, speaker)
        tokens = tokens.to(ids.device)
        mask = valid_positions(tokens, ids.shape[1])[:, :, None]  # [B, L, 1]
        hidden = self.prenet(self.embedding(ids) * math.sqrt(self.embedding.embedding_dim), mask)
        if speaker is not None:
            hidden = torch.cat([hidden, speaker[:, None].expand(-1, ids.shape[1], -1)], dim=2)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        mean = (self.mean(hidden) * mask).transpose(1, 2)
        return EncodedText(mean, self.durations(hidden.detach(), mask), tokens, hidden.transpose(1, 2))

    def _check(self, ids: Tensor, tokens: Tensor, speaker: Tensor | None) -> None:
        if len(tokens) != len(ids) or not 1 <= int(tokens.min()) <= int(tokens.max()) <= ids.shape[1]:
            raise InputError(
                f"text: got {tokens.tolist()} tokens for ids of shape {list(ids.shape)}, "
                f"expected one count an item, from 1 to {ids.shape[1]}"
            )
        vocabulary = self.embedding.num_embeddings
        if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
            raise InputError(
                f"text: got token ids from {int(ids.min())} to {int(ids.max())}, this model knows 0 to {vocabulary - 1}"
            )
        got = None if speaker is None else tuple(speaker.shape)
        expected = None if self.speaker_features is None else (len(ids), self.speaker_features)
        if got != expected:
            raise InputError(
                f"speaker vectors: got {got or 'none'}, this text encoder expects {expected or 'none'}"
            )


class Prenet(nn.Module):
    """Convolutions with layer norm, ReLU and dropout, added to their input."""

    def __init__(self, channels: int, layers: int, kernel_size: int, dropout: float) -> None:
        """Builds the convolutions; a fresh prenet is the identity, since its projection starts at zero."""
        super().__init__()
        self.convolutions = nn.ModuleList(
            _convolution(channels, channels, kernel_size) for _ in range(layers)
        )
        self.norms = nn.ModuleList(_norm(channels) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(channels, channels)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns [B, L, C] for x [B, L, C] and mask [B, L, 1]."""
        hidden = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = self.dropout(norm(_convolve(convolution, hidden, mask)).relu())
        return (x + self.projection(hidden)) * mask


class TransformerLayer(nn.Module):
    """Attention, then two convolutions over tokens; each is added to its input and normalised after."""

    def __init__(self, channels: int, size: TextEncoderSize) -> None:
        """Builds one layer of the given width."""
        super().__init__()
        self.attention = RelativeAttention(channels, size.heads, size.window, size.dropout)
        self.attention_norm = _norm(channels)
        self.expand = _convolution(channels, size.filter_channels, size.kernel_size)
        self.contract = _convolution(size.filter_channels, channels, size.kernel_size)
        self.feed_forward_norm = _norm(channels)
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns [B, L, C] for x [B, L, C] and mask [B, L, 1]."""
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        hidden = self.dropout(_convolve(self.expand, x, mask).relu())
        return self.feed_forward_norm(x + self.dropout(_convolve(self.contract, hidden, mask))) * mask


class RelativeAttention(nn.Module):
    """Self-attention with learned keys and values for the distances from -window to window.

    Query i meets key j as q_i . (k_j + a_(j-i)) and takes v_j + b_(j-i) from it; a and b are shared by the heads
    and zero beyond the window (Shaw et al. 2018, eqs. 3-4).
    """

    def __init__(self, channels: int, heads: int, window: int, dropout: float) -> None:
        """Builds the projections and the two tables of distances."""
        super().__init__()
        self.heads = heads
        self.window = window
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        features = channels // heads
        self.distance_keys = nn.Parameter(torch.randn(2 * window + 1, features) * features**-0.5)
        self.distance_values = nn.Parameter(torch.randn(2 * window + 1, features) * features**-0.5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns [B, L, C] for x [B, L, C]; tokens where mask [B, L, 1] is false are not heard."""
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        logits = query @ key.transpose(2, 3) + self._to_keys(query @ self.distance_keys.T)
        logits = logits / math.sqrt(query.shape[3])
        weights = logits.masked_fill(~mask[:, None, None, :, 0], -math.inf).softmax(3)  # [B, heads, L, L]
        weights = self.dropout(weights)
        heard = weights @ value + self._to_distances(weights) @ self.distance_values
        return self.output(heard.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, L, C / heads]

    def _to_keys(self, by_distance: Tensor) -> Tensor:
        """Returns [B, heads, L, L] from [B, heads, L, 2 window + 1], zero beyond the window."""
        length = by_distance.shape[2]
        index = self._padded_keys(length, by_distance.device).expand_as(by_distance)
        padded = by_distance.new_zeros(*by_distance.shape[:3], length + 2 * self.window)
        return padded.scatter(3, index, by_distance)[..., self.window : self.window + length]

    def _to_distances(self, by_key: Tensor) -> Tensor:
        """Returns [B, heads, L, 2 window + 1] from [B, heads, L, L], zero where there is no key."""
        padded = functional.pad(by_key, (self.window, self.window))
        index = self._padded_keys(by_key.shape[2], by_key.device)
        return padded.gather(3, index.expand(*by_key.shape[:2], -1, -1))

    def _padded_keys(self, length: int, device: torch.device) -> Tensor:
        """Returns [L, 2 window + 1]: where the key at each distance lies when `window` keys are put before."""
        distances = torch.arange(2 * self.window + 1, device=device)
        return torch.arange(length, device=device)[:, None] + distances


class DurationPredictor(nn.Module):
    """Two convolutions with ReLU, layer norm and dropout -> one log-duration per token."""

    def __init__(self, channels: int, filter_channels: int, kernel_size: int, dropout: float) -> None:
        """Builds the predictor for tokens of the given channels."""
        super().__init__()
        self.first = _convolution(channels, filter_channels, kernel_size)
        self.first_norm = _norm(filter_channels)
        self.second = _convolution(filter_channels, filter_channels, kernel_size)
        self.second_norm = _norm(filter_channels)
        self.projection = nn.Linear(filter_channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns [B, L], zero where mask is, for x [B, L, C] and mask [B, L, 1]."""
        hidden = self.dropout(self.first_norm(_convolve(self.first, x, mask).relu()))
        hidden = self.dropout(self.second_norm(_convolve(self.second, hidden, mask).relu()))
        return (self.projection(hidden) * mask)[:, :, 0]


def _convolution(channels: int, filter_channels: int, kernel_size: int) -> nn.Conv1d:
    return nn.Conv1d(channels, filter_channels, kernel_size, padding=kernel_size // 2)


def _norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=_NORM_EPSILON)


def _convolve(convolution: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Returns the convolution over tokens of x [B, L, C], which is silent beyond an item's tokens."""
    return convolution((x * mask).transpose(1, 2)).transpose(1, 2)
