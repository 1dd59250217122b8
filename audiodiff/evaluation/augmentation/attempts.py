"""The sounds that were made so far, on disk: one line for each, kept or rejected, so that an interrupted run goes on.

A line is written after the files that it names. `missing` tells from these lines alone what is to be made next, so that
the sounds that are kept depend neither on interruptions nor on the size of a batch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from audiodiff.evaluation.augmentation.cells import Cell
from audiodiff.evaluation.augmentation.filters import Verdict
from audiodiff.files import write_whole, writing


@dataclass(frozen=True)
class Attempt:
    """One sound that was made.

    Attributes:
        item: number of its noise.
        labels: what was asked for.
        samples: length.
        verdict: of the filters.
        file: name in the folder of audio; "" for a sound that was rejected, which is not kept.
        clipped: samples that had to be limited to full scale.
    """

    item: int
    labels: Mapping[str, str]
    samples: int
    verdict: Verdict
    file: str = ""
    clipped: int = 0


class Attempts:
    """The attempts of a folder, by item."""

    def __init__(self, path: Path, audio: Path) -> None:
        """Reads what is there; attempts whose file is gone are forgotten.

        Args:
            path: the JSON lines.
            audio: folder of the files.
        """
        self._path = path
        self._found: dict[int, Attempt] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                attempt = _attempt(line)
                if attempt is not None and (not attempt.file or (audio / attempt.file).is_file()):
                    self._found[attempt.item] = attempt
            # A line that was cut off would swallow the next one.
            write_whole({path: "".join(map(_line, self._found.values())).encode("utf-8")})

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Keeps attempts, on disk at once.

        Raises:
            InputError: the file cannot be written.
        """
        new = list(attempts)
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write("".join(map(_line, new)))
        self._found |= {attempt.item: attempt for attempt in new}

    def progress(self, cells: Sequence[Cell], limit: int) -> Progress:
        """Returns where the work stands.

        Args:
            cells: what is wanted; item number = attempt * len(cells) + number of the cell.
            limit: attempts at most, for each sound that is wanted.
        """
        kept: list[list[Attempt]] = []
        tried: list[list[Attempt]] = []
        missing: list[int] = []
        for number, cell in enumerate(cells):
            good: list[Attempt] = []
            seen: list[Attempt] = []
            while len(good) < cell.wanted and len(seen) < limit * cell.wanted:
                stop = min(len(seen) + cell.wanted - len(good), limit * cell.wanted)
                items = [attempt * len(cells) + number for attempt in range(len(seen), stop)]
                new = [item for item in items if item not in self._found]
                if new:
                    missing += new
                    break
                seen += [self._found[item] for item in items]
                good = [attempt for attempt in seen if not attempt.verdict.reason]
            kept.append(good)
            tried.append(seen)
        return Progress(kept, tried, missing)


@dataclass(frozen=True)
class Progress:
    """Where the work stands.

    Attributes:
        kept: attempts that passed, of each cell.
        tried: all that count, of each cell.
        missing: items to make next; none when all is done, or no attempt is left.
    """

    kept: Sequence[Sequence[Attempt]]
    tried: Sequence[Sequence[Attempt]]
    missing: Sequence[int]

    @property
    def rejected(self) -> dict[str, int]:
        """Number of sounds that were rejected, by reason."""
        reasons = Counter(attempt.verdict.reason for part in self.tried for attempt in part)
        return {reason: count for reason, count in sorted(reasons.items()) if reason}

    @property
    def done(self) -> int:
        """Number of sounds that are kept."""
        return sum(map(len, self.kept))


def _line(attempt: Attempt) -> str:
    return json.dumps(asdict(attempt), ensure_ascii=False) + "\n"


def _attempt(line: str) -> Attempt | None:
    try:
        content = json.loads(line)
        return Attempt(**content | {"verdict": Verdict(**content["verdict"])})
    except (ValueError, KeyError, TypeError):  # cut off by an interruption
        return None
