"""Loops: turned noise gives the turned loop, no join can be told from the rest, lengths and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import UNSTEERED
from audiodiff.synthesis.forms import Place, generate_loops
from audiodiff.synthesis.generation import Request
from audiodiff.synthesis.loops import loop_noise, loop_samples, make_loops
from tests import tiny_models
from tests.synthesis.free_models import KINDS, LOCAL, SAMPLER, free_model


def loop(kind: str, samples: int, turn: int = 0, sampler: Sampler = SAMPLER) -> torch.Tensor:
    model = free_model(kind)
    drawn = loop_noise(model, 5, [0])
    return make_loops(
        model, sampler, [{"digit": "one"}], samples,
        lambda step, draw, shape: drawn(step, draw, shape).roll(-turn, -1), UNSTEERED,
    )[0]  # fmt: skip


@pytest.mark.parametrize("kind", LOCAL)
@pytest.mark.parametrize("step", [DDIM(), Ancestral()])
def test_turned_noise_gives_the_turned_loop(kind: str, step: DDIM | Ancestral) -> None:
    sampler, hop = Sampler(step, UniformGrid(3)), free_model(kind).representation.hop_length
    for samples in (160, 480):
        straight = loop(kind, samples, sampler=sampler)
        for turn in (1, 3):
            turned = loop(kind, samples, turn, sampler)
            torch.testing.assert_close(turned, straight.roll(-turn * hop, -1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["unet", "unet, stereo"])
def test_network_that_looks_at_everything_turns_by_whole_windows(kind: str) -> None:
    straight, turned = loop(kind, 800), loop(kind, 800, 200)
    torch.testing.assert_close(turned, straight.roll(-200, -1), rtol=1e-4, atol=1e-6)


def jumps(loop: torch.Tensor) -> torch.Tensor:
    return (loop - loop.roll(1, -1)).abs()[0]


@pytest.mark.parametrize("kind", KINDS)
def test_jump_at_the_join_is_one_of_the_jumps_elsewhere(kind: str) -> None:
    shares = []
    for turn in (0, 1, 2, 3):
        made = jumps(loop(kind, 800, turn))
        shares.append(float((made[1:] < made[0]).float().mean()))
    assert min(shares) < 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_shortest_loop_is_made(kind: str) -> None:
    model = free_model(kind)
    assert loop(kind, loop_samples(model, 1e-6)).shape[-1] == loop_samples(model, 1e-6)


def test_length_is_the_nearest_whole_number_of_hops() -> None:
    assert loop_samples(free_model("convnext"), 0.1) == 800
    assert loop_samples(free_model("convnext"), 0.1011) == 816
    assert loop_samples(free_model("unet"), 0.1) == 800
    assert loop_samples(free_model("unet"), 0.1001) == 800


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e4, float("nan")])
def test_loop_without_or_of_endless_length_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="--loop"):
        loop_samples(free_model(), seconds)


def test_model_of_mels_is_refused() -> None:
    model = tiny_models.random_model("frames, mel and labels")
    with pytest.raises(InputError, match="--loop: needs a model"):
        make_loops(model, SAMPLER, [{}], 160, loop_noise(model, 0, [0]), UNSTEERED)


def test_loops_are_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    model = free_model("convnext, stereo")
    for batch in (1, 3):
        place = Place(tmp_path / "m", tmp_path / str(batch), "test")
        request = Request([{"digit": "one"}, {"digit": "two"}, {}], seconds=0.1, batch=batch)
        samples = generate_loops(model, request, place)
        assert [sample.seconds for sample in samples] == [0.1] * 3
    for sample in samples:
        first, second = (soundfile.read(tmp_path / batch / sample.file)[0] for batch in "13")
        assert abs(first - second).max() <= 1 / 32768
        assert first.shape == (800, 2)
