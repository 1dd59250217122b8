"""Recordings scored one after another into a table, and per frame into tables and heat maps; and detectors fitted.

One window is in memory at a time, and of each frame its errors by level and one score: without a detector its mean log
error, with one the surprise in nats. Without labels given the model is asked without any.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from audiodiff.anomaly import detector as detectors
from audiodiff.anomaly.detector import Detector, Normals, Verdict
from audiodiff.anomaly.gather import Summary, gather
from audiodiff.anomaly.measure import Bits, Probe, levels_db
from audiodiff.anomaly.picture import heat_map
from audiodiff.anomaly.pieces import tiling_of
from audiodiff.anomaly.table import Table, frames_csv, intervals_of, row_of
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.errors import InputError
from audiodiff.evaluation.likelihood import Recording
from audiodiff.files import write_whole
from audiodiff.model import AudioDiffusion
from audiodiff.progress import progress_bar

_WRITTEN_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class Scoring:
    """What is to be scored with, and where to.

    Attributes:
        model: the model.
        source: where it came from, for the record.
        detector: None for scores alone.
        probe: of the denoising errors; a detector's own with one.
        bits: of the likelihoods.
        out: CSV file.
        frames: folder for what is told per frame; None for nothing.
        labels: told of all recordings, for the record.
    """

    model: AudioDiffusion
    source: Path
    detector: Detector | None
    probe: Probe
    bits: Bits
    out: Path
    frames: Path | None
    labels: Mapping[str, str]

    @property
    def snr_db(self) -> list[float]:
        """Signal-to-noise ratio of the levels in dB."""
        return levels_db(self.model.denoiser.schedule, self.probe)

    @property
    def frame_seconds(self) -> float:
        """Length of a frame."""
        tiling = tiling_of(self.model, self.probe.frame_seconds, self.probe.window_seconds)
        return tiling.frame / self.model.sample_rate


@dataclass(frozen=True)
class Outcome:
    """How scoring went.

    Attributes:
        rows: of the table, by recording.
        problems: of recordings that were not scored, one line each.
        kept: rows that were there before.
    """

    rows: dict[str, dict[str, str]]
    problems: list[str]
    kept: int


def score_recordings(scoring: Scoring, recordings: Sequence[Recording], batch: int, command: str) -> Outcome:
    """Scores recordings that have no row yet, and writes the table, its record and what is told per frame.

    Args:
        scoring: with what and where to.
        recordings: of names that differ.
        batch: windows at a time.
        command: for the record.

    Raises:
        InputError: a table of other settings, a model that needs a text, another model than the detector's.
    """
    _check(scoring.model)
    if scoring.detector is not None:
        scoring.detector.check(scoring.model)
    table = Table(scoring.out, scoring.snr_db, _settings(scoring))
    names, places = [recording.name for recording in recordings], _frame_places(scoring.frames, recordings)
    left = [each for each in recordings if not (table.done(each.name) and _drawn(places.get(each.name)))]
    facts = {"command": command, "source": str(scoring.source)}
    keep = scoring.detector.surprise if scoring.detector else _nothing
    written = time.monotonic()
    try:
        with progress_bar() as progress:
            task = progress.add_task("scores", total=len(left))
            summaries = gather(
                scoring.model, left, scoring.probe, scoring.bits, batch, keep,
                lambda done: progress.advance(task, done),
            )  # fmt: skip
            for summary in summaries:
                verdict = _verdict(scoring.detector, summary)
                _tell_frames(scoring, summary, verdict, places.get(summary.recording.name))
                rate = scoring.detector.false_alarms if scoring.detector else 0.0
                row = row_of(summary, verdict, scoring.snr_db, scoring.frame_seconds, rate)
                table.rows[summary.recording.name] = row
                if time.monotonic() - written > _WRITTEN_EVERY_SECONDS:
                    table.write(names, facts)
                    written = time.monotonic()
    finally:
        table.write(names, facts)
    rows = {name: table.rows[name] for name in names}
    problems = [row["status"] for row in rows.values() if row["status"] != "ok"]
    return Outcome(rows, problems, len(recordings) - len(left))


def fit_detector(
    model: AudioDiffusion, source: Path, recordings: Sequence[Recording], probe: Probe, false_alarms: float,
    components: int, batch: int,
) -> tuple[Detector, dict[str, object]]:  # fmt: skip
    """Returns the detector of normal recordings, and what is to be told of it.

    Args:
        model: the model.
        source: where it came from, for the record.
        recordings: normal ones, of one kind.
        probe: how errors are measured; its seed also divides the recordings.
        false_alarms: share of normal recordings that may be flagged.
        components: Gaussians of the density of frames.
        batch: windows at a time.

    Raises:
        InputError: too few recordings, or a model that needs a text.
    """
    _check(model)
    with progress_bar() as progress:
        task = progress.add_task("normals", total=len(recordings))
        found = list(
            gather(
                model,
                recordings,
                probe,
                Bits(0, 0),
                batch,
                lambda vectors: vectors.astype(np.float32),
                lambda done: progress.advance(task, done),
            )
        )
    problems = [summary.problem for summary in found if summary.problem is not None]
    normal = [summary for summary in found if summary.problem is None]
    if not normal:
        raise InputError(f"normals: none of {len(found)} could be measured, first: {problems[0]}")
    normals = Normals(
        [each.kept.astype(np.float64) for each in normal], np.stack([each.profile for each in normal])
    )
    identity = detectors.identity_of(model)
    fitted = detectors.fit(normals, probe, identity, false_alarms, components, probe.seed)
    facts: dict[str, object] = {
        "source": str(source),
        "recordings": len(normal),
        "for_threshold": len(fitted.scores),
        "seconds": round(sum(each.seconds for each in normal), 3),
        "problems": problems,
    }
    return fitted, facts


def _check(model: AudioDiffusion) -> None:
    if any(isinstance(part, Text) for part in model.modules()):
        raise InputError("scores: this model needs a text for each recording; use a model without")


def _nothing(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, :0]


def _settings(scoring: Scoring) -> dict[str, object]:
    detector = scoring.detector
    return {
        "model": detectors.identity_of(scoring.model),
        "probe": asdict(scoring.probe),
        "bits": asdict(scoring.bits),
        "labels": dict(scoring.labels),
        "detector": None if detector is None else detector.digest,
    }


def _verdict(detector: Detector | None, summary: Summary) -> Verdict | None:
    if detector is None or summary.problem is not None:
        return None
    return detector.judge(summary.kept, summary.profile)


def _frame_places(folder: Path | None, recordings: Sequence[Recording]) -> dict[str, Path]:
    """Returns where the frames of each recording go: its name, or its path where two share one; without suffix."""
    if folder is None:
        return {}
    stems = {each.name: Path(each.name).stem for each in recordings}
    often = Counter(stems.values())
    return {
        name: folder / (stem if often[stem] == 1 else name.strip("/.").replace("/", "_"))
        for name, stem in stems.items()
    }


def _drawn(place: Path | None) -> bool:
    return place is None or (_with(place, ".csv").is_file() and _with(place, ".png").is_file())


def _with(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)


def _tell_frames(scoring: Scoring, summary: Summary, verdict: Verdict | None, place: Path | None) -> None:
    if place is None or summary.problem is not None:
        return
    scores = np.log(summary.errors).mean(0) if verdict is None else verdict.frames
    flagged = np.zeros(len(scores), dtype=bool) if verdict is None else verdict.flagged_frames
    content = frames_csv(summary, scores, flagged, scoring.snr_db, scoring.frame_seconds)
    write_whole({_with(place, ".csv"): content})
    unit = "mean log error" if verdict is None else "surprise, nats"
    intervals = intervals_of(flagged, scoring.frame_seconds, summary.seconds)
    heat_map(
        summary.errors, scores, unit, scoring.snr_db, scoring.frame_seconds, intervals, _with(place, ".png")
    )
