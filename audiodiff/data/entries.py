"""Entries: what training reads of a cut - where its samples lie, how many, and its labels.

A lhotse cut is a tree of objects that takes about a tenth of a millisecond to build; an entry is taken straight
from the JSON of the cut in a tenth of that. `Summary` is what must be known of all cuts before one is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from audiodiff.errors import InputError

MEL = "mel"  # field of a cut's own custom data
MOST_VALUES = 10_000  # different values of a label that are kept; a text has as many as there are clips


@dataclass(frozen=True)
class Entry:
    """Where the samples of one cut lie.

    Attributes:
        id: of the cut.
        source: audio file; empty where the audio lies in a shard.
        first: sample of the file at which the cut begins.
        length: samples.
        sample_rate: Hz, of the file.
        rows: channels of the file that the cut has, in order.
        labels: name -> value.
        mel: .npy file of the whole cut's mel, which a vocoder then hears instead of the recording's; "" without.
    """

    id: str
    source: str
    first: int
    length: int
    sample_rate: int
    rows: tuple[int, ...]
    labels: Mapping[str, str]
    mel: str = ""


def entry_of(cut: Mapping[str, Any]) -> Entry:
    """Returns the entry of a cut as lhotse writes it in JSON.

    Raises:
        ValueError, KeyError, TypeError: it is not a cut of one recording, in one file, that is read as it is.
    """
    if cut["type"] not in ("MonoCut", "MultiCut"):
        raise ValueError(f"a {cut['type']}")
    recording = cut["recording"]
    if not isinstance(cut["id"], str):
        raise TypeError(f"its id is {cut['id']!r}")
    if recording.get("transforms"):
        raise ValueError("its recording has transforms")
    channel, rate = cut["channel"], recording["sampling_rate"]
    channels = channel if isinstance(channel, list) else [channel]
    source = next((each for each in recording["sources"] if set(channels) <= set(each["channels"])), None)
    if source is None or source["type"] not in ("file", "shar"):
        raise ValueError(f"no audio file of it holds its channels {channels}")
    first = round(cut["start"] * rate)
    length = min(samples_in(cut["duration"], rate), recording["num_samples"] - first)
    if first < 0 or length < 1:
        raise ValueError(f"it has {length} samples from {first} on")
    rows = tuple(source["channels"].index(each) for each in channels)
    spoken = cut.get("supervisions") or [{}]
    labels = labels_from(spoken[0].get("speaker"), spoken[0].get("text"), spoken[0].get("custom"))
    mel = str((cut.get("custom") or {}).get(MEL, ""))
    return Entry(cut["id"], source["source"], first, length, rate, rows, labels, mel)


def samples_in(seconds: float, sample_rate: int) -> int:
    """Returns the samples of a duration, halves rounded up, as lhotse counts them."""
    return math.floor(round(seconds * sample_rate, 8) + 0.5)


def labels_from(speaker: Any, text: Any, custom: Mapping[str, Any] | None) -> dict[str, str]:
    """Returns the labels that a supervision holds: the corpus' own, and "speaker" and "text" where known."""
    labels = {"speaker": speaker, "text": text, **(custom or {})}
    return {name: str(value) for name, value in labels.items() if value is not None}


@dataclass
class Tally:
    """How many cuts have something, and the number of the first that has it."""

    cuts: int
    first: int


@dataclass
class LabelTally:
    """What is known of a label over all cuts.

    Attributes:
        cuts: that have it.
        missing: number of the first cut without it; None where all have it.
        values: the different ones; None where there are more than MOST_VALUES.
    """

    cuts: int
    missing: int | None
    values: set[str] | None


