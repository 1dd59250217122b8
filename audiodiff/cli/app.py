"""The command line. One file a command; each only parses, calls one thing and prints.

A user's mistake is one line on stderr and exit code 2; anything else that escapes is a bug and shows its
traceback. Heavy imports happen inside the commands, so that `audiodiff --help` is quick.
"""

from __future__ import annotations

import errno

import typer

from audiodiff import __version__
from audiodiff.cli.align import align
from audiodiff.cli.augment import augment
from audiodiff.cli.check_mel import check_mel
from audiodiff.cli.compare import compare
from audiodiff.cli.edit import edit
from audiodiff.cli.ema import ema
from audiodiff.cli.evaluate import evaluate
from audiodiff.cli.export import export
from audiodiff.cli.export_kaldi import export_kaldi
from audiodiff.cli.failure import fail
from audiodiff.cli.fit_threshold import fit_threshold
from audiodiff.cli.import_checkpoint import import_checkpoint
from audiodiff.cli.info import info
from audiodiff.cli.judge import judge
from audiodiff.cli.likelihood import likelihood
from audiodiff.cli.listening_test import listening_test
from audiodiff.cli.live import live
from audiodiff.cli.merge import merge
from audiodiff.cli.models import models
from audiodiff.cli.prepare import prepare
from audiodiff.cli.recognizer import recognizer
from audiodiff.cli.release import release
from audiodiff.cli.score import score
from audiodiff.cli.search_schedule import search_schedule
from audiodiff.cli.serve import serve
from audiodiff.cli.statistics import statistics
from audiodiff.cli.status import status
from audiodiff.cli.sweep_table import sweep_table
from audiodiff.cli.synthesize import synthesize
from audiodiff.cli.texts import texts
from audiodiff.cli.trace import trace
from audiodiff.cli.train import HYDRA_ARGUMENTS, train
from audiodiff.cli.train_autoencoder import train_autoencoder
from audiodiff.cli.vocode import vocode
from audiodiff.errors import InputError

app = typer.Typer(
    help="Audio diffusion for speech and music: prepare a corpus, train, synthesize, vocode, score.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(prepare)
app.command("export-kaldi")(export_kaldi)
app.command(context_settings=HYDRA_ARGUMENTS, add_help_option=False)(statistics)
app.command(context_settings=HYDRA_ARGUMENTS, add_help_option=False)(train)
app.command("train-autoencoder", context_settings=HYDRA_ARGUMENTS, add_help_option=False)(train_autoencoder)
app.command()(models)
app.command()(synthesize)
app.command()(live)
app.command()(vocode)
app.command()(align)
app.command("check-mel")(check_mel)
app.command()(trace)
app.add_typer(edit, name="edit")
app.command()(judge)
app.command()(augment)
app.command()(recognizer)
app.command()(texts)
app.command()(evaluate)
app.command()(compare)
app.add_typer(listening_test, name="listening-test")
app.command()(likelihood)
app.command()(score)
app.command("fit-threshold")(fit_threshold)
app.command()(info)
app.command("search-schedule")(search_schedule)
app.command("import")(import_checkpoint)
app.command()(merge)
app.command()(release)
app.command()(export)
app.command()(serve)
app.command()(status)
app.command("sweep-table")(sweep_table)
app.command()(ema)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"audiodiff {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command line; the entry point `audiodiff`."""
    try:
        app()
    except (InputError, FloatingPointError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        fail(f"{error.filename or 'output'}: {error.strerror}")
