"""What the documents say is true: code runs, commands, flags, recipe keys, files and links exist."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hydra import compose, initialize_config_dir
from torch import Tensor

from audiodiff.audio import io
from audiodiff.cli.app import app
from audiodiff.cli.train import check_overrides, recipe_of
from audiodiff.data.preparation import PrepareOptions
from audiodiff.diffusion.parameterizations import target
from audiodiff.diffusion.process import diffuse
from audiodiff.diffusion.samplers import DDIM, Sampler
from audiodiff.diffusion.schedules import linear
from audiodiff.diffusion.times import UniformGrid
from audiodiff.types import Condition
from tests.tiny import save_random_model

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("egs/*/*/README.md"))]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
HYDRA_COMMANDS = {"train", "statistics"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, kind: str) -> list[str]:
    """Content of the page's code blocks that are marked with `kind`."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def named(page: Path, kind: str) -> dict[str, str]:
    """Code blocks whose first line is a comment with the file they belong in, by that file."""
    found = {}
    for block in blocks(page, kind):
        first, _, rest = block.partition("\n")
        found[first.removeprefix("# ")] = rest
    return found


def shell_lines(page: Path) -> list[list[str]]:
    """Commands of the page's shell blocks, in words."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [
        words for line in lines for part in line.split("&&") if (words := shlex.split(part, comments=True))
    ]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        place, _, part = link.partition("#")
        linked = page.parent / place if place else page
        assert linked.exists(), f"{link}: no such file"
        if part:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert part in map(anchor, headings), f"{link}: no such heading"


@each_page
def test_commands_have_the_flags_and_the_recipes_the_keys_that_the_page_gives_them(page: Path) -> None:
    for words in shell_lines(page):
        if words[0] == "audiodiff":
            check_command(words[1:])
        elif words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True)
        elif words[0] == "bash":
            check_script(words[1], words[2:])


@each_page
def test_commands_named_in_the_text_exist(page: Path) -> None:
    for inline in re.findall(r"`audiodiff ([^`]+)`", page.read_text()):
        check_command([word for word in inline.split() if word != "..." and "NAME" not in word])


def check_command(words: list[str]) -> None:
    name, *rest = words
    if name.startswith("-"):
        return
    assert name in COMMANDS, f"audiodiff {name}: no such command"
    if name in HYDRA_COMMANDS:
        overrides = [word for word in rest if "=" in word and word != "experiment=fsdd_wavenet"]
        if overrides and any(word.startswith("experiment=") for word in overrides):
            check_overrides(overrides)
        return
    command = COMMANDS[name]
    if hasattr(command, "commands") and rest:  # a group, such as edit
        assert rest[0] in command.commands, f"audiodiff {name} {rest[0]}: no such command"
        command = command.commands[rest[0]]
    known = {flag for parameter in command.params for flag in parameter.opts}
    unknown = {word for word in rest if word.startswith("--")} - known
    assert not unknown, f"audiodiff {name}: no {unknown}"


def check_script(script: str, words: list[str]) -> None:
    shown = subprocess.run(
        ["bash", str(ROOT / script), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"(^|[ ,]){word}\b", shown), f"{script} has no {word}"
    experiment = re.search(r"experiment (\w+)", shown)
    assert experiment
    overrides = [word for word in words if "=" in word]
    if overrides:
        check_overrides([f"experiment={experiment[1]}", *overrides])


@each_page
def test_python_that_is_not_run_compiles(page: Path) -> None:
    for block in [*blocks(page, "python"), *blocks(page, "python run")]:
        compile(block, str(page), "exec")


def test_every_file_in_the_tree_of_the_architecture_page_exists() -> None:
    (tree,) = blocks(ROOT / "docs" / "architecture.md", "text")
    above: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        words = re.split(r"  +", line.strip())
        names = list(itertools.takewhile(lambda word: re.fullmatch(r"[\w/]+(/|\.\w+)", word), words))
        assert names, f"no name in {line!r}"
        for name in names:
            assert ROOT.joinpath(*above[:depth], name).exists(), f"{'/'.join([*above[:depth], name])} is gone"
        above[depth:] = [names[0]]


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for task, experiment in (("digits", "fsdd_digits"), ("vocoder", "fsdd_vocoder")):
        folder = (
            tmp_path / "egs" / "fsdd" / task / "exp" / experiment
        )  # where the recipe leaves a trained one
        save_random_model(folder, f"experiment={experiment}", "size=tiny")
    noise = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) / 8
    io.write(tmp_path / "recording.wav", noise, 8000)
    generation, vocoding = blocks(ROOT / "README.md", "python run")
    made: dict[str, Any] = {}
    exec(generation, made)
    assert [tuple(waveform.shape) for waveform in made["waveforms"]] == [(1, 4800), (1, 4000)]
    exec(vocoding, made)
    assert io.probe(tmp_path / "vocoded.wav").sample_rate == 8000


@pytest.fixture(scope="module")
def added() -> dict[str, dict[str, Any]]:
    """What the worked examples define, by the file that they belong in."""
    parts = {}
    for file, code in named(ROOT / "docs" / "adding_things.md", "python run").items():
        module = types.ModuleType(f"added_{Path(file).stem}")
        sys.modules[module.__name__] = module  # dataclasses look their module up
        exec(compile(code, file, "exec"), module.__dict__)
        parts.setdefault(file, {}).update(module.__dict__)
    return parts


def gaussian(schedule: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact denoiser of data with mean 0 and deviation 1/2."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return x * (alpha / 4 / (alpha**2 / 4 + sigma**2))

    return denoise


def exact(schedule: Any, x: Tensor) -> Tensor:
    """Where the probability flow ends that starts from x at t = 1."""
    one = torch.ones((), dtype=torch.float64)
    return x / 2 / (schedule.alpha(one) ** 2 / 4 + schedule.sigma(one) ** 2).sqrt()


def test_the_added_sampler_beats_ddim_and_the_added_grid_serves(added: dict[str, dict[str, Any]]) -> None:
    schedule = linear(1e-4, 0.02, 1000)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 9)
    errors = {}
    ralston, grid = (
        added["audiodiff/diffusion/singlestep.py"]["Ralston"],
        added["audiodiff/diffusion/times.py"],
    )
    for name, sampler in {  # as many evaluations, but for the last step's
        "ddim": Sampler(DDIM(), UniformGrid(40)),
        "ralston": Sampler(ralston(), UniformGrid(20)),
        "quadratic": Sampler(ralston(), grid["QuadraticGrid"](20)),
    }.items():
        end = sampler(gaussian(schedule), schedule, x, lambda step, draw: torch.zeros_like(x))
        errors[name] = float((end - exact(schedule, x)).abs().max())
    assert errors["ralston"] < errors["ddim"]
    assert errors["quadratic"] < errors["ddim"]


def test_the_added_schedule_is_variance_preserving_and_inverts(added: dict[str, dict[str, Any]]) -> None:
    even = added["audiodiff/diffusion/continuous.py"]["EvenLogSnr"]()
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(even.alpha(t) ** 2 + even.sigma(t) ** 2, torch.ones_like(t))
    torch.testing.assert_close(even.time(even.log_snr(t)), t)


def test_the_added_parameterization_predicts_the_residual(added: dict[str, dict[str, Any]]) -> None:
    residual = added["audiodiff/diffusion/parameterizations.py"]["residual"]
    schedule, t = linear(1e-4, 0.02, 1000), torch.tensor([0.2, 0.7], dtype=torch.float64)
    clean, noise = torch.randn(2, 2, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x_t = diffuse(schedule, clean, noise, t)
    wanted = target(residual(alpha, sigma), alpha, sigma, clean, noise)
    torch.testing.assert_close(wanted, clean - x_t)


def test_the_added_network_gives_an_item_the_same_alone_and_padded(added: dict[str, dict[str, Any]]) -> None:
    network = added["audiodiff/networks/plain.py"]["Plain"](4, 8, local_features=3, vector_features=2)
    draw = torch.Generator().manual_seed(0)
    x, local, vector = (torch.randn(*shape, generator=draw) for shape in ((2, 4, 20), (2, 3, 19), (2, 2)))
    local[1, :, 12:] = local[1, :, 11:12]  # as the mel conditioner pads
    level, frames = torch.tensor([0.3, -0.2]), torch.tensor([20, 13])
    both = network(x, level, Condition(local, vector, frames))
    alone = network(x[1:, :, :13], level[1:], Condition(local[1:, :, :12], vector[1:]))
    torch.testing.assert_close(both[1:, :, :13], alone)


def test_the_added_corpus_is_prepared(added: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    clip = torch.randn(1, 1600, generator=torch.Generator().manual_seed(0)) / 8
    for number in range(30):
        io.write(tmp_path / "source" / ("rain", "door")[number % 2] / f"{number}.wav", clip, 16000)
    prepare = added["audiodiff/data/corpora/folders.py"]["prepare"]
    report = prepare(tmp_path / "source", tmp_path / "out", PrepareOptions())
    assert report["cuts"] == 30
    assert {split: summary["cuts"] > 0 for split, summary in report["splits"].items()} == {
        "train": True,
        "dev": True,
        "test": True,
    }


def test_the_added_metric_measures_decibels(added: dict[str, dict[str, Any]]) -> None:
    module = added["audiodiff/evaluation/metrics/snr.py"]
    reference = np.random.default_rng(0).normal(size=1000)
    assert module["snr"](reference, 0.9 * reference, 8000) == pytest.approx(20.0)
    assert module["BETTER"] == "higher"


def test_the_added_recipes_compose(tmp_path: Path) -> None:
    recipes = shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for file, text in named(ROOT / "docs" / "adding_things.md", "yaml").items():
        assert not (tmp_path / file).exists(), f"{file} exists; the page has to invent another"
        (tmp_path / file).write_text(text)
    with initialize_config_dir(str(recipes), version_base="1.3"):
        config = recipe_of(compose("train", ["experiment=fsdd_wavenet", "size=tiny", "sampler=ralston"]))
        assert config["sampler"]["step"]["_target_"].endswith(".Ralston")
        overrides = ["model=plain", "size=tiny", "schedule=even_log_snr", "prediction=residual"]
        config = recipe_of(compose("train", ["experiment=mini", *overrides]))
        assert config["model"]["denoiser"]["network"]["width"] == 16
        config = recipe_of(compose("train", ["experiment=mini", "data=folders", "size=tiny"]))
        assert config["data"]["labels"]["sound"] == ["door", "rain", "whistle"]
