"""`audiodiff prepare` as a user types it: arguments in, manifests and a summary out."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from audiodiff.cli.prepare import prepare
from audiodiff.data import corpora, download
from audiodiff.data.corpora import fsdd, libritts, musan
from audiodiff.data.download import Archive
from audiodiff.data.manifests import SPLITS, load_cuts
from audiodiff.errors import InputError
from tests.data import made_up


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(prepare)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_it_prints_counts_minutes_problems_and_where_the_manifests_are(data_dir, tmp_path):
    output = run(
        "speech_commands", "--source", data_dir / "speech_commands_excerpt", "--out", tmp_path / "sc"
    )
    counts = {split: len(load_cuts(tmp_path / "sc" / f"{split}.jsonl.gz")) for split in SPLITS}
    table = dict(line.split("│")[1:3] for line in output.splitlines() if line.count("│") == 4)
    shown = {name.strip(): count.strip() for name, count in table.items()}
    assert shown == {
        **{split: str(count) for split, count in counts.items()},
        "all": str(sum(counts.values())),
    }
    assert "left out: 0" in output
    assert str(tmp_path / "sc") in output


def test_the_default_folder_is_named_after_the_corpus(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("speech_commands", "--source", data_dir / "speech_commands_excerpt", "--sample-rate", 8000, "--mono")
    for cut in load_cuts("data/speech_commands/test.jsonl.gz"):
        assert cut.sampling_rate == 8000


def test_help_names_every_corpus():
    app = typer.Typer()
    app.command()(prepare)
    output = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert all(name in output for name in corpora.names())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sixty"], "unknown corpus 'sixty'"),
        (["fsdd"], "--source DIR or --download"),
        (["fsdd", "--source", "/no/such/folder"], "no such folder"),
        (["fsdd", "--source", ".", "--download"], "pass one of them"),
        (["fsdd", "--download", "--archive", "v9"], r"no archive 'v9'; expected one of: v1\.0\.10"),
        (["fsdd", "--sha256", "ab"], "pass --download with them"),
        (["mini", "--download"], "has no archive"),
        (["mini", "--source", "."], "leave --source out"),
        (["fsdd", "--source", ".", "--label-from", "none"], "--label-from is for folder"),
        (["folder", "--source", ".", "--shar", "0"], "--shar 0: expected"),
        (["common_voice", "--download"], "has no archive"),
        (["libritts", "--download", "--sha256", "ab"], "--sha256 is of one archive"),
    ],
)
def test_contradicting_arguments_are_input_errors(arguments, word, tmp_path):
    with pytest.raises(InputError, match=word):
        run(*arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a web server that gives the files of a folder."""
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_several_archives_are_fetched_first_and_prepared_together(tmp_path, monkeypatch):
    source = made_up.libritts(tmp_path / "in")
    archives = []
    (tmp_path / "www").mkdir()
    with served(tmp_path / "www") as address:
        for part in ("train-clean-100", "dev-clean", "test-other"):
            with tarfile.open(tmp_path / "www" / f"{part}.tar.gz", "w:gz") as archive:
                archive.add(source / "LibriTTS" / part, f"LibriTTS/{part}")
            content = (tmp_path / "www" / f"{part}.tar.gz").read_bytes()
            archives.append(Archive(part, f"{address}/{part}.tar.gz", hashlib.sha256(content).hexdigest()))
        monkeypatch.setattr(libritts, "ARCHIVES", tuple(archives))
        monkeypatch.setattr(libritts, "DEFAULT_ARCHIVES", ("train-clean-100", "dev-clean"))
        run("libritts", "--out", tmp_path / "out", "--only-download")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["download"]
        run("libritts", "--out", tmp_path / "out", "--download")
        assert len(load_cuts(tmp_path / "out" / "train.jsonl.gz")) == 2
        chosen = [word for archive in archives for word in ("--archive", archive.name)]
        run("libritts", "--out", tmp_path / "out", "--download", *chosen)
    assert len(load_cuts(tmp_path / "out" / "test.jsonl.gz")) == 1


def test_the_archive_is_read_once_and_may_be_deleted_when_it_is_unpacked(tmp_path, monkeypatch):
    source = made_up.musan(tmp_path / "in")
    (tmp_path / "www").mkdir()
    with tarfile.open(tmp_path / "www" / "musan.tar.gz", "w:gz") as archive:
        archive.add(source / "musan", "musan")
    with served(tmp_path / "www") as address:
        monkeypatch.setattr(musan, "ARCHIVES", (Archive("musan", f"{address}/musan.tar.gz"),))
        first = run("musan", "--download", "--out", tmp_path / "out")
    monkeypatch.setattr(download, "sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    assert run("musan", "--download", "--out", tmp_path / "out") == first
    (tmp_path / "out" / "download" / "musan.tar.gz").unlink()
    assert run("musan", "--download", "--out", tmp_path / "out") == first


def test_shards_are_written_beside_the_manifests(tmp_path):
    output = run("musan", "--source", made_up.musan(tmp_path / "in"), "--out", tmp_path / "out", "--shar", 2)
    assert "music 3, noise 3, speech 3" in output
    assert (tmp_path / "out" / "shar" / "train").is_dir()


def test_a_download_ends_in_manifests_and_names_its_checksum(data_dir, tmp_path, monkeypatch):
    recordings = sorted((data_dir / "fsdd" / "recordings").glob("*_0.flac"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in recordings:
            archive.add(path, f"free-spoken-digit-dataset-1.0/recordings/{path.name}")
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "fsdd.tar.gz").write_bytes(buffer.getvalue())
    with served(tmp_path / "www") as address:
        monkeypatch.setattr(fsdd, "ARCHIVES", (Archive("v1", f"{address}/fsdd.tar.gz"),))
        output = run("fsdd", "--download", "--out", tmp_path / "out")
    assert hashlib.sha256(buffer.getvalue()).hexdigest() in output
    assert len(load_cuts(tmp_path / "out" / "test.jsonl.gz")) == len(recordings)
    run("fsdd", "--download", "--out", tmp_path / "out")  # the server is gone: all is here already


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""
