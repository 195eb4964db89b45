"""Every kind of backbone does what timm's own does, and what the method says, by slow spellings of both."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import nn

from reid.models.backbones import build_backbone, embed_tokens
from reid.models.cross_attention import pair_wise_attention
from reid.models.dcal import build_dcal
from reid.models.layers import open_block, open_layers
from reid.models.options import DcalOptions
from reid.models.rollout import class_row, local_queries
from reid.models.specs import BACKBONES
from reid.training.losses import FgvcLoss, branch_losses, total_loss


def sides(name):
    """An image size (height, width): 4 x 3 patches, or 16 x 8 of Swin's, whose windows of 7 do not fit."""
    return (64, 32) if "swin" in name else (4 * BACKBONES[name].patch, 3 * BACKBONES[name].patch)


def build(name, method=None, **kwargs):
    torch.manual_seed(0)
    method = method or ("dcal" if BACKBONES[name].offers.glca else "pwca")
    model, _ = build_dcal(name, sides(name), 5, DcalOptions(method=method, **{"drop_path": 0.0, **kwargs}))
    return perturb(model)


def perturb(model):
    """Move the weights off their start, so that attention is not uniform and no layer scale hides anything."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def images(name, count=4):
    return torch.randn(count, 3, *sides(name), generator=torch.Generator().manual_seed(2))


def close(got, expected):
    scale = expected.abs().max().item()
    torch.testing.assert_close(got, expected, atol=2e-5 * max(1.0, scale), rtol=1e-4)


def test_self_attention_branch_is_timms_own_forward(backbone):
    model = build(backbone).eval()
    with torch.no_grad():
        close(model(images(backbone)).sa.token, model.backbone(images(backbone)))


def test_pairing_with_oneself_is_the_self_attention_branch_and_another_partner_is_not(backbone):
    model = build(backbone).train()
    with torch.no_grad():
        output = model(images(backbone), torch.arange(4))
        close(output.pwca.token, output.sa.token)
        other = model(images(backbone), torch.tensor([1, 2, 3, 0])).pwca.token
    assert not torch.allclose(other, output.sa.token, atol=1e-3)


def test_a_rollout_sums_to_one_or_is_refused(backbone):
    model = build(backbone).eval()
    if not BACKBONES[backbone].offers.glca:
        with pytest.raises(ValueError, match="has no class token to roll attention out from"):
            model(images(backbone), rollout=True)
        with pytest.raises(ValueError, match="method 'dcal' needs a class token for its GLCA branch.*choose pwca"):
            build(backbone, "dcal")
        return
    with torch.no_grad():
        output = model(images(backbone), rollout=True)
    torch.testing.assert_close(output.rollout.sum(1), torch.ones(4))
    assert (output.rollout >= 0).all()
    assert output.rollout.shape[1] == model.prefix + 12
    assert output.chosen.shape == (4, 4)  # 0.3 of 12, rounded up
    strongest = [sorted(range(12), key=lambda patch, row=row: -row[model.prefix + patch])[:4] for row in output.rollout]
    assert (output.chosen - model.prefix).tolist() == strongest


def test_glca_is_an_ordinary_block_of_its_own(backbone):
    if not BACKBONES[backbone].offers.glca:
        with pytest.raises(ValueError, match="method 'glca' needs a class token for its GLCA branch"):
            build(backbone, "glca")
        return
    model = build(backbone, "glca").eval()
    network, seen = model.backbone, []
    network.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = model(images(backbone))
        rope = getattr(network, "rope", None)
        how = {} if rope is None else {"rope": rope.get_embed(list(network.patch_embed.grid_size))}
        close(output.glca.token, model.glca.norm(model.glca.block(seen[0], **how))[:, 0])


def in_full(model, pixels, partner):
    """The tokens of all branches as the method spells them out: every token in every layer, and every local query."""
    network, count = model.backbone, len(pixels)
    tokens = embed_tokens(network, pixels)
    streams, looks = torch.cat([tokens, tokens]), []
    for layer in model.layers:
        streams, query, key = pair_wise_attention(layer, streams, partner)
        looks.append((layer, query, key))
    own, paired = streams.split(count)
    found = [network.forward_head(network.norm(own), pre_logits=True)]
    if model.glca is not None:
        chosen = local_queries(class_row(reversed(looks)), model.options.ratio, model.prefix)
        layer, asking = open_block(model.glca.block), torch.cat([torch.zeros_like(chosen[:, :1]), chosen], dim=1)
        queries = torch.stack([image[places] for image, places in zip(own, asking, strict=True)])
        (query,), (key, value) = layer.project(queries, "q", asking), layer.project(own, "kv")
        answered = model.glca.norm(layer.finish(queries, layer.attend(query, key, value)))
        assert answered.shape[1] == 1 + chosen.shape[1]
        found.append(answered[:, 0])
    return [*found, network.forward_head(network.norm(paired), pre_logits=True)]


def test_what_nothing_reads_is_left_out_and_changes_nothing(backbone):
    """Streams part after the first layer's projections, and of the last layer and GLCA only what is read is there."""
    model, partner, found = build(backbone).train(), torch.tensor([1, 2, 3, 0]), []
    for tokens in (
        lambda: in_full(model, images(backbone), partner),
        lambda: [branch.token for branch in model(images(backbone), partner).branches().values()],
    ):
        model.zero_grad()
        answers = tokens()
        sum((1 + place) * token.square().mean() for place, token in enumerate(answers)).backward()
        found.append((answers, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (expected, gradients), (got, same) = found
    for one, other in zip(got, expected, strict=True):
        close(one, other)
    for name, gradient in gradients.items():
        assert (gradient is None) == (same[name] is None), name
        if gradient is not None:
            close(same[name], gradient)


@pytest.mark.parametrize("method", ["baseline", "pwca", "glca"])
def test_other_methods_leave_out_what_changes_nothing(method):
    """A baseline and features of SA alone need the class token alone of the last layer."""
    for backbone in ("vit_toy", "eva02_base", "cait_xs24"):
        model, seen = build(backbone, method).eval(), []
        model.backbone.norm.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            close(model(images(backbone), glca=False).sa.token, model.backbone(images(backbone)))
        assert [tokens.shape[1] for tokens in seen] == [1, model.prefix + 12]


def test_a_training_step_lowers_the_loss(backbone):
    torch.manual_seed(0)
    method = "dcal" if BACKBONES[backbone].offers.glca else "pwca"
    model, _ = build_dcal(backbone, sides(backbone), 4, DcalOptions(method=method, head="fgvc", drop_path=0.0))
    partner, labels = torch.tensor([1, 2, 3, 0]), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def loss():
        parts = branch_losses(model(images(backbone), partner), labels, FgvcLoss())
        return total_loss(parts, model.log_variances)

    before = loss()
    before.backward()
    asked = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    # What nothing reads: positions that no token takes, and of a pooled ViT nothing else.
    assert all("latent" not in name for name in asked)
    assert asked == []
    optimizer.step()
    assert loss() < before


def test_computing_blocks_again_changes_no_gradient(backbone):
    """Checkpointing keeps less and computes the same, the rollout too."""
    found = []
    for checkpointing in (False, True):
        model = build(backbone, checkpointing=checkpointing, drop_path=0.2).train()
        torch.manual_seed(3)
        output = model(images(backbone), torch.tensor([1, 2, 3, 0]), rollout=model.rolls_out)
        sum(branch.token.square().sum() for branch in output.branches().values()).backward()
        found.append((output, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (plain, gradients), (again, same) = found
    if plain.rollout is not None:
        torch.testing.assert_close(again.rollout, plain.rollout)
    for name, gradient in gradients.items():
        if gradient is not None:
            close(same[name], gradient)


def branches(model, backbone, device, precision=torch.float32):
    """Tokens of all branches, and the gradient of the first convolution or projection, which `to` would take along."""
    model.to(device).train()
    model.zero_grad()
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        output = model(images(backbone, 2).to(device), torch.tensor([1, 0], device=device))
    sum(branch.token.float().square().mean() for branch in output.branches().values()).backward()
    gradient = next(parameter.grad for name, parameter in model.named_parameters() if "patch_embed" in name)
    tokens = torch.stack([branch.token.detach().float().cpu() for branch in output.branches().values()])
    return tokens, gradient.cpu().clone()


def test_bfloat16_stays_near_float32(backbone):
    model = build(backbone)
    tokens, gradient = branches(model, backbone, "cpu")
    half, half_gradient = branches(model, backbone, "cpu", torch.bfloat16)
    assert F.cosine_similarity(half.flatten(), tokens.flatten(), dim=0) > 0.995
    assert F.cosine_similarity(half_gradient.flatten(), gradient.flatten(), dim=0) > 0.9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")
def test_a_gpu_gives_the_cpus_tokens_and_gradient(backbone):
    model = build(backbone)
    expected = branches(model, backbone, "cpu")
    with torch.backends.cudnn.flags(allow_tf32=False):  # convolutions of fewer bits are torch's default
        found = branches(model, backbone, "cuda")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=1e-3 * other.abs().max().item(), rtol=1e-2)
    half, _ = branches(model, backbone, "cuda", torch.bfloat16)
    assert F.cosine_similarity(half.cpu().flatten(), expected[0].flatten(), dim=0) > 0.99


# One block of each family against a spelling of equation 6 that uses timm's own block or modules.


def pair(layer, tokens, paired, partner):
    with torch.no_grad():
        return pair_wise_attention(layer, torch.cat([tokens, paired]), partner)[0][len(tokens) :]


def test_rotary_pairs_keep_each_image_its_own_places():
    """timm's block on both images' tokens as one sequence, each turned by its own rows of the table."""
    model, _ = build_backbone("dinov3_small", (64, 48))
    block = perturb(model.blocks[0]).eval()
    tokens, paired = torch.randn(2, 5 + 12, 384), torch.randn(2, 5 + 12, 384)
    patches = model.rope.get_embed([4, 3])
    still = torch.cat([torch.zeros(5, 64), torch.ones(5, 64)], dim=1)
    joint = copy.deepcopy(block)
    joint.attn.num_prefix_tokens = 0
    rope = torch.cat([still, patches, still, patches])
    partner = torch.tensor([1, 0])
    with torch.no_grad():
        expected = joint(torch.cat([paired, tokens[partner]], dim=1), rope=rope)[:, :17]
    close(pair(open_block(block), tokens, paired, partner), expected)


def test_talking_heads_mix_before_and_after_one_softmax_over_both_images():
    model, _ = build_backbone("cait_xs24", (64, 48))
    block = perturb(model.blocks[0]).eval()
    tokens, paired = torch.randn(2, 12, 288), torch.randn(2, 12, 288)
    partner = torch.tensor([1, 0])
    joint = copy.deepcopy(block)
    with torch.no_grad():
        joint.attn.proj_w.bias /= 2  # a weight on every key, of which there are twice as many
        expected = joint(torch.cat([paired, tokens[partner]], dim=1))[:, :12]
    close(pair(open_block(block), tokens, paired, partner), expected)


def test_class_attention_pairs_both_images_class_tokens_and_patches():
    model, _ = build_backbone("cait_xs24", (64, 48))
    layer = open_layers(model)[-1]
    block = perturb(layer.block).eval()
    tokens, paired = torch.randn(2, 13, 288), torch.randn(2, 13, 288)
    partner = torch.tensor([1, 0])
    got = pair(layer, tokens, paired, partner)
    with torch.no_grad():
        expected = block(torch.cat([paired[:, 1:], tokens[partner]], dim=1), paired[:, :1])
    close(got[:, :1], expected)
    assert torch.equal(got[:, 1:], paired[:, 1:])


@pytest.mark.parametrize("shifted", [False, True])
def test_windows_meet_the_same_window_of_the_partner(shifted):
    """Image by image, window by window and head by head, on a grid that needs padding."""
    model, _ = build_backbone("swin_tiny", (64, 48))
    layer = open_layers(model)[int(shifted)]
    block = perturb(layer.block).eval()
    assert any(block.shift_size) == shifted
    tokens, paired = torch.randn(2, 16, 12, 96), torch.randn(2, 16, 12, 96)
    partner = torch.tensor([1, 0])
    attention, width = block.attn, 96 // 3
    table = attention.relative_position_bias_table[attention.relative_position_index.view(-1)].view(49, 49, 3)
    down, right = block.shift_size

    def projected(x):  # (rows, columns) of windows of 49 tokens: queries, keys, values by head
        x = torch.roll(block.norm1(x), (-down, -right), (0, 1))
        x = F.pad(x, (0, 0, 0, 14 - 12, 0, 21 - 16))
        return {
            (i, j): attention.qkv(x[7 * i : 7 * i + 7, 7 * j : 7 * j + 7].reshape(49, 96)).view(49, 3, 3, width)
            for i in range(3)
            for j in range(2)
        }

    with torch.no_grad():
        got = pair(layer, tokens, paired, partner)
        for image in range(2):
            own, other = projected(paired[image]), projected(tokens[partner[image]])
            whole = torch.zeros(21, 14, 96)
            for number, (i, j) in enumerate(own):
                heads = []
                for head in range(3):
                    query, key, value = own[i, j][:, :, head].unbind(1)
                    _, key_other, value_other = other[i, j][:, :, head].unbind(1)
                    bias = table[:, :, head] + (block.attn_mask[number] if shifted else 0)
                    scores = torch.cat([query @ key.T, query @ key_other.T], 1) * width**-0.5 + torch.cat(
                        [bias, bias], 1
                    )
                    heads.append(scores.softmax(1) @ torch.cat([value, value_other]))
                whole[7 * i : 7 * i + 7, 7 * j : 7 * j + 7] = attention.proj(torch.cat(heads, 1)).view(7, 7, 96)
            x = paired[image] + torch.roll(whole[:16, :12], (down, right), (0, 1))
            close(got[image], x + block.mlp(block.norm2(x)))


def test_cait_rolls_out_from_the_class_rows_through_the_self_attention():
    """The full product of all layers' matrices over [class token; patches], with the patches' rows of class attention
    and the class token's row of self-attention those of the identity."""
    model = build("cait_xs24").eval()
    maps, own = [], []
    network = model.backbone
    for block in network.blocks:
        with torch.no_grad():
            block.attn.proj_w.bias.fill_(0.2)  # else some rows are negative throughout, and shares of nothing
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, result: maps.append(inputs[0]))
    for block in network.blocks_token_only:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda module, inputs, result: own.append(inputs[0]))
    with torch.no_grad():
        network(images("cait_xs24"))
        rollout = model(images("cait_xs24"), rollout=True).rollout
    product = torch.eye(13).expand(4, 13, 13)
    for attention in maps:
        mean = attention.mean(1).clamp(min=0)
        matrix = torch.eye(13).repeat(4, 1, 1)
        matrix[:, 1:, 1:] = 0.5 * mean / mean.sum(-1, keepdim=True) + 0.5 * torch.eye(12)
        product = matrix @ product
    for attention in own:
        matrix = torch.eye(13).repeat(4, 1, 1)
        matrix[:, 0] = 0.5 * attention.mean(1)[:, 0]
        matrix[:, 0, 0] += 0.5
        product = matrix @ product
    torch.testing.assert_close(rollout, product[:, 0], atol=1e-6, rtol=1e-5)


def test_blocks_that_would_be_computed_wrongly_are_refused():
    gated = Block(12, 3)
    gated.attn.gate = nn.Linear(12, 12)
    with pytest.raises(ValueError, match="blocks of kind Block with Attention are not supported"):
        open_block(gated)
    with pytest.raises(ValueError, match="blocks of kind Linear with NoneType"):
        open_block(nn.Linear(3, 3))


def test_a_norm_before_the_output_projection_is_kept():
    torch.manual_seed(0)
    block = perturb(Block(12, 3, qk_norm=True, scale_attn_norm=True, init_values=0.3)).eval()
    layer, tokens = open_block(block), torch.randn(2, 5, 12)
    with torch.no_grad():
        close(layer.finish(tokens, layer.attend(*layer.project(tokens))), block(tokens))


def test_tokens_before_the_first_block_are_timms(backbone):
    model, _ = build_backbone(backbone, sides(backbone))
    seen = []
    first = model.layers[0].blocks[0] if "swin" in backbone else model.blocks[0]
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.eval()(images(backbone))
        assert torch.equal(embed_tokens(model, images(backbone)), seen[0])
