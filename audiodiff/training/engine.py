"""Engine: how processes find one another, in which precision they compute, and how gradients and weights are shared.

Accelerate finds device, rank and backend (NCCL on GPUs, gloo on CPUs) under torchrun, accelerate launch, srun or alone,
and wraps the step in DistributedDataParallel. With `sharding: fsdp` the step is sharded by torch's own `fully_shard`:
raw weights, gradients and the optimizer's moments are split over the processes, as one unit that is gathered from the
end of an update to the end of its last backward pass. Averages of weights are whole on every process: they are
updated while the raw weights are gathered, so that averaging costs no communication.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from audiodiff.errors import InputError

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SHARDINGS = (None, "fsdp")
_LOST = ("closed by peer", "reset by peer", "timed out", "broken pipe", "connection refused", "socket")
_SCALE_LIMITS = (2.0**-10, 2.0**24)
_GROW_AFTER = 2000


def join_processes() -> None:
    """Makes the tasks of a SLURM job that Hydra's submitit launcher started known to one another.

    Called before anything else of a training asks for the rank. It does nothing where a launcher has told rank and
    world size already (torchrun, accelerate launch), outside of submitit, and for jobs of one task. Devices stay
    visible to all tasks of a node; each takes the one of its local rank.
    """
    if "WORLD_SIZE" in os.environ or "SUBMITIT_EXECUTOR" not in os.environ:
        return
    if int(os.environ.get("SLURM_NTASKS", "1")) < 2:
        return
    from submitit.helpers import TorchDistributedEnvironment

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def leave_processes() -> None:
    """Ends the connections to other processes after a training that all of them have finished."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def open_accelerator(settings: Mapping[str, Any]) -> Accelerator:
    """Returns the accelerator of this process, joined with the others where a launcher started several.

    Args:
        settings: of the recipe, with `precision`, `sharding` and `timeout_seconds`, after which a process that waits
            for another one gives up.

    Raises:
        InputError: unknown precision or sharding, or sharding in a single process.
    """
    if settings["precision"] not in PRECISIONS:
        raise InputError(
            f"training.precision: got {settings['precision']!r}, expected one of {', '.join(PRECISIONS)}"
        )
    if settings["sharding"] not in SHARDINGS:
        raise InputError(f"training.sharding: got {settings['sharding']!r}, expected null or fsdp")
    # Accelerate joins processes on CPUs only when told that there is nothing else.
    on_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    handlers = [
        InitProcessGroupKwargs(timeout=timedelta(seconds=settings["timeout_seconds"])),
        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
    ]
    accelerator = Accelerator(mixed_precision="no", cpu=on_cpu, kwargs_handlers=handlers)
    if settings["sharding"] is not None and accelerator.num_processes < 2:
        raise InputError("training.sharding=fsdp splits a model over processes; start several with torchrun")
    return accelerator


def shared(step: nn.Module, accelerator: Accelerator, sharding: str | None) -> nn.Module:
    """Returns the step as processes share it: wrapped by DistributedDataParallel, or itself with sharded weights."""
    if sharding is None:
        return accelerator.prepare(step) if accelerator.num_processes > 1 else step.to(accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    fully_shard(step.to(accelerator.device), mesh=mesh, reshard_after_forward=False)
    return step


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Returns a context in which layers compute in a precision of PRECISIONS."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def accumulating(step: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Returns a context for one backward pass, in which gradients travel between processes only if it is the last."""
    if isinstance(step, FSDPModule):
        step.set_requires_gradient_sync(last)
    elif isinstance(step, nn.parallel.DistributedDataParallel) and not last:
        return step.no_sync()
    return nullcontext()


def gather(step: nn.Module) -> None:
    """Makes sharded weights whole, until the end of the next backward pass; others are whole already."""
    if isinstance(step, FSDPModule):
        step.unshard()


def release(step: nn.Module) -> None:
    """Takes sharded weights apart again, so that what is loaded into them goes to where it belongs."""
    if isinstance(step, FSDPModule):
        step.reshard()


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Returns the norm of all gradients together, those of other processes' shards included; a scalar."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def scale_gradients(parameters: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Multiplies all gradients by a scalar tensor, in place."""
    gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, factor)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def total(values: Tensor) -> Tensor:
    """Returns the sum of a tensor over all processes, the same on each."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def whole(state: Any) -> Any:
    """Returns nested dicts and lists with every sharded tensor gathered; all processes must call it together."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state.full_tensor() if isinstance(state, DTensor) else state


def check_agreement(module: nn.Module) -> None:
    """Compares the sum of every tensor of a module over all processes, before it is saved for all of them.

    Raises:
        RuntimeError: processes hold other weights than one another, so that what they train is not one model.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    sums = torch.stack([tensor.detach().double().sum() for tensor in module.state_dict().values()])
    lowest, highest = sums.clone(), sums.clone()
    dist.all_reduce(lowest, dist.ReduceOp.MIN)
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    # Weights that are not finite agree too: min and max of them are not numbers, and equal to nothing.
    differ = (lowest != highest) & lowest.isfinite() & highest.isfinite()
    if bool(differ.any()):
        names = [name for name, wrong in zip(module.state_dict(), differ.tolist(), strict=True) if wrong]
        raise RuntimeError(
            f"processes hold different weights in {len(names)} tensors, first {names[0]}; nothing is saved"
        )


def like(reference: Tensor, tensor: Tensor) -> Tensor:
    """Returns a whole tensor sharded as the reference is, or as it is where that is not sharded."""
    if not isinstance(reference, DTensor) or tensor.dim() == 0:
        return tensor
    placed = tensor.to(reference.device)
    return distribute_tensor(placed, reference.device_mesh, reference.placements, src_data_rank=None)


def lost_process(error: BaseException) -> bool:
    """Returns whether an error says that another process of the training cannot be reached any more."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _LOST)


@dataclass
class LossScale:
    """What a loss is multiplied by before a backward pass in fp16, so that small gradients do not vanish.

    It halves where gradients overflow and doubles after 2000 updates without (Micikevicius et al. 2018, section 3.2).

    Attributes:
        value: the present factor.
        good: updates since it changed.
    """

    value: float = 65536.0
    good: int = 0

    @property
    def spent(self) -> bool:
        """Whether it is so small that an overflow is no matter of scale any more."""
        return self.value <= 1.0

    def learn(self, overflow: bool) -> None:
        """Takes notice of one update."""
        if overflow:
            self.value, self.good = max(self.value / 2, _SCALE_LIMITS[0]), 0
            return
        self.good += 1
        if self.good == _GROW_AFTER:
            self.value, self.good = min(self.value * 2, _SCALE_LIMITS[1]), 0
