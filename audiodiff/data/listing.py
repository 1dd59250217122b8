"""What a corpus module finds in its folder, before any audio is decoded: clips, splits, labels and problems.

A clip is a whole recording or a part of one. Its id names it in manifests; `file_name` makes of any id, also one
from somebody else's tables, a name of a file that lies in its folder.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What an id may not have in a file name; "%" is one of them, so that no two ids meet.
_STRANGE = re.compile(r"[^\w .,+=@()-]")
_LONGEST_NAME = 200  # bytes; file systems end at 255, and a suffix and a draft's marks come on top


@dataclass(frozen=True)
class PrepareOptions:
    """What is asked of the audio.

    Attributes:
        sample_rate: Hz; files at another rate are converted. None keeps the corpus' own.
        mono: mix files of several channels to one.
        peak: bring every file to this largest absolute sample, 0..1. None leaves levels as they are.
        remove_offset: take the mean of each channel of a file away.
        seed: of what a corpus draws at random (`mini`); noted in the report.
        jobs: threads that decode.
        label_from: of `folder`: where its label "class" comes from, "parent" or "none".
        excerpt_seconds: of `music`: how long the excerpts are that its recordings are cut into.
    """

    sample_rate: int | None = None
    mono: bool = False
    peak: float | None = None
    seed: int = 0
    jobs: int = 2
    label_from: str = "parent"
    excerpt_seconds: float = 10.0
    remove_offset: bool = False


@dataclass(frozen=True)
class Clip:
    """One clip as its corpus lists it.

    Attributes:
        id: unique in the corpus.
        path: of the audio, absolute.
        split: "train", "dev" or "test".
        speaker: who; None where nobody speaks.
        text: what is said; None where unknown.
        labels: the corpus' own labels, for example {"digit": "seven"}; "language" and "gender" are also what
            lhotse calls so.
        custom: what else belongs to the clip and is no label, for example the path of its score.
        recording: id of the recording that the clip is a part of; None where the clip is a whole recording.
        start_seconds: where in the recording it begins.
        end_seconds: where it ends; None for the recording's end.
    """

    id: str
    path: Path
    split: str
    speaker: str | None = None
    text: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    custom: dict[str, str] = field(default_factory=dict)
    recording: str | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None

    @property
    def recording_id(self) -> str:
        """Id of the recording: the clip's own where it is a whole one."""
        return self.id if self.recording is None else self.recording


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file.

    Attributes:
        id: of the clip, or the file name.
        reason: in words.
        excluded: whether the file is left out of the manifests; otherwise it is only odd.
        path: of the file.
    """

    id: str
    reason: str
    excluded: bool
    path: str


@dataclass(frozen=True)
class Listing:
    """What a corpus module found in its folder.

    Attributes:
        corpus: its name.
        source: its folder, or None for a corpus that is made on the spot.
        clips: all clips, in any order.
        split_rule: which clip is in which split, in words.
        problems: what the listing itself showed (a transcript missing, a file of no known form).
        notes: what else the reader of the report should know.
        open_labels: labels whose values no recipe can know, since they depend on the folder.
    """

    corpus: str
    source: Path | None
    clips: Sequence[Clip]
    split_rule: str
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    open_labels: Sequence[str] | None = None


def file_name(identifier: str) -> str:
    """Returns an id as the name of a file without suffix: the id itself where it is one, else percent-encoded.

    "../x" becomes "%2E.%2Fx", so that no id leads out of its folder.
    """
    name = _STRANGE.sub(lambda match: urllib.parse.quote(match[0], safe=""), identifier)
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    encoded = name.encode("utf-8")
    if len(encoded) > _LONGEST_NAME:
        digest = hashlib.sha256(identifier.encode("utf-8")).hexdigest()[:16]
        name = f"{encoded[: _LONGEST_NAME - 17].decode('utf-8', 'ignore')}_{digest}"
    return name
