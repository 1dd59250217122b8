"""A text aligned to the mel of audio: the durations of Text, in any batch the same, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from audiodiff.audio.mel import LogMel
from audiodiff.audio.representation import ComplexSTFT, Waveform
from audiodiff.conditioning.aligned_text import AlignedText, Deviation, deviation_loss
from audiodiff.conditioning.conditioner import Aligning, Joint
from audiodiff.conditioning.label import Labels
from audiodiff.conditioning.mel import heard
from audiodiff.conditioning.text import TextEncoder, TextEncoderSize
from audiodiff.conditioning.text_conditioner import Text
from audiodiff.errors import InputError
from audiodiff.types import Batch, Condition

VOCABULARY, BANDS, VECTOR, HOP = 11, 6, 4, 16
SIZE = TextEncoderSize(channels=8, filter_channels=12, layers=1, heads=2, window=2, duration_channels=7)
COUNTS, LENGTHS = torch.tensor([7, 4]), torch.tensor([400, 249])
FRAMES = ComplexSTFT(8000, 2 * HOP, HOP)


def log_mel(framing: str = "center", bands: int = BANDS) -> LogMel:
    return LogMel(sample_rate=8000, n_fft=64, win_length=64, hop_length=HOP, n_mels=bands, framing=framing)


def aligned(
    representation: ComplexSTFT | Waveform = FRAMES,
    std_min: float | None = 0.03,
    framing: str = "center",
    spoken: bool = False,
    length_scale: float = 1.0,
) -> AlignedText:
    """A small conditioner with random weights everywhere and the statistics of no corpus."""
    encoder = TextEncoder(VOCABULARY, BANDS, SIZE, speaker_features=VECTOR if spoken else None)
    names = Labels({"speaker": ["ann", "bob"]}, VECTOR) if spoken else None
    conditioner = AlignedText(encoder, log_mel(framing), representation, std_min, length_scale, names).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in conditioner.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    conditioner.mel.mean.copy_(torch.linspace(-6, -4, BANDS))
    conditioner.mel.std.copy_(torch.linspace(1, 2, BANDS))
    return conditioner


def batch(**labels: tuple[str, ...]) -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY, (2, 7), generator=generator)
    waveform = torch.randn(2, 1, int(LENGTHS.max()), generator=generator) / 9
    waveform[1, :, LENGTHS[1] :] = 0
    return Batch(waveform, LENGTHS, labels, tokens=tokens, token_counts=COUNTS)


def alone(told: Batch, item: int) -> Batch:
    length, count = int(told.lengths[item]), int(COUNTS[item])
    assert told.waveform is not None
    assert told.tokens is not None
    return Batch(
        told.waveform[item : item + 1, :, :length],
        told.lengths[item : item + 1],
        tokens=told.tokens[item : item + 1, :count],
        token_counts=COUNTS[item : item + 1],
    )


def frames_of(representation: ComplexSTFT | Waveform, lengths: Tensor) -> Tensor:
    return torch.tensor([representation.shape(length)[1] for length in lengths.tolist()])


def spoken(conditioner: AlignedText, told: Batch, grid: ComplexSTFT | Waveform) -> tuple[Condition, dict]:
    assert told.waveform is not None
    condition, losses = conditioner.align(told, grid.encode(told.waveform), frames_of(grid, told.lengths))
    return condition, dict(losses)


def given(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


@torch.no_grad()
def test_tokens_last_as_long_as_those_that_text_aligns_to_the_same_mel() -> None:
    conditioner, told = aligned(), batch()
    words = Text(conditioner.encoder)
    assert torch.equal(conditioner.durations(told), words.durations(told))
    condition, losses = spoken(conditioner, told, FRAMES)
    mel = conditioner.mel.normalize(conditioner.mel.analyse(told))
    counts = torch.tensor([log_mel().frames(length) for length in LENGTHS.tolist()])
    expected, own = words.align(told, mel, counts)
    assert given(condition.local).shape[2] == int(given(condition.frames).max())
    mel_frames = mel.shape[2]
    torch.testing.assert_close(given(condition.local)[..., :mel_frames], given(expected.local))
    for name in ("prior", "duration"):
        torch.testing.assert_close(losses[name], own[name])
    assert condition.prior_mean is None


@pytest.mark.parametrize("framing", ["center", "same"])
@pytest.mark.parametrize(
    "grid", [FRAMES, ComplexSTFT(8000, 4 * HOP, HOP), Waveform(8000)], ids=["stft", "overlap", "samples"]
)
@torch.no_grad()
def test_an_item_is_told_the_same_alone_and_padded_in_a_batch(
    grid: ComplexSTFT | Waveform, framing: str
) -> None:
    conditioner, told = aligned(grid, framing=framing), batch()
    stride = HOP // grid.hop_length
    for whole, parts in (
        (spoken(conditioner, told, grid)[0], [spoken(conditioner, alone(told, i), grid)[0] for i in (0, 1)]),
        (conditioner(told), [conditioner(alone(told, i)) for i in (0, 1)]),
    ):
        for item, part in enumerate(parts):
            frames = int(given(part.frames)[0])
            assert int(given(whole.frames)[item]) == frames
            local, std = given(whole.local)[item], given(whole.prior_std)[item]
            assert local.shape[1] - -(-std.shape[1] // stride) in (0, int(stride > 1 and framing == "center"))
            count = given(part.local).shape[2]
            torch.testing.assert_close(local[:, :count], given(part.local)[0])
            torch.testing.assert_close(std[:, :frames], given(part.prior_std)[0])
            # Beyond, the last frame goes on.
            assert torch.equal(local[:, count:], local[:, count - 1 : count].expand_as(local[:, count:]))


@pytest.mark.parametrize("framing", ["center", "same"])
@torch.no_grad()
def test_speech_lasts_as_many_frames_of_the_mel_as_were_predicted(framing: str) -> None:
    conditioner = aligned(framing=framing)
    wanted = conditioner.durations(batch()).sum(1).long()
    for item, frames in enumerate(given(conditioner(batch()).frames).tolist()):
        length = (frames - 1) * HOP
        assert FRAMES.shape(length)[1] == frames
        assert log_mel(framing).frames(length) == int(wanted[item])


@torch.no_grad()
def test_half_the_speed_speaks_every_frame_twice() -> None:
    plain = aligned()(batch())
    slow = aligned()(replace(batch(), speeds=torch.full((2,), 0.5)))
    assert torch.equal(aligned(length_scale=2.0)(batch()).local, given(slow.local))
    count = int(given(plain.frames)[0])
    expected = given(plain.local)[0, :, :count].repeat_interleave(2, 1)
    torch.testing.assert_close(given(slow.local)[0, :, : 2 * count], expected)


def test_the_deviation_that_is_learnt_is_that_of_the_audio() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([0.1, 0.5, 2.0, 0.001])
    clean = torch.randn(2, 4, 500, generator=generator) * true[:, None]
    frames, hidden = torch.tensor([500, 300]), torch.ones(2, 3, 500)
    clean[1, :, 300:] = 1e6  # padding is not looked at
    deviation = Deviation(3, 4, 0.03)
    assert torch.allclose(deviation(hidden), torch.tensor((1 + 0.03**2) ** 0.5))
    optimizer = torch.optim.Adam(deviation.parameters(), 0.02)
    for _ in range(400):
        optimizer.zero_grad()
        deviation_loss(clean, deviation(hidden), frames).backward()
        optimizer.step()
    learnt = deviation(hidden)[0, :, 0].detach()
    torch.testing.assert_close(learnt[:3], true[:3], rtol=0.1, atol=0)
    assert 0.03 <= float(learnt[3]) < 0.04


def test_the_diffusion_teaches_the_means_but_not_the_deviation() -> None:
    conditioner = aligned()
    condition, losses = spoken(conditioner, batch(), FRAMES)
    assert set(losses) == {"prior", "duration", "deviation"}
    assert given(condition.local).requires_grad
    assert not given(condition.prior_std).requires_grad
    given(condition.local).square().sum().backward(retain_graph=True)
    assert given(conditioner.encoder.mean.weight.grad).any()
    assert conditioner.deviation is not None
    assert conditioner.deviation.projection.weight.grad is None
    losses["deviation"].backward()
    assert given(conditioner.deviation.projection.weight.grad).any()


@torch.no_grad()
def test_without_a_smallest_deviation_the_noise_is_white() -> None:
    conditioner = aligned(std_min=None)
    condition, losses = spoken(conditioner, batch(), FRAMES)
    assert condition.prior_std is None
    assert set(losses) == {"prior", "duration"}
    assert conditioner(batch()).prior_std is None


@torch.no_grad()
def test_nothing_is_the_same_speech_without_the_speaker() -> None:
    conditioner, told = aligned(spoken=True), batch(speaker=("ann", "bob"))
    condition, nothing = conditioner(told), conditioner.null(told)
    assert nothing.same_prior(condition)
    assert torch.equal(given(nothing.local), given(condition.local))
    assert torch.equal(given(nothing.vector)[0], given(nothing.vector)[1])
    assert not torch.equal(given(nothing.vector), given(condition.vector))


@torch.no_grad()
def test_text_and_labels_join_and_the_mel_of_the_text_is_not_one_that_is_heard() -> None:
    words, names = aligned(), Labels({"speaker": ["ann", "bob"]}, VECTOR)
    both, told = Joint([words, names]), batch(speaker=("ann", "bob"))
    assert isinstance(words, Aligning)
    assert heard(words) is None
    assert heard(both) is None
    assert torch.equal(given(both(told).local), given(words(told).local))
    assert torch.equal(given(both(told).vector), given(names(told).vector))


def test_more_tokens_than_frames_of_the_mel_are_refused_in_training() -> None:
    told = batch()
    short = replace(told, waveform=given(told.waveform)[..., : 5 * HOP], lengths=torch.tensor([5, 5]) * HOP)
    with pytest.raises(InputError, match="item 0: got 7 tokens for 6 frames"):
        spoken(aligned(), short, FRAMES)


def test_a_text_without_a_recording_cannot_be_aligned() -> None:
    with pytest.raises(InputError, match="waveform"):
        aligned().align(replace(batch(), waveform=None), torch.zeros(2, 2 * HOP, 26), torch.tensor([26, 17]))


def test_parts_that_do_not_fit_are_refused() -> None:
    encoder = TextEncoder(VOCABULARY, BANDS, SIZE)
    with pytest.raises(InputError, match="text encoder of 6 features, its mel has 8 bands"):
        AlignedText(encoder, log_mel(bands=8), FRAMES)
    with pytest.raises(InputError, match="a frame every 16 samples, the model has one every 32"):
        AlignedText(encoder, log_mel(), ComplexSTFT(8000, 64, 32))
    with pytest.raises(InputError, match="std_min: got 1"):
        AlignedText(encoder, log_mel(), FRAMES, 1.5)
