"""Synthesis depends on seed, item and condition alone; parts that do not belong together are refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.denoiser import Denoise
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.schedules import NoiseSchedule
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import Steering, build
from audiodiff.types import Batch
from tests.tiny_models import RECIPES, SAMPLERS, random_model, request


def one_of(batch: Batch, i: int) -> Batch:
    length = int(batch.lengths[i])
    waveform = None if batch.waveform is None else batch.waveform[i : i + 1, :, :length]
    labels = {name: values[i : i + 1] for name, values in batch.labels.items()}
    return Batch(waveform, batch.lengths[i : i + 1], labels)


def assert_same_audio(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_item_gives_the_same_audio_alone_in_a_batch_and_in_any_order(kind: str, sampler: str) -> None:
    model, lengths = random_model(kind), [130, 1, 64, 77]
    batch = request(lengths, kind)
    together = model.synthesize(batch, SAMPLERS[sampler], 5)
    assert [tuple(waveform.shape) for waveform in together] == [(1, length) for length in lengths]
    alone = [
        model.synthesize(one_of(batch, i), SAMPLERS[sampler], 5, items=[i])[0] for i in range(len(lengths))
    ]
    assert_same_audio(alone, together)
    order = [2, 0]
    parts = [one_of(batch, i) for i in order]
    audio = None
    if batch.waveform is not None:
        audio = torch.zeros(2, 1, 130)
        for row, part in zip(audio, parts, strict=True):
            assert part.waveform is not None
            row[:, : part.waveform.shape[-1]] = part.waveform[0]
    labels = {name: tuple(values[i] for i in order) for name, values in batch.labels.items()}
    reordered = Batch(audio, batch.lengths[order], labels)
    assert_same_audio(
        model.synthesize(reordered, SAMPLERS[sampler], 5, items=order), [together[i] for i in order]
    )


def test_seed_item_and_label_each_change_the_audio() -> None:
    model, sampler = random_model(), SAMPLERS["ddim"]
    batch = Batch(None, torch.tensor([80]), {"digit": ("one",)})
    plain = model.synthesize(batch, sampler, 5)[0]
    assert torch.equal(plain, model.synthesize(batch, sampler, 5)[0])
    for other in (
        model.synthesize(batch, sampler, 6)[0],
        model.synthesize(batch, sampler, 5, items=[1])[0],
        model.synthesize(replace(batch, labels={"digit": ("two",)}), sampler, 5)[0],
    ):
        assert not torch.allclose(plain, other, rtol=0, atol=1e-2 * float(plain.abs().max()))


@pytest.mark.parametrize("kind", RECIPES)
def test_guidance_one_is_the_plain_model_and_zero_the_model_told_nothing(kind: str) -> None:
    model, sampler, batch = random_model(kind), SAMPLERS["ddim"], request([80, 50], kind)
    plain = model.synthesize(batch, sampler, 5)
    assert_same_audio(model.synthesize(batch, sampler, 5, steering=Steering(Guidance(1.0))), plain)
    if "labels" not in kind:
        with pytest.raises(InputError, match="told no labels"):
            model.synthesize(batch, sampler, 5, steering=Steering(Guidance(4.0)))
        return
    told_nothing = model.synthesize(replace(batch, labels={}), sampler, 5)
    assert_same_audio(model.synthesize(batch, sampler, 5, steering=Steering(Guidance(0.0))), told_nothing)
    strong = model.synthesize(batch, sampler, 5, steering=Steering(Guidance(4.0)))
    assert not torch.allclose(strong[0], plain[0], rtol=1e-2, atol=1e-2)


def test_guidance_of_a_model_that_never_dropped_its_labels_is_refused() -> None:
    model, batch = random_model(), request([80], "samples and labels")
    model.recipe = {"training": {"label_drop": 0.0}}
    with pytest.raises(InputError, match="without ever dropping its labels"):
        model.synthesize(batch, SAMPLERS["ddim"], 5, steering=Steering(Guidance(2.0)))


def test_guiding_against_itself_is_no_guidance() -> None:
    model, batch = random_model(), request([80, 50], "samples and labels")
    plain = model.synthesize(batch, SAMPLERS["ddim"], 5)
    assert_same_audio(
        model.synthesize(batch, SAMPLERS["ddim"], 5, steering=Steering(Guidance(3.0), model)), plain
    )


def test_constraint_and_progress_reach_the_sampler() -> None:
    model, told = build(RECIPES["samples and labels"]), []
    batch = request([50], "samples and labels")
    waveform = model.synthesize(
        batch,
        SAMPLERS["ancestral"],
        5,
        constraint=Clip(-0.125, 0.125),
        on_step=lambda *done: told.append(done),
    )[0]
    assert float(waveform.abs().max()) == 0.125
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_steps_draw_the_keyed_noise_of_their_number() -> None:
    class Drawing:
        """A step that moves to the noise it drew."""

        def __call__(
            self, denoise: Denoise, schedule: NoiseSchedule, x: Tensor, t: Tensor, s: Tensor,
            memory: Any, noise: Callable[[], Tensor],
        ) -> tuple[Tensor, Any]:  # fmt: skip
            seen.append(x)
            return noise(), None

    seen: list[Tensor] = []
    model, batch = random_model(), request([80, 30])
    waveforms = model.synthesize(batch, Sampler(Drawing(), UniformGrid(3)), 11, items=[4, 9])
    source = KeyedNoise(11, [4, 9])
    shape = (2, *model.representation.shape(80))
    drawn = [source(number, shape, torch.device("cpu")) for number in range(4)]
    for found, expected in zip(seen, drawn, strict=False):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(waveforms[0], model.representation.decode(drawn[3], 80)[0])


def test_audio_may_be_changed_in_place_and_trained_on() -> None:
    waveform = random_model().synthesize(request([40]), SAMPLERS["ddim"], 0)[0]
    waveform *= 0.5
    scale = torch.ones((), requires_grad=True)
    (scale * waveform).square().sum().backward()
    assert scale.grad is not None


@pytest.mark.parametrize(
    ("lengths", "seed", "message"),
    [([0], 0, "length: got 0"), ([40, -3], 0, "length: got -3"), ([40], -1, "seed: got -1")],
)
def test_impossible_requests_are_refused(lengths: list[int], seed: int, message: str) -> None:
    batch = Batch(None, torch.tensor(lengths))
    with pytest.raises(InputError, match=message):
        random_model().synthesize(batch, SAMPLERS["ddim"], seed)


def test_a_model_that_gives_nan_is_an_error_that_names_the_item() -> None:
    model = random_model()
    table = model.conditioner.get_parameter("tables.digit.weight")  # type: ignore[attr-defined]
    nn.init.constant_(table[1], float("nan"))
    with pytest.raises(FloatingPointError, match="item 8"):
        model.synthesize(request([40, 40]), SAMPLERS["ddim"], 0, items=[7, 8])


@pytest.mark.parametrize("kind", RECIPES)
def test_encoded_items_know_their_frames(kind: str) -> None:
    model, batch = random_model(kind), request([130, 40], "mel and " + kind)
    batch = replace(batch, labels=request([130, 40], kind).labels)
    x, condition = model.encode(batch)
    assert tuple(x.shape[1:]) == model.representation.shape(130)
    assert condition.frames is not None
    assert condition.frames.tolist() == [model.representation.shape(length)[1] for length in (130, 40)]
    assert not x[1, :, condition.frames[1] :].any()
    with pytest.raises(InputError, match="with waveforms"):
        model.encode(replace(batch, waveform=None))


@pytest.mark.parametrize(("field", "value"), [("sample_rate", 16000), ("hop_length", 32)])
@pytest.mark.parametrize("kind", ["frames, mel and labels", "samples and mel"])
def test_a_mel_of_another_rate_or_hop_than_the_model_is_refused(kind: str, field: str, value: int) -> None:
    recipe = deepcopy(RECIPES[kind])
    conditioner = recipe["model"]["conditioner"]
    conditioner.get("parts", [conditioner])[0]["log_mel"][field] = value
    with pytest.raises(InputError, match=f"{value}.* the model makes audio of 8000 Hz"):
        build(recipe)
