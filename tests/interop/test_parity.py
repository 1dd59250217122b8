"""An imported model folder gives the project's own sound: file -> folder -> load -> synthesize, with recorded noise.

Tolerances are those of the fixtures' README: 1e-4 of the largest value over a sampled trajectory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from audiodiff.diffusion.samplers import Sampler
from audiodiff.diffusion.times import TableGrid, TimesGrid
from audiodiff.instantiation import instantiate
from audiodiff.interop.dance_diffusion import crash_times
from audiodiff.interop.folder import import_checkpoint
from audiodiff.interop.foreign import Options
from audiodiff.model import AudioDiffusion, load
from audiodiff.types import Batch
from tests.interop import foreign_files
from tests.parity import stored_numbers, test_fregrad, test_ivanvovk_wavegrad, test_priorgrad

TRAJECTORY = 1e-4

Synthesize = Callable[..., Tensor]


@pytest.fixture
def synthesize(monkeypatch: pytest.MonkeyPatch) -> Synthesize:
    """Returns a function that makes one sound [C, T] of a model folder from recorded noise [steps, B, C, F]."""

    def run(folder: Path, noise: Tensor, mel: Tensor | None, length: int, grid: Any = None) -> Tensor:
        class Recorded:
            def __init__(self, seed: int, items: Any) -> None: ...

            def __call__(self, step: int, shape: Any, device: torch.device, draw: int = 0) -> Tensor:
                assert tuple(shape) == tuple(noise[step].shape)
                return noise[step]

        monkeypatch.setattr("audiodiff.model.KeyedNoise", Recorded)
        model: AudioDiffusion = load(folder)
        sampler: Sampler = instantiate(model.recipe["sampler"])
        batch = Batch(None, torch.tensor([length]), mel=mel)
        return model.synthesize(batch, sampler if grid is None else replace(sampler, grid=grid), 0)[0]

    return run


def arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as content:
        return {key: torch.from_numpy(content[key]) for key in content.files if key != "meta_json"}


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    stored_numbers.assert_close(actual, expected, TRAJECTORY, what)


def mel_of(data: dict[str, Tensor]) -> Tensor | None:
    mel = data.get("spectrogram", data.get("mel"))
    return mel if mel is None or mel.dim() == 3 else mel[None]


@pytest.mark.parametrize("name", ["base", "small", "uncond_small"])
def test_lmnt_diffwave_sounds_as_lmnts(
    name: str, fixtures_dir: Path, tmp_path: Path, synthesize: Synthesize
) -> None:
    file, options = foreign_files.lmnt_diffwave(tmp_path, fixtures_dir, name)
    import_checkpoint("lmnt_diffwave", file, tmp_path / "model", options)
    for path in sorted((fixtures_dir / "lmnt_diffwave").glob(f"{name}_sample_*.npz")):
        data = arrays(path)
        noise = data["noise"][:, :, None]
        grid = None if len(noise) == 6 else TableGrid()  # the folder's own sampler is the fast one
        sound = synthesize(tmp_path / "model", noise, mel_of(data), noise.shape[-1], grid)
        assert_close(sound, data["output"], path.name)


@pytest.mark.parametrize("name", ["small_sample6", "small_sample50"])
def test_lmnt_wavegrad_on_a_given_schedule_sounds_as_lmnts(
    name: str, fixtures_dir: Path, tmp_path: Path, synthesize: Synthesize
) -> None:
    path = fixtures_dir / "lmnt_wavegrad" / f"{name}.npz"
    data = arrays(path)
    betas = data.get("noise_schedule", foreign_files.meta_of(path).get("noise_schedule"))
    np.save(tmp_path / "betas.npy", np.asarray(betas))  # as the project's search does
    file, _ = foreign_files.lmnt_wavegrad(tmp_path, fixtures_dir)
    import_checkpoint("lmnt_wavegrad", file, tmp_path / "model", Options(schedule=tmp_path / "betas.npy"))
    noise = data["noise"][:, :, None]
    sound = synthesize(tmp_path / "model", noise, mel_of(data), noise.shape[-1])
    assert_close(sound, data["output"], name)


@pytest.mark.parametrize("kind", ["vocoder", "unconditional"])
@pytest.mark.parametrize(("output", "corrected"), [("output", False), ("output_noinplace", True)])
def test_philsyn_diffwave_sounds_as_the_first_authors(
    kind: str, output: str, corrected: bool, fixtures_dir: Path, tmp_path: Path, synthesize: Synthesize
) -> None:
    folder = fixtures_dir / f"philsyn_{kind}"
    config = json.loads((folder / "config.json").read_text())
    paths = sorted(folder.glob("sample_*.npz"))
    assert paths
    for path in paths:
        config["diffusion_config"] = foreign_files.meta_of(path)
        (tmp_path / "config.json").write_text(json.dumps(config))
        options = Options(config=tmp_path / "config.json", corrected=corrected)
        import_checkpoint("philsyn_diffwave", folder / "123.pkl", tmp_path / "model", options)
        data = arrays(path)
        sound = synthesize(tmp_path / "model", data["noise"], mel_of(data), data["noise"].shape[-1])
        assert_close(sound[None], data[output], path.name)


def test_ivanvovk_wavegrad_sounds_as_ivanvovks(tmp_path: Path, synthesize: Synthesize) -> None:
    data = test_ivanvovk_wavegrad.DATA
    file, options = foreign_files.ivanvovk_wavegrad(tmp_path, tmp_path)
    torch.save(data["betas"], tmp_path / "betas.pt")
    options = replace(options, schedule=tmp_path / "betas.pt")
    import_checkpoint("ivanvovk_wavegrad", file, tmp_path / "model", options)
    noise = data["noise"][:, :, None].float()
    sound = synthesize(tmp_path / "model", noise, data["spectrogram"][:1], noise.shape[-1])
    assert_close(sound, data["states"][-1].float(), "last state")


def test_priorgrad_sounds_as_priorgrads(tmp_path: Path, synthesize: Synthesize) -> None:
    file, options = foreign_files.priorgrad(tmp_path, tmp_path)
    import_checkpoint("priorgrad", file, tmp_path / "model", options)
    data = test_priorgrad.DATA
    noise = stored_numbers.recorded(1, 6, 1, 1, data["audio"].shape[-1])
    sound = synthesize(tmp_path / "model", noise, data["spectrogram"], noise.shape[-1])
    assert_close(sound[0, ::4], data["states"][-1], "last state")


def test_fregrad_sounds_as_fregrads(tmp_path: Path, synthesize: Synthesize) -> None:
    file, options = foreign_files.fregrad(tmp_path, tmp_path)
    import_checkpoint("fregrad", file, tmp_path / "model", options)
    data, length = test_fregrad.DATA, test_fregrad.LENGTH
    noise = torch.stack([stored_numbers.recorded(100 + step, 1, 2, length // 2) for step in range(50)])
    sound = synthesize(tmp_path / "model", noise, data["spectrogram"], length)
    assert_close(sound[0, ::8], data["decoded"], "waveform")


def test_speechbrain_diffwave_sounds_as_speechbrains(tmp_path: Path, synthesize: Synthesize) -> None:
    file, options = foreign_files.speechbrain_diffwave(tmp_path, tmp_path)
    import_checkpoint("speechbrain_diffwave", file, tmp_path / "model", options)
    data, _ = stored_numbers.arrays("speechbrain_diffwave")
    noise = stored_numbers.recorded(1, 6, 1, 1, 256 * data["spectrogram"].shape[-1])
    sound = synthesize(tmp_path / "model", noise, data["spectrogram"], noise.shape[-1])
    assert_close(sound[0, ::6], data["vocoder_states"][-1], "last state")


def test_amphion_diffwave_sounds_as_amphions(tmp_path: Path, synthesize: Synthesize) -> None:
    file, options = foreign_files.amphion_diffwave(tmp_path, tmp_path)
    import_checkpoint("amphion_diffwave", file, tmp_path / "model", options)
    data, _ = stored_numbers.arrays("amphion_diffwave")
    noise = stored_numbers.recorded(1, 6, 1, 1, data["audio"].shape[-1])
    sound = synthesize(tmp_path / "model", noise, data["spectrogram"], noise.shape[-1])
    assert_close(sound[0], data["states"][-1], "last state")


def test_dance_diffusion_sounds_as_dance_diffusions(tmp_path: Path, synthesize: Synthesize) -> None:
    file, options = foreign_files.dance_diffusion(tmp_path, tmp_path)
    import_checkpoint("dance_diffusion", file, tmp_path / "model", options)
    data, meta = stored_numbers.arrays("dance_diffusion")
    grid = TimesGrid(crash_times(meta["steps"]))
    for item, expected in zip(data["noise"], data["sampled"], strict=True):
        sound = synthesize(tmp_path / "model", item[None, None], None, item.shape[-1], grid)
        assert_close(sound, expected, "sound")
