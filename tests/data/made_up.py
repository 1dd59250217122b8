"""Small corpora in the true layouts of big ones, with sounds that are made up."""

from __future__ import annotations

import io as bytes_io
import json
from pathlib import Path

import soundfile
import torch

from audiodiff.audio import io


def noise(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> torch.Tensor:
    """Smooth noise [C, T], different for every seed."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(channels, round(seconds * rate) + 7, generator=generator)
    return 0.1 * torch.nn.functional.avg_pool1d(samples, 8, 1)


def sound(path: Path, rate: int, seconds: float = 0.3, channels: int = 1, seed: int = 0) -> Path:
    io.write(path, noise(seconds, rate, channels, seed), rate)
    return path


def compressed(path: Path, rate: int, seconds: float = 0.5, channels: int = 1, seed: int = 0) -> Path:
    """An MP3, Vorbis or Opus file, by its suffix."""
    kinds = {".mp3": ("MP3", "MPEG_LAYER_III"), ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS")}
    container, encoding = kinds[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = bytes_io.BytesIO()
    waveform = 3 * noise(seconds, rate, channels, seed)
    soundfile.write(buffer, waveform.T.numpy(), rate, format=container, subtype=encoding)
    path.write_bytes(buffer.getvalue())
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def libritts(root: Path, rate: int = 24000) -> Path:
    """Two readers in train, one in dev and one in test."""
    rows = [
        ("train-clean-100", "84", 2),
        ("train-clean-360", "14", 2),
        ("dev-clean", "1272", 1),
        ("test-other", "367", 1),
    ]
    for subset, reader, count in rows:
        for number in range(count):
            name = f"{reader}_121123_000007_00000{number}"
            place = root / "LibriTTS" / subset / reader / "121123" / name
            sound(place.with_suffix(".wav"), rate, seed=number + int(reader))
            text(place.with_suffix(".normalized.txt"), f'Number {number}, "read" by {reader}.\n')
            text(place.with_suffix(".original.txt"), f"No. {number}")
    text(
        root / "LibriTTS" / "speakers.tsv",
        "READER\tGENDER\tSUBSET\tNAME\n84\tF\ttrain-clean-100\tChris\n14\tF\tx\ty\n",
    )
    return root


def vctk(root: Path, rate: int = 48000, speakers: int = 6, sentences: int = 2) -> Path:
    """Version 0.92: two microphones, p315 without text, p280 without a second microphone."""
    info = "ID  AGE  GENDER  ACCENTS  REGION COMMENTS \n"
    for speaker in [*(f"p{225 + number}" for number in range(speakers)), "p280", "p315"]:
        info += f"{speaker}  23  F    English    Southern  England\n"
        for sentence in range(1, sentences + 1):
            name = f"{speaker}_{sentence:03d}"
            for microphone in (1, 2) if speaker != "p280" else (1,):
                sound(root / "wav48_silence_trimmed" / speaker / f"{name}_mic{microphone}.flac", rate, 0.25)
            if speaker != "p315":
                text(root / "txt" / speaker / f"{name}.txt", f"Please call Stella, {sentence}.\n")
    text(root / "speaker-info.txt", info)
    text(root / "wav48_silence_trimmed" / "log.txt", "trimmed")
    return root


def common_voice(root: Path, rates: tuple[int, ...] = (48000, 32000)) -> Path:
    """A language of cv-corpus with quotes in a sentence, a column that came later, and clips in no table."""
    folder = root / "cv-corpus-17.0-2024-03-15" / "cy"
    columns = "client_id\tpath\tsentence_id\tsentence\tage\tgender\taccents\tvariant\tlocale\tsegment\n"
    for split, count in (("train", 4), ("dev", 1), ("test", 1)):
        lines = columns
        for number in range(count):
            name = f"common_voice_cy_{split}{number}.mp3"
            compressed(folder / "clips" / name, rates[number % len(rates)], seed=number)
            gender = "female_feminine" if number == 0 else ""
            lines += f'{split}speaker{number}\t{name}\t7\t"Bore da" meddai {number}\t\t{gender}\t\t\tcy\t\n'
        text(folder / f"{split}.tsv", lines)
    compressed(folder / "clips" / "common_voice_cy_invalid.mp3", 48000)
    return root


def maestro(root: Path, rates: tuple[int, ...] = (44100, 48000)) -> Path:
    folder = root / "maestro-v3.0.0"
    lines = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"
    for number, split in enumerate(("train", "train", "validation", "test")):
        rate = rates[number % len(rates)]
        sound(folder / "2018" / f"piece_{number}.wav", rate, 0.3, channels=2, seed=number)
        (folder / "2018" / f"piece_{number}.midi").write_bytes(b"MThd")
        lines += f'Franz Liszt,"Etude No. {number}, ""La Campanella""",{split},2018,2018/piece_{number}.midi,'
        lines += f"2018/piece_{number}.wav,0.3\n"
    text(folder / "maestro-v3.0.0.csv", lines)
    return root


def musan(root: Path, rate: int = 16000, count: int = 3) -> Path:
    for kind, source in (("music", "fma"), ("speech", "librivox"), ("noise", "free-sound")):
        folder = root / "musan" / kind / source
        for number in range(count):
            sound(folder / f"{kind}-{source}-{number:04d}.wav", rate, seed=number)
        text(folder / "LICENSE", "CC BY")
        text(folder / "ANNOTATIONS", "x")
    return root


def folder(root: Path, rate: int = 22050, count: int = 3) -> Path:
    for name in ("hip hop", "blues"):
        for number in range(count):
            sound(root / "genres" / name / f"{name}.{number:05d}.wav", rate, seed=number)
    return root


def kaldi(root: Path, rate: int = 16000) -> Path:
    """Three data directories; those of train has two segments of one recording."""
    for split in ("train", "dev", "test"):
        path = sound(root / "wavs" / f"{split}.wav", rate, 1.0, seed=len(split))
        folder = root / "data" / split
        text(folder / "wav.scp", f"reco-{split} {path}\n")
        text(folder / "segments", f"ann-{split}-1 reco-{split} 0.1 0.4\nann-{split}-2 reco-{split} 0.5 -1\n")
        text(folder / "text", f"ann-{split}-1 one\nann-{split}-2 two words\n")
        text(folder / "utt2spk", f"ann-{split}-1 ann\nann-{split}-2 ann\n")
    return root / "data"


def drums(root: Path, rate: int = 22050) -> Path:
    """Ten strokes of a kick, two of a crash, one long, one of a tom, and a gong that has no class here."""
    for number in range(1, 11):
        sound(root / "kit" / "kick" / f"kick{number}.wav", rate, 0.2, seed=number)
    sound(root / "kit" / "crash" / "crash-bell5.wav", rate, 2.0, seed=11)
    sound(root / "kit" / "crash" / "crash-bell1.wav", rate, 0.4, seed=14)
    sound(root / "kit" / "toms" / "large-tom03.wav", rate, 0.4, seed=12)
    sound(root / "kit" / "gong" / "metal-stick1.wav", rate, 0.4, seed=13)
    return root


def piano(root: Path, rate: int = 22050) -> Path:
    """Five notes, one of them as two files, beside another piano and a release noise."""
    for number, note in enumerate(("A0", "Ds3", "C4", "Fs5", "C8")):
        sound(root / "audio-master" / "salamander" / f"{note}.wav", rate, 0.5 * (number + 1), seed=number)
    compressed(root / "audio-master" / "salamander" / "C4.ogg", rate, seed=9)
    sound(root / "audio-master" / "salamander" / "rel1.wav", rate)
    sound(root / "audio-master" / "casio" / "A1.wav", rate)
    return root


def music(root: Path, rate: int = 8000) -> Path:
    """A long recording, one in Vorbis in a folder below, and one too short to hold anything out."""
    sound(root / "first take.wav", rate, 47.0, seed=1)
    compressed(root / "live" / "second.ogg", rate, 12.5, seed=2)
    sound(root / "jingle.wav", rate, 3.0, seed=3)
    return root


def nsynth(root: Path, rate: int = 16000) -> Path:
    families = {
        "train": ("guitar", "vocal", "bass"),
        "valid": ("guitar", "vocal"),
        "test": ("guitar", "vocal"),
    }
    for first, (subset, names) in enumerate(families.items()):
        notes = {}
        for number, family in enumerate(names):
            name = f"{family}_acoustic_{first}0{number}-06{number}-100"
            sound(root / f"nsynth-{subset}" / "audio" / f"{name}.wav", rate, 0.4, seed=number)
            notes[name] = {
                "note_str": name, "pitch": 60 + number, "velocity": 100, "sample_rate": rate,
                "instrument_str": f"{family}_acoustic_{first}0{number}", "instrument_family_str": family,
                "instrument_source_str": "acoustic", "qualities_str": ["bright", "percussive"],
            }  # fmt: skip
        text(root / f"nsynth-{subset}" / "examples.json", json.dumps(notes))
    return root


MAKERS = {
    "libritts": libritts, "vctk": vctk, "common_voice": common_voice, "maestro": maestro, "musan": musan,
    "folder": folder, "kaldi": kaldi, "drums": drums, "piano": piano, "music": music, "nsynth": nsynth,
}  # fmt: skip
