"""Laws of the text encoder, of durations and of the losses that teach them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from audiodiff.conditioning.text import EncodedText, RelativeAttention, TextEncoder, TextEncoderSize
from audiodiff.conditioning.text_alignment import (
    align_by_durations,
    align_to_speech,
    duration_loss,
    log_prior,
    predicted_durations,
    prior_loss,
)
from audiodiff.errors import InputError

VOCABULARY, FEATURES, SPEAKER = 11, 5, 6
SIZE = TextEncoderSize(channels=8, filter_channels=12, layers=2, heads=2, window=2, duration_channels=7)
SPEAKERS = [None, SPEAKER]


def build(speaker_features: int | None = None, size: TextEncoderSize = SIZE) -> TextEncoder:
    """A small encoder with random weights everywhere, also where a fresh one has zeros."""
    encoder = TextEncoder(VOCABULARY, FEATURES, size, speaker_features=speaker_features).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return encoder


def text(items: int, length: int, speaker_features: int | None) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (items, length), generator=generator)
    return ids, None if speaker_features is None else torch.randn(
        items, speaker_features, generator=generator
    )


@pytest.mark.parametrize("speaker_features", SPEAKERS)
@torch.no_grad()
def test_item_in_a_padded_batch_equals_the_item_alone(speaker_features: int | None) -> None:
    encoder, lengths = build(speaker_features).double(), torch.tensor([14, 1, 6])
    ids, speaker = text(3, 14, speaker_features)
    speaker = None if speaker is None else speaker.double()
    together = encoder(ids, lengths, speaker)
    for item, length in enumerate(lengths.tolist()):
        own = slice(item, item + 1)
        alone = encoder(ids[own, :length], lengths[own], None if speaker is None else speaker[own])
        torch.testing.assert_close(together.mean[own, :, :length], alone.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            together.log_durations[own, :length], alone.log_durations, rtol=0, atol=1e-12
        )
        assert not together.mean[item, :, length:].any()
        assert not together.log_durations[item, length:].any()


@pytest.mark.parametrize("length", [1, 2, 3, 9])
@torch.no_grad()
def test_attention_is_that_of_the_formula_written_out(length: int) -> None:
    attention = RelativeAttention(8, heads=2, window=2, dropout=0.0)
    x = torch.randn(1, length, 8, generator=torch.Generator().manual_seed(2))
    query, key, value = (
        layer(x)[0].view(length, 2, 4) for layer in (attention.query, attention.key, attention.value)
    )
    heard = torch.zeros(length, 2, 4)
    for head in range(2):
        for i in range(length):
            near = {j: j - i + 2 for j in range(length) if abs(j - i) <= 2}
            keys, values = key[:, head].clone(), value[:, head].clone()
            for j, distance in near.items():
                keys[j] += attention.distance_keys[distance]
                values[j] += attention.distance_values[distance]
            heard[i, head] = (keys @ query[i, head] / 2).softmax(0) @ values
    expected = attention.output(heard.view(1, length, 8))
    torch.testing.assert_close(attention(x, torch.ones(1, length, 1, dtype=torch.bool)), expected)


@pytest.mark.parametrize("speaker_features", SPEAKERS)
def test_gradient_reaches_every_parameter(speaker_features: int | None) -> None:
    encoder = build(speaker_features)
    ids, speaker = text(2, 9, speaker_features)
    encoded = encoder(ids, torch.tensor([9, 4]), speaker)
    (encoded.mean.square().sum() + encoded.log_durations.square().sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), (
            name
        )  # softmax does not see a key's bias


def test_durations_teach_the_duration_predictor_alone() -> None:
    encoder = build()
    ids, _ = text(2, 9, None)
    encoder(ids, torch.tensor([9, 4])).log_durations.square().sum().backward()
    taught = {
        name.split(".")[0] for name, parameter in encoder.named_parameters() if parameter.grad is not None
    }
    assert taught == {"durations"}


@torch.no_grad()
def test_speaker_changes_the_encoding_of_its_own_item_only() -> None:
    encoder = build(SPEAKER)
    ids, speaker = text(2, 9, SPEAKER)
    assert speaker is not None
    lengths = torch.tensor([9, 9])
    before, after = (
        encoder(ids, lengths, voice) for voice in (speaker, speaker * torch.tensor([[1.0], [2.0]]))
    )
    torch.testing.assert_close(after.mean[0], before.mean[0])
    assert not torch.allclose(after.mean[1], before.mean[1], atol=1e-2)
    assert not torch.allclose(after.log_durations[1], before.log_durations[1], atol=1e-3)


@pytest.mark.parametrize(
    ("ids", "lengths", "speaker", "message"),
    [
        ([[1, 11]], [2], None, "got token ids from 1 to 11, this model knows 0 to 10"),
        ([[1, -1]], [2], None, "got token ids from -1 to 1, this model knows 0 to 10"),
        ([[1, 2]], [3], None, r"got \[3\] tokens for ids of shape \[1, 2\], .* from 1 to 2"),
        ([[1, 2]], [0], None, r"got \[0\] tokens for ids of shape \[1, 2\]"),
        ([[1, 2]], [2, 2], None, r"got \[2, 2\] tokens for ids of shape \[1, 2\]"),
        ([[1, 2]], [2], torch.zeros(1, 6), r"speaker vectors: got \(1, 6\), this text encoder expects none"),
    ],
)
def test_text_that_the_encoder_cannot_read_is_refused(
    ids: list[list[int]], lengths: list[int], speaker: Tensor | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build()(torch.tensor(ids), torch.tensor(lengths), speaker)


def test_missing_speaker_is_refused() -> None:
    with pytest.raises(InputError, match=r"speaker vectors: got none, this text encoder expects \(2, 6\)"):
        build(SPEAKER)(text(2, 3, None)[0], torch.tensor([3, 3]))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (TextEncoderSize(kernel_size=4), "got kernel sizes 4 and 5, expected odd ones"),
        (TextEncoderSize(prenet_kernel_size=2), "got kernel sizes 3 and 2, expected odd ones"),
        (TextEncoderSize(heads=5), "got 5 heads for 192 channels"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(size: TextEncoderSize, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextEncoder(VOCABULARY, FEATURES, size)


def test_log_prior_is_the_density_of_a_normal_distribution() -> None:
    generator = torch.Generator().manual_seed(3)
    mean, clean = (torch.randn(2, FEATURES, n, generator=generator).double() for n in (4, 7))
    normal = torch.distributions.Normal(mean[..., :, None], 1.0)
    expected = normal.log_prob(clean[..., None, :]).sum(1)
    torch.testing.assert_close(log_prior(mean, clean), expected)


def test_log_prior_keeps_its_digits_within_autocast() -> None:
    generator = torch.Generator().manual_seed(3)
    mean, clean = (torch.randn(2, FEATURES, n, generator=generator) for n in (4, 7))
    with torch.autocast("cpu", torch.bfloat16):
        within = log_prior(mean, clean)
    assert torch.equal(within, log_prior(mean, clean))


def test_prior_loss_is_the_mean_surprise_of_valid_frames() -> None:
    generator = torch.Generator().manual_seed(4)
    clean, prior_mean = (torch.randn(2, FEATURES, 7, generator=generator) for _ in range(2))
    surprise = -torch.distributions.Normal(prior_mean, 1.0).log_prob(clean)
    expected = torch.cat([surprise[0].flatten(), surprise[1, :, :3].flatten()]).mean()
    torch.testing.assert_close(prior_loss(clean, prior_mean, torch.tensor([7, 3])), expected)


def test_duration_loss_is_the_mean_squared_error_of_logarithms_of_valid_tokens() -> None:
    durations = torch.tensor([[1.0, 4.0, 2.0], [3.0, 0.0, 0.0]])
    predicted = torch.tensor([[0.5, 1.0, 0.0], [2.0, 9.0, 9.0]])
    errors = [0.5, 1 - math.log(4), -math.log(2), 2 - math.log(3)]
    expected = torch.tensor(sum(error**2 for error in errors) / 4)
    torch.testing.assert_close(duration_loss(predicted, durations, torch.tensor([3, 1])), expected)


def spoken(durations: list[list[int]], seed: int = 5) -> tuple[EncodedText, Tensor, Tensor]:
    """Texts whose tokens have far apart means, predicted durations, and recordings with these durations."""
    counts = torch.tensor([sum(n > 0 for n in item) for item in durations])
    frames = torch.tensor([sum(item) for item in durations])
    mean = 10 * torch.randn(
        len(durations), FEATURES, len(durations[0]), generator=torch.Generator().manual_seed(seed)
    )
    mean = mean * torch.tensor(durations).sign()[:, None]
    clean = torch.zeros(len(durations), FEATURES, int(frames.max()))
    for item, row in enumerate(durations):
        clean[item, :, : frames[item]] = mean[item].repeat_interleave(torch.tensor(row), dim=1)
    log_durations = torch.tensor(durations).clamp_min(1).log()
    return EncodedText(mean, log_durations, counts, mean), clean, frames


def test_speech_that_repeats_the_tokens_is_aligned_without_error() -> None:
    encoded, clean, frames = spoken([[2, 1, 5, 3], [4, 4, 0, 0]])
    prior_mean, losses = align_to_speech(encoded, clean, frames)
    torch.testing.assert_close(prior_mean, clean)
    torch.testing.assert_close(losses["prior"], torch.tensor(0.5 * math.log(2 * math.pi)))
    torch.testing.assert_close(losses["duration"], torch.tensor(0.0))


def test_durations_speak_the_text_as_it_was_spoken() -> None:
    # A hair below the true durations, so that rounding up finds them.
    encoded, clean, frames = spoken([[2, 1, 5, 3], [4, 4, 0, 0]])
    encoded = replace(encoded, log_durations=encoded.log_durations - 1e-4)
    prior_mean, predicted_frames = align_by_durations(encoded)
    assert predicted_frames.tolist() == frames.tolist()
    torch.testing.assert_close(prior_mean, clean)


def test_prior_mean_carries_the_gradient_of_the_diffusion_loss_to_the_encoder() -> None:
    encoder = build()
    ids, _ = text(2, 4, None)
    clean = torch.randn(2, FEATURES, 9, generator=torch.Generator().manual_seed(6))
    prior_mean, _ = align_to_speech(encoder(ids, torch.tensor([4, 3])), clean, torch.tensor([9, 8]))
    prior_mean.square().sum().backward()
    assert encoder.embedding.weight.grad is not None
    assert encoder.embedding.weight.grad.abs().sum() > 0
    assert encoder.durations.first.weight.grad is None


def test_training_within_autocast_has_finite_losses_and_gradients() -> None:
    encoder = build().train()
    ids, _ = text(2, 4, None)
    clean = torch.randn(2, FEATURES, 9, generator=torch.Generator().manual_seed(6))
    with torch.autocast("cpu", torch.bfloat16):
        prior_mean, losses = align_to_speech(encoder(ids, torch.tensor([4, 3])), clean, torch.tensor([9, 8]))
        loss = losses["duration"] + losses["prior"] + prior_mean.float().square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_twice_the_length_scale_speaks_twice_as_long() -> None:
    encoded, clean, frames = spoken([[2, 1, 5, 3], [4, 4, 0, 0]])
    encoded = replace(encoded, log_durations=encoded.log_durations - 1e-4)
    prior_mean, predicted_frames = align_by_durations(encoded, length_scale=2.0)
    assert predicted_frames.tolist() == (2 * frames).tolist()
    torch.testing.assert_close(prior_mean, clean.repeat_interleave(2, dim=2))


def test_durations_are_whole_frames_and_zero_beyond_the_text() -> None:
    log_durations = torch.tensor([[-3.0, 0.0, 1.0, 1.5]])
    assert predicted_durations(log_durations, torch.tensor([3])).tolist() == [[1.0, 1.0, 3.0, 0.0]]


@pytest.mark.parametrize("length_scale", [0.0, -1.0, math.nan, math.inf])
def test_length_scale_that_is_no_factor_is_refused(length_scale: float) -> None:
    with pytest.raises(InputError, match=r"length_scale: got .*, expected a number above 0"):
        predicted_durations(torch.zeros(1, 3), torch.tensor([3]), length_scale)


def test_haste_that_leaves_less_than_a_frame_for_a_token_is_refused() -> None:
    encoded, _, _ = spoken([[1, 1, 1, 1, 1]])
    with pytest.raises(InputError, match="got 5 spoken tokens for 2 frames"):
        align_by_durations(encoded, length_scale=0.5)


def test_durations_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="predicted durations are not finite"):
        predicted_durations(torch.tensor([[1.0, torch.nan]]), torch.tensor([2]))


def test_text_longer_than_its_recording_is_refused() -> None:
    encoded, clean, _ = spoken([[1, 1, 1, 1, 1]])
    with pytest.raises(InputError, match="item 0: got 5 tokens for 4 frames"):
        align_to_speech(encoded, clean[..., :4], torch.tensor([4]))
