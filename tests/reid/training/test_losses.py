import math

import pytest
import torch
from pytorch_metric_learning import losses

from reid.models.dcal import Branch, DcalOutput
from reid.training.losses import (
    ArcFace,
    BranchLoss,
    Center,
    Circle,
    CrossEntropy,
    FgvcLoss,
    PerHead,
    ReidLoss,
    Triplet,
    batch_hard_triplet,
    branch_losses,
    total_loss,
)


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


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def slow_arcface(features, weights, labels, scale, margin):
    """Deng et al. (2019), equation 3, one image at a time; beyond pi the cosine goes on falling, as in the library."""
    total = 0.0
    for feature, label in zip(features, labels, strict=True):
        logits = []
        for index, weight in enumerate(weights):
            angle = math.acos(cosine(feature, weight))
            if index == label:
                beyond = angle + margin > math.pi
                logits.append(
                    scale * (math.cos(angle) - margin * math.sin(margin) if beyond else math.cos(angle + margin))
                )
            else:
                logits.append(scale * math.cos(angle))
        total += math.log(sum(math.exp(logit - logits[label]) for logit in logits))
    return total / len(features)


def slow_circle(tokens, labels, scale, margin):
    """Sun et al. (2020), equation 6, one image at a time: optima 1 + m and -m, margins 1 - m and m."""
    losses = []
    for i, (token, label) in enumerate(zip(tokens, labels, strict=True)):
        positives, negatives = [], []
        for j, (other, its_label) in enumerate(zip(tokens, labels, strict=True)):
            s = cosine(token, other)
            if its_label != label:
                negatives.append(math.exp(scale * max(0.0, s + margin) * (s - margin)))
            elif j != i:
                positives.append(math.exp(-scale * max(0.0, 1 + margin - s) * (s - (1 - margin))))
        if positives and negatives:
            losses.append(math.log1p(sum(positives) * sum(negatives)))
    return sum(losses) / len(losses)


def a_branch(images=12, width=5, classes=4, head="sa"):
    tokens, features = torch.randn(images, width, requires_grad=True), torch.randn(images, width, requires_grad=True)
    return Branch(tokens, torch.randn(images, classes), features, head)


@pytest.mark.parametrize(("scale", "margin"), [(64.0, 0.5), (30.0, 0.35), (1.0, 3.0)])
def test_arcface_equals_a_loop_and_the_library_on_the_features_after_the_neck(scale, margin):
    torch.manual_seed(0)
    branch, labels, loss = a_branch(), torch.arange(12) // 3, ArcFace(4, 5, scale, margin)
    weights = loss.loss.W.detach()
    expected = slow_arcface(branch.features.tolist(), weights.T.tolist(), labels.tolist(), scale, margin)
    assert loss(branch, labels).item() == pytest.approx(expected, rel=1e-4)
    library = losses.ArcFaceLoss(4, 5, margin=math.degrees(margin), scale=scale)
    library.load_state_dict({"W": weights})
    assert loss(branch, labels).item() == library(branch.features, labels).item()
    without_neck = Branch(branch.features, branch.logits)
    assert loss(without_neck, labels).item() == loss(branch, labels).item()


def test_arcface_begins_with_class_weights_of_about_unit_length():
    """Longer ones turn more slowly: the library's normal ones have length 28 at this width."""
    lengths = ArcFace(751, 768).loss.W.norm(dim=0)
    assert 0.9 < lengths.min() < lengths.max() < 1.1


def test_arcface_has_a_finite_gradient_where_a_feature_meets_its_weight():
    """The angle is 0 there, and the derivative of acos infinite."""
    loss = ArcFace(3, 4)
    with torch.no_grad():
        loss.loss.W.copy_(torch.eye(4)[:, :3])
    features = (2 * torch.eye(4)[:3]).requires_grad_()
    loss(Branch(features, features), torch.arange(3)).backward()
    assert torch.isfinite(features.grad).all()
    assert torch.isfinite(loss.loss.W.grad).all()


