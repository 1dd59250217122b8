"""Speed of vocoders: DiffWave by step and end to end beside lmnt's own code, and the frame-level vocoder by steps.

    python benchmarks/vocoder.py --lmnt ../diffwave --weights base_weights.safetensors --seconds 1 2 5 \
        --threads 2 --repeats 9 --out docs/vocoder_speed

The contestants run one after the other in every repeat, on the same weights and inputs, and the medians are compared:
believe the ratios. `plain` is this library's network called as a module, `bound` what samplers call, `lmnt` the code of
github.com/lmnt-com/diffwave in the folder that --lmnt names. Memory is what a fresh process needs above what it held
before its first evaluation. Without --weights or --model the weights are random, which changes no time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiodiff.diffusion.denoiser import Denoiser, StepIndex
from audiodiff.diffusion.parameterizations import epsilon
from audiodiff.diffusion.samplers import DDIM, Ancestral, Sampler
from audiodiff.diffusion.schedules import BetaTable
from audiodiff.diffusion.times import BetaGrid, UniformGrid
from audiodiff.files import write_whole
from audiodiff.hardware import peak_memory_bytes
from audiodiff.interop import lmnt_diffwave
from audiodiff.interop.lmnt_diffwave import LmntDiffWave
from audiodiff.model import AudioDiffusion, build, load
from audiodiff.networks.wavenet import ConditionShape, WaveNet
from audiodiff.progress import track
from audiodiff.recipes_folder import recipes_folder
from audiodiff.synthesis.vocoder import Vocoder
from audiodiff.types import Condition

RATE, HOP, MELS = 22050, 256, 80
LABEL = 7.3
FRAME_STEPS = (1, 2, 4, 6, 12)
ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Timing:
    """One contestant: medians in seconds, and its distance from the first one's output over that one's range."""

    name: str
    seconds: float
    ratio: float  # median over the repeats of the first contestant's time over this one's
    error: float


class Peer(nn.Module):
    """lmnt's module behind the contract of a network."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, noise_label: Tensor, condition: Condition) -> Tensor:
        """Returns the prediction [B, 1, T]."""
        output: Tensor = self.module(x[:, 0], noise_label, condition.local)
        return output

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction."""
        return lambda x, noise_label: self(x, noise_label, condition)


class Unbound(nn.Module):
    """A network that is never bound, but called with its condition in every step."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def bind(self, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns (x, noise_label) -> prediction."""
        return lambda x, noise_label: self.network(x, noise_label, condition)


def imported(weights: Path | None) -> LmntDiffWave:
    """Returns DiffWave base with the file's weights, or with random ones."""
    if weights is not None:
        return lmnt_diffwave.load(weights)
    torch.manual_seed(0)
    network = WaveNet(condition=ConditionShape(local_features=MELS))
    nn.init.normal_(network.output_projection.weight, std=0.1)
    defaults = lmnt_diffwave.DEFAULT_PARAMS
    return LmntDiffWave(network, defaults["noise_schedule"], defaults["inference_noise_schedule"], RATE, None)


def lmnts(folder: Path, weights: Path) -> Peer:
    """Returns lmnt's own network with the file's weights."""
    source = folder / "src" if (folder / "src").is_dir() else folder
    sys.path.insert(0, str(source))
    params = importlib.import_module("diffwave.params").params
    module = importlib.import_module("diffwave.model").DiffWave(params)
    from safetensors.torch import load_file

    module.load_state_dict(load_file(weights))
    return Peer(module)


def contestants(lmnt: Path | None, weights: Path | None) -> dict[str, nn.Module]:
    """Returns networks that are bound by their `bind`, the one that the others are measured against first."""
    network = imported(weights).network.eval()
    found: dict[str, nn.Module] = {"plain": Unbound(network), "bound": network}
    if lmnt is not None and weights is not None:
        return {"lmnt": lmnts(lmnt, weights).eval(), **found}
    return found


def inputs(seconds: float) -> tuple[Tensor, Condition]:
    """Returns noise [1, 1, T] of whole hops, and a mel in [0, 1]."""
    frames = round(seconds * RATE / HOP)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, frames * HOP, generator=generator)
    return x, Condition(local=torch.rand(1, MELS, frames, generator=generator))


def steps(networks: dict[str, nn.Module], seconds: float) -> dict[str, Call]:
    """Returns one evaluation of each network, bound before."""
    x, condition = inputs(seconds)
    label = torch.tensor([LABEL])
    bound = {name: network.bind(condition) for name, network in networks.items()}  # type: ignore[operator]
    return {name: lambda call=call: call(x, label) for name, call in bound.items()}  # type: ignore[misc]


