"""Metrics: one function per module, (reference [T] or None, estimate [T], sample_rate) -> float.

A module `<name>.py` holds a function `<name>` and the constants NAME, UNIT and BETTER ("higher" or "lower")
that the report prints. `load_metrics` lists the package, so a new metric is one new file.
A pair for which a metric has no value raises NotMeasurable with the reason; the report counts it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MetricFunction = Callable[[np.ndarray | None, np.ndarray, int], float]


class NotMeasurable(ValueError):
    """A metric has no value for this pair of signals; the message is the reason, the same for like cases."""


@dataclass(frozen=True)
class Metric:
    """A metric and what a table says about it.

    Attributes:
        key: name of its module, the key in metrics.json.
        name: heading in tables.
        unit: of its values; empty when it has none.
        better: "higher" or "lower".
        definition: first paragraph of the module's docstring.
        function: (reference, estimate, sample_rate) -> value.
    """

    key: str
    name: str
    unit: str
    better: str
    definition: str
    function: MetricFunction


def load_metrics() -> tuple[Metric, ...]:
    """Returns every metric of this package, sorted by key."""
    keys = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return tuple(_load(key) for key in keys)


def _load(key: str) -> Metric:
    module = importlib.import_module(f"{__name__}.{key}")
    definition = " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())
    return Metric(key, module.NAME, module.UNIT, module.BETTER, definition, getattr(module, key))
