"""Exported graphs give the audio of the model, in a runtime that knows nothing of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audiodiff.conditioning.mel import Mel
from audiodiff.diffusion.constraints import Clip
from audiodiff.diffusion.guidance import Guidance
from audiodiff.diffusion.multistep import CleanMultistep, dpmpp_midpoint
from audiodiff.diffusion.noise import KeyedNoise
from audiodiff.diffusion.plan import plan
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.times import UniformGrid
from audiodiff.errors import InputError
from audiodiff.model import AudioDiffusion, Steering
from audiodiff.synthesis.export import export
from audiodiff.synthesis.graphs import Decoder, SamplerGraph
from audiodiff.types import Batch
from tests.tiny_models import HOP, RECIPES, SAMPLERS, random_model, request

FRAMES = 11

# What a client without this package does: the whole sampler in one call, and the same by the denoiser and the sums.
CLIENT = """
import json, sys
import numpy as np, onnxruntime
folder, out = sys.argv[1:]
told = json.load(open(f"{folder}/export.json"))
given = dict(np.load(f"{folder}/given.npz"))
open_graph = lambda name: onnxruntime.InferenceSession(f"{folder}/{name}.onnx")
whole = open_graph("sampler").run(None, given)[0]
denoiser, noise, estimates = open_graph("denoiser"), given.pop("noise"), []
batch = noise.shape[1]
def total(row):
    terms = list(zip(row["noise"], noise)) + list(zip(row["estimates"], estimates))
    return sum(np.float32(share) * term for share, term in terms)
for step in told["steps"]:
    label = np.full(batch, step["label"], np.float32)
    coefficients = np.tile(np.array(step["coefficients"], np.float32), (batch, 1))
    estimates.append(denoiser.run(None, {"x": total(step), "label": label, "coefficients": coefficients, **given})[0])
np.savez(out, whole=whole, signal=total(told["signal"]))
assert not {"torch", "audiodiff"} & set(sys.modules)
"""


def given(model: AudioDiffusion, kind: str, sampler: Sampler) -> tuple[Batch, dict[str, np.ndarray]]:
    """A request and the same as inputs of the graph, with the model's own noise of seed 0."""
    length = FRAMES * HOP
    asked = request([length, length], kind)
    inputs: dict[str, np.ndarray] = {}
    mels = [part for part in model.modules() if isinstance(part, Mel)]
    mel = mels[0].log_mel(asked.waveform[:, 0])[..., :FRAMES].contiguous() if mels else None
    draws = plan(sampler, model.denoiser.schedule).draws
    source, shape = KeyedNoise(0, [0, 1]), (2, *model.representation.shape(length))
    inputs["noise"] = np.stack([source(step, shape, "cpu", draw).numpy() for step, draw in draws])
    if mel is not None:
        inputs["mel"] = mel.numpy()
    if asked.labels:
        inputs["rows"] = np.array([[0], [1]])
    return Batch(None, torch.tensor([length, length]), asked.labels, mel=mel), inputs


def guided(model: AudioDiffusion, scale: float) -> Guidance:
    return Guidance(scale) if model.labels else Guidance()


@pytest.mark.parametrize("kind", list(RECIPES))
@pytest.mark.parametrize("name", [*SAMPLERS, "dpmpp_2m"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_written_out_sampler_gives_the_audio_of_the_model(kind: str, name: str, scale: float) -> None:
    sampler = {**SAMPLERS, "dpmpp_2m": Sampler(CleanMultistep(dpmpp_midpoint), UniformGrid(4))}[name]
    model = random_model(kind)
    asked, inputs = given(model, kind, sampler)
    guidance = guided(model, scale)
    expected = torch.stack(model.synthesize(asked, sampler, 0, steering=Steering(guidance)))
    graph = SamplerGraph(model, plan(sampler, model.denoiser.schedule), guidance)
    with torch.no_grad():
        waveform = graph(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    assert float((waveform - expected).abs().max() / expected.abs().max()) < 1e-6


@pytest.mark.parametrize("kind", ["frames and labels", "samples and labels"])
def test_a_decoder_is_the_representations_own_map(kind: str) -> None:
    representation = random_model(kind).representation
    x = torch.randn(2, *representation.shape(9 * HOP), generator=torch.Generator().manual_seed(0))
    own = representation.decode(x, 9 * HOP)
    torch.testing.assert_close(Decoder(random_model(kind))(x, 9 * HOP), own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["frames, mel and labels", "samples and mel"])
def test_a_client_with_numpy_and_onnxruntime_alone_gets_the_audio(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, sampler = random_model(kind), SAMPLERS["ancestral"]
    model.recipe = {"guidance": 2.0, "experiment": "test"}
    written = export(model, sampler, tmp_path / "out")
    assert set(written.bytes) == {"sampler.onnx", "denoiser.onnx", "export.json"}
    assert max(written.errors.values()) < 1e-5
    asked, inputs = given(model, kind, sampler)
    np.savez(tmp_path / "out" / "given.npz", **inputs)
    client = [sys.executable, "-c", CLIENT, str(tmp_path / "out"), str(tmp_path / "got.npz")]
    subprocess.run(client, check=True)
    got = np.load(tmp_path / "got.npz")
    expected = torch.stack(model.synthesize(asked, sampler, 0, steering=model.steering)).numpy()
    assert float(np.abs(got["whole"] - expected).max() / np.abs(expected).max()) < 1e-5
    if not model.labels:  # the denoiser alone knows no guidance
        signal = Decoder(model)(torch.from_numpy(got["signal"]), FRAMES * HOP)
        assert float(np.abs(signal.numpy() - expected).max() / np.abs(expected).max()) < 1e-5


@pytest.mark.long
def test_half_precision_halves_the_file_and_says_its_error(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from tests.tiny import random_model as random_recipe
    from tests.tiny import recipe_from

    model = random_recipe(recipe_from("experiment=mini", "size=small"))
    model.recipe = {}
    whole = export(model, SAMPLERS["ddim"], tmp_path / "whole")
    half = export(model, SAMPLERS["ddim"], tmp_path / "half", precision="fp16")
    assert half.bytes["sampler.onnx"] < 0.6 * whole.bytes["sampler.onnx"]
    assert whole.errors["sampler"] < 1e-5 < half.errors["sampler"] < 1e-2
    assert json.loads((tmp_path / "half" / "export.json").read_text())["error_of_range"] == half.errors


def test_a_torch_program_gives_the_audio(tmp_path: Path) -> None:
    model = random_model("frames, mel and labels")
    assert max(export(model, SAMPLERS["ddim"], tmp_path / "out", "torch").errors.values()) < 1e-6
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "sampler.pt2",
        "denoiser.pt2",
        "export.json",
    }


@pytest.mark.long
def test_an_aotinductor_package_gives_the_audio(tmp_path: Path) -> None:
    model = random_model("samples and mel")
    assert max(export(model, SAMPLERS["ddim"], tmp_path / "out", "aotinductor").errors.values()) < 1e-5


def test_what_no_graph_can_express_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model = random_model("frames and labels")
    with pytest.raises(InputError, match="constraint"):
        export(model, Sampler(DDIM(), UniformGrid(2), constraint=Clip(-1.0, 1.0)), tmp_path / "out")
    with pytest.raises(InputError, match="format 'tflite'"):
        export(model, SAMPLERS["ddim"], tmp_path / "out", "tflite")
    model.recipe = {"guidance": 2.0, "guidance_rescale": 0.5}
    with pytest.raises(InputError, match="rescal"):
        export(model, SAMPLERS["ddim"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="no export"):
        export(random_model(), SAMPLERS["ddim"], tmp_path / "full")
