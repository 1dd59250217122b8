"""Laws of every objective: zero at the target, one number per item, padding without influence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.objectives import MeanAbsoluteError, MeanSquaredError, Objective, masked_mean
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.schedules import linear
from audiodiff.types import Condition

SCHEDULE = linear(1e-4, 0.02, 1000)
OBJECTIVES = [MeanSquaredError(), MeanAbsoluteError()]
T = torch.tensor([1e-6, 0.001, 0.5, 1.0], dtype=torch.float64)
CLEAN, NOISE = torch.randn(2, 4, 3, 20, generator=torch.Generator().manual_seed(0))


class Answer(nn.Module):
    """Answers with a fixed tensor; keeps the x that it saw."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        self.seen = x
        return self.answer


def denoiser(answer: Tensor) -> Denoiser:
    return Denoiser(Answer(answer), SCHEDULE, epsilon, StepIndex())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("condition", [Condition(), Condition(frames=torch.tensor([20, 3, 1, 7]))])
def test_loss_is_zero_for_a_network_that_names_the_noise(objective: Objective, condition: Condition) -> None:
    loss = objective(denoiser(NOISE), CLEAN, condition, NOISE, T)
    assert loss.shape == (4,)
    assert float(loss.detach().max()) < 1e-9


@pytest.mark.parametrize(("objective", "expected"), [(MeanSquaredError(), 0.25), (MeanAbsoluteError(), 0.5)])
def test_loss_of_an_error_of_one_half_everywhere(objective: Objective, expected: float) -> None:
    signs = torch.where(torch.rand(NOISE.shape) < 0.5, -0.5, 0.5)
    loss = objective(denoiser(NOISE + signs), CLEAN, Condition(), NOISE, T)
    torch.testing.assert_close(loss, torch.full((4,), expected), rtol=1e-5, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_network_sees_the_diffused_signal(objective: Objective) -> None:
    model = denoiser(NOISE)
    objective(model, CLEAN, Condition(), NOISE, T)
    assert isinstance(model.network, Answer)
    assert model.network.seen is not None
    torch.testing.assert_close(model.network.seen, diffuse(SCHEDULE, CLEAN, NOISE, T), rtol=0, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padding_does_not_count(objective: Objective) -> None:
    lengths = torch.tensor([20, 3, 1, 7])
    condition, padding = Condition(frames=lengths), torch.arange(20) >= lengths[:, None]
    answer = torch.zeros_like(NOISE)
    expected = objective(denoiser(answer), CLEAN, condition, NOISE, T)
    changed = torch.where(padding[:, None], torch.full_like(answer, 1e3), answer)
    torch.testing.assert_close(
        objective(denoiser(changed), CLEAN, condition, NOISE, T), expected, rtol=0, atol=0
    )
    model = denoiser(answer)
    objective(model, CLEAN, condition, NOISE, T).sum().backward()
    assert isinstance(model.network, Answer)
    gradient = model.network.answer.grad
    assert gradient is not None
    assert not gradient[padding[:, None].expand_as(gradient)].any()
    assert gradient[~padding[:, None].expand_as(gradient)].any()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_of_an_item_is_its_loss_alone(objective: Objective) -> None:
    lengths = torch.tensor([20, 3, 1, 7])
    answer = NOISE.flip(0)
    together = objective(denoiser(answer), CLEAN, Condition(frames=lengths), NOISE, T)
    for i, length in enumerate(lengths.tolist()):
        own = slice(i, i + 1), slice(None), slice(0, length)
        alone = objective(denoiser(answer[own]), CLEAN[own], Condition(), NOISE[own], T[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_masked_mean_counts_every_channel_of_valid_positions_once() -> None:
    values = torch.arange(12.0).view(1, 2, 6)
    mask = torch.tensor([1.0, 1, 0, 0, 0, 0])[None, None]
    assert float(masked_mean(values, mask)) == (0 + 1 + 6 + 7) / 4
    assert float(masked_mean(values, torch.ones(1, 1, 6))) == float(masked_mean(values, None)) == 5.5
    assert float(masked_mean(values, torch.zeros(1, 1, 6))) == 0
