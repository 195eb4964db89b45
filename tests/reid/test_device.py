import logging

import pytest
import torch

from reid import device
from reid.device import choose_precision, inference_precision

CPU = torch.device("cpu")


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """A function that makes this a CPU with certain flags."""

    def become(flags):
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags: fpu {flags} sse\n")
        monkeypatch.setattr(device, "CPU_FLAGS", tmp_path / "cpuinfo")
        device._cpu_has_bfloat16.cache_clear()
        device._warn_of_emulation.cache_clear()

    yield become
    device._cpu_has_bfloat16.cache_clear()


@pytest.mark.parametrize("flags", ["avx512_bf16", "amx_bf16", "asimd bf16", "avx2", "avx512f avx512_vnni"])
def test_bfloat16_that_is_emulated_is_told_with_both_rates_and_never_taken_for_inference(cpu, flags, caplog):
    cpu(flags)
    has = "bf16" in flags
    with caplog.at_level(logging.WARNING, "reid"):
        assert choose_precision("bfloat16", CPU) == choose_precision("bfloat16", CPU) == torch.bfloat16
    assert len(caplog.messages) == (0 if has else 1)
    assert has or ("emulates it: " in caplog.text and " billion operations a second in float32" in caplog.text)
    assert inference_precision("bfloat16", CPU) == (torch.bfloat16 if has else torch.float32)
    assert choose_precision("auto", CPU) == inference_precision("auto", CPU) == torch.float32


def test_what_is_no_linux_tells_nothing_against_it(cpu, tmp_path):
    cpu("")
    (tmp_path / "cpuinfo").unlink()
    device._cpu_has_bfloat16.cache_clear()
    assert inference_precision("bfloat16", CPU) == torch.bfloat16
