"""Every schedule that the library has, with parameters for the laws: published ones, extreme ones and drawn ones.

`MAKERS` is read from the modules themselves; a test compares it with the examples, so that a new schedule
without examples fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from hypothesis import strategies as st

from audiodiff.diffusion import continuous, schedules
from audiodiff.diffusion.continuous import VPSDE, Cosine, Flow, Karras, LogSnrShift, Sigmoid
from audiodiff.diffusion.schedules import (
    BetaTable,
    NoiseSchedule,
    VariancePreserving,
    cosine_table,
    linear,
    power,
    zero_terminal_snr,
)

BASE, LARGE = linear(1e-4, 0.05, 50), linear(1e-4, 0.02, 200)
WAVEGRAD = linear(1e-6, 0.01, 1000)


def _makers() -> dict[str, Callable[..., NoiseSchedule]]:
    """Returns what builds a schedule: the concrete classes, and the functions that return a BetaTable."""
    found: dict[str, Callable[..., NoiseSchedule]] = {}
    for module in (schedules, continuous):
        for name, member in inspect.getmembers(module):
            if getattr(member, "__module__", None) != module.__name__ or name.startswith("_"):
                continue
            if inspect.isclass(member) and all(hasattr(member, part) for part in ("alpha", "sigma", "time")):
                found[name] = member
            if inspect.isfunction(member) and member.__annotations__["return"] == "BetaTable":
                found[name] = member
    contracts = ("NoiseSchedule", "VariancePreserving", "table_of")  # a protocol, a base class and a check
    return {name: maker for name, maker in found.items() if name not in contracts}


MAKERS = _makers()

FIXED: dict[str, dict[str, NoiseSchedule]] = {
    "BetaTable": {
        "one-row": BetaTable([0.3]),
        "one-row-to-noise": BetaTable([1.0]),
        "rising-and-falling": BetaTable([0.1, 0.4, 1e-5, 0.2]),
        "to-noise": BetaTable([0.5, 0.1, 1.0]),
    },
    "linear": {"diffwave-base": BASE, "diffwave-large": LARGE, "ddpm": linear(1e-4, 0.02, 1000), "wavegrad": WAVEGRAD},
    "power": {"multi-band": power(1e-5, 0.029, 1000, 7.5), "root": power(1e-4, 0.05, 30, 0.5)},
    "cosine_table": {"1000": cosine_table(1000), "4": cosine_table(4)},
    "zero_terminal_snr": {
        "base": zero_terminal_snr(BASE),
        "fregrad": zero_terminal_snr(BASE, remaining=1e-4),
        "ddpm": zero_terminal_snr(linear(1e-4, 0.02, 1000)),
    },
    "Cosine": {"dance-diffusion": Cosine(), "nichol": Cosine(0.008)},
    "Sigmoid": {"jabri": Sigmoid(), "chen": Sigmoid(0.0, 3.0, 0.7), "one-sided": Sigmoid(0.0, 20.0)},
    "VPSDE": {"grad-tts": VPSDE(), "song": VPSDE(0.1, 20.0), "from-zero": VPSDE(0.0, 12.0)},
    "LogSnrShift": {
        "cosine": LogSnrShift(Cosine(), -2 * 0.6931),
        "base": LogSnrShift(BASE, -3.0),
        "cleaner": LogSnrShift(Sigmoid(), 4.0),
    },
    "Karras": {"edm": Karras(), "ve": Karras(100.0, 0.5)},
    "Flow": {
        "straight": Flow(),
        "matcha": Flow(1e-4),
        "esser": Flow(shift=3.0),
        "both": Flow(0.3, 0.2),
    },
}  # fmt: skip

_preserving = st.one_of(
    st.builds(Cosine, st.just(0.0) | st.floats(1e-4, 0.1)),
    st.builds(VPSDE, st.just(0.0) | st.floats(1e-3, 1), st.floats(2, 30)),
    st.builds(linear, st.floats(1e-5, 1e-3), st.floats(1e-3, 0.3), st.integers(2, 50)),
)
_betas = st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=40)

DRAWN: dict[str, st.SearchStrategy[NoiseSchedule]] = {
    "BetaTable": st.builds(lambda betas, last: BetaTable(betas + last), _betas, st.just([]) | st.just([1.0])),
    "linear": st.builds(linear, st.floats(1e-6, 1e-3), st.floats(1e-6, 0.3), st.integers(1, 100)),
    "power": st.builds(
        power, st.floats(1e-5, 1e-3), st.floats(1e-3, 0.3), st.integers(1, 100), st.floats(0.3, 10)
    ),
    "cosine_table": st.builds(cosine_table, st.integers(1, 200), st.floats(1e-3, 0.05), st.floats(0.5, 0.999)),
    "zero_terminal_snr": st.builds(
        zero_terminal_snr, st.lists(st.floats(1e-4, 0.3), min_size=2, max_size=40).map(BetaTable),
        st.just(0.0) | st.floats(1e-5, 1e-2),
    ),
    "Cosine": st.builds(Cosine, st.just(0.0) | st.floats(1e-4, 0.1)),
    "Sigmoid": st.builds(Sigmoid, st.floats(-5, 0), st.floats(0.5, 5), st.floats(0.5, 2)),
    "VPSDE": st.builds(VPSDE, st.just(0.0) | st.floats(1e-3, 1), st.floats(2, 30)),
    "LogSnrShift": st.builds(LogSnrShift, _preserving, st.floats(-6, 6)),
    "Karras": st.builds(Karras, st.floats(0.01, 200), st.floats(0.5, 10)),
    "Flow": st.builds(Flow, st.just(0.0) | st.floats(1e-6, 0.9), st.floats(0.05, 20)),
}  # fmt: skip

EXAMPLES = {f"{name}-{label}": example for name, group in FIXED.items() for label, example in group.items()}

EVERY = [pytest.param(example, id=name) for name, example in EXAMPLES.items()]
"""The fixed examples, for parametrize."""

FAMILIES = [
    *(pytest.param(st.just(example), id=name) for name, example in EXAMPLES.items()),
    *(pytest.param(strategy, id=f"{name}-drawn") for name, strategy in DRAWN.items()),
]
"""Strategies of one schedule or of many, for parametrize; each fixed example is a family of one."""


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def leaves_no_signal(schedule: NoiseSchedule) -> bool:
    return float(schedule.alpha(scalar(1.0))) == 0


def has_no_noise_at_zero(schedule: NoiseSchedule) -> bool:
    return float(schedule.sigma(scalar(0.0))) == 0


def preserves_variance(schedule: NoiseSchedule) -> bool:
    return isinstance(schedule, VariancePreserving)
