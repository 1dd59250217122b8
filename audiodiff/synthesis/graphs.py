"""What an export runs: one call of the denoiser, or a whole sampler from noise and condition to waveform.

Both are nn.Modules of tensor operations alone, with nothing that depends on values: the sampler is written out as sums
(`diffusion.plan`), noise labels and coefficients are constants, and a Representation, which is linear, becomes a
transposed convolution with its own impulse responses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from audiodiff.conditioning.conditioner import Joint, Unconditional
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import Mel
from audiodiff.diffusion.denoiser import Denoiser
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.plan import Plan
from audiodiff.diffusion.priors import color
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion
from audiodiff.types import Condition

Ask = Callable[[Tensor, Tensor | float, Tensor], Tensor]
"""(x, c_in, noise label) -> prediction of the network."""


class Door(nn.Module):
    """Condition from plain tensors: a log-mel, rows of label tables, or both."""

    def __init__(self, model: AudioDiffusion) -> None:
        """Takes the model's conditioners.

        Raises:
            InputError: a conditioner that is told something else, such as text.
        """
        super().__init__()
        parts = model.conditioner.parts if isinstance(model.conditioner, Joint) else [model.conditioner]
        foreign = [part for part in parts if not isinstance(part, Mel | Labels | Unconditional)]
        if foreign:
            raise InputError(
                f"export: a model that is told {type(foreign[0]).__name__} cannot be exported; "
                "one that is told a mel, labels, both or nothing can"
            )
        self.mel = next((part for part in parts if isinstance(part, Mel)), None)
        self.labels = next((part for part in parts if isinstance(part, Labels)), None)
        self.hop_length = model.representation.hop_length
        self.added = model.representation.shape(self.hop_length)[1] - 1
        if self.mel is not None and self.mel.log_mel.hop_length % self.hop_length:
            raise InputError(
                f"export: the mel's hop of {self.mel.log_mel.hop_length} samples is no multiple of the model's, "
                f"{self.hop_length}"
            )

    def length(self, x: Tensor, mel: Tensor | None) -> int:
        """Returns the samples of audio that x [..., F] stands for, whole hops, or those of a mel [B, n_mels, F']."""
        if mel is None or self.mel is None:
            return (x.shape[-1] - self.added) * self.hop_length
        length = mel.shape[-1] * self.mel.log_mel.hop_length
        # Tells the tracer how the two lengths depend on one another.
        torch._check(x.shape[-1] == length // self.hop_length + self.added)
        return length

    def forward(self, length: int, mel: Tensor | None, rows: Tensor | None) -> Condition:
        """Returns the condition for audio of `length` samples; mel [B, n_mels, F'], rows [B, label names]."""
        heard = Condition() if self.mel is None or mel is None else self.mel.hear(mel, length)
        if self.labels is None or rows is None:
            return heard
        return Condition(
            heard.local, self.labels.of_rows(rows).vector, None, heard.prior_mean, heard.prior_std
        )

    def nothing(self, rows: Tensor) -> Tensor:
        """Returns the rows [B, label names] that mean "any", for guidance."""
        assert self.labels is not None
        return torch.tensor([[len(table) for table in self.labels.values.values()]]).expand(rows.shape[0], -1)


class DenoiserGraph(nn.Module):
    """One call of the denoiser: clean = c_skip x + c_out network(c_in x, label, condition).

    x is what is diffused, whitened where the condition tells a prior; label and coefficients for a time are told
    beside the graph, in its JSON file.
    """

    def __init__(self, model: AudioDiffusion) -> None:
        super().__init__()
        self.denoiser = model.denoiser
        self.door = Door(model)

    def forward(
        self,
        x: Tensor,
        label: Tensor,
        coefficients: Tensor,
        mel: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Returns the clean estimate [B, D, F].

        Args:
            x: [B, D, F].
            label: [B] float32, the noise label.
            coefficients: [B, 3] float32: c_in, c_skip, c_out.
            mel: [B, n_mels, F'] of a model that hears one.
            rows: [B, label names] int64 of a model that is told labels; the number of a label's values means "any".
        """
        condition = self.door(self.door.length(x, mel), mel, rows)
        c_in, c_skip, c_out = coefficients[:, :, None, None].unbind(1)
        prediction = network_of(self.denoiser, condition)(x, c_in, label)
        return c_skip * x + c_out * prediction


class SamplerGraph(nn.Module):
    """A whole sampler: (noise, condition) -> waveform."""

    def __init__(self, model: AudioDiffusion, plan: Plan, guidance: Guidance) -> None:
        """Writes out a sampler.

        Args:
            model: whose denoiser is asked.
            plan: the sampler as sums.
            guidance: away from the estimate without labels; scale 1 for none.

        Raises:
            InputError: guidance with rescaling, which is no sum.
        """
        super().__init__()
        if guidance.scale != 1 and guidance.rescale > 0:
            raise InputError(
                "export: guidance with rescaling cannot be written out; export with guidance_rescale 0"
            )
        self.denoiser = model.denoiser
        self.door = Door(model)
        self.plan = plan
        self.guidance = guidance
        self.decode = Decoder(model)
        self.settings = settings_at(model.denoiser, plan.times)

    def forward(self, noise: Tensor, mel: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """Returns the waveform [B, C, T], T = (F - frames of overlap) hops.

        Args:
            noise: [N, B, D, F] standard normal numbers, N as the plan draws.
            mel: [B, n_mels, F'].
            rows: [B, label names] int64.
        """
        length = self.door.length(noise, mel)
        condition = self.door(length, mel, rows)
        ask = network_of(self.denoiser, condition)
        other = None
        if self.guidance.scale != 1 and rows is not None:
            other = network_of(self.denoiser, self.door(length, mel, self.door.nothing(rows)))
        estimates: list[Tensor] = []
        for number in range(self.plan.evaluations):
            x = self.plan.combine(number, noise, estimates)
            estimates.append(self._estimate(ask, other, x, number))
        return self.decode(
            color(self.plan.combine(self.plan.evaluations, noise, estimates), condition), length
        )

    def _estimate(
        self, ask: Ask, other: Ask | None,
        x: Tensor, number: int,
    ) -> Tensor:  # fmt: skip
        label, c_in, c_skip, c_out = self.settings[number]
        told = torch.full((x.shape[0],), label)
        clean = c_skip * x + c_out * ask(x, c_in, told)
        low, high = self.guidance.interval
        if other is None or not low <= self.plan.times[number] <= high:
            return clean
        worse = c_skip * x + c_out * other(x, c_in, told)
        return worse + self.guidance.scale * (clean - worse)


class Decoder(nn.Module):
    """A Representation's decode as a transposed convolution with its impulse responses."""

    kernel: Tensor

    def __init__(self, model: AudioDiffusion) -> None:
        """Measures the impulse responses.

        Raises:
            InputError: a representation that is not linear, such as a mel.
        """
        super().__init__()
        representation = model.representation
        self.hop_length = representation.hop_length
        features, self.before = representation.shape(self.hop_length)
        self.added = self.before - 1
        # A position influences at most added + 1 hops before and after its own.
        span = 4 * self.before + 1
        middle = span // 2
        length = (span - self.added) * self.hop_length
        impulses = torch.zeros(features, features, span)
        impulses[torch.arange(features), torch.arange(features), middle] = 1
        responses = representation.decode(impulses, length)  # [D, C, length]
        start = (middle - self.added) * self.hop_length
        self.register_buffer(
            "kernel", responses[..., start : start + (self.added + 1) * self.hop_length].clone()
        )
        if not torch.allclose(self.kernel.square().sum(), responses.square().sum()) or bool(
            representation.decode(torch.zeros(1, features, span), length).any()
        ):
            raise InputError(f"export: {type(representation).__name__} is no linear map of frames to samples")

    def forward(self, x: Tensor, length: int) -> Tensor:
        """Returns the waveform [B, C, length] of x [B, D, F]."""
        if self.kernel.shape[-1] == 1:
            return torch.einsum("bdf,dc->bcf", x, self.kernel[..., 0])
        whole = nn.functional.conv_transpose1d(x, self.kernel, stride=self.hop_length)
        start = self.added * self.hop_length
        return whole[..., start : start + length]


def settings_at(denoiser: Denoiser, times: tuple[float, ...]) -> list[tuple[float, float, float, float]]:
    """Returns (noise label, c_in, c_skip, c_out) at each time."""
    t = torch.tensor(times, dtype=torch.float64)
    labels = denoiser.noise_label(denoiser.schedule, t)
    return list(zip(*(part.tolist() for part in (labels, *denoiser.coefficients(t))), strict=True))


def network_of(denoiser: Denoiser, condition: Condition) -> Ask:
    """Returns (x, c_in, label) -> prediction in the coordinates of x, whitened where there is a prior."""
    network = denoiser.network.bind(condition)
    return lambda x, c_in, label: denoiser.from_network(
        network(c_in * denoiser.to_network(x, condition), label), condition
    )
