import pytest
import torch

from reid.config import ConfigError
from reid.training.state import require_resumable


@pytest.mark.parametrize(
    ("step", "epochs", "told"),
    [(0, 1, "2 epochs already"), (0, 2, None), (5, 2, "2 epochs and 5 steps already"), (5, 3, None)],
)
def test_a_run_that_is_further_than_asked_for_is_not_resumed(tmp_path, step, epochs, told):
    path = tmp_path / "state.pt"
    torch.save({"data": "images", "position": {"epoch": 2, "step": step}}, path)
    if told is None:
        require_resumable(path, "images", epochs)
    else:
        with pytest.raises(ConfigError, match=f"train.epochs={epochs}: the run has {told}"):
            require_resumable(path, "images", epochs)
    with pytest.raises(ValueError, match="not those the run began with"):
        require_resumable(path, "others", 9)
