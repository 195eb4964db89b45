import math

import pytest
import torch

from reid.losses import FgvcLoss, ReidLoss, batch_hard_triplet, branch_losses, total_loss
from reid.models.dcal import Branch, DcalOutput


def slow_triplet(tokens, labels, margin=None):
    """Hermans et al. (2017), one image at a time."""
    total = 0.0
    for i in range(len(tokens)):
        distances = [math.dist(tokens[i].tolist(), other.tolist()) for other in tokens]
        positive = max(d for d, label in zip(distances, labels, strict=True) if label == labels[i])
        negative = min(d for d, label in zip(distances, labels, strict=True) if label != labels[i])
        total += math.log1p(math.exp(positive - negative)) if margin is None else max(0.0, positive - negative + margin)
    return total / len(tokens)


@pytest.mark.parametrize("margin", [None, 0.3])
def test_triplet_equals_a_loop(margin):
    torch.manual_seed(0)
    tokens, labels = torch.randn(12, 5), torch.arange(12) // 3
    expected = slow_triplet(tokens, labels.tolist(), margin)
    assert batch_hard_triplet(tokens, labels, margin).item() == pytest.approx(expected, rel=1e-5)


def test_triplet_works_in_float32_under_autocast_and_keeps_small_distances():
    tokens = torch.full((4, 8), 1000.0)
    tokens[1] += 0.5
    tokens[2:] += 1.0
    labels = torch.tensor([0, 0, 1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        loss = batch_hard_triplet(tokens, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_triplet(tokens, labels.tolist()), rel=1e-5)


def test_identical_images_give_a_finite_gradient():
    tokens = torch.ones(4, 3, requires_grad=True)
    batch_hard_triplet(tokens, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(tokens.grad).all()


def test_a_single_identity_is_refused():
    with pytest.raises(ValueError, match="two identities in a batch, got 3 images of one"):
        batch_hard_triplet(torch.randn(3, 2), torch.zeros(3))


def test_total_is_the_closed_form_and_one_branch_is_unweighted():
    parts = {"sa": {"ce": torch.tensor(2.0), "triplet": torch.tensor(1.0)}, "glca": {"ce": torch.tensor(4.0)}}
    w = torch.tensor([0.5, -1.0])
    expected = 0.5 * (math.exp(-0.5) * 3 + math.exp(1.0) * 4 + 0.5 - 1.0)
    assert total_loss(parts, w).item() == pytest.approx(expected)
    assert total_loss({"sa": parts["sa"]}, None).item() == 3.0


def test_loss_weights_receive_the_closed_forms_gradient():
    w = torch.zeros(2, requires_grad=True)
    total_loss({"sa": {"ce": torch.tensor(3.0)}, "pwca": {"ce": torch.tensor(0.2)}}, w).backward()
    torch.testing.assert_close(w.grad, torch.tensor([0.5 * (1 - 3.0), 0.5 * (1 - 0.2)]))


def test_branch_losses_read_token_before_neck_and_logits():
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 1, 1])
    output = DcalOutput(Branch(torch.randn(4, 6), torch.randn(4, 2)), pwca=Branch(torch.randn(4, 6), torch.randn(4, 2)))
    parts = branch_losses(output, labels, ReidLoss())
    assert list(parts) == ["sa", "pwca"]
    by_hand = -torch.log_softmax(output.pwca.logits, 1)[range(4), labels].mean()
    torch.testing.assert_close(parts["pwca"]["ce"], by_hand)
    assert parts["pwca"]["triplet"].item() == pytest.approx(slow_triplet(output.pwca.token, labels.tolist()), rel=1e-5)
    assert list(branch_losses(output, labels, FgvcLoss())["sa"]) == ["ce"]