@dataclass
class Summary:
    """What must be known of all cuts before one is read."""

    cuts: int = 0
    seconds: float = 0.0
    sample_rates: dict[int, Tally] = field(default_factory=dict)
    channels: dict[int, Tally] = field(default_factory=dict)
    labels: dict[str, LabelTally] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Summary:
        """Returns the summary of some entries."""
        summary = cls()
        for entry in entries:
            summary.add(entry)
        return summary

    def add(self, entry: Entry) -> None:
        """Counts one entry more."""
        number = self.cuts
        for tallies, value in (
            (self.sample_rates, entry.sample_rate),
            (self.channels, len(entry.rows)),
        ):
            tallies.setdefault(value, Tally(0, number)).cuts += 1
        for name, text in entry.labels.items():
            tally = self.labels.get(name)
            if tally is None:
                tally = self.labels[name] = LabelTally(0, 0 if number else None, set())
            tally.cuts += 1
            if tally.values is not None:
                tally.values.add(text)
                if len(tally.values) > MOST_VALUES:
                    tally.values = None
        if len(entry.labels) < len(self.labels):
            for name in self.labels.keys() - entry.labels.keys():
                if self.labels[name].missing is None:
                    self.labels[name].missing = number
        self.cuts += 1
        self.seconds += entry.length / entry.sample_rate

    def to_json(self) -> dict[str, Any]:
        """Returns the summary in plain types."""
        return {
            "cuts": self.cuts,
            "seconds": self.seconds,
            "sample_rates": [[rate, tally.cuts, tally.first] for rate, tally in self.sample_rates.items()],
            "channels": [[count, tally.cuts, tally.first] for count, tally in self.channels.items()],
            "labels": {
                name: [tally.cuts, tally.missing, None if tally.values is None else sorted(tally.values)]
                for name, tally in self.labels.items()
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Summary:
        """Returns the summary that `to_json` wrote."""
        return cls(
            content["cuts"],
            content["seconds"],
            {rate: Tally(cuts, first) for rate, cuts, first in content["sample_rates"]},
            {count: Tally(cuts, first) for count, cuts, first in content["channels"]},
            {
                name: LabelTally(cuts, missing, None if values is None else set(values))
                for name, (cuts, missing, values) in content["labels"].items()
            },
        )


def wrong_rate(summary: Summary, sample_rate: int) -> tuple[int, str] | None:
    """Returns number and fault of the first cut whose rate is not the one that a model needs, or None."""
    rate, tally = _first_other(summary.sample_rates, sample_rate)
    if tally is None:
        return None
    return tally.first, (
        f"sample rate {rate} Hz, model needs {sample_rate} Hz{_as_others(tally)}; "
        f"run `audiodiff prepare ... --sample-rate {sample_rate}`"
    )


def wrong_channels(summary: Summary, channels: int) -> tuple[int, str] | None:
    """Returns number and fault of the first cut that has not the channels that a model needs, or None."""
    count, tally = _first_other(summary.channels, channels)
    if tally is None:
        return None
    mend = "run `audiodiff prepare ... --mono`" if channels == 1 else "take another recipe or corpus"
    return tally.first, f"{count} channels, model needs {channels}{_as_others(tally)}; {mend}"


def missing_label(summary: Summary, name: str) -> int | None:
    """Returns the number of the first cut without a label, or None where all have it."""
    tally = summary.labels.get(name)
    return 0 if tally is None else tally.missing


def _first_other(tallies: Mapping[int, Tally], wanted: int) -> tuple[int, Tally | None]:
    others = [(value, tally) for value, tally in tallies.items() if value != wanted]
    return min(others, key=lambda other: other[1].first, default=(wanted, None))


def _as_others(tally: Tally) -> str:
    return f" (as of {tally.cuts} cuts)" if tally.cuts > 1 else ""


def check_label(entry: Entry, name: str) -> str:
    """Returns one label of a cut.

    Raises:
        InputError: the cut has no such label.
    """
    if name not in entry.labels:
        known = ", ".join(sorted(entry.labels)) or "none"
        raise InputError(f"cut {entry.id}: no label {name!r}; this cut has: {known}")
    return entry.labels[name]
