"""Grad-TTS's weights in an ordinary model folder: the model's own calls give Grad-TTS's losses and its speech.

Sizes, step counts, length scale and temperature are read from the fixtures' own files; tolerances are those of
their README. Beside them, what a model of text has to do with any weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiodiff.diffusion.continuous import VPSDE
from audiodiff.diffusion.data_space import in_data_space
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.objectives import MeanSquaredError, min_snr
from audiodiff.diffusion.priors import color, whiten
from audiodiff.diffusion.samplers import DDIM, GradTTSEuler, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.interop import gradtts
from audiodiff.model import UNSTEERED, AudioDiffusion, Steering, build, instantiate, load
from audiodiff.training.updates import TrainingStep
from audiodiff.types import Batch, Condition
from tests.tiny_models import RECIPES, random_model

FORWARD = 1e-5
TRAJECTORY = 1e-4
EARLIEST = 1e-5  # the project draws no t nearer to 0 or 1
# The project's loss is that of the noise: the score's, times sigma^2.
OBJECTIVE = MeanSquaredError(partial(min_snr, gamma=float("inf")))


@pytest.fixture(scope="module")
def folder(fixtures_dir: Path) -> Path:
    return fixtures_dir / "gradtts"


def arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as content:
        tensors = {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}
        return tensors, json.loads(str(content["meta_json"]))


def params(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def saved_and_loaded(model: AudioDiffusion, place: Path) -> AudioDiffusion:
    model.save(place, model.recipe, {}, "# imported\n")
    return load(place)


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AudioDiffusion:
    """The fixture's weights after a way through a model folder, in the project's way of padding."""
    imported = gradtts.load(folder / "weights.safetensors", params(folder), counts_padding=True)
    return saved_and_loaded(imported, tmp_path_factory.mktemp("gradtts") / "model")


@pytest.fixture(scope="module")
def own(folder: Path) -> AudioDiffusion:
    """The same weights in this library's way: an item's numbers do not depend on its batch."""
    return gradtts.load(folder / "weights.safetensors", params(folder))


def texts(data: Mapping[str, Tensor], frames: Tensor | None = None) -> Batch:
    """The fixture's texts; of so many frames, or as long as they take."""
    lengths = torch.zeros(len(data["x"]), dtype=torch.int64) if frames is None else frames * 256
    return Batch(None, lengths, tokens=data["x"], token_counts=data["x_lengths"])


def item_of(batch: Batch, item: int) -> Batch:
    assert batch.tokens is not None
    assert batch.token_counts is not None
    own = slice(item, item + 1)
    tokens = batch.tokens[own, : batch.token_counts[item]]
    return Batch(None, batch.lengths[own], tokens=tokens, token_counts=batch.token_counts[own])


def assert_close(actual: Tensor, expected: Tensor, relative: float, what: str) -> None:
    """Compares at a tolerance relative to the largest reference value."""
    assert actual.shape == expected.shape, what
    largest = expected.double().abs().max()
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * largest, f"{what}: error {error:.3g}, largest value {largest:.3g}"


@torch.no_grad()
def test_the_three_losses_are_the_projects(folder: Path, model: AudioDiffusion) -> None:
    data, _ = arrays(folder / "full_loss.npz")
    frames = data["y_lengths"]
    condition, losses = model.align(texts(data, frames), data["y"])
    assert_close(losses["duration"], data["dur_loss"], FORWARD, "duration loss")
    assert_close(losses["prior"], data["prior_loss"], FORWARD, "prior loss")
    t = data["t_uniform"].double().clamp(EARLIEST, 1 - EARLIEST)
    clean = whiten(data["y"], condition)
    loss = OBJECTIVE(model.denoiser, clean, condition, data["noise"], t)
    # The project's mean is over frames, ours over items.
    assert_close((loss * frames).sum() / frames.sum(), data["diff_loss"], FORWARD, "diffusion loss")


def sampled(model: AudioDiffusion, batch: Batch, sampler: Sampler, noise: Tensor) -> tuple[Tensor, Condition]:
    """What `synthesize` does before it decodes, with given noise."""

    def none(step: int, draw: int) -> Tensor:
        raise AssertionError("the probability flow draws no noise")

    denoise, condition = model.bind(batch, UNSTEERED)
    schedule = model.denoiser.schedule
    start = sampler.start(schedule, noise)
    x = color(in_data_space(sampler, condition)(denoise, schedule, start, none), condition)
    mask = condition.mask(x)
    return x if mask is None else x * mask, condition


