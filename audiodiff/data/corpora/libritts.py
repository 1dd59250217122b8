"""LibriTTS and LibriTTS-R: English audio books, 585 hours, 2456 readers, 24 kHz mono (CC BY 4.0).

Layout: `{subset}/{reader}/{chapter}/{id}.wav` with `{id}.normalized.txt` beside it. The subsets are the official
split: train-* is train, dev-* dev, test-* test; those that are there are read. The reader is the speaker, label
"gender" where speakers.tsv or SPEAKERS.txt tells it. Zen et al. 2019, arXiv:1904.02882 (openslr.org/60);
LibriTTS-R is the same with restored audio, Koizumi et al. 2023, arXiv:2305.18802 (openslr.org/141).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiodiff.data.download import Archive
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.data.tables import read_text, search
from audiodiff.errors import InputError

SUBSETS = {
    "train-clean-100": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    "train-clean-360": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    "train-other-500": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
    "dev-clean": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    "dev-other": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    "test-clean": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    "test-other": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
}
_PLACE = "https://www.openslr.org/resources"
ARCHIVES = (
    *(Archive(name, f"{_PLACE}/60/{name}.tar.gz", sha256) for name, sha256 in SUBSETS.items()),
    # No SHA256 of the restored corpus is published.
    *(Archive(f"r-{name}", f"{_PLACE}/141/{name.replace('-', '_')}.tar.gz") for name in SUBSETS),
)
DEFAULT_ARCHIVES = ("train-clean-100", "train-clean-360", "dev-clean", "test-clean")
SPLIT_RULE = "official subsets: train-* is train, dev-* dev, test-* test"


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, with the normalised text, the reader as speaker and label "gender".

    Args:
        source: the folder of the subsets, one that contains LibriTTS or LibriTTS_R, or one of downloads.
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of LibriTTS, both versions at once, nothing usable, or mixed rates.
    """
    folders = _subset_folders(source)
    root = folders[0].parent
    genders = _genders([folder.parent for folder in folders])
    clips, problems = [], []
    for folder in folders:
        for path in sorted(folder.glob("*/*/*.wav")):
            transcript = path.with_suffix(".normalized.txt")
            text = read_text(transcript) if transcript.is_file() else ""
            if not text:
                reason = "transcript missing: no normalized.txt beside it, or an empty one"
                problems.append(Problem(path.stem, reason, excluded=True, path=str(path)))
                continue
            reader = path.parents[1].name
            gender = {"gender": genders[reader]} if reader in genders else {}
            split = folder.name.split("-")[0]
            clips.append(Clip(path.stem, path, split, reader, text, gender, {"subset": folder.name}))
    absent = [name for name in SUBSETS if name not in {folder.name for folder in folders}]
    notes = [f"subsets that are not there: {', '.join(absent)}"] if absent else []
    return write_corpus(Listing("libritts", root, clips, SPLIT_RULE, problems, notes), out, options)


def _subset_folders(source: Path | None) -> list[Path]:
    """Returns the folders of the subsets that are there, absolute."""
    if source is None:
        raise InputError("libritts: no source; pass --source DIR or --download")
    found = [folder for name in SUBSETS for folder in search(source, name, depth=2)]
    # An archive is unpacked into a folder of its own name, which is not yet the subset.
    found = [folder for folder in found if next(folder.glob("*/*/*.wav"), None)]
    names = [folder.name for folder in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        places = ", ".join(str(folder) for folder in found if folder.name == twice[0])
        raise InputError(f"libritts: {twice[0]} is there twice: {places}; pass one corpus with --source")
    if not found:
        raise InputError(
            f"libritts: {source} holds none of the subsets {', '.join(SUBSETS)}; "
            "pass the unpacked corpus with --source, or --download"
        )
    return found


def _genders(roots: list[Path]) -> dict[str, str]:
    """Returns "F" or "M" by reader, where the corpus' tables say it."""
    genders: dict[str, str] = {}
    for root in dict.fromkeys(roots):
        for name, separator in (("SPEAKERS.txt", "|"), ("speakers.tsv", "\t")):
            lines = read_text(root / name).splitlines() if (root / name).is_file() else []
            rows = ([cell.strip() for cell in line.split(separator)] for line in lines)
            genders |= {row[0]: row[1] for row in rows if len(row) > 1 and row[1] in ("F", "M")}
    return genders
