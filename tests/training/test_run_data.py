"""What a run trains on: prepared folders and shards, augmented or not, with the labels that the recipe knows."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from audiodiff.data.order import fixed_requests
from audiodiff.data.shar import write_shar
from audiodiff.errors import InputError
from audiodiff.training.loop import train
from audiodiff.training.run import open_split
from tests.tiny import tiny_recipe


def console() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def shards(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "mini"
    shutil.copytree(mini_corpus, folder)
    write_shar(folder, 40)
    return folder / "shar"


def test_training_segments_are_augmented_and_validation_is_not(mini_corpus: Path) -> None:
    plain, louder = (
        tiny_recipe(),
        tiny_recipe("augmentation=gain", "augmentation.lowest_db=-20", "augmentation.highest_db=-20"),
    )
    for split, factor in (("train", 0.1), ("dev", 1.0)):
        before, after = (open_split(recipe, mini_corpus, split) for recipe in (plain, louder))
        for request in fixed_requests(before.lengths, 4000)[:3]:
            torch.testing.assert_close(
                after[request].waveform, factor * before[request].waveform, rtol=1e-5, atol=1e-7
            )


def test_a_run_reads_shards_by_folder_as_it_reads_a_prepared_corpus(shards: Path, tmp_path: Path) -> None:
    model = train(tiny_recipe(), shards, tmp_path / "run", "test", console())
    assert json.loads((model / "training.json").read_text())["updates"] == 6


def test_a_recipe_without_a_label_of_the_corpus_is_told_what_to_write(mini_corpus: Path) -> None:
    recipe = tiny_recipe("data.labels.sound=[a,e]")
    with pytest.raises(InputError, match=r"pass data\.labels\.sound=\['a','e',"):
        open_split(recipe, mini_corpus, "train")


def test_a_corpus_whose_files_are_mostly_gone_ends_the_run_by_name(mini_corpus: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "mini"
    shutil.copytree(mini_corpus, corpus)
    recipe: dict[str, Any] = tiny_recipe("training.updates=40", "training.cache_megabytes=0")
    for manifest in corpus.glob("*.jsonl.gz"):
        _point_to(manifest, mini_corpus, corpus)
    train_set = open_split(recipe, corpus, "train")
    train(
        recipe | {"training": recipe["training"] | {"updates": 1}},
        corpus,
        tmp_path / "run",
        "test",
        console(),
    )
    for number, cut in enumerate(train_set.cuts):
        if number % 2:
            Path(cut.recording.sources[0].source).write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"segments could not be read.*audiodiff prepare"):
        train(recipe, corpus, tmp_path / "run", "test", console())


def _point_to(manifest: Path, old: Path, new: Path) -> None:
    """Rewrites the audio paths of a manifest."""
    import gzip

    with gzip.open(manifest, "rt") as file:
        text = file.read()
    with gzip.open(manifest, "wt") as file:
        file.write(text.replace(str(old), str(new)))