@torch.no_grad()
def test_synthesis_is_the_projects(folder: Path, tmp_path: Path) -> None:
    data, meta = arrays(folder / "synth.npz")
    imported = gradtts.load(folder / "weights.safetensors", params(folder) | meta, counts_padding=True)
    assert imported.recipe["sampler"]["temperature"] == meta["temperature"]
    assert imported.conditioner.length_scale == meta["length_scale"]  # type: ignore[attr-defined]
    model = saved_and_loaded(imported, tmp_path / "model")
    sampler = replace(instantiate(model.recipe["sampler"]), grid=UniformGrid(meta["n_timesteps"]))
    expected = data["decoder_outputs"]
    noise = data["noise"][..., : expected.shape[2]]  # drawn for whole steps of the coarsest level
    x, condition = sampled(model, texts(data), sampler, noise)
    assert condition.prior_mean is not None
    assert_close(condition.prior_mean, data["encoder_outputs"], FORWARD, "encoder outputs")
    assert_close(x, expected, TRAJECTORY, "decoder outputs")


@torch.no_grad()
def test_speech_lasts_as_long_as_its_text_and_is_what_was_sampled(folder: Path, own: AudioDiffusion) -> None:
    data, _ = arrays(folder / "synth.npz")
    batch, sampler = texts(data), Sampler(GradTTSEuler(), UniformGrid(2), temperature=1.5)
    waveforms = own.synthesize(batch, sampler, 3, items=[5, 6])
    condition = own.condition(batch)
    assert condition.frames is not None
    assert [waveform.shape[-1] for waveform in waveforms] == [256 * n for n in condition.frames.tolist()]
    shape = (2, *own.representation.shape(256 * int(condition.frames.max())))
    x, _ = sampled(own, batch, sampler, KeyedNoise(3, [5, 6])(0, shape, torch.device("cpu")))
    for item, waveform in enumerate(waveforms):
        mel = x[item : item + 1, :, : condition.frames[item]]
        torch.testing.assert_close(waveform, own.representation.decode(mel, waveform.shape[-1])[0])


@torch.no_grad()
def test_an_item_gives_the_same_numbers_alone_and_in_a_batch(folder: Path, own: AudioDiffusion) -> None:
    data, _ = arrays(folder / "full_loss.npz")
    frames = data["y_lengths"]
    batch = texts(data, frames)
    condition, _ = own.align(batch, data["y"])
    t = data["t_uniform"].double()
    together = OBJECTIVE(own.denoiser, whiten(data["y"], condition), condition, data["noise"], t)
    spoken = own.condition(texts(data))
    assert spoken.prior_mean is not None
    assert spoken.frames is not None
    for item, length in enumerate(frames.tolist()):
        one = slice(item, item + 1)
        clean, noise = data["y"][one, :, :length], data["noise"][one, :, :length]
        alone, _ = own.align(item_of(batch, item), clean)
        loss = OBJECTIVE(own.denoiser, whiten(clean, alone), alone, noise, t[one])
        assert_close(together[one], loss, FORWARD, f"loss of item {item}")
        said = own.condition(item_of(texts(data), item))
        assert said.prior_mean is not None
        assert said.frames is not None
        assert said.frames.tolist() == spoken.frames[one].tolist()
        here = spoken.prior_mean[one, :, : spoken.frames[item]]
        assert_close(here, said.prior_mean, FORWARD, f"prior mean of item {item}")


def test_speech_is_the_same_alone_and_in_a_batch(folder: Path) -> None:
    data, _ = arrays(folder / "synth.npz")
    # The schedule of the fixture's synthesis: an untrained score diverges at stronger noise.
    model = gradtts.load(folder / "weights.safetensors", params(folder) | {"beta_max": 4.0})
    sampler = instantiate(model.recipe["sampler"])
    with torch.no_grad():
        frames = model.condition(texts(data)).frames
        assert frames is not None
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, model.representation.log_mel.n_mels, int(frames.max()), generator=generator)  # type: ignore[attr-defined]
        together, condition = sampled(model, texts(data), sampler, noise)
        assert condition.frames is not None
        assert torch.equal(condition.frames, frames)
        for item, count in enumerate(frames.tolist()):
            one = noise[item : item + 1, :, :count]
            alone, _ = sampled(model, item_of(texts(data), item), sampler, one)
            assert_close(together[item : item + 1, :, :count], alone, TRAJECTORY, f"item {item}")


