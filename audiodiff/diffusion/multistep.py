"""Steps that learn from the steps before: one evaluation a step, second to fourth order.

Each is the first-order move with a weighted sum of the last estimates in place of the newest. What is
extrapolated tells the family: the clean estimate (DPM-Solver++, UniPC) or the noise (LMS, DEIS, PLMS,
DPM-Solver). A rule gives the weights from the noise levels r = sigma / alpha of the estimates, newest first,
and the level to reach; they add up to 1. While there is too little history, and where the step reaches r = 0
and a logarithm would be infinite, the order is lower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.process import epsilon_from_clean, expand, noise_ratio
from audiodiff.diffusion.samplers import check_eta, move, new_variance
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.errors import InputError

Rule = Callable[[Sequence[float], float], Sequence[float]]
"""(levels r of the estimates, newest first; level to reach) -> weights, newest first."""


@dataclass(frozen=True)
class History:
    """Estimates [B, C, F] and their noise levels, newest first."""

    ratios: tuple[float, ...] = ()
    estimates: tuple[Tensor, ...] = ()

    def with_newest(self, ratio: float, estimate: Tensor, order: int) -> History:
        """Returns the history with one more, of at most `order`."""
        return History((ratio, *self.ratios)[:order], (estimate, *self.estimates)[:order])

    def combine(self, weights: Sequence[float]) -> Tensor:
        """Returns the weighted sum of the newest estimates."""
        total = weights[0] * self.estimates[0]
        for weight, estimate in zip(weights[1:], self.estimates[1:], strict=False):
            total = total + weight * estimate
        return total


@dataclass(frozen=True)
class NoiseMultistep:
    """Extrapolates the noise.

    Attributes:
        rule: lms, deis, adams_bashforth or dpm_midpoint.
        order: estimates used; 4 for lms and plms, 2 or 3 for deis, 2 for dpm_midpoint.
    """

    least_steps: ClassVar[int] = 2
    rule: Rule
    order: int = 4

    def __post_init__(self) -> None:
        check_order(self.order)

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s and the history."""
        check_signal(schedule, t)
        epsilon = epsilon_from_clean(schedule, x, denoise(x, t), t)
        history = (memory or History()).with_newest(float(noise_ratio(schedule, t)), epsilon, self.order)
        return noise_move(schedule, x, self.extrapolated(schedule, history, s), t, s), history

    def extrapolated(self, schedule: NoiseSchedule, history: History, s: Tensor) -> Tensor:
        """Returns the noise that the history leads one to expect on the way to s."""
        return history.combine(self.rule(history.ratios, float(noise_ratio(schedule, s))))


@dataclass(frozen=True)
class CleanMultistep:
    """Extrapolates the clean estimate: DPM-Solver++ (Lu et al. 2022), also its SDE form.

    Attributes:
        rule: dpmpp_midpoint, dpmpp_heun, dpmpp_third or dpmpp_exact.
        order: estimates used.
        eta: 0 follows the probability flow, 1 the reverse SDE.
    """

    least_steps: ClassVar[int] = 2
    rule: Rule
    order: int = 2
    eta: float = 0.0

    def __post_init__(self) -> None:
        check_order(self.order)
        check_eta(self.eta)

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s and the history."""
        history = (memory or History()).with_newest(
            float(noise_ratio(schedule, t)), denoise(x, t), self.order
        )
        clean = history.combine(self.rule(history.ratios, float(noise_ratio(schedule, s))))
        return move(schedule, x, clean, t, s, new_variance(schedule, t, s, self.eta), noise), history


def check_order(order: int) -> None:
    """Refuses an order that no rule here has."""
    if not 1 <= order <= 4:
        raise InputError(f"order: got {order}, expected 1 to 4")


def check_signal(schedule: NoiseSchedule, t: Tensor) -> None:
    """Refuses a time without signal, where the noise says nothing of it."""
    if float(schedule.alpha(t)) <= 0:
        raise InputError(
            f"sampler: this step follows the noise, and the schedule leaves no signal at t = {float(t):.4g}; choose "
            "ddim, dpmpp_2m or unipc, or a grid with a ratio_max"
        )


def noise_move(schedule: NoiseSchedule, x: Tensor, epsilon: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Returns x at s when the noise is `epsilon` all the way: `move` told by the noise.

    Raises:
        InputError: no signal is left at t.
    """
    check_signal(schedule, t)
    scale = schedule.alpha(s) / schedule.alpha(t)
    return expand(scale, x) * x + expand(schedule.sigma(s) - scale * schedule.sigma(t), x) * epsilon


