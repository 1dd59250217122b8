"""Sounds of any length: equal to those of the whole, whatever the blocks; windows, files, refusals, memory."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import soundfile
import torch

from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.singlestep import Heun
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import Steering
from audiodiff.synthesis.forms import Place, generate_long, stream
from audiodiff.synthesis.generation import Request
from audiodiff.synthesis.long_form import LongForm, LongRequest
from audiodiff.synthesis.recordings import writing_blocks
from audiodiff.types import Batch
from tests import tiny_models
from tests.synthesis.free_models import KINDS, LOCAL, SAMPLER, free_model

STEPS = {"ddim": DDIM(), "ancestral": Ancestral(), "heun": Heun()}


def long(
    kind: str, samples: int, block: float, sampler: Sampler = SAMPLER, **options: object
) -> torch.Tensor:
    request = LongRequest(samples, {"digit": "two"}, seed=3, block_seconds=block, **options)  # type: ignore[arg-type]
    return torch.cat(list(LongForm(free_model(kind), sampler, request)), dim=-1)


def whole(kind: str, samples: int, sampler: Sampler = SAMPLER) -> torch.Tensor:
    batch = Batch(None, torch.tensor([samples]), {"digit": ("two",)})
    return free_model(kind).synthesize(batch, sampler, 3)[0]


@pytest.mark.parametrize("kind", LOCAL)
@pytest.mark.parametrize("step", STEPS)
def test_blocks_of_a_network_of_bounded_reach_equal_the_whole(kind: str, step: str) -> None:
    sampler = Sampler(STEPS[step], UniformGrid(3))
    for samples in (1, 17, 2501):
        expected = whole(kind, samples, sampler)
        made = long(kind, samples, 0.01, sampler)
        assert made.shape == expected.shape
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_give_the_same_audio_in_any_blocks(kind: str) -> None:
    for samples in (1, 399, 400, 4001):
        once = long(kind, samples, 100.0, window_seconds=0.05)
        assert once.shape[-1] == samples
        torch.testing.assert_close(long(kind, samples, 0.01, window_seconds=0.05), once, rtol=1e-5, atol=1e-6)


def test_one_window_that_holds_all_is_no_window() -> None:
    torch.testing.assert_close(long("unet", 380, 1.0), whole("unet", 380), rtol=1e-4, atol=1e-5)


def test_beginning_does_not_depend_on_the_length() -> None:
    torch.testing.assert_close(
        long("convnext", 6000, 0.01)[:, :1000], long("convnext", 3000, 0.01)[:, :1000], rtol=1e-5, atol=1e-6
    )


def test_guidance_and_negative_labels_reach_long_sounds() -> None:
    plain = long("convnext", 2000, 0.05)
    away = Steering(Guidance(2.0), negative={"digit": "one"})
    guided = long("convnext", 2000, 0.05, steering=away)
    assert float((plain - guided).abs().max()) > 1e-3
    model = free_model("convnext")
    batch = Batch(None, torch.tensor([2000]), {"digit": ("two",)})
    expected = model.synthesize(batch, SAMPLER, 3, steering=away)[0]
    torch.testing.assert_close(guided, expected, rtol=1e-5, atol=1e-6)


def test_scale_zero_with_a_negative_label_is_the_negative_label() -> None:
    model = free_model("convnext")
    two, one = (Batch(None, torch.tensor([800]), {"digit": (value,)}) for value in ("two", "one"))
    away = Steering(Guidance(0.0), negative={"digit": "one"})
    made = model.synthesize(two, SAMPLER, 0, steering=away)[0]
    torch.testing.assert_close(made, model.synthesize(one, SAMPLER, 0)[0])


def test_negative_label_without_guidance_is_refused() -> None:
    with pytest.raises(InputError, match="scale above 1"):
        Steering(Guidance(1.0), negative={"digit": "one"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "at least 1"),
        ({"window_seconds": -1.0}, "--window"),
        ({"labels": {"digit": "nine"}}, "nine"),
        ({"steering": Steering(Guidance(2.0, 0.5))}, "guidance_rescale"),
    ],
)
def test_impossible_requests_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LongForm(free_model(), SAMPLER, LongRequest(**({"samples": 100} | options)))


def test_network_that_looks_at_the_whole_signal_needs_windows() -> None:
    with pytest.raises(InputError, match="--window 0: UNet1d"):
        LongForm(free_model("unet"), SAMPLER, LongRequest(100, window_seconds=0.0))


def test_model_of_mels_is_refused_with_its_command() -> None:
    with pytest.raises(InputError, match="audiodiff vocode"):
        LongForm(tiny_models.random_model("samples and mel"), SAMPLER, LongRequest(100))


def test_long_file_is_written_whole(tmp_path: Path) -> None:
    model, place = free_model("convnext, stereo"), Place(tmp_path / "m", tmp_path / "out", "test")
    (sample,) = generate_long(model, Request([{"digit": "one"}], seconds=0.7), place)
    info = soundfile.info(tmp_path / "out" / sample.file)
    assert (info.frames, info.channels, info.samplerate) == (5600, 2, 8000)
    assert (tmp_path / "out" / "samples.json").is_file()


def test_stopped_file_is_not_there_at_all(tmp_path: Path) -> None:
    def stopped() -> None:
        with writing_blocks(tmp_path / "a.wav", 8000, 1) as file:
            file.write(torch.zeros(1, 100))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_stream_is_the_file_of_one_sound(tmp_path: Path) -> None:
    model, place = free_model(), Place(tmp_path / "m", tmp_path / "out", "test")
    request = Request([{"digit": "one"}], seconds=0.3)
    stream(model, request, place, str(tmp_path / "streamed.wav"))
    (sample,) = generate_long(model, request, place)
    streamed, written = (
        soundfile.read(p)[0] for p in (tmp_path / "streamed.wav", tmp_path / "out" / sample.file)
    )
    assert (streamed == written).all()
    with pytest.raises(InputError, match="a stream is of one"):
        stream(model, Request([{}, {}], seconds=0.3), place, "-")
    with pytest.raises(InputError, match=r"\.wav"):
        stream(model, request, place, str(tmp_path / "streamed.mp3"))


@pytest.mark.long
def test_memory_does_not_grow_with_the_length() -> None:
    form = LongForm(free_model(), SAMPLER, LongRequest(8000 * 120, block_seconds=1.0))
    peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss for _ in form]
    assert peaks[-1] - peaks[len(peaks) // 10] < 8 * 1024  # kilobytes
