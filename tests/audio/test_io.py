"""Laws of audio files in and out, on files that soundfile writes and on real clips."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.errors import InputError


def tone(length: int, channels: int = 1, sample_rate: int = 22050) -> np.ndarray:
    """Returns [T, C]: another frequency in every channel, so that exchanged channels are seen."""
    seconds = np.arange(length)[:, None] / sample_rate
    return (0.5 * np.sin(2 * np.pi * 200.0 * (1 + np.arange(channels)) * seconds)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "subtype", "step"),
    [
        ("wav", "PCM_U8", 2**-7), ("wav", "PCM_16", 2**-15), ("wav", "PCM_24", 2**-23),
        ("wav", "PCM_32", 2**-23), ("wav", "FLOAT", 0.0), ("wav", "DOUBLE", 0.0),
        ("flac", "PCM_16", 2**-15), ("flac", "PCM_24", 2**-23), ("aiff", "PCM_16", 2**-15),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_read_returns_the_samples_of_every_encoding(
    tmp_path: Path, suffix: str, subtype: str, step: float, channels: int
) -> None:
    samples = tone(1000, channels)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, samples, 22050, subtype=subtype)
    waveform, sample_rate = io.read(path)
    assert waveform.dtype == torch.float32
    assert (tuple(waveform.shape), sample_rate) == ((channels, 1000), 22050)
    # libsndfile scales by 2^(bits-1) - 1 when it writes: one step more than rounding.
    assert np.abs(waveform.numpy().T - samples).max() <= 2 * step
    info = io.probe(path)
    assert (info.channels, info.length, info.sample_rate, info.subtype) == (channels, 1000, 22050, subtype)
    assert info.seconds == 1000 / 22050


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
@pytest.mark.parametrize("wanted", [8000, 22050, 48000])
def test_resampled_tone_is_the_tone_at_the_new_rate(tmp_path: Path, sample_rate: int, wanted: int) -> None:
    length = sample_rate // 4 + 7
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(length, 1, sample_rate), sample_rate, subtype="FLOAT")
    waveform, rate = io.read(path, sample_rate=wanted)
    assert rate == wanted
    assert waveform.shape[-1] == int(length * wanted / sample_rate + 0.5)
    inner = slice(wanted // 16, waveform.shape[-1] - wanted // 16)  # beyond the filter's edges
    expected = tone(waveform.shape[-1], 1, wanted)[:, 0]
    assert np.abs(waveform[0].numpy() - expected)[inner].max() < 1e-4


def test_channels_resample_independently() -> None:
    waveform = torch.from_numpy(tone(3000, 3).T.copy())
    together = io.resample(waveform, 22050, 16000)
    alone = torch.cat([io.resample(channel[None], 22050, 16000) for channel in waveform])
    torch.testing.assert_close(together, alone, atol=0, rtol=0)


def test_downmix_is_the_mean_over_channels_and_nothing_else_is_offered(tmp_path: Path) -> None:
    samples = tone(500, 2)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, samples, 22050, subtype="FLOAT")
    mono, _ = io.read(path, channels=1)
    np.testing.assert_allclose(mono[0].numpy(), samples.mean(1), atol=1e-7)
    assert io.read(path, channels=2)[0].shape[0] == 2
    with pytest.raises(InputError, match=r"stereo.wav: 2 channel.*5 asked for"):
        io.read(path, channels=5)
    soundfile.write(tmp_path / "mono.wav", samples[:, 0], 22050)
    with pytest.raises(InputError, match=r"mono.wav: 1 channel.*2 asked for"):
        io.read(tmp_path / "mono.wav", channels=2)


def test_a_part_equals_the_slice_of_the_whole(data_dir: Path) -> None:
    for path in (
        data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0002.wav",
        next((data_dir / "fsdd/recordings").glob("*.flac")),
        min((data_dir / "music").glob("*.ogg"), key=lambda file: file.stat().st_size),
    ):
        whole, _ = io.read(path)
        part, _ = io.read(path, start=500, length=700)
        torch.testing.assert_close(part, whole[:, 500:1200], atol=0, rtol=0)
        rest, _ = io.read(path, start=500)
        torch.testing.assert_close(rest, whole[:, 500:], atol=0, rtol=0)
        for start, length in ((0, whole.shape[1] + 1), (whole.shape[1], None), (-1, 5), (3, 0)):
            with pytest.raises(InputError, match=f"{path.name}: samples"):
                io.read(path, start=start, length=length)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_writing_what_was_read_changes_no_sample(tmp_path: Path, data_dir: Path, suffix: str) -> None:
    source = data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0008.wav"
    waveform, sample_rate = io.read(source)
    copy = tmp_path / "deep" / f"copy.{suffix}"
    assert io.write(copy, waveform, sample_rate) == 0
    np.testing.assert_array_equal(
        soundfile.read(copy, dtype="int16")[0], soundfile.read(source, dtype="int16")[0]
    )
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_every_encoding_reads_back_within_half_a_step(tmp_path: Path, subtype: str) -> None:
    waveform = torch.linspace(-1, 1, 4001).repeat(3, 1)
    io.write(tmp_path / "a.wav", waveform, 48000, subtype=subtype)
    step = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-23, "FLOAT": 0.0}[subtype]
    back, _ = io.read(tmp_path / "a.wav")
    error = (back - waveform).abs()
    assert error.max() <= step  # +1 itself lies one step above the largest integer
    assert error[waveform <= 1 - step].max() <= step / 2


def test_clipped_samples_are_counted_and_limited(tmp_path: Path) -> None:
    waveform = torch.tensor([0.5, 1.0, 1.5, -1.0, -2.0])
    for subtype in ("PCM_16", "FLOAT"):
        assert io.write(tmp_path / "a.wav", waveform, 8000, subtype=subtype) == 2
        back, _ = io.read(tmp_path / "a.wav")
        torch.testing.assert_close(back[0], waveform.clamp(-1, 1), atol=2**-15, rtol=0)


def test_vorbis_keeps_length_and_level(tmp_path: Path) -> None:
    waveform = torch.from_numpy(tone(30000).T.copy())
    io.write(tmp_path / "a.ogg", waveform, 22050, subtype="VORBIS")
    back, _ = io.read(tmp_path / "a.ogg")
    assert back.shape == waveform.shape
    assert (back - waveform).square().mean().sqrt() < 0.02


def truncated(source: Path, target: Path, share: float) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
def test_truncated_real_clips_are_refused(tmp_path: Path, data_dir: Path, share: float) -> None:
    sources = [
        data_dir / "ljspeech_excerpt/LJSpeech-1.1/wavs/LJ001-0002.wav",
        sorted((data_dir / "fsdd/recordings").glob("*.flac"))[0],
        min((data_dir / "music").glob("*.ogg"), key=lambda file: file.stat().st_size),
    ]
    for source in sources:
        io.read(source)
        path = truncated(source, tmp_path / source.name, share)
        with pytest.raises(InputError, match=f"{source.name}: (cut off|not an audio file, or damaged)"):
            io.read(path)


@pytest.mark.parametrize("container", ["AIFF", "AU", "W64", "RF64", "CAF"])
def test_truncated_other_containers_are_refused(tmp_path: Path, container: str) -> None:
    whole = tmp_path / "whole"
    soundfile.write(whole, tone(9000, 2), 22050, format=container, subtype="PCM_16")
    assert io.read(whole)[0].shape == (2, 9000)
    with pytest.raises(InputError, match=r"cut: (cut off|not an audio file, or damaged)"):
        io.read(truncated(whole, tmp_path / "cut", 0.7))


def test_header_of_a_stream_without_known_size_is_no_promise(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    soundfile.write(path, tone(1000), 22050)
    content = bytearray(path.read_bytes())
    data = content.index(b"data")
    content[data + 4 : data + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    assert io.read(path)[0].shape == (1, 1000)


def test_every_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio\n" * 100)
    (tmp_path / "noise.flac").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "samples.raw").write_bytes(bytes(1000))
    soundfile.write(tmp_path / "zero.wav", np.zeros((0, 1)), 8000)
    (tmp_path / "folder.wav").mkdir()
    cases = {
        "missing.wav": "no such file",
        "empty.wav": "is empty",
        "text.wav": "not an audio file",
        "noise.flac": "not an audio file",
        "samples.raw": "not an audio file",
        "zero.wav": "no samples",
        "folder.wav": "is a folder",
    }
    for name, message in cases.items():
        for function in (io.read, io.probe):
            with pytest.raises(InputError, match=f"{name}: .*{message}") as caught:
                function(tmp_path / name)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_both_ways(tmp_path: Path, bad: float) -> None:
    samples = tone(100)
    samples[[3, 50]] = bad
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"a.wav: 2 of 100 samples are NaN or infinite"):
        io.read(tmp_path / "a.wav")
    with pytest.raises(InputError, match="NaN or infinite"):
        io.write(tmp_path / "b.wav", torch.from_numpy(samples.T), 8000)
    assert not (tmp_path / "b.wav").exists()


def test_write_refuses_what_it_cannot_write_and_leaves_nothing(tmp_path: Path) -> None:
    good = torch.zeros(1, 10)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.wav").mkdir()
    cases = [
        (tmp_path / "a.xyz", good, 8000, "PCM_16", "cannot write '.xyz'"),
        (tmp_path / "a.wav", good, 8000, "PCM_17", "encoding 'PCM_17' does not exist in WAV.*PCM_16"),
        (tmp_path / "a.flac", good, 8000, "FLOAT", "encoding 'FLOAT' does not exist in FLAC"),
        (tmp_path / "a.wav", good, 0, "PCM_16", "at 0 Hz cannot be written"),
        (tmp_path / "a.wav", torch.zeros(2, 0), 8000, "PCM_16", r"shape \(2, 0\)"),
        (tmp_path / "a.wav", torch.zeros(1, 1, 5), 8000, "PCM_16", r"shape \(1, 1, 5\)"),
        (tmp_path / "file" / "a.wav", good, 8000, "PCM_16", "cannot be written"),
        (tmp_path / "folder.wav", good, 8000, "PCM_16", "cannot be written"),
    ]
    for path, waveform, sample_rate, subtype, message in cases:
        with pytest.raises(InputError, match=message):
            io.write(path, waveform, sample_rate, subtype)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.wav"]


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    old = tmp_path / "a.wav"
    io.write(old, torch.zeros(1, 100), 8000)
    before = old.read_bytes()
    # The kernel refuses to let any file grow beyond 4 kB: the write fails as it does on a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(InputError, match=r"a.wav: cannot be written \(File too large\)"):
            io.write(old, torch.zeros(1, 50000), 8000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert old.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


def test_health_reports_level_clipping_silence_and_nan() -> None:
    seconds = torch.arange(8000) / 8000
    sine = 0.5 * torch.sin(2 * torch.pi * 101.3 * seconds)
    health = io.inspect(sine[None])
    assert health.peak == pytest.approx(0.5, abs=1e-4)
    assert health.rms_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert (health.clipped_share, health.silent, health.has_nan) == (0.0, False, False)
    overdriven = (8 * sine).clamp(-1, 1)
    # |4 sin| >= 1 for all but 4 asin(1/4) of the 2 pi of a period
    assert io.inspect(overdriven).clipped_share == pytest.approx(1 - 2 * np.arcsin(0.25) / np.pi, abs=0.01)
    assert io.inspect(torch.zeros(2, 50)) == io.AudioHealth(0.0, -200.0, 0.0, True, False)
    sine[5] = torch.nan
    assert io.inspect(sine).has_nan
    assert io.inspect(sine).peak == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(InputError, match="no samples"):
        io.inspect(torch.zeros(1, 0))


def test_a_16_bit_file_at_full_scale_counts_as_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([32767, -32768, 32700, 0], dtype=np.int16), 8000)
    assert io.inspect(io.read(tmp_path / "a.wav")[0]).clipped_share == 0.5


def test_find_takes_files_folders_and_globs_once_and_sorted(tmp_path: Path) -> None:
    for name in ("b.wav", "a.WAV", "sub/c.flac", "sub/deep/d.wav", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    everything = [tmp_path / name for name in ("a.WAV", "b.wav", "sub/c.flac", "sub/deep/d.wav")]
    assert io.find([tmp_path]) == everything
    assert io.find([str(tmp_path / "*.wav"), tmp_path / "sub", tmp_path / "b.wav"], (".wav",)) == [
        tmp_path / "b.wav",
        tmp_path / "sub/deep/d.wav",
    ]
    assert io.find([tmp_path / "**" / "*.flac"]) == [tmp_path / "sub/c.flac"]
    (tmp_path / "take [1].wav").write_bytes(b"x")
    assert io.find([tmp_path / "take [1].wav"]) == [tmp_path / "take [1].wav"]


def test_find_refuses_each_input_that_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "good.wav").write_text("x")
    for given, message in (
        ("missing.wav", "missing.wav: no such file or folder"),
        ("*.flac", r"\*.flac: no file with one of the suffixes .wav, .flac"),
        ("notes.txt", "notes.txt: suffix '.txt', expected one of .wav, .flac"),
    ):
        with pytest.raises(InputError, match=message):
            io.find([tmp_path / "good.wav", tmp_path / given], (".wav", ".flac"))
    with pytest.raises(InputError, match="no file with"):
        io.find([tmp_path], (".ogg",))
    with pytest.raises(InputError, match="no input given"):
        io.find([])


def test_resampling_to_nothing_and_bad_rates_are_refused() -> None:
    with pytest.raises(InputError, match="leave none"):
        io.resample(torch.zeros(1, 1), 48000, 8000)
    with pytest.raises(InputError, match="must be positive"):
        io.resample(torch.zeros(1, 10), 48000, 0)