def lms(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns linear multistep weights: the polynomial in r through the estimates, averaged over the step.

    Adams and Bashforth on an uneven grid, k-diffusion's LMS.
    """
    return [_mean(np.polynomial.Polynomial(c), ratios[0], target) for c in _lagrange(ratios)]


def deis(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns DEIS weights: the polynomial in log r, averaged over r (Zhang and Chen 2023, rho-AB)."""
    nodes = [math.log(ratio / ratios[0]) for ratio in ratios]
    moments = _log_moments(1.0, target / ratios[0], len(nodes))
    return [
        sum(c * m for c, m in zip(coefficients, moments, strict=True)) for coefficients in _lagrange(nodes)
    ]


def adams_bashforth(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns the weights for an even grid, whatever the grid (Liu et al. 2022, PNDM, eq. 12)."""
    rows = ([1.0], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24])
    return rows[len(ratios) - 1]


def dpm_midpoint(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns DPM-Solver-2 weights on the noise, multistep (Lu et al. 2022; diffusers' "dpmsolver")."""
    return dpmpp_midpoint(ratios, target)


def dpmpp_midpoint(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns DPM-Solver++(2M) weights: 1 + h / 2 h_last (Lu et al. 2022, DPM-Solver++, algorithm 2)."""
    if len(ratios) < 2 or target == 0:
        return [1.0]
    ahead = math.log(ratios[0] / target) / math.log(ratios[1] / ratios[0]) / 2
    return [1 + ahead, -ahead]


def dpmpp_heun(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns the weights that integrate the line through two estimates exactly (their appendix B, "heun")."""
    if len(ratios) < 2 or target == 0:
        return [1.0]
    step = math.log(ratios[0] / target)
    ahead = step / math.log(ratios[1] / ratios[0]) * _phi(step)[0]
    return [1 + ahead, -ahead]


def dpmpp_exact(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns the weights that integrate the polynomial in log r through the estimates: DPM-Solver++ of any order.

    The clean estimate is to 1 / r what the noise is to r, so they are DEIS's.
    """
    if target == 0:
        return [1.0]
    return deis([1 / ratio for ratio in ratios if ratio < math.inf] or [1.0], 1 / target)


def dpmpp_third(ratios: Sequence[float], target: float) -> Sequence[float]:
    """Returns DPM-Solver++(3M) weights as its authors' code and diffusers have them.

    Their curvature weighs half of what the integral gives, so that they converge with second order, if with a
    small error; dpmpp_exact is of third.
    """
    if len(ratios) < 3 or target == 0:
        return dpmpp_midpoint(ratios, target)
    step = math.log(ratios[0] / target)
    first, second = (math.log(ratios[i + 1] / ratios[i]) / step for i in (0, 1))
    slope, bend = _phi(step)
    # D1 = D1_0 + first / (first + second) (D1_0 - D1_1), D2 = (D1_0 - D1_1) / (first + second)
    on_first = slope * (1 + first / (first + second)) - bend / (first + second)
    on_second = -slope * first / (first + second) + bend / (first + second)
    return [1 + on_first / first, -on_first / first + on_second / second, -on_second / second]


def _phi(step: float) -> tuple[float, float]:
    """Returns the shares of slope and curvature over a step h in log-SNR/2, over 1 - exp(-h)."""
    whole = -math.expm1(-step)
    slope = (math.expm1(-step) / step + 1) / whole
    return slope, ((math.expm1(-step) + step) / step**2 - 0.5) / whole


def _lagrange(nodes: Sequence[float]) -> list[np.ndarray]:
    """Returns each Lagrange basis polynomial's coefficients, lowest power first."""
    basis = []
    for j, node in enumerate(nodes):
        others = [other for k, other in enumerate(nodes) if k != j]
        scale = math.prod(node - other for other in others)
        basis.append(np.polynomial.polynomial.polyfromroots(others) / scale)
    return basis


def _mean(polynomial: np.polynomial.Polynomial, start: float, end: float) -> float:
    integral = polynomial.integ()
    return float((integral(end) - integral(start)) / (end - start))


def _log_moments(start: float, end: float, count: int) -> list[float]:
    """Returns the means of (log r)^k over r from start to end; end may be 0."""

    def integral(ratio: float, k: int) -> float:
        # int (log r)^k dr = r (log r)^k - k int (log r)^(k - 1) dr; r (log r)^k goes to 0 with r.
        if ratio == 0:
            return 0.0
        return ratio * math.log(ratio) ** k - (k * integral(ratio, k - 1) if k else 0.0)

    return [(integral(end, k) - integral(start, k)) / (end - start) for k in range(count)]


@dataclass(frozen=True)
class PLMS:
    """PLMS: Adams-Bashforth of fourth order on the noise, its first step made twice (Liu et al. 2022, PNDM).

    The first step costs two evaluations, as in latent diffusion's and diffusers' PLMS.
    """

    least_steps: ClassVar[int] = 2

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s and the history."""
        reached, history = _ADAMS(denoise, schedule, x, t, s, memory, noise)
        if memory is not None or float(schedule.sigma(s)) == 0:
            return reached, history
        ahead = epsilon_from_clean(schedule, reached, denoise(reached, s), s)
        return noise_move(schedule, x, (history.estimates[0] + ahead) / 2, t, s), history


_ADAMS = NoiseMultistep(adams_bashforth, 4)
_RUNGE_KUTTA_STEPS = 3


@dataclass(frozen=True)
class PNDM:
    """PNDM: three Runge-Kutta steps of four evaluations, then PLMS (Liu et al. 2022, eqs. 12 and 13)."""

    least_steps: ClassVar[int] = 2

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s and the history."""
        reached, history = _ADAMS(denoise, schedule, x, t, s, memory, noise)
        if len(history.estimates) > _RUNGE_KUTTA_STEPS or float(schedule.sigma(s)) == 0:
            return reached, history
        first, middle = history.estimates[0], (t + s) / 2
        slopes = [first]
        for u in (middle, middle, s):
            there = noise_move(schedule, x, slopes[-1], t, u)
            slopes.append(epsilon_from_clean(schedule, there, denoise(there, u), u))
        mean = (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3]) / 6
        return noise_move(schedule, x, mean, t, s), history


@dataclass(frozen=True)
class UniPC:
    """Predictor and corrector that share their evaluations (Zhao et al. 2023, UniPC, algorithms 5 and 6).

    Every evaluation first corrects the x at which it was made, then predicts the next.

    Attributes:
        order: 2 or 3.
        bh: which B(h) the residuals are measured by: 1 for h, 2 for exp(h) - 1 (their section 3.2).
    """

    least_steps: ClassVar[int] = 2
    order: int = 2
    bh: int = 2

    def __post_init__(self) -> None:
        check_order(self.order)
        if self.bh not in (1, 2):
            raise InputError(f"bh: got {self.bh}, choose 1 or 2")

    def __call__(
        self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, memory: Any,
        noise: Callable[[], Tensor],
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Returns x at s and (corrected x at t, t, history, order of the prediction)."""
        clean = denoise(x, t)
        history = History()
        if memory is not None:
            # Added to x, which a constraint or new noise may have moved from what was predicted.
            before, u, history, order = memory
            predicted = self._solve(schedule, before, u, t, history, order, None)
            x = x + (self._solve(schedule, before, u, t, history, order, clean) - predicted)
        history = history.with_newest(float(noise_ratio(schedule, t)), clean, self.order)
        order = 1 if float(schedule.sigma(s)) == 0 else len(history.estimates)
        reached = self._solve(schedule, x, t, s, history, order, None)
        # Where no signal is left, log-SNR is infinite: nothing to extrapolate from.
        return reached, ((x, t, history, order) if math.isfinite(history.ratios[0]) else None)

    def _solve(
        self, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor, history: History, order: int,
        ahead: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Returns x moved from t to s with the estimates up to t, and the one at s when it is known."""
        newest = history.estimates[0]
        if float(schedule.sigma(s)) == 0:
            return move(schedule, x, newest, t, s)
        step = math.log(history.ratios[0] / float(noise_ratio(schedule, s)))
        nodes = [math.log(history.ratios[0] / ratio) / step for ratio in history.ratios[1:order]]
        differences = [
            (past - newest) / node for past, node in zip(history.estimates[1:], nodes, strict=False)
        ]
        if ahead is not None:
            nodes, differences = [*nodes, 1.0], [*differences, ahead - newest]
        clean = newest
        for weight, difference in zip(self._weights(nodes, step), differences, strict=True):
            clean = clean + weight * difference
        return move(schedule, x, clean, t, s)

    def _weights(self, nodes: Sequence[float], step: float) -> list[float]:
        """Returns the weights of the differences, over 1 - exp(-h)."""
        if not nodes:
            return []
        whole = math.expm1(-step)
        measure = -step if self.bh == 1 else whole
        if len(nodes) == 1:  # their exact value for one node, 1/2 for every B(h)
            return [0.5 * measure / whole]
        right, phi = [], whole / -step - 1
        for k in range(1, len(nodes) + 1):
            right.append(phi * math.factorial(k) / measure)
            phi = phi / -step - 1 / math.factorial(k + 1)
        rows = np.stack([np.asarray(nodes) ** k for k in range(len(nodes))])
        return [float(weight) * measure / whole for weight in np.linalg.solve(rows, right)]
