"""Any folder of long recordings, cut into excerpts that point into the files.

Of every recording the last tenth is test, the tenth before dev, the rest train: held-out music is unheard, but of
pieces of which training knows another part. Each of the three is cut into excerpts of `--excerpt-seconds`; a rest of
less than half an excerpt stays with the one before it. Of a recording shorter than ten seconds nothing is held out.
Label "piece" is the name of the file; recipes that learn to make music of any kind leave it out.

Nothing is copied where the format can be read from the middle; MP3 and Vorbis are kept as FLAC, whole, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audiodiff.audio import io
from audiodiff.data import trees
from audiodiff.data.preparation import Clip, Listing, PrepareOptions, Problem, write_corpus
from audiodiff.errors import InputError
from audiodiff.progress import track

SHORTEST_SECONDS = 10.0  # of a recording of which parts are held out
HELD_OUT = 0.1
SPLIT_RULE = (
    "of every recording of 10 s or more the last tenth is test, the tenth before dev; the rest is train"
)


def prepare(source: Path | None, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Writes the manifests of the excerpts of all audio below a folder, label "piece".

    Args:
        source: the folder; the prepared folder, if it lies inside, is passed over.
        out: prepared folder.
        options: rate, channels, threads, seconds of an excerpt.

    Returns:
        The report, as written to out/report.json.

    Raises:
        InputError: no audio there, none usable, mixed rates or channels, or excerpts of no length.
    """
    if source is None:
        raise InputError("music: no source; pass --source DIR")
    if not options.excerpt_seconds > 0:
        raise InputError(f"--excerpt-seconds {options.excerpt_seconds}: expected more than 0")
    root = source.absolute()
    paths, problems = trees.audio_files("music", root, out.absolute())
    names = trees.identifiers([path.relative_to(root) for path in paths])
    clips = []
    for path in track(paths, "reading headers", len(paths)):
        name = names[path.relative_to(root)]
        try:
            seconds = io.probe(path).seconds
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
            problems.append(Problem(path.name, reason, excluded=True, path=str(path)))
            continue
        for number, (split, start, end) in enumerate(excerpts(seconds, options.excerpt_seconds)):
            identifier, labels = f"{name}-{number:04d}", {"piece": name}
            clips.append(Clip(identifier, path, split, None, None, labels, {}, name, start, end))
    return write_corpus(Listing("music", root, clips, SPLIT_RULE, problems, (), ()), out, options)


def excerpts(seconds: float, longest: float) -> Iterator[tuple[str, float, float | None]]:
    """Yields split, start and end in seconds of the excerpts of a recording, which cover it; the last end is its own.

    Args:
        seconds: of the recording.
        longest: seconds of an excerpt; the last one of a split may be half as long again.
    """
    parts = [("train", 0.0, seconds)]
    if seconds >= SHORTEST_SECONDS:
        dev, test = (1 - 2 * HELD_OUT) * seconds, (1 - HELD_OUT) * seconds
        parts = [("train", 0.0, dev), ("dev", dev, test), ("test", test, seconds)]
    for split, start, end in parts:
        count = max(1, int((end - start) / longest + 0.5))
        for number in range(count):
            stop = start + (number + 1) * longest if number < count - 1 else end
            yield split, start + number * longest, None if stop == seconds else stop
