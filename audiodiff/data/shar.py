"""Writing shards: a prepared corpus as lhotse Shar, tar files of some hundred megabytes that are read front to back.

out/shar/SPLIT holds lhotse's own format (cuts.000000.jsonl.gz and recording.000000.tar, ...), which
`lhotse.CutSet.from_shar(in_dir=...)` reads. out/shar/SPLIT.json beside it lists the shards with their sizes and
checksums, so that they can be read from a web server, which lists nothing. Integer samples of up to 24 bits are kept
in FLAC, everything else as 32-bit float WAV: what is read from a shard is what was read from the file, bit for bit.
"""

from __future__ import annotations

import io as streams
import json
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile

from audiodiff.data.cut_index import Fingerprint
from audiodiff.data.entries import Entry
from audiodiff.data.manifests import SPLITS, Manifest, encode_cuts, has_cuts, load_cuts
from audiodiff.errors import InputError
from audiodiff.files import write_whole, writing_folder
from audiodiff.progress import track

if TYPE_CHECKING:
    from lhotse.cut import Cut
    from rich.console import Console

FOLDER = "shar"
LIST_VERSION = 1
_JOBS = 2
_FLAC_SUBTYPES = {"PCM_S8": "PCM_S8", "PCM_U8": "PCM_S8", "PCM_16": "PCM_16", "PCM_24": "PCM_24"}
_FLAC_CHANNELS = 8


def write_shar(out: Path, shard_size: int, console: Console | None = None) -> dict[str, Any]:
    """Writes the splits of a prepared folder to out/shar, which takes the place of an older one when it is whole.

    Args:
        out: prepared folder, with train, dev and test.jsonl.gz.
        shard_size: cuts in a shard; some hundred megabytes of audio are a good size.
        console: where to say what was written; None says nothing.

    Returns:
        For each split that has cuts: shards, cuts and bytes.

    Raises:
        InputError: no manifests, an audio file that cannot be read, a full disk.
    """
    if shard_size < 1:
        raise InputError(f"got {shard_size} cuts per shard, expected 1 or more")
    manifests = {split: out / f"{split}.jsonl.gz" for split in SPLITS}
    report: dict[str, Any] = {}
    with writing_folder(out / FOLDER) as draft:
        for split, manifest in manifests.items():
            if manifest.is_file() and has_cuts(manifest):
                report[split] = _write_split(load_cuts(manifest), draft / split, shard_size)
        if not report:
            raise InputError(f"{out}: holds no manifest with cuts; run `audiodiff prepare` first")
    if console is not None:
        for split, written in report.items():
            console.print(
                f"{out / FOLDER / split}: {written['cuts']} cuts in {written['shards']} shards, "
                f"{written['bytes'] / 1e6:.1f} MB",
                soft_wrap=True,
                highlight=False,
            )
    return report


def _write_split(cuts: Manifest, folder: Path, shard_size: int) -> dict[str, Any]:
    folder.mkdir(parents=True)
    firsts = range(0, len(cuts), shard_size)
    listed = []
    with ThreadPoolExecutor(_JOBS) as pool:
        for number, first in track(enumerate(firsts), f"shards of {folder.name}", len(firsts)):
            numbers = range(first, min(first + shard_size, len(cuts)))
            listed.append(_write_shard(cuts, numbers, folder, number, pool))
    write_list(folder, listed)
    return {"shards": len(listed), "cuts": len(cuts), "bytes": sum(shard["bytes"] for shard in listed)}


def write_list(folder: Path, shards: Sequence[dict[str, Any]]) -> Path:
    """Writes the list of a folder of shards beside it, as NAME.json, and returns its path."""
    path = folder.with_name(f"{folder.name}.json")
    content = {"version": LIST_VERSION, "shards": list(shards)}
    write_whole({path: (json.dumps(content, indent=1) + "\n").encode("utf-8")})
    return path


def _write_shard(
    cuts: Manifest, numbers: range, folder: Path, shard: int, pool: ThreadPoolExecutor
) -> dict[str, Any]:
    """Writes the two files of one shard and returns what the list says of it."""
    tar, lines = folder / f"recording.{shard:06d}.tar", folder / f"cuts.{shard:06d}.jsonl.gz"
    placed = []
    with tarfile.open(tar, "w") as archive:
        encoded = pool.map(lambda number: _encoded(cuts.entry(number)), numbers)
        for number, (content, suffix) in zip(numbers, encoded, strict=True):
            cut = _placed(cuts[number])
            placed.append(cut)
            _add(archive, f"{cut.id}.{suffix}", content)
            _add(archive, f"{cut.id}.json", json.dumps(cut.recording.to_dict()).encode("utf-8"))
    lines.write_bytes(encode_cuts(placed))
    mark = Fingerprint.of(tar)
    return {
        "cuts": f"{folder.name}/{lines.name}",
        "cuts_bytes": lines.stat().st_size,
        "cuts_sha256": Fingerprint.of(lines).sha256,
        "recording": f"{folder.name}/{tar.name}",
        "bytes": mark.size,
        "sha256": mark.sha256,
        "clips": len(numbers),
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, streams.BytesIO(content))


def _placed(cut: Cut) -> Cut:
    """Returns the cut as a shard keeps it: of a recording that is no longer than it, without a file."""
    from lhotse import fastcopy
    from lhotse.shar.utils import to_shar_placeholder

    recording = to_shar_placeholder(cut.recording, cut)
    channels = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    recording.sources[0].channels = channels
    recording.channel_ids = channels
    return fastcopy(cut, start=0, recording=recording)


def _encoded(entry: Entry) -> tuple[bytes, str]:
    """Returns an audio file of a cut's samples and its suffix.

    Raises:
        InputError: the audio cannot be read.
    """
    from audiodiff.audio import io
    from audiodiff.data.reading import read_entry

    info = io.probe(entry.source)
    whole = (entry.first, entry.length, entry.rows) == (0, info.length, tuple(range(info.channels)))
    waveform = read_entry(entry, 0, entry.length)
    if whole and info.format == "FLAC":
        return Path(entry.source).read_bytes(), "flac"
    subtype = _FLAC_SUBTYPES.get(info.subtype) if len(entry.rows) <= _FLAC_CHANNELS else None
    buffer = streams.BytesIO()
    if subtype is None:
        soundfile.write(buffer, waveform.T.numpy(), entry.sample_rate, "FLOAT", format="WAV")
        return buffer.getvalue(), "wav"
    # Full scale is 2^31 in 32-bit integers, of which libsndfile takes the upper bits: what was read, shifted.
    samples = (waveform.T.double() * 2.0**31).numpy().astype("int32")
    soundfile.write(buffer, samples, entry.sample_rate, subtype, format="FLAC")
    return buffer.getvalue(), "flac"
