"""What acts on the data's coordinates, as it is where sampling runs in those that the condition's prior whitens.

Sampling from a prior with a mean or a deviation runs on z = (x - mean) / std (see `priors`); a constraint or
projection speaks of x, so that z is coloured for it and whitened again.
"""

from __future__ import annotations

from dataclasses import replace

from audiodiff.diffusion.constraints import Constraint
from audiodiff.diffusion.priors import color, whiten
from audiodiff.diffusion.samplers import Sampler
from audiodiff.types import Condition


def whitened(constraint: Constraint, condition: Condition) -> Constraint:
    """Returns a constraint on the sampled coordinates from one on the data's, where the condition tells a prior."""
    if condition.prior_mean is None and condition.prior_std is None:
        return constraint
    return lambda z, s: whiten(constraint(color(z, condition), s), condition)


def in_data_space(sampler: Sampler, condition: Condition) -> Sampler:
    """Returns the sampler with its own constraint and projection acting on the data's coordinates."""
    parts = {
        name: None if part is None else whitened(part, condition)
        for name, part in (("constraint", sampler.constraint), ("projection", sampler.projection))
    }
    return replace(sampler, constraint=parts["constraint"], projection=parts["projection"])