def syntheses(networks: dict[str, nn.Module], model: LmntDiffWave, seconds: float) -> dict[str, Call]:
    """Returns the whole way from mel to waveform by the short published schedule, with the same noise for all."""
    noise, condition = inputs(seconds)
    schedule, sampler = BetaTable(model.betas), Sampler(Ancestral(), BetaGrid(tuple(model.fast_betas)))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(len(model.fast_betas) + 1, *noise.shape, generator=generator)

    def call(network: nn.Module) -> Tensor:
        denoise = Denoiser(network, schedule, epsilon, StepIndex()).bind(condition)
        return sampler(denoise, schedule, noise, lambda step, draw: drawn[step])

    return {name: lambda network=network: call(network) for name, network in networks.items()}  # type: ignore[misc]


def compare(calls: dict[str, Call], repeats: int, what: str) -> list[Timing]:
    """Returns the contestants' medians over interleaved repeats, after one that does not count."""
    results = {name: call() for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in track(range(repeats), what, repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    first = next(iter(calls))
    reference = results[first]
    return [
        Timing(
            name,
            statistics.median(times),
            statistics.median(one / own for one, own in zip(taken[first], times, strict=True)),
            float((results[name] - reference).abs().max() / reference.abs().max()),
        )
        for name, times in taken.items()
    ]


def resident() -> float:
    """Returns the most memory that this process had resident so far, in megabytes."""
    peak = peak_memory_bytes()
    assert peak is not None, "Linux tells"
    return peak / 1e6


def peak_megabytes(name: str, lmnt: Path | None, weights: Path | None, seconds: float, threads: int) -> float:
    """Returns by how much two evaluations raise the resident memory of a process."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        networks = {name: contestants(lmnt, weights)[name]}
        steps(networks, 0.1)[name]()  # libraries and their threads are there
        call = steps(networks, seconds)[name]
        before = resident()
        call()
        call()
        return resident() - before


def memory(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns the peak memory by length and contestant, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, float]] = {}
    names = [*(["lmnt"] if arguments.lmnt and arguments.weights else []), "plain", "bound"]
    for seconds in track(arguments.memory_seconds, "memory", len(arguments.memory_seconds)):
        # Only what is bound has to stand the greatest length.
        wanted = names if seconds <= max(arguments.seconds) else ["bound"]
        found[f"{seconds:g}"] = {}
        for name in wanted:
            with context.Pool(1) as pool:
                task = (name, arguments.lmnt, arguments.weights, seconds, arguments.threads)
                found[f"{seconds:g}"][name] = pool.apply(peak_megabytes, task)
    return found


def frame_model(folder: Path | None, size: str) -> AudioDiffusion:
    """Returns the model of a folder, or an untrained frame-level vocoder."""
    if folder is not None:
        return load(folder)
    from hydra import compose, initialize_config_dir

    from audiodiff.cli.train import recipe_of

    with initialize_config_dir(str(recipes_folder()), version_base="1.3"):
        return build(recipe_of(compose("train", ["experiment=ljspeech_vocoder", f"size={size}"]))).eval()


def frame_level(model: AudioDiffusion, seconds: float, repeats: int) -> dict[str, dict[str, float]]:
    """Returns by steps how many times faster than real time a mel becomes a waveform, sampled and also mended."""
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(1, round(seconds * model.sample_rate), generator=generator)
    calls: dict[str, Call] = {}
    for count in FRAME_STEPS:
        sampler = Sampler(DDIM(), UniformGrid(count))
        whole = int(model.recipe["mel_iterations"])
        for mended in sorted({0, whole // 2, whole}):
            vocoder = Vocoder(model, sampler, mel_iterations=mended)
            mel = vocoder.log_mel(waveform)
            calls[f"{count} {mended}"] = lambda vocoder=vocoder, mel=mel: vocoder(mel)  # type: ignore[misc]
    found: dict[str, dict[str, float]] = {}
    for timing in compare(calls, repeats, "frame level"):
        evaluations, _, iterations = timing.name.partition(" ")
        found.setdefault(evaluations, {})[iterations] = seconds / timing.seconds
    return found


def allocator() -> str:
    """Returns the name of the memory allocator, with what the environment sets of it."""
    maps = Path("/proc/self/maps")
    loaded = maps.read_text() if maps.exists() else ""
    name = next((each for each in ALLOCATORS if each in loaded), " ".join(platform.libc_ver()) or "system")
    settings = [
        f"{key}={value}"
        for key, value in os.environ.items()
        if key.startswith("MALLOC_") or key == "GLIBC_TUNABLES"
    ]
    return " ".join([name, *settings])


def processor() -> str:
    """Returns the processor's own name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def rows(title: str, by_length: dict[str, list[Timing]]) -> list[str]:
    """Returns a Markdown table of comparisons."""
    first = next(iter(by_length.values()))[0].name
    lines = [
        f"| {title}, s of audio | contestant | s | times {first}'s speed | error of range |",
        "|---|---|---|---|---|",
    ]
    for length, timings in by_length.items():
        lines += [
            f"| {length} | {each.name} | {each.seconds:.3f} | {each.ratio:.2f} | {each.error:.1e} |"
            for each in timings
        ]
    return [*lines, ""]


def page(measured: dict[str, Any], command: str) -> str:
    """Returns the Markdown page."""
    about = measured["about"]
    lines = [
        "# Speed of the vocoders", "",
        "DiffWave base (30 layers, 64 channels, 80-band mel, hop 256, 22.05 kHz): one evaluation, and six steps from",
        "mel to waveform. `lmnt` is the project's own code, `plain` this library's module, `bound` what samplers call.",
        "The contestants run interleaved on the same weights and inputs. Medians; of the ratios too.", "",
        "```sh", command, "```", "",
        f"{about['processor']}, {about['threads']} threads, torch {about['torch']}, allocator {about['allocator']}, "
        f"{about['repeats']} repeats, load before and after {about['load']}.", "",
        *rows("one evaluation", measured["step"]), *rows("mel to waveform", measured["synthesis"]),
    ]  # fmt: skip
    if measured["memory"]:
        lines += [
            "| peak memory above that of the loaded model, s of audio | contestant | MB |",
            "|---|---|---|",
        ]
        lines += [
            f"| {length} | {name} | {value:.0f} |"
            for length, found in measured["memory"].items()
            for name, value in found.items()
        ]
        lines.append("")
    if measured["frame_level"]:
        kinds = list(next(iter(measured["frame_level"].values())))
        titles = [f"{kind} iterations towards the mel" for kind in kinds]
        lines += [
            f"Frame-level vocoder ({about['model']}), {about['frame_seconds']:g} s of audio: times real time.", "",
            f"| steps | {' | '.join(titles)} |", "|---|" + "---|" * len(kinds),
        ]  # fmt: skip
        lines += [
            f"| {count} | {' | '.join(f'{found[kind]:.1f}' for kind in kinds)} |"
            for count, found in measured["frame_level"].items()
        ]
        lines.append("")
    return "\n".join(lines)


def options(given: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--lmnt", type=Path, help="folder with the code of lmnt-com/diffwave; needs --weights"
    )
    parser.add_argument("--weights", type=Path, help="checkpoint of lmnt's DiffWave base, .safetensors")
    parser.add_argument("--model", type=Path, help="folder of a frame-level vocoder")
    parser.add_argument(
        "--size", default="base", help="of the frame-level vocoder, where no --model is given"
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 2, 5], help="of audio")
    parser.add_argument("--synthesis-seconds", type=float, nargs="*", default=[1])
    parser.add_argument("--memory-seconds", type=float, nargs="*", default=[5, 50])
    parser.add_argument("--frame-seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    return parser.parse_args(given)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns all the tables' numbers."""
    load_before = os.getloadavg()[0]
    model, networks = imported(arguments.weights), contestants(arguments.lmnt, arguments.weights)
    with torch.inference_mode():
        step = {
            f"{seconds:g}": compare(steps(networks, seconds), arguments.repeats, f"{seconds:g} s")
            for seconds in arguments.seconds
        }
        few = math.ceil(arguments.repeats / 3)
        synthesis = {
            f"{seconds:g}": compare(syntheses(networks, model, seconds), few, f"{seconds:g} s, whole")
            for seconds in arguments.synthesis_seconds
        }
        frames: dict[str, dict[str, float]] = {}
        if arguments.frame_seconds:
            vocoder = frame_model(arguments.model, arguments.size)
            frames = frame_level(vocoder, arguments.frame_seconds, arguments.repeats)
    about = {
        "processor": processor(), "threads": arguments.threads, "torch": torch.__version__, "allocator": allocator(),
        "repeats": arguments.repeats, "frame_seconds": arguments.frame_seconds,
        "model": f"random weights, size {arguments.size}" if arguments.model is None else arguments.model.name,
        "load": f"{load_before:.1f} and {os.getloadavg()[0]:.1f}",
    }  # fmt: skip
    return {
        "about": about,
        "step": step,
        "synthesis": synthesis,
        "memory": memory(arguments),
        "frame_level": frames,
    }


def main() -> None:
    """Measures, prints the page, and writes it."""
    arguments = options(None)
    if arguments.lmnt and not arguments.weights:
        raise SystemExit("--lmnt needs --weights: a checkpoint that both codes read")
    torch.set_num_threads(arguments.threads)
    measured = measure(arguments)
    # Where the user keeps the files is nobody's business.
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    text = page(measured, " ".join(["python", *words]))
    print(text)
    if arguments.out:
        numbers = json.dumps(measured, indent=1, default=lambda timing: vars(timing))
        write_whole(
            {
                arguments.out.with_suffix(".json"): f"{numbers}\n".encode(),
                arguments.out.with_suffix(".md"): text.encode(),
            }
        )


if __name__ == "__main__":
    main()
