"""From folders to the parts of a report that need no reference: sets of sounds, controls, SC09."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from audiodiff.data.manifests import has_cuts, load_cuts
from audiodiff.errors import InputError
from audiodiff.evaluation.control import LOUDNESS, PITCH, asked_numbers, score_loudness, score_pitch
from audiodiff.evaluation.features import (
    JUDGE,
    MEL,
    Described,
    Features,
    describe_samples,
    describe_split,
    judge_features,
    mel_features,
    read_matrix,
)
from audiodiff.evaluation.judge import Judge
from audiodiff.evaluation.report import Section
from audiodiff.evaluation.samples import SamplesFolder, audio_files
from audiodiff.evaluation.sc09 import Heard, Protocol, find_protocol
from audiodiff.evaluation.set_report import control_section, sc09_section, set_section
from audiodiff.evaluation.set_scores import TEST_ROW, RealSets, score_sets
from audiodiff.synthesis.cost import Cost

_TRAIN_ROW = "real training set, whole"


@dataclass(frozen=True)
class SetComparison:
    """What sets of sounds are compared with, and by which features.

    Attributes:
        data: prepared folder with the real test and training splits; None compares no sets.
        features: "judge", "mel", or a folder of .npy matrices; None takes the judge's where there is one.
        sc09: name of an SC09 protocol; None for other corpora.
    """

    data: Path | None = None
    features: str | None = None
    sc09: str | None = None


def set_sections(
    asked: SetComparison,
    systems: Mapping[str, SamplesFolder],
    judge: tuple[Judge, Path] | None,
    seed: int,
    costs: Mapping[str, Cost],
    show: bool = False,
) -> list[Section]:
    """Returns the parts on sets of sounds; none when nothing of the kind was asked.

    Args:
        asked: what is compared.
        systems: generated sounds by system.
        judge: the judge and its folder.
        seed: of draws and of k-means.
        costs: of the systems' sounds, to stand in the table; empty where another has them.
        show: progress bars on the terminal.

    Raises:
        InputError: a folder, split, feature or judge that is missing or does not fit.
    """
    check(asked, judge is not None)
    if asked.data is None and not _is_folder(asked.features):
        return []
    if _is_folder(asked.features):
        folder = Path(str(asked.features))
        train = read_matrix(folder, "train") if (folder / "train.npy").is_file() else None
        real = RealSets(read_matrix(folder, "test"), train)
        made = {name: read_matrix(folder, name) for name in systems}
        return [set_section(score_sets(real, made, seed), folder.resolve().name, "given as .npy", costs)]
    assert asked.data is not None
    features = _features(asked, asked.data, judge)
    label = judge[0].label if judge is not None else ""
    names = judge[0].names if judge is not None and features.name != MEL else ()
    test = describe_split(features, asked.data, "test", label, show)
    train = _train(features, asked.data, label, show)
    real = RealSets(test, train, names)
    made = {
        name: describe_samples(features, _listed(system), label, show) for name, system in systems.items()
    }
    sections = [set_section(score_sets(real, made, seed), features.name, features.digest, costs)]
    if asked.sc09 is not None and judge is not None:
        sections.append(_sc09(find_protocol(asked.sc09), real, made, judge[0]))
    return sections


def check(asked: SetComparison, judged: bool) -> None:
    """Refuses options that do not go together.

    Raises:
        InputError: which.
    """
    if asked.sc09 is not None:
        find_protocol(asked.sc09)
        if not judged or asked.data is None or asked.features not in (None, JUDGE):
            raise InputError(
                f"--sc09 {asked.sc09}: needs --judge DIR and --data DIR, and the judge's features"
            )
    if asked.features == JUDGE and not judged:
        raise InputError("--features judge: needs a judge; pass --judge DIR (made with `audiodiff judge`)")
    if asked.features is not None and asked.features not in (JUDGE, MEL):
        if not Path(asked.features).is_dir():
            raise InputError(
                f"--features {asked.features}: expected {JUDGE}, {MEL}, or a folder with test.npy, train.npy "
                "and NAME.npy"
            )
    elif asked.features is not None and asked.data is None:
        raise InputError(f"--features {asked.features}: needs --data DIR, the prepared folder of real sounds")


def control_sections(systems: Mapping[str, SamplesFolder], seed: int, show: bool = False) -> list[Section]:
    """Returns the part on labels that are numbers; none where no sound has any.

    Raises:
        InputError: a label that is no number.
    """
    loudness = {name: score_loudness(system, show) for name, system in systems.items()}
    pitch = {name: score_pitch(system, seed, show) for name, system in systems.items()}
    heard = {name: each for name, each in loudness.items() if each is not None}
    tuned = {name: each for name, each in pitch.items() if each is not None}
    return [control_section(heard, tuned)] if heard or tuned else []


def has_controls(samples: SamplesFolder) -> bool:
    """Returns whether numbers were asked for that can be measured."""
    return any(asked_numbers(samples, label) for label in (LOUDNESS, PITCH))


def _listed(system: SamplesFolder) -> SamplesFolder:
    """Returns a system with its files, those of its folder where it has no samples.json."""
    return system if system.files else replace(system, files=audio_files(system.folder))


def _is_folder(features: str | None) -> bool:
    return features not in (None, JUDGE, MEL)


def _features(asked: SetComparison, data: Path, judge: tuple[Judge, Path] | None) -> Features:
    if judge is not None and asked.features in (None, JUDGE):
        return judge_features(*judge)
    return mel_features(int(load_cuts(data / "test.jsonl.gz")[0].sampling_rate))


def _train(features: Features, data: Path, label: str, show: bool) -> Described | None:
    path = data / "train.jsonl.gz"
    if not path.is_file() or not has_cuts(path):
        return None
    return describe_split(features, data, "train", label, show)


def _sc09(protocol: Protocol, real: RealSets, made: Mapping[str, Described], judge: Judge) -> Section:
    if real.train is None:
        raise InputError("--sc09: the prepared folder has no training split, which FID and AM are taken to")
    train = _heard(real.train)
    sets = {_TRAIN_ROW: real.train, TEST_ROW: real.test} | dict(made)
    rows = {name: (len(each.names), protocol.score(train, _heard(each))) for name, each in sets.items()}
    return sc09_section(protocol, rows, judge.facts.get("test_accuracy"))


def _heard(described: Described) -> Heard:
    assert described.probabilities is not None
    return Heard(described.features, described.probabilities)
