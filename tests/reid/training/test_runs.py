"""What training commands share beside what is tried through them."""

import json
import subprocess
import sys

import pytest

import fgvc.train
import reid.train
from reid.training import runs

FAULTS = """
import json, resource, torch
from reid.training.runs import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16 << 20)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory()
faults()
print(json.dumps([before, faults()]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_memory_that_is_kept_is_not_cleared_anew_for_each_large_tensor():
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    usual, kept = json.loads(done.stdout)
    assert kept < usual / 8


@pytest.mark.parametrize("main", [reid.train.main, fgvc.train.main])
def test_both_training_commands_keep_it(main, monkeypatch):
    kept = []
    monkeypatch.setattr(runs, "keep_freed_memory", lambda: kept.append(True))
    assert main(["--dataset", "folder", "--data-root", "nowhere"]) == 1
    assert kept == [True]
