"""The edits that can be asked for: each looks at a recording and says which patches make it whole.

A task is a value; `plan` reads the recording as often as it needs to (for its level, its clipping, its noise) and
returns a Plan, whose patches are made one by one while they are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from audiodiff.editing.detection import bandwidth, clipping, dropouts, noise_deviations
from audiodiff.editing.gaps import Gap, OnWindow, fill, gaps_of
from audiodiff.editing.intervals import Interval, intervals_within
from audiodiff.editing.recording import Patch, Recording
from audiodiff.editing.restore import Restorer
from audiodiff.editing.whole import Change, Declip, Denoise, Extend, Resampled, changed, noise_ratios
from audiodiff.editing.window import Bridge, Centred, bridge
from audiodiff.errors import InputError

_LONGEST_PICTURE = 64  # intervals that a plan remembers


@dataclass(frozen=True)
class Plan:
    """How a recording is edited.

    Attributes:
        recording: what is edited, at the rate of the result.
        span: positions that the result holds.
        bridge: to the model.
        edits: the gaps that are filled, or the change of the whole.
        remarks: lines for the user.
        marks: intervals that are edited, for pictures; empty where all is.
        floating: whether the result may exceed full scale.
    """

    recording: Recording
    span: tuple[int, int]
    bridge: Bridge
    edits: tuple[Gap, ...] | Change
    remarks: tuple[str, ...] = ()
    marks: tuple[Interval, ...] = ()
    floating: bool = False

    def patches(self, on_window: OnWindow | None = None) -> Iterator[Patch]:
        """Yields the new samples, rising; the work is done as they are drawn."""
        offsets = self.bridge.offsets
        centred = Centred(self.recording, offsets)
        if isinstance(self.edits, tuple):
            made = fill(centred, self.bridge, self.edits, on_window)
        else:
            made = changed(centred, self.bridge, self.edits, on_window)
        for patch in made:
            yield replace(patch, samples=patch.samples + offsets)


class Task(Protocol):
    """What is asked for."""

    def plan(self, recording: Recording, restorer: Restorer) -> Plan:
        """Returns how to do it.

        Raises:
            InputError: something that this recording or this model does not allow.
        """
        ...


@dataclass(frozen=True)
class Inpaint:
    """Makes intervals anew.

    Attributes:
        masks: (start, stop) of each, in seconds.
    """

    masks: tuple[tuple[float, float], ...]

    def plan(self, recording: Recording, restorer: Restorer) -> Plan:
        """Returns how to fill the masks."""
        intervals, remarks = intervals_within(self.masks, recording.sample_rate, recording.length)
        return _filling(recording, restorer, gaps_of(intervals, recording.channels), remarks)


@dataclass(frozen=True)
class Continue:
    """Goes on where a recording ends, or begins before it does.

    Attributes:
        before: seconds to make before its start.
        after: seconds to make after its end.
    """

    before: float = 0.0
    after: float = 0.0

    def plan(self, recording: Recording, restorer: Restorer) -> Plan:
        """Returns how to make what comes before and after."""
        if self.before < 0 or self.after < 0:
            raise InputError(
                f"continue: got {self.before} s before and {self.after} s after, expected 0 or more"
            )
        before, after = (round(seconds * recording.sample_rate) for seconds in (self.before, self.after))
        if before + after < 1:
            raise InputError("continue: nothing asked for; give seconds with --before or --after")
        ends = [Interval(-before, 0), Interval(recording.length, recording.length + after)]
        gaps = gaps_of([interval for interval in ends if interval.length > 0], recording.channels)
        plan = _filling(recording, restorer, gaps, [])
        return Plan(
            recording, (-before, recording.length + after), plan.bridge, plan.edits, plan.remarks, plan.marks
        )


@dataclass(frozen=True)
class RepairDropouts:
    """Makes stretches of digital zeros in the midst of sound anew."""

    def plan(self, recording: Recording, restorer: Restorer) -> Plan:
        """Returns how to fill the drop-outs that are found."""
        found = dropouts(recording)
        if not found:
            raise InputError(
                "dropouts: none found (stretches of zeros of 1 to 500 ms between sounds); name intervals with "
                "`audiodiff edit inpaint`"
            )
        seconds = sum(gap.interval.length for gap in found) / recording.sample_rate
        return _filling(
            recording, restorer, found, [f"{len(found)} drop-out(s) found, {seconds:.3f} s in all"]
        )


@dataclass(frozen=True)
class RestoreClipped:
    """Restores what clipping cut off.

    Attributes:
        level_db: level at which it was clipped, of full scale; None finds it.
    """

    level_db: float | None = None

    def plan(self, recording: Recording, restorer: Restorer) -> Plan:
        """Returns how to restore the clipped samples."""
        found = clipping(recording, self.level_db)
        to_model = bridge(recording, restorer)
        # Clipping cuts off at levels on both sides of zero, wherever the middle of the sound is.
        to_model = replace(to_model, offsets=torch.zeros_like(to_model.offsets))
        remark = f"clipped at {found.level:.4f} of full scale: {found.share:.2%} of the samples"
        remarks = (remark, *_rate_remark(recording, restorer))
        return Plan(recording, (0, recording.length), to_model, Declip(to_model, found), remarks, (), True)


@dataclass(frozen=True)
class ExtendBandwidth:
    """Makes the upper part of the spectrum anew.

    Attributes:
        cutoff: frequency in hertz up to which the recording is right; None finds it.
    """

    cutoff: float | None = None

    def plan(self, recording: Recording, restorer: Restorer) -> Plan:
        """Returns how to make the band between the cutoff and half the model's rate."""
        remarks = []
        cutoff = self.cutoff
        if recording.sample_rate < restorer.sample_rate:
            cutoff = 0.45 * recording.sample_rate if cutoff is None else cutoff
            remarks.append(
                f"recording of {recording.sample_rate} Hz: written at the model's {restorer.sample_rate} Hz"
            )
            recording = Resampled(recording, restorer.sample_rate)
        cutoff = bandwidth(recording) if cutoff is None else cutoff
        if not 0 < cutoff < restorer.sample_rate / 2:
            raise InputError(
                f"cutoff: got {cutoff:.0f} Hz, expected one between 0 and the {restorer.sample_rate / 2:.0f} Hz up to "
                "which the model makes sound"
            )
        remarks.append(f"made anew above {cutoff:.0f} Hz")
        to_model = bridge(recording, restorer)
        remarks += _rate_remark(recording, restorer)
        return Plan(recording, (0, recording.length), to_model, Extend(to_model, cutoff), tuple(remarks))


