"""Endless sound: seamless blocks, changes that hold from the next block on, lines that say them, bounded memory."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from torch import Tensor

from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.singlestep import Heun
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import Steering
from audiodiff.synthesis.live import Live, Settings, Window, changed
from audiodiff.types import Batch
from tests import tiny_models
from tests.synthesis.free_models import KINDS, SAMPLER, free_model
from tests.tiny import save_random_model

WINDOW = Window(0.01, 0.04, 0.02)


def taken(live: Live, blocks: int) -> list[Tensor]:
    return list(itertools.islice(live, blocks))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [DDIM(), Ancestral(), Heun()])
def test_same_seed_gives_the_same_endless_sound(kind: str, step: DDIM | Ancestral | Heun) -> None:
    sampler = Sampler(step, UniformGrid(3))
    first, second = (taken(Live(free_model(kind), sampler, Settings(seed=4), WINDOW), 6) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert {block.shape[0] for block in first} == {free_model(kind).representation.channels}


@pytest.mark.parametrize("kind", ["convnext", "wavenet"])
def test_with_margins_around_it_the_endless_sound_is_that_of_the_whole(kind: str) -> None:
    """One step, whose context and ahead show the network all that it reaches: then a block is a part of the whole."""
    sampler = Sampler(DDIM(), UniformGrid(1))
    live = Live(free_model(kind), sampler, Settings({"digit": "one"}, seed=2), Window(0.01, 0.02, 0.02))
    endless = torch.cat(taken(live, 10), dim=-1)
    batch = Batch(None, torch.tensor([4000]), {"digit": ("one",)})
    whole = free_model(kind).synthesize(batch, sampler, 2)[0]
    torch.testing.assert_close(endless, whole[:, : endless.shape[-1]], rtol=1e-4, atol=1e-6)


def test_jumps_between_blocks_are_among_those_within() -> None:
    blocks = taken(Live(free_model(), SAMPLER, Settings(), WINDOW), 40)
    edges = list(itertools.accumulate(block.shape[-1] for block in blocks))[:-1]
    jumps = torch.cat(blocks, dim=-1).diff().abs()[0]
    at_edges = jumps[torch.tensor(edges) - 1]
    assert float((jumps[None] < at_edges[:, None]).float().mean()) < 0.65
    assert float(at_edges.max()) < float(jumps.max())


def test_change_holds_from_the_next_block_on_and_leaves_what_was() -> None:
    straight, other = (Live(free_model(), SAMPLER, Settings({"digit": "one"}), WINDOW) for _ in range(2))
    before = [taken(live, 5) for live in (straight, other)]
    assert all(torch.equal(*pair) for pair in zip(*before, strict=True))
    other.change(replace(other.settings, labels={"digit": "two"}))
    after = [taken(live, 2) for live in (straight, other)]
    heard = round(other.latency_seconds * 8000)
    assert heard <= after[0][0].shape[-1] * 2
    assert float((after[0][1] - after[1][1]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        Settings({"digit": "one"}, seed=9),
        Settings({"digit": "one"}, temperature=3.0),
        Settings({"digit": "one"}, Steering(Guidance(3.0))),
        Settings({"digit": "two"}),
    ],
)
def test_every_setting_is_heard(settings: Settings) -> None:
    plain = torch.cat(taken(Live(free_model(), SAMPLER, Settings({"digit": "one"}), WINDOW), 4), -1)
    set_ = torch.cat(taken(Live(free_model(), SAMPLER, settings, WINDOW), 4), -1)
    assert float((plain - set_).abs().max()) > 1e-4


def test_refused_change_leaves_the_sound_going() -> None:
    live = Live(free_model(), SAMPLER, Settings(), WINDOW)
    for settings in (Settings({"digit": "nine"}), Settings(temperature=-1.0), Settings(seed=-1)):
        with pytest.raises(InputError):
            live.change(settings)
    assert live.settings == Settings()
    assert taken(live, 1)[0].shape[-1] > 0


def test_what_is_kept_does_not_grow() -> None:
    live = Live(free_model(), SAMPLER, Settings(), WINDOW)

    def held() -> int:
        gc.collect()
        return sum(o.untyped_storage().nbytes() for o in gc.get_objects() if issubclass(type(o), Tensor))

    sizes = []
    for _ in range(3):
        for _ in range(30):
            live.block()
        sizes.append(held())
    assert sizes[2] <= sizes[0]


def test_lines_change_settings() -> None:
    model = free_model()
    settings = Settings()
    for line in ("label two", "guidance 2.5", "negative digit=one", "temperature 1.2", "seed 7"):
        settings = changed(settings, line, model)
    away = Steering(Guidance(2.5), negative={"digit": "one"})
    assert settings == Settings({"digit": "two"}, away, 1.2, 7)
    assert changed(settings, "label", model).labels == {}
    assert changed(settings, "negative", model).steering.negative is None


@pytest.mark.parametrize(
    "line",
    ["label nine", "guidance", "guidance loud", "guidance -1", "volume 3", "seed x", "label 'a", "seed 1 2"],
)
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(InputError):
        changed(Settings(), line, free_model())


@pytest.mark.parametrize(
    "window", [{"block_seconds": 0.0}, {"context_seconds": -1.0}, {"ahead_seconds": -0.1}]
)
def test_windows_without_length_are_refused(window: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected seconds"):
        Window(**window)


def test_model_of_mels_is_refused() -> None:
    with pytest.raises(InputError, match="live: needs a model"):
        Live(tiny_models.random_model("samples and mel"), SAMPLER)


def test_command_writes_a_file_or_a_pipe_and_takes_lines(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "m", "experiment=fsdd_digits", "size=tiny")
    command = [sys.executable, "-c", "from audiodiff.cli.app import main; main()", "live", str(folder)]
    options = ["--seconds", "0.5", "--steps", "2", "--guidance", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "a.wav"), *options],
        input="label nonsense\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "a.wav").frames == 4000
    piped = subprocess.run([*command, "--out", "-", *options], stdin=subprocess.DEVNULL, capture_output=True)
    assert len(piped.stdout) == 8000
    refused = subprocess.run([*command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--out" in refused.stderr