def recordings(counts: list[int]) -> Batch:
    """Noise of different lengths with texts of so many tokens."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.tensor([4096, 3072][: len(counts)])
    waveform = torch.randn(len(counts), 1, int(lengths.max()), generator=generator) / 4
    for row, length in zip(waveform, lengths.tolist(), strict=True):
        row[:, length:] = 0
    tokens = torch.randint(60, (len(counts), max(counts)), generator=generator)
    return Batch(waveform, lengths, ids=("a", "b"), tokens=tokens, token_counts=torch.tensor(counts))


def test_training_adds_the_losses_of_the_text_and_every_parameter_learns(own: AudioDiffusion) -> None:
    batch, t = recordings([9, 6]), torch.tensor([0.3, 0.7], dtype=torch.float64)
    clean, condition, losses = own.encode_with_losses(batch)
    assert set(losses) == {"duration", "prior"}
    assert condition.frames is not None
    assert condition.frames.tolist() == [16, 12]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    expected = OBJECTIVE(own.denoiser, clean, condition, noise, t) + losses["duration"] + losses["prior"]
    own.zero_grad()
    loss = TrainingStep(own, OBJECTIVE)(batch, t, lambda _: noise)
    torch.testing.assert_close(loss, expected)
    loss.mean().backward()
    for name, parameter in own.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    own.zero_grad()


@pytest.mark.parametrize("kind", RECIPES)
def test_frames_that_a_condition_tells_are_whole_hops_of_audio(kind: str) -> None:
    model = random_model(kind)
    frames = torch.tensor([9, 4])
    batch = Batch(None, torch.zeros(2, dtype=torch.int64))
    lengths = model.lengths(batch, Condition(frames=frames))
    assert [model.representation.shape(length)[1] for length in lengths] == frames.tolist()
    assert all(length % model.representation.hop_length == 0 for length in lengths)
    given = Batch(None, torch.tensor([lengths[0], 1]))
    assert model.lengths(given, Condition(frames=frames)) == lengths


def test_temperature_divides_the_starting_noise() -> None:
    noise, schedule = torch.randn(1, 2, 3), VPSDE()
    plain, cool = (Sampler(DDIM(), UniformGrid(2), temperature=t) for t in (1.0, 4.0))
    assert torch.equal(plain.start(schedule, noise), noise)
    assert torch.equal(cool.start(schedule, noise), noise / 4)
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"temperature: got .*, expected a number above 0"):
            Sampler(DDIM(), UniformGrid(2), temperature=temperature)


def several_speakers(folder: Path, place: Path) -> Tensor:
    """Writes a checkpoint with the multi-speaker score network of the fixture and returns its speakers."""
    text = load_file(folder / "weights.safetensors")
    estimator = load_file(folder / "multispeaker_estimator_weights.safetensors")
    _, meta = arrays(folder / "multispeaker_estimator_io.npz")
    table = torch.randn(meta["n_spks"], meta["spk_emb_dim"], generator=torch.Generator().manual_seed(2))
    state = {key: value for key, value in text.items() if key.startswith("encoder.")}
    state |= {f"decoder.estimator.{key}": value for key, value in estimator.items()}
    save_file(state | {"spk_emb.weight": table}, place)
    return table


@torch.no_grad()
def test_speakers_are_told_by_their_number(folder: Path, tmp_path: Path) -> None:
    table = several_speakers(folder, tmp_path / "several.safetensors")
    imported = gradtts.load(tmp_path / "several.safetensors", params(folder))
    model = saved_and_loaded(imported, tmp_path / "model")
    assert model.labels == {"speaker": tuple(str(n) for n in range(len(table)))}
    data, _ = arrays(folder / "synth.npz")
    batch = replace(texts(data), labels={"speaker": ("3", "")})
    condition = model.condition(batch)
    assert condition.vector is not None
    torch.testing.assert_close(condition.vector, torch.stack([table[3], table.mean(0)]))
    one = model.condition(replace(batch, labels={"speaker": ("0", "1")}))
    assert one.same_prior(condition)  # the project's text encoder is told no speaker
    sampler = Sampler(GradTTSEuler(), UniformGrid(1))
    with pytest.raises(InputError, match="without ever dropping its labels"):
        model.synthesize(batch, sampler, 0, steering=Steering(Guidance(2.0)))


def test_parameters_beside_the_projects_are_named(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "weights.safetensors")
    save_file(state | {"vocoder.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"does not have: vocoder\.weight"):
        gradtts.load(tmp_path / "other.safetensors")


def test_text_that_does_not_fit_is_refused(own: AudioDiffusion) -> None:
    sampler, batch = Sampler(GradTTSEuler(), UniformGrid(1)), recordings([9, 6])
    with pytest.raises(InputError, match="give tokens and token_counts"):
        own.synthesize(Batch(None, torch.tensor([0])), sampler, 0)
    with pytest.raises(InputError, match="text of b: is empty"):
        own.synthesize(replace(batch, token_counts=torch.tensor([9, 0])), sampler, 0)
    with pytest.raises(InputError, match="this model knows 0 to 59"):
        own.synthesize(replace(batch, tokens=torch.full((2, 9), 60)), sampler, 0)
    with pytest.raises(InputError, match="got 17 tokens for 16 frames"):
        own.encode(recordings([17, 6]))


def test_text_of_other_bands_than_the_model_makes_is_refused(own: AudioDiffusion) -> None:
    recipe = json.loads(json.dumps(own.recipe))
    recipe["model"]["conditioner"]["encoder"]["features"] = 40
    with pytest.raises(InputError, match="text encoder of 40 features, the model diffuses 80"):
        build(recipe)


def test_guiding_against_a_model_that_speaks_otherwise_is_refused(folder: Path, own: AudioDiffusion) -> None:
    data, _ = arrays(folder / "synth.npz")
    other = gradtts.load(folder / "weights.safetensors", params(folder))
    with torch.no_grad():
        other.get_parameter("conditioner.encoder.mean.bias").add_(1)
    with pytest.raises(InputError, match="starts from other noise"):
        own.bind(texts(data), Steering(Guidance(2.0), other))
