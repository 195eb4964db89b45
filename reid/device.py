"""Where to compute, in which precision, and how much memory it took."""

import sys

import torch


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """`auto` is CUDA where there is a GPU, else the CPU; each of several processes on a machine has a GPU of its own.

    `local_rank` numbers them from 0; None is a process alone. Raises ValueError for a `cuda` that is not there, and
    where there are fewer GPUs than processes.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' asked for, but torch finds no CUDA GPU; use --device cpu or auto")
    if name == "cpu" or local_rank is None:
        return torch.device(name)
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this machine, counted from 0, has no GPU, of which torch finds "
            f"{torch.cuda.device_count()}; start no more processes than GPUs, or use --device cpu"
        )
    return torch.device(name, local_rank)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype that `auto` means: bfloat16 on a GPU that has it, float16 on another, float32 on the CPU."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        name = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory so far in MiB: of the device's allocator on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
