import os
import stat

import torch
from safetensors.torch import save_file

from reid.files import write_whole


def test_others_may_read_what_is_written_as_the_umask_has_it(tmp_path):
    """safetensors by itself makes files for one user alone, which a service as another user could not read."""
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "model.safetensors", lambda path: save_file({"a": torch.zeros(1)}, path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o640
