"""A sampler on its grid written out as sums: what each network evaluation is given, and what comes out at last.

Every sampler without thresholds is linear in the noises it draws and in the clean estimates that it is given
(Song et al. 2021, eq. 12, and all steps made of it). Its numbers can therefore be read off once, by giving it basis
vectors for noises and estimates: evaluation k happens at t_k on

    x_k = sum_m noise[k, m] e_m + sum_{j < k} estimates[k, j] D_j,      D_k = denoise(x_k, t_k)

and the signal is one such sum more. A graph for another runtime is these sums and the network, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError

_SOURCES_PER_STEP = 6  # noises drawn and estimates made in one step, at most


@dataclass(frozen=True)
class Plan:
    """A sampler as sums over N noises and K estimates.

    Attributes:
        times: t of each evaluation, K numbers.
        draws: (step, draw) of each noise, as the noise source is asked; (0, 0) is the starting noise.
        noise: K + 1 rows of N shares, of each noise in the input of each evaluation, and last in the signal.
        estimates: K + 1 rows of K shares, of each clean estimate.
    """

    times: tuple[float, ...]
    draws: tuple[tuple[int, int], ...]
    noise: tuple[tuple[float, ...], ...]
    estimates: tuple[tuple[float, ...], ...]

    @property
    def evaluations(self) -> int:
        """How often the network is asked."""
        return len(self.times)

    def combine(self, row: int, noises: Tensor, estimates: list[Tensor]) -> Tensor:
        """Returns the input of evaluation `row`, or the signal for row = evaluations.

        Args:
            row: which sum.
            noises: [N, ...] standard normal numbers.
            estimates: the clean estimates so far.
        """
        shares = (*self.noise[row], *self.estimates[row][: len(estimates)])
        total = torch.zeros_like(noises[0])
        for share, term in zip(shares, (*noises, *estimates), strict=True):
            if share != 0:
                total = total + share * term
        return total


def plan(sampler: Sampler, schedule: NoiseSchedule) -> Plan:
    """Returns the sums that a sampler computes on its grid.

    Raises:
        InputError: a sampler that is not linear: with a constraint, a projection, or a variance from the network.
    """
    for name, part in (("constraint", sampler.constraint), ("projection", sampler.projection)):
        if part is not None:
            raise InputError(f"plan: this sampler has a {name}, which no sum can express; choose one without")
    recorder = _Recorder(_SOURCES_PER_STEP * len(sampler.times(schedule)) + 2)
    signal = recorder.run(sampler, schedule)
    found = recorder.plan(signal)
    _check(found, sampler, schedule)
    return found


class _Recorder:
    """Gives a sampler basis vectors [1, size, 1] for noises and estimates, and keeps what it asked."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.times: list[float] = []
        self.inputs: list[Tensor] = []
        self.draws: list[tuple[int, int]] = []
        self.places: list[tuple[str, int]] = []  # what each basis vector stands for

    def run(self, sampler: Sampler, schedule: NoiseSchedule) -> Tensor:
        """Returns the signal as shares of the basis."""
        return sampler(self.denoise, schedule, sampler.start(schedule, self.noise(0, 0)), self.noise)

    def noise(self, step: int, draw: int) -> Tensor:
        self.draws.append((step, draw))
        return self._basis("noise", len(self.draws) - 1)

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        self.times.append(float(t))
        self.inputs.append(x)
        return self._basis("estimate", len(self.times) - 1)

    def plan(self, signal: Tensor) -> Plan:
        """Returns what was recorded as sums."""
        rows = torch.stack([vector.flatten() for vector in (*self.inputs, signal)])
        noise, estimates = (
            tuple(
                tuple(row[place] for place, (name, _) in enumerate(self.places) if name == kind)
                for row in rows.tolist()
            )
            for kind in ("noise", "estimate")
        )
        return Plan(tuple(self.times), tuple(self.draws), noise, estimates)

    def _basis(self, kind: str, number: int) -> Tensor:
        if len(self.places) == self.size:
            raise InputError(
                f"plan: this sampler asks for more than {_SOURCES_PER_STEP} noises and estimates a step"
            )
        self.places.append((kind, number))
        vector = torch.zeros(1, self.size, 1, dtype=torch.float64)
        vector[0, len(self.places) - 1] = 1
        return vector


def _check(found: Plan, sampler: Sampler, schedule: NoiseSchedule) -> None:
    """Compares the sums with the sampler itself on random noises and estimates.

    Raises:
        InputError: they differ, so that the sampler is not linear.
    """
    generator = torch.Generator().manual_seed(0)
    noises = torch.randn(len(found.draws), 1, 8, 1, generator=generator, dtype=torch.float64)
    given = torch.randn(found.evaluations, 1, 8, 1, generator=generator, dtype=torch.float64)
    asked = iter(given)
    source = dict(zip(found.draws, noises, strict=True))
    direct = sampler(
        lambda x, t: next(asked),
        schedule,
        sampler.start(schedule, source[(0, 0)]),
        lambda step, draw: source[(step, draw)],
    )
    summed = found.combine(found.evaluations, noises, list(given))
    if not torch.allclose(summed, direct, rtol=1e-9, atol=1e-9):
        raise InputError("plan: this sampler is not linear in its estimates; choose another one")
