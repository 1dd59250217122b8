"""`audiodiff prepare CORPUS`: a folder of audio (or a public archive) becomes checked manifests."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiodiff.data import corpora
from audiodiff.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType

    from rich.console import Console

_CORPORA = ", ".join(corpora.names())
# More label values than this (speakers of Speech Commands) are counted, not listed.
_LISTED_VALUES = 20
_LISTED_PROBLEMS = 10


def prepare(
    corpus: Annotated[str, typer.Argument(help=f"One of: {_CORPORA}.")],
    source: Annotated[Path | None, typer.Option(help="Folder that holds the corpus.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the manifests.", show_default="data/CORPUS")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the public archive to OUT/download.")
    ] = False,
    only_download: Annotated[
        bool, typer.Option("--only-download", help="Fetch and unpack the archives, nothing more.")
    ] = False,
    archive: Annotated[
        list[str] | None,
        typer.Option(
            help="Which archive to download; may be repeated.", show_default="what the recipe needs"
        ),
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected checksum of the one archive.")] = None,
    sample_rate: Annotated[
        int | None, typer.Option(help="Convert to this rate, Hz.", show_default="as it is")
    ] = None,
    mono: Annotated[bool, typer.Option("--mono", help="Mix several channels to one.")] = False,
    peak: Annotated[
        float | None,
        typer.Option(help="Bring every file to this peak, 0 to 1.", show_default="levels as they are"),
    ] = None,
    remove_offset: Annotated[
        bool, typer.Option("--remove-offset", help="Take the mean of each channel of a file away.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random (mini).")] = 0,
    label_from: Annotated[
        str | None, typer.Option(help="Of folder: parent or none.", show_default="parent")
    ] = None,
    excerpt_seconds: Annotated[
        float | None, typer.Option(help="Of music: length of its excerpts.", show_default="10")
    ] = None,
    shar: Annotated[
        int | None, typer.Option(help="Write Shar shards of this many clips, too.", show_default="none")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Threads that decode.", show_default="one per core, at most 16")
    ] = None,
) -> None:
    """Check every file of a corpus and write train, dev and test manifests and a report."""
    from rich.console import Console

    from audiodiff.data.preparation import PrepareOptions

    module = corpora.load(corpus)
    out = Path("data") / corpus if out is None else out
    console = Console()
    if source is not None and not source.is_dir():
        raise InputError(f"--source {source}: no such folder")
    if not (download or only_download) and (archive is not None or sha256 is not None):
        raise InputError("--archive and --sha256 say what to download; pass --download with them")
    if label_from is not None and corpus != "folder":
        raise InputError(f"--label-from is for folder; the labels of {corpus} are known")
    if excerpt_seconds is not None and corpus != "music":
        raise InputError(f"--excerpt-seconds is for music; the clips of {corpus} are known")
    if shar is not None and shar < 1:
        raise InputError(f"--shar {shar}: expected how many clips a shard holds, 1 or more")
    if download or only_download:
        if source is not None:
            raise InputError("got --source and --download; pass one of them")
        source = _download(module, corpus, out / "download", archive or [], sha256, console)
        if only_download:
            return
    jobs = min(16, os.cpu_count() or 1) if jobs is None else max(1, jobs)
    seconds = PrepareOptions.excerpt_seconds if excerpt_seconds is None else excerpt_seconds
    label_from = label_from or "parent"
    options = PrepareOptions(sample_rate, mono, peak, seed, jobs, label_from, seconds, remove_offset)
    report = module.prepare(source, out, options)
    _print(report, out, console)
    if shar is not None:
        from audiodiff.data.shar import write_shar

        write_shar(out, shar, console)


def _download(
    module: ModuleType, corpus: str, target: Path, chosen: list[str], sha256: str | None, console: Console
) -> Path:
    """Returns the folder of the corpus' archives, fetched and unpacked: that of the one, or of several."""
    from audiodiff.data.download import download

    archives = {archive.name: archive for archive in getattr(module, "ARCHIVES", ())}
    if not archives:
        raise InputError(f"{corpus}: has no archive to download; leave --download out")
    names = chosen or list(getattr(module, "DEFAULT_ARCHIVES", [next(iter(archives))]))
    for name in names:
        if name not in archives:
            raise InputError(f"{corpus}: no archive {name!r}; expected one of: {', '.join(archives)}")
    if sha256 is not None and len(names) > 1:
        raise InputError(
            f"--sha256 is of one archive, but {', '.join(names)} are asked for; name one with --archive"
        )
    folder = target
    for name in names:
        done = download(archives[name], target, sha256)
        checked = "as expected" if done.checked else "none is known to compare with; keep it for --sha256"
        console.print(
            f"{archives[name].url}\n  SHA256 {done.sha256} ({checked})", soft_wrap=True, highlight=False
        )
        folder = done.folder
    return folder if len(names) == 1 else target


def _print(report: dict[str, Any], out: Path, console: Console) -> None:
    """Prints splits, labels, problems and notes of a report."""
    from rich.table import Table

    from audiodiff.data.preparation import RECIPE

    console.print(f"{report['corpus']}: {report['sample_rate']} Hz, {report['channels']} channel(s)")
    table = Table()
    for column in ("split", "clips", "minutes"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, summary in report["splits"].items():
        table.add_row(split, str(summary["cuts"]), f"{summary['seconds'] / 60:.1f}")
    table.add_row("all", str(report["cuts"]), f"{report['seconds'] / 60:.1f}")
    console.print(table)
    lines = [f"split: {report['split_rule']}", *_label_lines(report), *report["notes"]]
    if report["transcoded"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report["transcoded"].items())
        lines.append(
            f"transcoded to FLAC in {out / 'audio'}, for these cannot be read from the middle: {kinds}"
        )
    lines += _problem_lines(report["problems"])
    if (out / RECIPE).is_file():
        lines += ["a recipe has to be told:", *(out / RECIPE).read_text(encoding="utf-8").splitlines()]
    lines.append(f"manifests and report.json in {out}")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _label_lines(report: dict[str, Any]) -> list[str]:
    counts: dict[str, Counter[str]] = {}
    for summary in report["splits"].values():
        for name, values in summary["labels"].items():
            counts.setdefault(name, Counter()).update(values)
    lines = []
    for name, values in counts.items():
        listed = ", ".join(f"{value} {count}" for value, count in sorted(values.items()))
        lines.append(f"{name}: {listed if len(values) <= _LISTED_VALUES else f'{len(values)} values'}")
    return lines


def _problem_lines(problems: list[dict[str, Any]]) -> list[str]:
    excluded = sum(problem["excluded"] for problem in problems)
    lines = [f"left out: {excluded}; kept with a remark: {len(problems) - excluded}"]
    for problem in problems[:_LISTED_PROBLEMS]:
        lines.append(f"  {problem['path']}: {problem['reason']}" + ("" if problem["excluded"] else " (kept)"))
    if len(problems) > _LISTED_PROBLEMS:
        lines.append(f"  ... and {len(problems) - _LISTED_PROBLEMS} more in report.json")
    return lines
