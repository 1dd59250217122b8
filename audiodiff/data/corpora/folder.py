"""Any folder tree of audio: GTZAN, drum samples, field recordings, one's own.

Label "class" is the name of the folder that a file lies in, or none. Where folders train and test (and dev, valid or
validation) stand at the top of the tree, they are the split; otherwise files are ranked by their path within each
class. A text file of the same name beside a file is its text. What libsndfile cannot decode (M4A, WMA) is named and
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiodiff.data import splits, trees
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.data.tables import read_text
from audiodiff.errors import InputError

LABEL_FROM = ("parent", "none")
LABEL = "class"


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests of all audio below a folder, label "class".

    Args:
        source: the folder; the prepared folder, if it lies inside, is passed over.
        out: prepared folder.
        options: rate, channels, threads; label_from "parent" or "none".

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: no audio there, none usable, or mixed rates or channels.
    """
    if source is None:
        raise InputError("folder: no source; pass --source DIR")
    if options.label_from not in LABEL_FROM:
        raise InputError(f"--label-from {options.label_from}: expected one of {', '.join(LABEL_FROM)}")
    root = source.absolute()
    paths, problems = trees.audio_files("folder", root, out.absolute())
    tops = {path.relative_to(root).parts[0] for path in paths if path.parent != root}
    official = {top: splits.NAMES[top.lower()] for top in sorted(tops) if top.lower() in splits.NAMES}
    if not {"train", "test"} <= set(official.values()):
        official = {}
    classes = {path: "" for path in paths}
    if options.label_from == "parent":
        classes = {path: _class_of(path.relative_to(root), official) for path in paths}
    if any(classes.values()):
        bare = [path for path, name in classes.items() if not name]
        reason = "lies in no folder that could be its class; --label-from none takes such files too"
        problems += [Problem(path.name, reason, excluded=True, path=str(path)) for path in bare]
        classes = {path: name for path, name in classes.items() if name}
    rule, places, outside = _places(root, classes, official)
    problems += [Problem(path.name, f"in none of {rule}", excluded=True, path=str(path)) for path in outside]
    names = trees.identifiers([path.relative_to(root) for path in places])
    clips = []
    for path, split in places.items():
        labels = {LABEL: classes[path]} if classes[path] else {}
        text, problem = _text(path.with_suffix(".txt"))
        problems += problem
        clips.append(Clip(names[path.relative_to(root)], path, split, text=text, labels=labels))
    open_labels = (LABEL,) if any(classes.values()) else ()
    return write_corpus(Listing("folder", root, clips, rule, problems, (), open_labels), out, options)


def _class_of(inside: Path, official: Mapping[str, str]) -> str:
    """Returns the folder that a file lies in, or "" where that is the tree itself or a split's folder."""
    folders = inside.parts[:-1]
    return "" if not folders or (len(folders) == 1 and folders[0] in official) else folders[-1]


def _places(
    root: Path, classes: Mapping[Path, str], official: Mapping[str, str]
) -> tuple[str, dict[Path, str], list[Path]]:
    """Returns the rule in words, the split of every file, and the files that the rule leaves out."""
    groups = {str(path.relative_to(root)): name for path, name in classes.items()}
    by_rank = {root / name: split for name, split in splits.ranked(groups).items()}
    if not official:
        return f"{'within each class ' if any(classes.values()) else ''}{splits.RULE}", by_rank, []
    tops = {path: path.relative_to(root).parts[0] for path in classes}
    places = {path: official[top] for path, top in tops.items() if top in official}
    rule = f"the folders {', '.join(official)}"
    if "dev" not in places.values():
        within = {str(path.relative_to(root)): classes[path] for path in places if places[path] == "train"}
        drawn = [root / name for name, split in splits.ranked(within).items() if split == "dev"]
        places |= dict.fromkeys(drawn, "dev")
        rule += "; dev is the twentieth of train whose names have the lowest SHA256"
    return rule, places, [path for path in classes if path not in places]


def _text(path: Path) -> tuple[str | None, list[Problem]]:
    """Returns the words of a text file, where there is one, and what is wrong with it."""
    try:
        return (" ".join(read_text(path).split()) or None) if path.is_file() else None, []
    except InputError as error:
        return None, [Problem(path.name, f"its text is left out: {error}", excluded=False, path=str(path))]
