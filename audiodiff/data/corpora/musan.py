"""MUSAN: music, speech and noise without copyright trouble, 109 hours, 16 kHz mono (CC BY 4.0; see the licences).

Layout: `{music,speech,noise}/{source}/*.wav`, with ANNOTATIONS and LICENSE in each source's folder. Label "kind" is
music, speech or noise, label "source" the folder; the path of the LICENSE stays with each cut, for the terms differ
by source. No official split: ranked within each source. Snyder, Chen and Povey 2015, arXiv:1510.08484.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiodiff.data import splits
from audiodiff.data.download import Archive
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, write_corpus
from audiodiff.errors import InputError

# The publisher names no SHA256.
ARCHIVES = (Archive("musan", "https://www.openslr.org/resources/17/musan.tar.gz"),)
KINDS = ("music", "noise", "speech")
SPLIT_RULE = f"no official split; within each source {splits.RULE}"


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, labels "kind" and "source".

    Args:
        source: the folder of music, speech and noise, or one that contains it.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of MUSAN, nothing usable, or mixed rates or channels.
    """
    root = _root(source)
    paths = [path for kind in KINDS for path in sorted((root / kind).glob("*/*.wav"))]
    places = splits.ranked({path.stem: f"{path.parent.parent.name}/{path.parent.name}" for path in paths})
    clips = []
    for path in paths:
        labels = {"kind": path.parent.parent.name, "source": path.parent.name}
        licence = path.parent / "LICENSE"
        custom = {"licence": str(licence)} if licence.is_file() else {}
        clips.append(Clip(path.stem, path, places[path.stem], labels=labels, custom=custom))
    absent = [kind for kind in KINDS if not (root / kind).is_dir()]
    notes = [f"folders that are not there: {', '.join(absent)}"] if absent else []
    return write_corpus(Listing("musan", root, clips, SPLIT_RULE, notes=notes), out, options)


def _root(source: Path | None) -> Path:
    """Returns the folder of the three kinds, absolute."""
    if source is None:
        raise InputError("musan: no source; pass --source DIR or --download")
    for folder in (source, *sorted(source.glob("musan")), *sorted(source.glob("*/musan"))):
        if any(next((folder / kind).glob("*/*.wav"), None) for kind in KINDS):
            return folder.absolute()
    raise InputError(
        f"musan: {source} holds none of music, speech and noise with SOURCE/*.wav in them; "
        "pass the unpacked corpus with --source, or --download"
    )