@pytest.mark.parametrize(("scale", "margin"), [(128.0, 0.25), (16.0, 0.4)])
def test_circle_equals_a_loop_and_the_library(scale, margin):
    torch.manual_seed(0)
    branch, labels = a_branch(), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4])  # the last is alone
    loss = Circle(scale, margin)(branch, labels)
    assert loss.item() == pytest.approx(slow_circle(branch.token.tolist(), labels.tolist(), scale, margin), rel=1e-4)
    assert loss.item() == losses.CircleLoss(m=margin, gamma=scale)(branch.token, labels).item()


def test_center_equals_a_loop_and_its_centers_follow_the_paper():
    torch.manual_seed(0)
    loss, labels = Center(5, 3, weight=0.01, rate=0.3), torch.tensor([0, 0, 0, 1, 3, 3])
    centers = [[0.0] * 3 for _ in range(5)]
    for _ in range(3):
        branch = a_branch(6, 3)
        tokens = branch.token.tolist()
        expected = sum(math.dist(t, centers[c]) ** 2 / 2 for t, c in zip(tokens, labels.tolist(), strict=True)) / 6
        assert loss(branch, labels).item() == pytest.approx(0.01 * expected, rel=1e-5)
        for label, center in enumerate(centers):  # equation 4
            own = [token for token, its_label in zip(tokens, labels.tolist(), strict=True) if its_label == label]
            step = [sum(center[d] - token[d] for token in own) / (1 + len(own)) for d in range(3)]
            centers[label] = [center[d] - 0.3 * step[d] for d in range(3)]
        torch.testing.assert_close(loss.centers, torch.tensor(centers))
    loss.eval()(a_branch(6, 3), labels)
    torch.testing.assert_close(loss.centers, torch.tensor(centers))


def test_center_pulls_each_token_straight_to_its_center():
    loss, labels = Center(2, 3, weight=0.5), torch.tensor([0, 1])
    branch = a_branch(2, 3)
    loss(branch, labels).backward()
    torch.testing.assert_close(branch.token.grad, 0.5 * branch.token.detach() / 2)  # the centers were 0


@pytest.mark.parametrize(
    "build", [CrossEntropy, Triplet, Circle, lambda: ArcFace(4, 5), lambda: Center(4, 5, 1.0)], ids=range(5)
)
def test_every_part_is_float32_under_autocast(build):
    labels = torch.arange(12) // 3
    torch.manual_seed(0)
    part, whole = build(), a_branch()
    half = Branch(whole.token.bfloat16(), whole.logits.bfloat16(), whole.features.bfloat16())
    same = Branch(half.token.float(), half.logits.float(), half.features.float())
    part.eval()
    with torch.autocast("cpu", torch.bfloat16):
        loss = part(half, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, part(same, labels), rtol=1e-6, atol=0)


def test_branches_of_one_head_share_what_is_learned():
    torch.manual_seed(0)
    sa, pwca, glca = a_branch(), a_branch(), a_branch(head="glca")
    labels = torch.arange(12) // 3
    loss = BranchLoss(
        arcface=PerHead(["sa", "glca"], lambda: ArcFace(4, 5)),
        center=PerHead(["sa", "glca"], lambda: Center(4, 5, 1.0)),
    )
    assert {name: tuple(value.shape) for name, value in loss.state_dict().items()} == {
        "parts.arcface.heads.sa.loss.W": (5, 4),
        "parts.arcface.heads.glca.loss.W": (5, 4),
        "parts.center.heads.sa.centers": (4, 5),
        "parts.center.heads.glca.centers": (4, 5),
    }
    parts = branch_losses(DcalOutput(sa, pwca=pwca), labels, loss)
    assert {branch: list(named) for branch, named in parts.items()} == {
        "sa": ["arcface", "center"],
        "pwca": ["arcface", "center"],
    }
    total_loss(parts, torch.zeros(2)).backward()
    assert loss.parts.arcface.heads.glca.loss.W.grad is None
    both = loss.parts.arcface.heads.sa.loss.W.grad.clone()
    loss.zero_grad()
    (0.5 * (loss(sa, labels)["arcface"] + loss(pwca, labels)["arcface"])).backward()
    torch.testing.assert_close(loss.parts.arcface.heads.sa.loss.W.grad, both)
    assert loss.parts.center.heads.sa.centers.any()
    assert not loss.parts.center.heads.glca.centers.any()
    loss(glca, labels)
    assert loss.parts.center.heads.glca.centers.any()
