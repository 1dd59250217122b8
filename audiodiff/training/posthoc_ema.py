"""Post-hoc EMA: an average of the weights of any width, chosen after the training.

The power-function average after t updates weighs the weights of update tau by
(tau^(gamma+1) - (tau-1)^(gamma+1)) / t^(gamma+1), which is the rule average(t) = beta average(t-1) + (1 - beta) w(t)
with beta = (1 - 1/t)^(gamma+1). The initial weights never count. Its width is the standard deviation of that profile
as a share of the training: (gamma+1)^(1/2) (gamma+2)^-1 (gamma+3)^-1/2.
A training keeps two such averages and stores both every so often; any other profile is nearly a sum of stored ones,
by least squares (Karras et al. 2024, arXiv 2312.02696, section 3 and appendix C).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from audiodiff.errors import InputError
from audiodiff.files import write_whole
from audiodiff.model import FACTS, find_model, load
from audiodiff.progress import track
from audiodiff.training import checkpoint
from audiodiff.training.heartbeat import read_json
from audiodiff.training.record import model_card

FOLDER = "ema"
_WIDEST = 0.28  # gamma 0.1; an even average of all updates (gamma 0) has 0.2887
_BINS = 20000  # updates of the least squares; longer trainings are binned to as many


@dataclass(frozen=True)
class PostHocSettings:
    """What a training keeps for averages chosen later.

    Attributes:
        widths: of the averages that are kept, as shares of the training.
        snapshot_every: updates between two snapshots.
    """

    widths: tuple[float, ...]
    snapshot_every: int


def posthoc_settings(node: Mapping[str, Any] | None) -> PostHocSettings | None:
    """Returns the settings of a recipe's training.posthoc_ema, None for none.

    Raises:
        InputError: unknown keys, a width out of range or twice, an interval below 1.
    """
    if node is None:
        return None
    keys = {"widths", "snapshot_every"}
    if set(node) != keys:
        raise InputError(f"training.posthoc_ema: got {sorted(node)}, expected {sorted(keys)} or null")
    widths = tuple(float(width) for width in node["widths"])
    for width in widths:
        exponent(width)
    if not widths or len(set(widths)) < len(widths) or int(node["snapshot_every"]) < 1:
        raise InputError(
            f"training.posthoc_ema: got widths {list(widths)} every {node['snapshot_every']} updates, expected "
            "different widths and an interval of 1 or more"
        )
    return PostHocSettings(widths, int(node["snapshot_every"]))


def power_averages(node: Mapping[str, Any] | None, model: nn.Module, adapted: bool) -> PowerAverages | None:
    """Returns the averages that a recipe's training.posthoc_ema asks for, None for none.

    Args:
        node: of the recipe.
        model: the trained model, on its device.
        adapted: whether it is trained through an adapter.

    Raises:
        InputError: as `posthoc_settings`, or an adapter, whose two factors cannot be averaged apart.
    """
    settings = posthoc_settings(node)
    if settings is not None and adapted:
        raise InputError(
            "training.posthoc_ema: an adapter's two factors cannot be averaged apart; train without it"
        )
    return None if settings is None else PowerAverages(model, settings)


def exponent(width: float) -> float:
    """Returns gamma of the profile whose standard deviation is that share of the training.

    Raises:
        InputError: a width that no rising profile has.
    """
    if not 0 < width <= _WIDEST:
        raise InputError(f"EMA width: got {width}, expected above 0 and at most {_WIDEST} of the training")
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def profile(update: int, gamma: float, edges: np.ndarray) -> np.ndarray:
    """Returns the share [N] that the updates edges[i] < tau <= edges[i+1] have in the average after `update`.

    Args:
        update: at which the average is taken.
        gamma: exponent of its profile.
        edges: [N + 1] update numbers, rising, from 0.
    """
    return np.diff((np.minimum(edges, update) / update) ** (gamma + 1))


class PowerAverages:
    """Power-function averages of a model's trained weights, as training goes on.

    Attributes:
        settings: widths of the averages and how often they are stored.
        updates: averaged so far.
    """

    def __init__(self, model: nn.Module, settings: PostHocSettings) -> None:
        """Starts the averages; the weights of the first update will replace these.

        Args:
            model: the trained model, on its device.
            settings: what is kept.
        """
        self.settings = settings
        self.updates = 0
        self._names, weights = trained(model)
        self._averages = [[weight.clone() for weight in weights] for _ in self.settings.widths]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights after one more update; nothing waits for the device."""
        self.updates += 1
        _, weights = trained(model)
        for width, average in zip(self.settings.widths, self._averages, strict=True):
            kept = (1 - 1 / self.updates) ** (exponent(width) + 1)
            torch._foreach_lerp_(average, weights, 1 - kept)

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` needs to go on exactly."""
        averages = {_key(width, name): tensor for width, name, tensor in self._items()}
        return {"updates": self.updates, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Goes on from a state.

        Raises:
            InputError: there is none, or one of other widths or weights.
        """
        items = list(self._items())
        if state is None or {_key(width, name) for width, name, _ in items} != set(state["averages"]):
            raise InputError(
                "training.posthoc_ema: the checkpoint holds no such averages, which have to be kept from the first "
                "update; go on as it began, or give a new folder with out=..."
            )
        for width, name, tensor in items:
            tensor.copy_(state["averages"][_key(width, name)])
        self.updates = int(state["updates"])

    def snapshot(self, run: Path) -> Path:
        """Writes the averages, in half precision, into the run folder and returns the file.

        Raises:
            InputError: the disk is full or the place cannot be written.
        """
        path = run / FOLDER / f"update-{self.updates:08d}.safetensors"
        tensors = {_key(width, name): tensor.half().cpu() for width, name, tensor in self._items()}
        content = to_bytes(tensors, metadata={"widths": " ".join(map(str, self.settings.widths))})
        write_whole({path: content})
        return path

    def due(self, update: int, updates: int) -> bool:
        """Returns whether a snapshot is due after an update of so many in all, as it always is at the end."""
        return update % self.settings.snapshot_every == 0 or update == updates

    def describe(self, updates: int) -> str:
        """Returns the line that is printed at the start of a training of so many updates."""
        count = -(-updates // self.settings.snapshot_every)
        return (
            f"post-hoc EMA: {count} snapshots of {self.snapshot_bytes / 1e6:.3g} MB in half precision, "
            f"{count * self.snapshot_bytes / 1e6:.3g} MB in all"
        )

    @property
    def snapshot_bytes(self) -> int:
        """Size of a snapshot, but for its header."""
        return sum(2 * tensor.numel() for _, _, tensor in self._items())

    def _items(self) -> Iterable[tuple[float, str, Tensor]]:
        for width, average in zip(self.settings.widths, self._averages, strict=True):
            for name, tensor in zip(self._names, average, strict=True):
                yield width, name, tensor


def trained(model: nn.Module) -> tuple[list[str], list[Tensor]]:
    """Returns the names and values of the weights that are trained."""
    pairs = [(name, weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad]
    return [name for name, _ in pairs], [weight for _, weight in pairs]


@dataclass(frozen=True)
class Snapshot:
    """A stored file: averages of several widths after one update."""

    path: Path
    update: int
    widths: tuple[float, ...]


def snapshots(run: Path) -> list[Snapshot]:
    """Returns the snapshots of a run in the order of their updates.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    paths = sorted((run / FOLDER).glob("update-*.safetensors"))
    if not paths:
        raise InputError(
            f"{run}: holds no snapshots of averages ({FOLDER}/update-*.safetensors); train with training.posthoc_ema"
        )
    found = []
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                widths = tuple(float(width) for width in file.metadata()["widths"].split())
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as a snapshot ({error}); remove it") from error
        found.append(Snapshot(path, int(path.stem.removeprefix("update-")), widths))
    return found


@dataclass(frozen=True)
class Mixture:
    """A profile as a sum of stored ones.

    Attributes:
        update: at which the average is taken.
        width: of its profile.
        coefficients: for each snapshot and each of its widths.
        error: what is left of the profile, as a share of its norm; 0 is exact.
    """

    update: int
    width: float
    coefficients: tuple[tuple[Snapshot, float, float], ...]
    error: float


def mix(stored: Sequence[Snapshot], width: float, update: int | None = None) -> Mixture:
    """Returns the sum of stored averages whose profile is nearest to the one asked for, by least squares.

    Args:
        stored: snapshots of one run.
        width: asked for.
        update: at which the average is to be taken; None for the last snapshot's.

    Raises:
        InputError: a width out of range, or an update beyond the last snapshot.
    """
    last = stored[-1].update
    update = last if update is None else update
    if not 1 <= update <= last:
        raise InputError(f"EMA of update {update}: the snapshots reach from update 1 to {last}")
    # An average knows nothing of what came after it, and the first beyond `update` nearly all before.
    end = next(place for place, snapshot in enumerate(stored) if snapshot.update >= update)
    columns = [(snapshot, kept) for snapshot in stored[: end + 1] for kept in snapshot.widths]
    edges = np.unique(np.round(np.linspace(0, stored[end].update, min(stored[end].update, _BINS) + 1)))
    # A density per update, weighted so that the sum over bins is that over updates.
    scale = 1 / np.sqrt(np.diff(edges))[:, None]
    matrix = np.stack([profile(s.update, exponent(kept), edges) for s, kept in columns], axis=1) * scale
    wanted = profile(update, exponent(width), edges) * scale[:, 0]
    solution = np.linalg.lstsq(matrix, wanted, rcond=1e-12)[0]
    error = float(np.linalg.norm(matrix @ solution - wanted) / np.linalg.norm(wanted))
    terms = tuple((s, kept, float(x)) for (s, kept), x in zip(columns, solution, strict=True))
    return Mixture(update, width, terms, error)


def mixed_weights(mixture: Mixture, show: bool = False) -> dict[str, Tensor]:
    """Returns the averaged weights by name, in single precision, reading one snapshot at a time.

    Args:
        mixture: what to add up.
        show: a progress bar on the terminal.

    Raises:
        InputError: a snapshot that is damaged.
    """
    weights: dict[str, Tensor] = {}
    terms = mixture.coefficients
    for snapshot, width, coefficient in track(terms, "averaging", len(terms), show):
        try:
            with safe_open(snapshot.path, "pt") as file:
                prefix = _key(width, "")
                for key in (key for key in file.keys() if key.startswith(prefix)):  # noqa: SIM118 no mapping
                    name = key.removeprefix(prefix)
                    tensor = file.get_tensor(key).double()
                    weights[name] = weights.get(name, torch.zeros_like(tensor)) + coefficient * tensor
        except (OSError, SafetensorError) as error:
            raise InputError(f"{snapshot.path}: cannot be read as a snapshot ({error})") from error
    return {name: tensor.float() for name, tensor in weights.items()}


def _key(width: float, name: str) -> str:
    return f"{width}/{name}"


def save_average(run: Path, width: float, update: int | None, out: Path) -> Mixture:
    """Writes an ordinary model folder with the averaged weights and returns what they are made of.

    Args:
        run: the run folder; its finished model or its newest checkpoint gives all that is not averaged.
        width: of the average.
        update: after which it is taken; None for the last snapshot's.
        out: the model folder.

    Raises:
        InputError: no snapshots or no model in the run, damaged files, or a place that is the run's own.
    """
    stored = snapshots(run)
    mixture = mix(stored, width, update)
    newest = checkpoint.newest(run)
    source = run if (run / "model").is_dir() or newest is None else newest
    if out.resolve() in (run.resolve(), find_model(source).resolve()):
        raise InputError(f"--out {out}: is the run itself; give another folder")
    model = load(source)
    weights = mixed_weights(mixture, show=True)
    unknown = sorted(set(weights) - set(dict(model.named_parameters())))
    if unknown:
        raise InputError(f"{run}: its snapshots hold weights that the model has not, first {unknown[0]}")
    model.load_state_dict(weights, strict=False)
    known = read_json(find_model(source) / FACTS) or {}
    # What was measured was measured of other weights.
    facts = {key: value for key, value in known.items() if key not in ("validation_loss", "selected")}
    facts |= {"updates": mixture.update, "ema_width": width, "ema_profile_error": round(mixture.error, 6)}
    model.save(out, model.recipe, facts, model_card(model.recipe, facts, model.labels))
    return mixture
