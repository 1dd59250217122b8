"""`audiodiff prepare CORPUS`: a folder of audio (or a public archive) becomes checked manifests."""

from __future__ import annotations

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
    archive: Annotated[
        str | None, typer.Option(help="Which archive to download.", show_default="the corpus' first")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected checksum of the archive.")] = None,
    sample_rate: Annotated[
        int | None, typer.Option(help="Convert to this rate, Hz.", show_default="as it is")
    ] = None,
    mono: Annotated[bool, typer.Option("--mono", help="Mix several channels to one.")] = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random (mini).")] = 0,
) -> None:
    """Check every file of a corpus and write train, dev and test manifests and a report."""
    from rich.console import Console

    from audiodiff.data.preparation import PrepareOptions

    module = corpora.load(corpus)
    out = Path("data") / corpus if out is None else out
    console = Console()
    if source is not None and not source.is_dir():
        raise InputError(f"--source {source}: no such folder")
    if not download and (archive is not None or sha256 is not None):
        raise InputError("--archive and --sha256 say what to download; pass --download with them")
    if download:
        if source is not None:
            raise InputError("got --source and --download; pass one of them")
        source = _download(module, corpus, out / "download", archive, sha256, console)
    report = module.prepare(source, out, PrepareOptions(sample_rate, mono, seed))
    _print(report, out, console)


def _download(
    module: ModuleType, corpus: str, target: Path, name: str | None, sha256: str | None, console: Console
) -> Path:
    """Returns the folder of the corpus' archive, fetched and unpacked."""
    from audiodiff.data.download import download

    archives = {archive.name: archive for archive in getattr(module, "ARCHIVES", ())}
    if not archives:
        raise InputError(f"{corpus}: has no archive to download; leave --download out")
    name = next(iter(archives)) if name is None else name
    if name not in archives:
        raise InputError(f"{corpus}: no archive {name!r}; expected one of: {', '.join(archives)}")
    done = download(archives[name], target, sha256)
    checked = "as expected" if done.checked else "none is known to compare with; keep it for --sha256"
    console.print(
        f"{archives[name].url}\n  SHA256 {done.sha256} ({checked})", soft_wrap=True, highlight=False
    )
    return done.folder


def _print(report: dict[str, Any], out: Path, console: Console) -> None:
    """Prints splits, labels, problems and notes of a report."""
    from rich.table import Table

    console.print(f"{report['corpus']}: {report['sample_rate']} Hz, {report['channels']} channel(s)")
    table = Table()
    for column in ("split", "clips", "minutes"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, summary in report["splits"].items():
        table.add_row(split, str(summary["cuts"]), f"{summary['seconds'] / 60:.1f}")
    table.add_row("all", str(report["cuts"]), f"{report['seconds'] / 60:.1f}")
    console.print(table)
    lines = [f"split: {report['split_rule']}", *_label_lines(report), *report["notes"]]
    lines += _problem_lines(report["problems"])
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
