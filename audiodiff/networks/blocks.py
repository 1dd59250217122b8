"""Parts that two or more networks share: sinusoidal noise embeddings and the frame-to-sample upsampler.

A noise label becomes sines and cosines of geometrically spaced frequencies 10^(exponent * k / (dim/2 - 1)),
k = 0 .. dim/2 - 1, followed by a small MLP (Kong et al. 2021, "DiffWave", section 3.2 and appendix C;
arXiv 2009.09761). A log-mel is stretched from frames to samples by transposed convolutions over (mel, time).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiodiff.errors import InputError
from audiodiff.networks.streaming import Past, look_back
from audiodiff.types import Condition

NEGATIVE_SLOPE = 0.4


def sinusoidal_embedding(label: Tensor, dim: int, exponent: float = 4.0) -> Tensor:
    """Returns [sin(label * f_k) | cos(label * f_k)] with f_k = 10^(exponent * k / (dim/2 - 1)).

    Phases are float32 products of float32 frequencies on every device and at every network precision: with
    the frequencies up to 10^4 that DiffWave uses, a frequency that is off by one unit in the last place turns
    the phase by hundredths of a radian, so weights trained against one rounding do not fit another.

    Args:
        label: [B], any real number.
        dim: even, at least 4.
        exponent: decades that the frequencies span; negative for frequencies falling from 1.

    Returns:
        [B, dim] float32.
    """
    frequencies = _frequencies(dim // 2, exponent).to(label.device)
    phases = label.float()[:, None] * frequencies
    return torch.cat([phases.sin(), phases.cos()], dim=1)


@torch.compiler.assume_constant_result
def _frequencies(half: int, exponent: float) -> Tensor:
    """Returns f_k [half] float32; a compiler takes them as they are, since it would leave out the roundings."""
    # Rounded to float32 twice, as float32 arithmetic does; float64 in between because the last bit of a
    # float32 power depends on the machine. On the CPU because not every accelerator has float64.
    powers = (torch.arange(half, dtype=torch.float64) * exponent / (half - 1)).float().double()
    return (10.0**powers).float()


def step_embedding(label: Tensor, dim: int, exponent: float = 4.0) -> Tensor:
    """Returns rows of the table of embeddings at whole steps, linearly interpolated between two rows.

    The fastest sines turn many times from one step to the next, so at a fractional step their values would
    be unlike anything seen in training; between two rows they are not.

    Args:
        label: [B], row of the table (schedule index counted from 0), fractions allowed.
        dim: even, at least 4.
        exponent: decades that the frequencies span, see `sinusoidal_embedding`.

    Returns:
        [B, dim] float32.
    """
    low = label.floor()
    rows = sinusoidal_embedding(torch.cat([low, label.ceil()]), dim, exponent)
    below, above = rows.chunk(2)
    return below + (above - below) * (label - low).float()[:, None]


class EmbeddingMLP(nn.Module):
    """Two fully connected layers, each followed by swish, shared by all layers of a network.

    Args:
        dim: features of the sinusoidal embedding.
        hidden_dim: features between the two layers.
        out_dim: features that the network's layers read.
    """

    def __init__(self, dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, out_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """Maps [B, dim], cast to the precision of the weights, to [B, out_dim]."""
        hidden = functional.silu(self.first(embedding.to(self.first.weight.dtype)))
        return functional.silu(self.second(hidden))


class FrameUpsampler(nn.Module):
    """Stretches a log-mel from frames to samples: [B, D, F] -> [B, D, F * hop_length].

    One transposed 2-D convolution per factor, 3 bands high, about two hops wide and symmetric about each
    frame's centre, then a leaky ReLU (Kong et al. 2021, section 5.1: factors 16, 16 with 3 x 32 filters).

    Args:
        factors: time strides; their product is the hop length. Any hop is a product of small factors.
        causal: whether what comes of a frame begins with the frame and ends one frame after it, rather than lying
            symmetrically about it.
    """

    def __init__(self, factors: Sequence[int], causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.factors = tuple(int(factor) for factor in factors)
        self.stages = nn.ModuleList(_stage(factor) for factor in self.factors)

    def forward(self, local: Tensor, frames: Tensor | None = None, past: Past | None = None) -> Tensor:
        """Upsamples; what lies beyond an item's own frames has no influence on it.

        Args:
            local: [B, D, F].
            frames: [B] valid frames of each item, None when all are valid.
            past: of a causal one, where local goes on from frames before.

        Returns:
            [B, D, F * hop_length], zero beyond the valid frames.
        """
        image = _silence(local[:, None], frames)
        for factor, stage in zip(self.factors, self.stages, strict=True):
            frames = None if frames is None else frames * factor
            stretched = _look_back(stage, image, factor, past) if self.causal else stage(image)
            image = _silence(functional.leaky_relu(stretched, NEGATIVE_SLOPE), frames)
        return image[:, 0]

    def reach(self) -> tuple[int, int]:
        """Returns how many frames before and after its own one an output position depends on."""
        spans = [self._span(position) for position in range(math.prod(self.factors))]
        return -min(low for low, _ in spans), max(high for _, high in spans)

    def _span(self, position: int) -> tuple[int, int]:
        """Returns the first and the last frame on which an output position of frame 0 depends."""
        low = high = position
        for factor in reversed(self.factors):
            padding, width = (0 if self.causal else factor // 2), _width(factor)
            low, high = -(-(low + padding - width + 1) // factor), (high + padding) // factor
        return low, high


def _stage(factor: int) -> nn.ConvTranspose2d:
    # With this padding, symmetric about the frame, both widths give exactly `factor` outputs per input.
    return nn.ConvTranspose2d(1, 1, (3, _width(factor)), stride=(1, factor), padding=(1, factor // 2))


def _width(factor: int) -> int:
    # An odd factor needs an odd width to stay symmetric.
    return 2 * factor - factor % 2


def _look_back(stage: nn.Module, image: Tensor, factor: int, past: Past | None) -> Tensor:
    """Returns the stage's [B, 1, D, F * factor] where each frame reaches from its own start to the next one's end."""
    assert isinstance(stage, nn.ConvTranspose2d)
    stretched = functional.conv_transpose2d(
        look_back(image, 1, past), stage.weight, stage.bias, stride=(1, factor), padding=(1, 0)
    )
    return stretched[..., factor : factor * (image.shape[-1] + 1)]


def _silence(image: Tensor, frames: Tensor | None) -> Tensor:
    if frames is None:
        return image
    positions = torch.arange(image.shape[-1], device=image.device)
    valid = positions < frames.to(image.device)[:, None]
    return image * valid[:, None, None].to(image.dtype)


def check_features(condition: Condition, local_features: int | None, vector_features: int | None) -> None:
    """Checks that a condition tells what a network was built for, and nothing else.

    Raises:
        InputError: a part is missing, not expected, or of another size.
    """
    for name, given, expected in (
        ("local", condition.local, local_features),
        ("vector", condition.vector, vector_features),
    ):
        found = None if given is None else given.shape[1]
        if found != expected:
            raise InputError(
                f"{name} condition: got {'no' if found is None else found} features, the network expects "
                f"{'none' if expected is None else expected}; use the conditioner it was trained with"
            )


def cover(local: Tensor, length: int, hop_length: int) -> Tensor:
    """Returns local [B, D, F] with exactly the ceil(length / hop) frames that `length` samples need.

    A rest shorter than one hop may lack its frame: the last one is repeated.

    Raises:
        InputError: more frames than that are missing.
    """
    frames, needed = local.shape[-1], max(length // hop_length, 1)
    if frames < needed:
        raise InputError(
            f"local condition: got {frames} frames of {hop_length} samples for {length} samples, expected "
            f"{needed} or more; compute it from the same audio, with this hop length"
        )
    return torch.cat([local, local[..., -1:]], dim=-1)[..., : -(-length // hop_length)]
