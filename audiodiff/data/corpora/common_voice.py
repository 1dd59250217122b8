"""Mozilla Common Voice, one language: sentences read by volunteers, MP3 at 32 or 48 kHz, mono (CC0).

Layout of a language's folder: `train.tsv`, `dev.tsv`, `test.tsv` (the official split; speakers do not cross it) and
`clips/*.mp3`. Columns come and go between releases: client_id, path and sentence are needed; gender, accents and
variant become labels where they are filled in. The speaker is client_id, label "language" the column locale or the
folder's name. The MP3s are transcoded to FLAC, for training reads from the middle of them. Ardila et al. 2020.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodiff.data.manifests import SPLITS
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.data.tables import read_table, search
from audiodiff.errors import InputError

SPLIT_RULE = "official: train.tsv, dev.tsv and test.tsv"
_NEEDED = ("client_id", "path", "sentence")
_LABELS = {"gender": "gender", "accents": "accent", "accent": "accent", "variant": "variant"}


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests, with sentence, speaker, label "language" and others that are filled in.

    Args:
        source: a language's folder, or one that contains one (cv-corpus-*/LANGUAGE).
        out: prepared folder.
        options: rate, channels, threads.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: not the layout of Common Voice, several languages, nothing usable, or mixed rates.
    """
    folder = _language_folder(source)
    clips: list[Clip] = []
    problems: list[Problem] = []
    for split in SPLITS:
        table = folder / f"{split}.tsv"
        for number, row in enumerate(read_table(table, _NEEDED, "\t"), start=2):
            found = _clip(folder, split, row)
            if isinstance(found, Clip):
                clips.append(found)
            else:
                name = row["path"] or f"line {number}"
                problems.append(
                    Problem(name[:80], f"{found} in {table.name}", excluded=True, path=str(table))
                )
    notes = _others(folder, clips)
    return write_corpus(Listing("common_voice", folder, clips, SPLIT_RULE, problems, notes), out, options)


def _language_folder(source: Path | None) -> Path:
    """Returns the folder of the tables and clips, absolute."""
    if source is None:
        raise InputError(
            "common_voice: no source; pass --source DIR (downloads need a consent on its web page)"
        )
    found = [table.parent for table in search(source, "train.tsv", depth=2)]
    found = [folder for folder in found if (folder / "clips").is_dir()]
    if len(found) > 1:
        languages = ", ".join(folder.name for folder in found)
        raise InputError(
            f"common_voice: several languages: {languages}; pass the folder of one with --source"
        )
    if not found:
        raise InputError(
            f"common_voice: {source} holds no train.tsv with clips/ beside it; "
            "pass the folder of a language with --source"
        )
    absent = [split for split in SPLITS if not (found[0] / f"{split}.tsv").is_file()]
    if absent:
        raise InputError(f"common_voice: {found[0]} lacks {', '.join(absent)}.tsv of the official split")
    return found[0]


def _clip(folder: Path, split: str, row: Mapping[str, str]) -> Clip | str:
    """Returns the clip of a row, or what is wrong with it."""
    name, sentence, speaker = row["path"], row["sentence"], row["client_id"]
    if not name or Path(name).name != name:
        return "no file name"
    if not sentence or not speaker:
        return f"no {'speaker' if sentence else 'sentence'}"
    labels = {"language": row.get("locale") or folder.name}
    labels |= {label: row[column] for column, label in _LABELS.items() if row.get(column)}
    file = name if Path(name).suffix else f"{name}.mp3"  # the first releases leave the suffix out
    return Clip(Path(file).stem, folder / "clips" / file, split, speaker, sentence, labels)


def _others(folder: Path, clips: list[Clip]) -> list[str]:
    """Returns a note on clips that are there but in no split."""
    listed = {clip.path.name for clip in clips}
    kinds = Counter(
        path.suffix for path in (folder / "clips").iterdir() if path.name not in listed and path.suffix
    )
    count = sum(count for suffix, count in kinds.items() if suffix in (".mp3", ".wav"))
    return [f"in none of the three tables, left out: {count} clips"] if count else []
