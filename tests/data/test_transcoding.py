"""MP3 and Vorbis become FLAC that equals a full decode; what seeks exactly stays where it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiodiff.audio import io
from audiodiff.data import decoding, inspection
from audiodiff.data.corpora import folder
from audiodiff.data.inspection import Wanted, examine
from audiodiff.data.manifests import load_cuts
from audiodiff.data.preparation import PrepareOptions
from audiodiff.data.segments import read_cut
from audiodiff.errors import InputError
from tests.data import made_up

HALF_STEP = 0.5 / 2**15


@pytest.mark.parametrize("suffix", [".mp3", ".ogg"])
@pytest.mark.parametrize(("channels", "rate"), [(1, 24000), (2, 44100)])
def test_the_flac_equals_a_full_decode_to_half_a_16_bit_step(suffix, channels, rate, tmp_path):
    path = made_up.compressed(tmp_path / f"a{suffix}", rate, 3.0, channels)
    finding = examine(path, Wanted(), tmp_path / "out" / "a.flac")
    full, _ = soundfile.read(path, dtype="float64", always_2d=True)
    kept, kept_rate = soundfile.read(finding.path, dtype="float64", always_2d=True)
    assert (finding.length, finding.channels, finding.sample_rate) == (len(full), channels, rate)
    assert kept_rate == rate
    assert soundfile.info(finding.path).subtype == "PCM_16"
    assert np.abs(np.clip(full, -1, 1 - 2**-15) - kept).max() < HALF_STEP + 1e-6  # two decodes differ by 1e-7
    assert finding.lossy == {".mp3": "MP3", ".ogg": "Vorbis"}[suffix]


def test_random_segments_of_a_transcoded_mp3_are_those_of_its_full_decode(tmp_path):
    made_up.compressed(tmp_path / "in" / "x" / "a.mp3", 44100, 4.0)
    folder.prepare(tmp_path / "in", tmp_path / "out", PrepareOptions())
    (cut,) = load_cuts(tmp_path / "out" / "train.jsonl.gz")
    full, _ = io.read(tmp_path / "in" / "x" / "a.mp3")
    starts = torch.randint(0, cut.num_samples - 8192, (50,), generator=torch.Generator().manual_seed(0))
    for start in starts.tolist():
        segment = read_cut(cut, start, 8192)
        assert (segment - full[:, start : start + 8192]).abs().max() < HALF_STEP + 1e-6


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.opus"])
def test_what_seeks_exactly_stays_where_it_is(name, tmp_path):
    path = tmp_path / name
    if path.suffix == ".opus":
        made_up.compressed(path, 48000, 2.0)
    else:
        made_up.sound(path, 48000, 2.0)
    finding = examine(path, Wanted(), tmp_path / "a_copy.flac")
    assert (finding.path, finding.lossy) == (str(path), None)
    assert not (tmp_path / "a_copy.flac").exists()
    full, _ = soundfile.read(path, dtype="float32")
    for start in range(0, len(full) - 4096, 7001):
        part, _ = soundfile.read(path, 4096, start, dtype="float32")
        assert np.array_equal(part, full[start : start + 4096])


@pytest.mark.parametrize(
    ("subtype", "kept"), [("PCM_16", "PCM_16"), ("PCM_24", "PCM_24"), ("FLOAT", "PCM_24")]
)
def test_a_conversion_keeps_the_depth_of_its_source(subtype, kept, tmp_path):
    io.write(tmp_path / "a.wav", made_up.noise(1.0, 48000), 48000, subtype=subtype)
    finding = examine(tmp_path / "a.wav", Wanted(24000), tmp_path / "a.flac")
    assert soundfile.info(finding.path).subtype == kept


@pytest.mark.parametrize(("rate", "channels"), [(None, None), (16000, 1), (48000, None)])
@pytest.mark.parametrize("level", [0.02, 0.9])
def test_files_come_to_one_peak_and_are_otherwise_the_same(rate, channels, level, tmp_path):
    waveform = level * made_up.noise(0.7, 24000, 2) / made_up.noise(0.7, 24000, 2).abs().max()
    io.write(tmp_path / "a.wav", waveform, 24000, subtype="FLOAT")
    examine(tmp_path / "a.wav", Wanted(rate, channels), tmp_path / "plain.flac")
    finding = examine(tmp_path / "a.wav", Wanted(rate, channels, 0.5), tmp_path / "even.flac")
    plain, _ = io.read(tmp_path / ("plain.flac" if rate or channels else "a.wav"))
    even, _ = io.read(Path(finding.path))
    assert float(even.abs().max()) == pytest.approx(0.5, abs=2**-23)
    # What was written at a low level was rounded at a low level, to 24 bits.
    assert (even / 0.5 - plain / plain.abs().max()).abs().max() < 2**-23 / 0.015


@pytest.mark.parametrize(("rate", "channels"), [(None, None), (16000, None), (16000, 1)])
@pytest.mark.parametrize("peak", [None, 0.5])
def test_the_mean_of_every_channel_is_taken_away_and_all_else_stays(rate, channels, peak, tmp_path):
    plain = made_up.noise(0.7, 24000, 2)
    plain -= plain.mean(1, keepdim=True)
    shifted = plain + torch.tensor([[0.3], [-0.05]])
    for name, waveform in (("plain", plain), ("shifted", shifted)):
        io.write(tmp_path / f"{name}.wav", waveform, 24000, subtype="FLOAT")
        examine(tmp_path / f"{name}.wav", Wanted(rate, channels, peak, True), tmp_path / f"{name}.flac")
    kept, centred = (io.read(tmp_path / f"{name}.flac")[0] for name in ("plain", "shifted"))
    assert centred.shape[0] == channels or 2
    assert float(centred.mean(1).abs().max()) < 1e-6
    # Where the rate changes, the filter rings at both ends, where the offset begins and ends.
    inside = slice(200, -200) if rate else slice(None)
    scale = float((centred[:, inside] * kept[:, inside]).sum() / kept[:, inside].square().sum())
    torch.testing.assert_close(
        centred[:, inside], scale * kept[:, inside], rtol=0, atol=1e-4 if rate else 4e-7
    )
    if peak is not None:
        assert float(centred.abs().max()) == pytest.approx(peak, abs=1e-6)


def test_an_offset_is_told_once_for_a_recording_and_not_after_it_was_removed(tmp_path):
    source = tmp_path / "in" / "x" / "a.wav"
    noise = made_up.noise(1.0, 8000)
    io.write(source, noise - noise.mean() + 0.2, 8000)
    report = folder.prepare(tmp_path / "in", tmp_path / "out", PrepareOptions())
    (problem,) = report["problems"]
    assert problem["reason"].startswith("offset: the samples' mean is 0.200")
    assert not problem["excluded"]
    report = folder.prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(remove_offset=True))
    assert report["problems"] == []
    (cut,) = load_cuts(tmp_path / "out" / "train.jsonl.gz")
    assert abs(float(read_cut(cut, 0, cut.num_samples).mean())) < 1e-4


def test_a_constant_is_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(4000, 0.5), 8000)
    for wanted in (Wanted(), Wanted(centred=True)):
        assert "silent" in (examine(tmp_path / "a.wav", wanted, tmp_path / "a.flac").excluded or "")


def test_a_silent_file_has_no_peak_to_come_to(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(4000), 8000)
    assert "silent" in (examine(tmp_path / "a.wav", Wanted(peak=0.5), tmp_path / "a.flac").excluded or "")
    assert not (tmp_path / "a.flac").exists()


def test_another_peak_is_another_preparation(tmp_path):
    made_up.sound(tmp_path / "in" / "x" / "a.wav", 8000, 1.0)
    for peak in (0.5, 0.25, None):
        folder.prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(peak=peak))
        (cut,) = load_cuts(tmp_path / "out" / "train.jsonl.gz")
        heard = float(read_cut(cut, 0, cut.num_samples).abs().max())
        assert heard == pytest.approx(
            peak or float(io.read(tmp_path / "in" / "x" / "a.wav")[0].abs().max()), abs=1e-4
        )
    with pytest.raises(InputError, match=r"peak 1\.5; expected a number above 0, 1 at most"):
        folder.prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(peak=1.5))


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg"])
def test_a_compressed_file_that_is_damaged_is_left_out_and_leaves_nothing(name, tmp_path):
    path = made_up.compressed(tmp_path / name, 44100, 2.0)
    path.write_bytes(b"these are no samples" * 300)
    finding = examine(path, Wanted(), tmp_path / "out" / "a.flac")
    assert "not an audio file" in (finding.excluded or "")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_silent_mp3_is_left_out_and_its_copy_too(tmp_path):
    soundfile.write(tmp_path / "a.mp3", np.zeros(44100), 44100, format="MP3")
    finding = examine(tmp_path / "a.mp3", Wanted(), tmp_path / "out" / "a.flac")
    assert "silent" in (finding.excluded or "")
    assert not list((tmp_path / "out").iterdir())


def test_finished_files_are_kept_and_counted_after_an_interruption(tmp_path, monkeypatch):
    for number in range(6):
        made_up.compressed(tmp_path / "in" / "x" / f"{number}.mp3", 24000, seed=number)
    real, done = decoding.transcode, []

    def interrupted(*given):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(given)
        return real(*given)

    monkeypatch.setattr(inspection, "transcode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(jobs=1))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "audio").iterdir()}
    assert len(kept) == 3
    assert all(path.suffix == ".flac" and not path.name.startswith(".") for path in kept)
    monkeypatch.setattr(inspection, "transcode", real)
    report = folder.prepare(tmp_path / "in", tmp_path / "out", PrepareOptions(jobs=1))
    assert report["transcoded"] == {"MP3": 6}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_conversion_that_another_interrupted_run_replaced_is_made_again(tmp_path, monkeypatch):
    made_up.compressed(tmp_path / "in" / "x" / "a.mp3", 24000)
    source, out = tmp_path / "in", tmp_path / "out"
    folder.prepare(source, out, PrepareOptions(sample_rate=16000))
    memory = (out / "inspected.jsonl").read_bytes()
    folder.prepare(source, out, PrepareOptions(sample_rate=8000))
    # As if the second run had been killed before it tidied its findings up.
    (out / "inspected.jsonl").write_bytes(memory + (out / "inspected.jsonl").read_bytes())
    folder.prepare(source, out, PrepareOptions(sample_rate=16000))
    (cut,) = load_cuts(out / "train.jsonl.gz")
    assert read_cut(cut, 0, cut.num_samples).shape[-1] == cut.num_samples


def test_a_disk_that_fills_up_while_transcoding_is_one_line_and_leaves_no_draft(tmp_path):
    path = made_up.compressed(tmp_path / "a.mp3", 44100, 1.0)

    class Full:
        def __init__(self, stream):
            self.stream, self.left = stream, 2000

        def write(self, data):
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.stream.write(data)

        def __getattr__(self, name):
            return getattr(self.stream, name)

    target = decoding._Target(Full((tmp_path / "draft").open("wb")))

    def fill() -> None:
        with decoding._flac(target, 44100, 1, 16) as write:
            for block in decoding.decode(path):
                write(decoding._integers(block, 16))

    with pytest.raises(OSError, match="No space"):
        fill()


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(44100, 24000), (48000, 44100), (8000, 22050), (22050, 22050)]
)
def test_resampling_in_blocks_equals_resampling_at_once(rate, new_rate, monkeypatch):
    waveform = made_up.noise(2.3, rate, 2)
    blocks = [part.T.numpy() for part in waveform.split(10_007, dim=1)]
    streamed = np.concatenate(list(decoding._resampled(blocks, rate, new_rate, 2)))
    assert torch.equal(torch.from_numpy(streamed.T.copy()), io.resample(waveform, rate, new_rate))


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("LJ001-0001", "LJ001-0001"),
        ("zażółć 1", "zażółć 1"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("a%2Fb", "a%252Fb"),
        (".hidden", "%2Ehidden"),
    ],
)
def test_an_id_becomes_a_name_that_stays_in_its_folder(identifier, name):
    from audiodiff.data.listing import file_name

    assert file_name(identifier) == name
    assert Path(file_name(identifier)).name == name
    assert len(file_name("ż" * 300).encode()) <= 200
    assert file_name("ż" * 300) != file_name("ż" * 301)


def test_a_disk_error_is_no_fault_of_the_file(tmp_path):
    path = made_up.compressed(tmp_path / "a.mp3", 44100)
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        examine(path, Wanted(), tmp_path / "out" / "a.flac")
