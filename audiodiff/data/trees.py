"""Folder trees of audio as people have them: which files there are to read, and what each is called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from audiodiff.audio import io
from audiodiff.data.listing import Problem
from audiodiff.errors import InputError

# Audio that libsndfile does not decode, which should not be passed over in silence.
UNREADABLE = (".m4a", ".mp4", ".aac", ".wma", ".ape", ".wv", ".mpc", ".webm", ".amr", ".sph")


def audio_files(corpus: str, root: Path, out: Path) -> tuple[list[Path], list[Problem]]:
    """Returns the files to read, and those that libsndfile cannot decode.

    Args:
        corpus: its name, for messages.
        root: the tree, absolute; what is hidden is passed over.
        out: the prepared folder, absolute; it may lie inside.

    Raises:
        InputError: no audio file there.
    """
    paths, problems = [], []
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or path.is_relative_to(out) or not path.is_file():
            continue
        if path.suffix.lower() in io.AUDIO_SUFFIXES:
            paths.append(path)
        elif path.suffix.lower() in UNREADABLE:
            reason = f"{path.suffix} is not decoded here; convert it first, for example with ffmpeg to .flac"
            problems.append(Problem(path.name, reason, excluded=True, path=str(path)))
    if not paths:
        more = f" ({len(problems)} of another kind: {problems[0].path})" if problems else ""
        kinds = ", ".join(io.AUDIO_SUFFIXES)
        raise InputError(f"{corpus}: {root} holds no audio file of {kinds}{more}; name another with --source")
    return paths, problems


def identifiers(insides: Sequence[Path]) -> dict[Path, str]:
    """Returns "rock-disc_1-take.2" for rock/disc 1/take.2.wav; two paths that would meet get a mark each."""
    plain = {
        inside: "-".join(re.sub(r"\s+", "_", part) for part in _stem(inside).parts) for inside in insides
    }
    stems: dict[str, set[Path]] = {}
    for inside, name in plain.items():
        stems.setdefault(name, set()).add(_stem(inside))
    for inside, name in plain.items():
        if len(stems[name]) > 1:
            digest = hashlib.sha256(str(_stem(inside)).encode("utf-8", "surrogateescape")).hexdigest()
            plain[inside] = f"{name}-{digest[:8]}"
    return plain


def _stem(inside: Path) -> Path:
    return inside.with_name(inside.stem)
