"""How training scales to many GPUs, on paper: the table of docs/scaling.md from its inputs.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --parameters 58.69 --audio-rate 200 --clips-per-gpu 8

With N GPUs of which M share a node, b clips of s seconds on each, G gradient bytes, r audio seconds a GPU trains in a
second and f seconds that a step takes however small it is:

    compute      = f + b s / r
    all-reduce   = 2 (M-1)/M G/B_node + 2 (N/M-1)/(N/M) G/(M B_net) + 2 ((M-1) l_node + (N/M-1) l_net)
    loader       = M b s / (cores of a node x audio seconds that a core reads in a second)
    storage      = N b s x bytes of an audio second / bandwidth of the storage
    step         = max(compute + max(0, all-reduce - overlap x backward), loader, storage)

The all-reduce is a ring within each node and, on a share of G for each of its M GPUs, a ring of the nodes; backward is
two thirds of compute. Nothing here is measured: what is assumed is printed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

NODE_SIZES = (1, 8, 64, 512)


@dataclass(frozen=True)
class Inputs:
    """What the model starts from; rates in audio seconds per second, bandwidths in bytes per second."""

    parameters: float
    gradient_bytes: float
    audio_rate: float
    fixed_seconds: float
    clip_seconds: float
    node_gpus: int
    node_bandwidth: float
    net_bandwidth: float
    node_latency: float
    net_latency: float
    cores: int
    core_rate: float
    storage_bandwidth: float
    audio_bytes: float
    overlap: float


@dataclass(frozen=True)
class Step:
    """Seconds of one update, by what takes them."""

    compute: float
    all_reduce: float
    loader: float
    storage: float
    total: float

    @property
    def limit(self) -> str:
        """What a faster step would have to change."""
        if self.total > max(self.loader, self.storage):
            return "gradients" if self.total > 1.1 * self.compute else "compute"
        return "storage" if self.storage >= self.loader else "loader"


def step(given: Inputs, gpus: int, clips: float) -> Step:
    """Returns the time of an update of `clips` clips on each of `gpus` GPUs."""
    inside = min(gpus, given.node_gpus)
    nodes = gpus // inside
    audio = clips * given.clip_seconds
    compute = given.fixed_seconds + audio / given.audio_rate
    size = given.parameters * given.gradient_bytes
    all_reduce = (
        2 * (inside - 1) / inside * size / given.node_bandwidth
        + 2 * (nodes - 1) / nodes * size / inside / given.net_bandwidth
        + 2 * ((inside - 1) * given.node_latency + (nodes - 1) * given.net_latency)
    )
    loader = inside * audio / (given.cores * given.core_rate)
    storage = gpus * audio * given.audio_bytes / given.storage_bandwidth
    exposed = max(0.0, all_reduce - given.overlap * compute * 2 / 3)
    return Step(compute, all_reduce, loader, storage, max(compute + exposed, loader, storage))


def table(given: Inputs, clips_per_gpu: float, shared: bool) -> str:
    """Returns a Markdown table over numbers of GPUs.

    Args:
        given: the inputs.
        clips_per_gpu: clips on the one GPU of the first row.
        shared: True divides these among the GPUs (strong scaling), False gives each as many (weak scaling).
    """
    lines = [
        "| GPUs | clips each | compute ms | all-reduce ms | loader ms | storage ms | update ms | audio s/s "
        "| efficiency | limit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    alone = None
    for gpus in NODE_SIZES:
        clips = clips_per_gpu / gpus if shared else clips_per_gpu
        if clips < 1:
            lines.append(f"| {gpus} | fewer than one |  |  |  |  |  |  |  | batch |")
            continue
        found = step(given, gpus, clips)
        rate = gpus * clips * given.clip_seconds / found.total
        alone = rate if alone is None else alone
        times = (found.compute, found.all_reduce, found.loader, found.storage, found.total)
        lines.append(
            f"| {gpus} | {clips:g} | {' | '.join(f'{1e3 * each:.2f}' for each in times)} | {rate:.0f} "
            f"| {rate / alone / gpus:.2f} | {found.limit} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """Returns what the command line says; the defaults are those of docs/scaling.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parameters", type=float, default=2.62, help="millions")
    add("--gradient-bytes", type=float, default=4, help="of a parameter; 2 for bf16 gradients")
    add("--audio-rate", type=float, default=500, help="audio seconds a GPU trains in a second")
    add("--fixed-ms", type=float, default=6, help="of a step, however small its batch")
    add("--clips-per-gpu", type=float, default=16)
    add("--clip-seconds", type=float, default=62 * 256 / 22050)
    add("--node-gpus", type=int, default=8)
    add("--node-gbytes", type=float, default=300, help="GB/s that a ring reaches within a node")
    add("--net-gbytes", type=float, default=40, help="GB/s of each GPU's network card")
    add("--node-latency-us", type=float, default=3, help="of a ring's step within a node")
    add("--net-latency-us", type=float, default=10, help="of a ring's step between nodes")
    add("--cores", type=int, default=96, help="of a node, that read")
    add("--core-rate", type=float, default=300, help="audio seconds that a core reads in a second")
    add("--storage-gbytes", type=float, default=5, help="GB/s of the storage that all nodes share")
    add("--audio-kbytes", type=float, default=44.1, help="of an audio second; FLAC takes about half")
    add("--overlap", type=float, default=0.8, help="share of the backward pass that hides the all-reduce")
    return parser.parse_args()


def main() -> None:
    """Prints both tables."""
    found = arguments()
    given = Inputs(
        parameters=found.parameters * 1e6,
        gradient_bytes=found.gradient_bytes,
        audio_rate=found.audio_rate,
        fixed_seconds=found.fixed_ms / 1e3,
        clip_seconds=found.clip_seconds,
        node_gpus=found.node_gpus,
        node_bandwidth=found.node_gbytes * 1e9,
        net_bandwidth=found.net_gbytes * 1e9,
        node_latency=found.node_latency_us / 1e6,
        net_latency=found.net_latency_us / 1e6,
        cores=found.cores,
        core_rate=found.core_rate,
        storage_bandwidth=found.storage_gbytes * 1e9,
        audio_bytes=found.audio_kbytes * 1e3,
        overlap=found.overlap,
    )
    print(given)
    print("\nAs many clips on every GPU:\n\n" + table(given, found.clips_per_gpu, shared=False))
    print("\nThe same clips shared by all:\n\n" + table(given, found.clips_per_gpu, shared=True))


if __name__ == "__main__":
    main()
