import pytest
import torch
from timm.models.vision_transformer import Block
from torch import nn

from reid.models.cross_attention import (
    GlobalLocalCrossAttention,
    derangement,
    pair_wise_attention,
    pair_wise_class_attention,
    self_attention,
)
from reid.models.layers import open_block


def block(seed=0, **kwargs):
    torch.manual_seed(seed)
    made = Block(12, 3, qkv_bias=True, **kwargs)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made.eval()


@pytest.mark.parametrize("kwargs", [{}, {"qk_norm": True}, {"init_values": 0.3}])
def test_self_attention_is_timms_block(kwargs):
    made, tokens = block(**kwargs), torch.randn(2, 5, 12)
    torch.testing.assert_close(self_attention(open_block(made), tokens)[0], made(tokens))


def test_pairing_with_oneself_equals_self_attention():
    made, tokens = block(), torch.randn(4, 5, 12)
    own, paired = pair_wise_attention(open_block(made), torch.cat([tokens, tokens]), torch.arange(4))[0].chunk(2)
    torch.testing.assert_close(own, made(tokens))
    torch.testing.assert_close(paired, made(tokens))


@pytest.mark.parametrize("stream", ["sa", "pwca"])
def test_pair_wise_attention_is_one_softmax_over_both_images(stream):
    """Equation 6, spelled out image by image and head by head."""
    made, tokens, paired = block(), torch.randn(3, 4, 12), torch.randn(3, 4, 12)
    partner = torch.tensor([2, 0, 1])
    got = pair_wise_attention(open_block(made), torch.cat([tokens, paired]), partner, stream)[0][3:]

    def qkv(x):
        return made.attn.qkv(made.norm1(x)).reshape(4, 3, 3, 4).permute(1, 2, 0, 3)

    for i in range(3):
        q, k, v = qkv(paired[i])
        _, k2, v2 = qkv((tokens if stream == "sa" else paired)[partner[i]])
        heads = []
        for h in range(3):
            weights = torch.softmax(q[h] @ torch.cat([k[h], k2[h]]).T / 2.0, dim=-1)
            assert weights.shape == (4, 8)
            heads.append(weights @ torch.cat([v[h], v2[h]]))
        x = paired[i] + made.attn.proj(torch.cat(heads, dim=1))
        torch.testing.assert_close(got[i], x + made.mlp(made.norm2(x)))


def test_gradient_reaches_the_partner():
    made = block()
    tokens, paired = torch.randn(2, 4, 12, requires_grad=True), torch.randn(2, 4, 12)
    pair_wise_attention(open_block(made), torch.cat([tokens, paired]), torch.tensor([1, 0]))[0][2].sum().backward()
    assert tokens.grad[1].abs().sum() > 0
    assert tokens.grad[0].abs().sum() == 0


@pytest.mark.parametrize("kwargs", [{}, {"qk_norm": True}, {"init_values": 0.3}])
def test_the_class_token_alone_is_that_of_the_whole_layer(kwargs):
    made, tokens = block(**kwargs), torch.randn(2, 6, 12)
    token, query, key = self_attention(open_block(made), tokens, whole=False)
    whole, every_query, every_key = self_attention(open_block(made), tokens)
    torch.testing.assert_close(token, whole[:, :1])
    torch.testing.assert_close(query, every_query[:, :1])
    torch.testing.assert_close(key, every_key)


@pytest.mark.parametrize("stream", ["sa", "pwca"])
def test_the_pair_wise_class_token_alone_is_that_of_the_whole_layer(stream):
    layer, streams, partner = open_block(block(qk_norm=True)), torch.randn(6, 4, 12), torch.tensor([2, 0, 1])
    every, every_query, every_key = pair_wise_attention(layer, streams, partner, stream)
    for whole, asked in ((True, 4), (False, 1)):
        tokens, token, query, key = pair_wise_class_attention(layer, streams, partner, stream, whole=whole)
        torch.testing.assert_close(tokens, every[:3, :asked])
        torch.testing.assert_close(token, every[3:, :1])
        torch.testing.assert_close(query, every_query[:, :asked])
        torch.testing.assert_close(key, every_key)


@pytest.mark.parametrize("stream", ["sa", "pwca"])
def test_streams_that_are_the_same_may_be_given_once(stream):
    layer, tokens, partner = open_block(block()), torch.randn(3, 4, 12), torch.tensor([2, 0, 1])
    once, _, _ = pair_wise_attention(layer, tokens, partner, stream)
    torch.testing.assert_close(once, pair_wise_attention(layer, torch.cat([tokens, tokens]), partner, stream)[0])
    own, token, _, _ = pair_wise_class_attention(layer, tokens, partner, stream, whole=True)
    torch.testing.assert_close(own, once[:3])
    torch.testing.assert_close(token, once[3:, :1])


def test_glca_is_the_class_token_of_an_ordinary_block():
    made, norm, tokens = block(qk_norm=True), nn.LayerNorm(12).eval(), torch.randn(2, 6, 12)
    glca = GlobalLocalCrossAttention(made, norm).eval()
    torch.testing.assert_close(glca(tokens), norm(made(tokens))[:, 0])


def test_glca_starts_as_a_copy_with_weights_of_its_own():
    made = block()
    glca = GlobalLocalCrossAttention(made, nn.LayerNorm(12))
    for mine, theirs in zip(glca.block.parameters(), made.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs


@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_a_derangement_has_no_fixed_point_and_is_a_permutation(count):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        drawn = derangement(count, generator)
        assert sorted(drawn.tolist()) == list(range(count))
        assert not (drawn == torch.arange(count)).any()


def test_derangements_are_uniform():
    """Of 4 images there are 9; over 9,000 draws each comes about 1,000 times (5 standard deviations are 150)."""
    generator = torch.Generator().manual_seed(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(9000):
        drawn = tuple(derangement(4, generator).tolist())
        counts[drawn] = counts.get(drawn, 0) + 1
    assert len(counts) == 9
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_one_image_has_no_partner():
    with pytest.raises(ValueError, match="at least 2 images in a batch, got 1"):
        derangement(1, torch.Generator())
