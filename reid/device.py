"""Where to compute, in which precision, and how much memory it took."""

import logging
import re
import sys
from functools import cache
from pathlib import Path
from time import perf_counter

import torch

log = logging.getLogger("reid")

CPU_FLAGS = Path("/proc/cpuinfo")


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
    """The dtype of that name; `auto` is bfloat16 on a GPU that has it, float16 on another, float32 on the CPU.

    Warns, with the rates that were measured here, of bfloat16 on a CPU that has to emulate it.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        name = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    dtype: torch.dtype = getattr(torch, name)
    if emulates(dtype, device):
        _warn_of_emulation()
    return dtype


def inference_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype to use a model in that was trained in `name`: that of `choose_precision`, but none that is emulated."""
    named = getattr(torch, name, None)
    return torch.float32 if named is not None and emulates(named, device) else choose_precision(name, device)


def emulates(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device is a CPU without instructions for bfloat16, of AVX512-BF16, AMX or Arm's BF16."""
    return dtype == torch.bfloat16 and device.type == "cpu" and not _cpu_has_bfloat16()


@cache
def _cpu_has_bfloat16() -> bool:
    try:
        flags = CPU_FLAGS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux: nothing is known against it
        return True
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16|svebf16)\b", flags) is not None


@cache
def _warn_of_emulation() -> None:
    slow, fast = (_matrix_rate(kind) / 1e9 for kind in (torch.bfloat16, torch.float32))
    log.warning(
        "warning: this CPU has no bfloat16 (AVX512-BF16, AMX or Arm's BF16) and emulates it: %.1f against %.1f billion "
        "operations a second in float32, which precision=float32 takes",
        slow,
        fast,
    )


def _matrix_rate(dtype: torch.dtype, side: int = 192) -> float:
    """Operations a second of the CPU in products of square matrices: the best of five."""
    matrix = torch.ones(side, side, dtype=dtype)
    times = []
    for _ in range(5):
        began = perf_counter()
        _ = matrix @ matrix
        times.append(perf_counter() - began)
    return 2 * side**3 / min(times)


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory so far in MiB: of the device's allocator on CUDA, of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
