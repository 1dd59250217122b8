"""What a detector looks at: features of frames and of their neighbours, and the profile of a recording.

A frame has the logarithms of its denoising errors by noise level, and of the power in a few bands, without which an
error could not be judged: loud frames are harder to denoise than quiet ones. Beside those of two frames before and
after, they tell a sudden change from a slow one. The profile says how finer features go through a recording: their
mean, their largest value, whether they grow, how fast they rise and fall. What is played backwards or too fast has
ordinary frames and an odd profile. Both are gathered from pieces as these come, in memory that does not grow.
"""

from __future__ import annotations

import numpy as np

REACH = 2  # frames at either side that a frame is judged with
_COARSE_BANDS = 8  # of a frame beside its neighbours
_POWER_FLOOR = 1e-4  # of whitened x: digital silence is no outlier among quiet frames
_ERROR_FLOOR = 1e-12
_STEP_FLOOR = 1e-2  # nats; smaller steps between frames are alike


def frame_features(errors: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Returns [P, levels + at most 8], log error by level and log power by band.

    Args:
        errors: [levels, groups, P].
        power: [bands, P], of whitened x.
    """
    bands = np.array_split(power, min(_COARSE_BANDS, len(power)))
    coarse = np.stack([band.mean(0) for band in bands])
    return np.concatenate([_log_errors(errors.mean(1)), _log_power(coarse)]).T


def fine_features(errors: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Returns [P, levels * groups + bands], the same by channel group and by every band."""
    return np.concatenate([_log_errors(errors).reshape(-1, errors.shape[-1]), _log_power(power)]).T


class Neighbours:
    """Frames beside those around them; at the ends of a recording the outermost frame is its own neighbour."""

    def __init__(self) -> None:
        self._held: np.ndarray | None = None

    def add(self, frames: np.ndarray) -> np.ndarray:
        """Takes in the next frames [P, C] and returns those whose neighbours are known [P', (2 REACH + 1) C]."""
        before = frames[:1].repeat(REACH, 0) if self._held is None else self._held
        self._held = np.concatenate([before, frames])
        return self._ready()

    def finish(self) -> np.ndarray:
        """Returns the last frames [P', (2 REACH + 1) C]; some must have been added."""
        assert self._held is not None
        self._held = np.concatenate([self._held, self._held[-1:].repeat(REACH, 0)])
        return self._ready()

    def _ready(self) -> np.ndarray:
        assert self._held is not None
        held, width = self._held, 2 * REACH + 1
        if len(held) < width:
            return np.zeros((0, width * held.shape[1]))
        self._held = held[-2 * REACH :]
        return np.lib.stride_tricks.sliding_window_view(held, width, axis=0).reshape(
            -1, width * held.shape[1]
        )


class Profile:
    """The profile of a recording, from its fine features."""

    def __init__(self) -> None:
        self._frames = 0
        self._last: np.ndarray | None = None
        self._sum: np.ndarray | float = 0.0
        self._moment: np.ndarray | float = 0.0
        self._rises: np.ndarray | float = 0.0
        self._falls: np.ndarray | float = 0.0
        self._largest: np.ndarray | float = -np.inf

    def add(self, features: np.ndarray) -> None:
        """Takes in the next frames [P, D]."""
        place = self._frames + np.arange(len(features))
        before = features[:1] if self._last is None else self._last[None]
        steps = np.diff(np.concatenate([before, features]), axis=0)
        self._sum = self._sum + features.sum(0)
        self._moment = self._moment + place @ features
        self._rises = self._rises + np.square(steps.clip(min=0)).sum(0)
        self._falls = self._falls + np.square(steps.clip(max=0)).sum(0)
        self._largest = np.maximum(self._largest, features.max(0))
        self._frames += len(features)
        self._last = features[-1]

    def vector(self) -> np.ndarray:
        """Returns [5 D]: mean, largest value, trend, log RMS of the steps upwards and of those downwards.

        The trend is the mean of the feature times a ramp from -1 to 1 over the recording.
        """
        count, centre = self._frames, (self._frames - 1) / 2
        mean = np.asarray(self._sum) / count
        trend = (np.asarray(self._moment) / count - centre * mean) / max(centre, 0.5)
        steps = [
            np.log(np.sqrt(np.asarray(total) / max(count - 1, 1)) + _STEP_FLOOR)
            for total in (self._rises, self._falls)
        ]
        return np.concatenate([mean, self._largest, trend, *steps])


def _log_errors(errors: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(errors, _ERROR_FLOOR)))


def _log_power(power: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(power + _POWER_FLOOR))
