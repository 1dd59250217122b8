"""A detector: what normal recordings look like to a model, and from which surprise on a recording is flagged.

A mixture of Gaussians of the frames beside their neighbours and a Gaussian of the recordings' profiles (`features`),
fitted to one part of the normals, give two statistics of a recording: its most surprising frame, and the surprise of
its profile. A second part turns each into a tail probability, whose smaller is the recording's score. The third sets
the threshold: with n recordings the score is flagged where (1 + those of the n as extreme) / (n + 1) is at most the
rate asked for, so that a new recording of the same kind as the normals is flagged no oftener than that (conformal;
Vovk et al. 2005, proposition 2.3).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from audiodiff.anomaly.density import Mixture, fit_mixture
from audiodiff.anomaly.measure import Probe
from audiodiff.anomaly.tails import LEAST, Tails
from audiodiff.errors import InputError
from audiodiff.files import writing_folder
from audiodiff.model import AudioDiffusion

ARRAYS, FACTS = "detector.safetensors", "detector.json"
VERSION = 2
STATISTICS = ("peak", "profile")


@dataclass(frozen=True)
class Verdict:
    """What a detector says of a recording.

    Attributes:
        score: minus log10 of the smallest tail probability; larger is less normal.
        p_value: share of normal recordings that score as high, never below 1 / (n + 1).
        flagged: whether that is at most the false-alarm rate.
        statistic: the one that gave the score.
        frames: [P], surprise of each frame in nats.
        flagged_frames: [P], those above the frames' threshold.
    """

    score: float
    p_value: float
    flagged: bool
    statistic: str
    frames: np.ndarray
    flagged_frames: np.ndarray


@dataclass(frozen=True)
class Normals:
    """Normal recordings to fit a detector to.

    Attributes:
        frames: of each recording, its frames beside their neighbours [P, D].
        profiles: [N, E], of the recordings.
    """

    frames: Sequence[np.ndarray]
    profiles: np.ndarray

    def part(self, chosen: np.ndarray) -> Normals:
        """Returns some of them."""
        return Normals([self.frames[i] for i in chosen], self.profiles[chosen])


@dataclass(frozen=True)
class Detector:
    """What normal recordings look like.

    Attributes:
        density: of frames beside their neighbours.
        profile: of recordings' profiles.
        tails: of each statistic.
        scores: [n], rising, of the normals that set the threshold.
        peaks: [n], rising, their most surprising frame in nats.
        false_alarms: share of normal recordings that may be flagged.
        probe: how errors are measured.
        identity: of the model.
    """

    density: Mixture
    profile: Mixture
    tails: Mapping[str, Tails]
    scores: np.ndarray
    peaks: np.ndarray
    false_alarms: float
    probe: Probe
    identity: str

    @property
    def frame_threshold(self) -> float:
        """Surprise of a frame above which it is flagged; no more normal recordings than asked exceed it."""
        allowed = math.floor(self.false_alarms * (len(self.peaks) + 1))
        return float(self.peaks[len(self.peaks) - allowed])

    @property
    def told(self) -> str:
        """What the threshold promises, in words."""
        return (
            f"at most {self.false_alarms:.1%} of normal recordings are flagged "
            f"(threshold from {len(self.scores)} that the density was not fitted to)"
        )

    @property
    def digest(self) -> str:
        """Digest of what verdicts depend on, hexadecimal."""
        arrays = self._arrays()
        digest = hashlib.sha256(f"{self.false_alarms} {self.probe} {self.identity}".encode())
        for name in sorted(arrays):
            digest.update(name.encode() + arrays[name].tobytes())
        return digest.hexdigest()

    def surprise(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the surprise in nats [P] of frames beside their neighbours [P, D]."""
        return self.density.surprise(vectors)

    def judge(self, surprise: np.ndarray, profile: np.ndarray) -> Verdict:
        """Returns the verdict on a recording.

        Args:
            surprise: [P], of its frames.
            profile: [E].
        """
        scores = self._scores(_statistics(surprise, self.profile.surprise(profile[None])))
        name = max(scores, key=lambda name: float(scores[name][0]))
        score = float(scores[name][0])
        p_value = (1 + int((self.scores >= score).sum())) / (len(self.scores) + 1)
        flagged = p_value <= self.false_alarms
        return Verdict(score, p_value, flagged, name, surprise, surprise > self.frame_threshold)

    def check(self, model: AudioDiffusion) -> None:
        """Refuses another model than the one that the detector was fitted with.

        Raises:
            InputError: it is another.
        """
        found = identity_of(model)
        if found != self.identity:
            raise InputError(
                f"detector: was fitted with model {self.identity[:12]}, this one is {found[:12]}; "
                "run `audiodiff fit-threshold` with this model"
            )

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Writes the folder whole.

        Args:
            folder: an old detector there is replaced.
            facts: what else is to be told of it.

        Raises:
            InputError: the folder holds something else, or cannot be written.
        """
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / FACTS).is_file()):
            raise InputError(f"{folder}: holds something that is no detector; give another place")
        arrays = self._arrays()
        told = {
            "version": VERSION, "model": self.identity, "false_alarms": self.false_alarms,
            "frame_threshold": self.frame_threshold, "probe": asdict(self.probe), **facts,
        }  # fmt: skip
        with writing_folder(folder) as draft:
            (draft / ARRAYS).write_bytes(to_bytes(arrays))
            (draft / FACTS).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {"scores": self.scores, "peaks": self.peaks}
        for name, mixture in (("density", self.density), ("profile", self.profile)):
            arrays |= {f"{name}.{part}": value for part, value in vars(mixture).items()}
        arrays |= {f"tails.{name}": tails.values for name, tails in self.tails.items()}
        return {name: np.ascontiguousarray(value) for name, value in arrays.items()}

    def _scores(self, statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: self.tails[name].surprise(values) for name, values in statistics.items()}


def fit(
    normals: Normals, probe: Probe, identity: str, false_alarms: float, components: int, seed: int
) -> Detector:
    """Returns the detector of some normal recordings.

    Half of them, at random, fit the densities, a quarter the tails, the rest the threshold.

    Args:
        normals: recordings, in any order.
        probe: how they were measured.
        identity: of the model.
        false_alarms: share of normal recordings that may be flagged.
        components: Gaussians of the density of frames.
        seed: of parts and start.

    Raises:
        InputError: an impossible rate, or too few recordings for it.
    """
    if not 0 < false_alarms < 1:
        raise InputError(f"--false-alarms: got {false_alarms:g}, expected a share between 0 and 1")
    count, least = len(normals.frames), math.ceil(1 / false_alarms - 1e-9) - 1
    for_threshold = max(least, count // 4)
    for_tails = max(LEAST, count // 4)
    for_density = count - for_threshold - for_tails
    if for_density < LEAST:
        raise InputError(
            f"normals: got {count} recordings, expected at least {least + 2 * LEAST} for {false_alarms:.1%} false "
            "alarms; give more of them, or allow more"
        )
    order = np.random.default_rng(seed).permutation(count)
    first, second = normals.part(order[:for_density]), normals.part(order[for_density:][:for_tails])
    third = normals.part(order[for_density + for_tails :])
    density = fit_mixture(np.concatenate(first.frames), components, seed)
    profile = fit_mixture(first.profiles, 1, seed)
    found = _all_statistics(second, density, profile)
    tails = {name: Tails(np.sort(found[name])) for name in STATISTICS}
    held = _all_statistics(third, density, profile)
    scores = np.max([tails[name].surprise(values) for name, values in held.items()], axis=0)
    return Detector(
        density, profile, tails, np.sort(scores), np.sort(held["peak"]), false_alarms, probe, identity
    )


def load(folder: Path) -> Detector:
    """Returns the detector of a folder.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    if not (folder / FACTS).is_file() or not (folder / ARRAYS).is_file():
        raise InputError(f"{folder}: holds no {FACTS} and {ARRAYS}; make a detector with fit-threshold")
    try:
        told = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if told["version"] != VERSION:
            raise InputError(
                f"{folder}: a detector of version {told['version']}, expected {VERSION}; "
                "fit it again with fit-threshold"
            )
        arrays = load_file(folder / ARRAYS)
        density, profile = (
            Mixture(*(arrays[f"{name}.{part}"] for part in ("weights", "means", "roots")))
            for name in ("density", "profile")
        )
        tails = {name: Tails(arrays[f"tails.{name}"]) for name in STATISTICS}
        rates = float(told["false_alarms"])
        probe = Probe(**told["probe"])
        return Detector(
            density, profile, tails, arrays["scores"], arrays["peaks"], rates, probe, str(told["model"])
        )
    except InputError:
        raise
    except Exception as error:  # safetensors raises its own type for a truncated file
        raise InputError(f"{folder}: damaged ({error}); fit the detector again") from error


def identity_of(model: AudioDiffusion) -> str:
    """Returns a digest of a model's weights and recipe, hexadecimal."""
    digest = hashlib.sha256(json.dumps(model.recipe.get("model"), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _statistics(frames: np.ndarray, profile: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the statistics, [1] each, of a recording's frames [P] and profile's surprise [1]."""
    return {"peak": np.array([frames.max()]), "profile": profile}


def _all_statistics(normals: Normals, density: Mixture, profile: Mixture) -> dict[str, np.ndarray]:
    """Returns the statistics [N] of some recordings."""
    frames = [density.surprise(each) for each in normals.frames]
    profiles = profile.surprise(normals.profiles)
    found = [_statistics(each, one[None]) for each, one in zip(frames, profiles, strict=True)]
    return {name: np.concatenate([each[name] for each in found]) for name in STATISTICS}
