"""scores.csv: one row per recording, written whole and again as the work goes on, so that it can be taken up.

Beside it lies a record of how the rows came about; rows are kept only by a run that would make the same ones.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiodiff.anomaly.detector import Verdict
from audiodiff.anomaly.gather import Summary
from audiodiff.errors import InputError
from audiodiff.files import write_whole

OK = "ok"
Row = dict[str, str]


def error_columns(snr_db: Sequence[float]) -> list[str]:
    """Returns the names of the columns of denoising errors, the noisiest level first."""
    return [f"error_{level:.1f}_db" for level in snr_db]


def columns(snr_db: Sequence[float]) -> list[str]:
    """Returns the names of all columns."""
    first = ["recording", "status", "seconds", "sample_rate", "bound_bits", "flow_bits", "mean_log_error"]
    return [
        *first, *error_columns(snr_db), "score", "p_value", "flagged", "statistic", "false_alarms", "intervals"
    ]  # fmt: skip


def row_of(
    summary: Summary, verdict: Verdict | None, snr_db: Sequence[float], frame_seconds: float, false_alarms: float
) -> Row:  # fmt: skip
    """Returns the row of a recording; a column that does not apply is empty.

    Args:
        summary: of the recording.
        verdict: of a detector; None without one.
        snr_db: of the levels.
        frame_seconds: length of a frame.
        false_alarms: the detector's rate.
    """
    row = dict.fromkeys(columns(snr_db), "")
    row |= {"recording": summary.recording.name, "status": OK}
    if summary.own_rate:
        row |= {"seconds": f"{summary.seconds:.3f}", "sample_rate": str(summary.own_rate)}
    if summary.problem is not None:
        return row | {"status": " ".join(summary.problem.split())}
    for name, bits in (("bound_bits", summary.bound_bits), ("flow_bits", summary.flow_bits)):
        row[name] = "" if bits is None else f"{bits:.5f}"
    row["mean_log_error"] = f"{np.log(summary.errors.astype(np.float64)).mean():.5f}"
    errors = summary.errors.mean(1, dtype=np.float64)
    row |= {name: f"{error:.6g}" for name, error in zip(error_columns(snr_db), errors, strict=True)}
    if verdict is not None:
        found = intervals_of(verdict.flagged_frames, frame_seconds, summary.seconds)
        row |= {
            "score": f"{verdict.score:.4f}", "p_value": f"{verdict.p_value:.5f}",
            "flagged": "yes" if verdict.flagged else "no", "statistic": verdict.statistic,
            "false_alarms": f"{false_alarms:g}",
            "intervals": ";".join(f"{start:.3f}-{end:.3f}" for start, end in found),
        }  # fmt: skip
    return row


def intervals_of(flagged: np.ndarray, frame_seconds: float, seconds: float) -> list[tuple[float, float]]:
    """Returns start and end in seconds of each run of flagged frames [P], held to the recording's length."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flagged, [False]]).astype(int)))
    return [
        (float(start * frame_seconds), float(min(end * frame_seconds, seconds)))
        for start, end in edges.reshape(-1, 2)
        if start * frame_seconds < seconds
    ]


class Table:
    """The rows that there are, on disk as well."""

    def __init__(self, path: Path, snr_db: Sequence[float], settings: Mapping[str, Any]) -> None:
        """Takes up the table at a path, if it was made with the same settings.

        Args:
            path: CSV file.
            snr_db: of the levels.
            settings: what the rows depend on.

        Raises:
            InputError: there is a table of other settings, or something else.
        """
        self.path, self.record = path, path.with_suffix(".json")
        if path.suffix.lower() != ".csv":
            raise InputError(f"--out {path}: expected a file that ends in .csv")
        self._columns, self._settings = columns(snr_db), json.loads(json.dumps(settings))
        self.rows: dict[str, Row] = self._taken_up() if path.exists() else {}

    def done(self, name: str) -> bool:
        """Whether a recording has its row; what could not be scored is tried again."""
        return self.rows.get(name, {}).get("status") == OK

    def write(self, order: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Writes the rows, those of `order` first and in it, and the record.

        Raises:
            InputError: they cannot be written.
        """
        names = [name for name in order if name in self.rows]
        names += [name for name in self.rows if name not in set(order)]
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[name] for name in names)
        told = json.dumps({"settings": self._settings, **facts}, indent=1, ensure_ascii=False) + "\n"
        write_whole({self.path: text.getvalue().encode("utf-8"), self.record: told.encode("utf-8")})

    def _taken_up(self) -> dict[str, Row]:
        try:
            settings = json.loads(self.record.read_text(encoding="utf-8"))["settings"]
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path}: exists, but is no table of scores; give another --out") from error
        changed = sorted(
            key
            for key in settings.keys() | self._settings.keys()
            if settings.get(key) != self._settings.get(key)
        )
        if changed:
            raise InputError(
                f"{self.path}: was made with other settings ({', '.join(changed)}); give another --out, or remove it"
            )
        return {row["recording"]: row for row in rows}


def frames_csv(
    summary: Summary, scores: np.ndarray, flagged: np.ndarray, snr_db: Sequence[float], frame_seconds: float
) -> bytes:
    """Returns a CSV file of a recording's frames: start and end in seconds, score, flagged, error by level."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["start", "end", "score", "flagged", *error_columns(snr_db)])
    for i, (score, flag, errors) in enumerate(zip(scores, flagged, summary.errors.T, strict=True)):
        end = min((i + 1) * frame_seconds, max(summary.seconds, i * frame_seconds))
        numbers = [f"{error:.6g}" for error in errors]
        writer.writerow([f"{i * frame_seconds:.4f}", f"{end:.4f}", f"{score:.5f}", int(flag), *numbers])
    return text.getvalue().encode("utf-8")