@dataclass(frozen=True)
class RemoveNoise:
    """Takes stationary noise away.

    Attributes:
        noise_db: root mean square of white noise, of full scale; None estimates level and colour.
    """

    noise_db: float | None = None

    def plan(self, recording: Recording, restorer: Restorer) -> Plan:
        """Returns how to take the noise away."""
        to_model = bridge(recording, restorer)
        if self.noise_db is None:
            deviations = noise_deviations(recording)
        else:
            deviations = torch.full((2,), 10 ** (self.noise_db / 20))
        power = float(deviations.square().mean().clamp(min=1e-20))
        remarks = (f"noise of {10 * math.log10(power):.1f} dB", *_rate_remark(recording, restorer))
        edit = Denoise(to_model, noise_ratios(to_model, deviations))
        return Plan(recording, (0, recording.length), to_model, edit, remarks)


def _filling(recording: Recording, restorer: Restorer, gaps: list[Gap], remarks: list[str]) -> Plan:
    intervals = [gap.interval for gap in gaps]
    return Plan(
        recording,
        (0, recording.length),
        bridge(recording, restorer),
        tuple(gaps),
        (*remarks, *_rate_remark(recording, restorer)),
        tuple(intervals[:_LONGEST_PICTURE]),
    )


def _rate_remark(recording: Recording, restorer: Restorer) -> list[str]:
    remarks = []
    if recording.sample_rate != restorer.sample_rate:
        remarks.append(
            f"recording of {recording.sample_rate} Hz resampled to the model's {restorer.sample_rate} Hz and back"
        )
    if recording.channels != restorer.channels:
        words = {1: "mono", 2: "stereo"}
        ours, theirs = (words.get(n, f"{n} channels") for n in (recording.channels, restorer.channels))
        remarks.append(f"recording is {ours}, the model {theirs}: each channel edited by itself")
    return remarks
