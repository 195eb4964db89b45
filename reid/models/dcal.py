"""Dual Cross-Attention Learning: a ViT with a global-local and a pair-wise branch (Zhu et al., CVPR 2022, section 3).

B images, T tokens, D width, C classes, R chosen patches, E embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reid.models.backbones import architecture, build_backbone, embed_tokens, offers
from reid.models.cross_attention import (
    GlobalLocalCrossAttention,
    pair_wise_attention,
    pair_wise_class_attention,
    self_attention,
)
from reid.models.jigsaw import PARTS, JigsawPatches
from reid.models.layers import Layer, TimmModule, open_layers
from reid.models.options import DcalOptions
from reid.models.rollout import class_row, local_queries
from reid.models.side_information import SideInformation
from reid.models.weights import WeightsReport
from reid.names import BRANCHES, Features, Method, Prediction

DEFAULTS = DcalOptions()

Look = tuple[Layer, Tensor, Tensor]  # a layer with the queries and keys of its self-attention stream


@dataclass
class Branch:
    """One branch's class token (B, D) after its norm and before the neck, and its head's logits (B, C).

    `features` (B, D) is the token after the neck, None where the head has no neck; `head` the name of the branch's head
    among DCAL.heads, which branches may share.
    """

    token: Tensor
    logits: Tensor
    features: Tensor | None = None
    head: str = "sa"


@dataclass
class DcalOutput:
    """What a forward pass gives; a branch that did not run is None.

    `rollout` (B, T) is the class token's attention rollout row, `chosen` (B, R) the token indices of GLCA's patches.
    `jigsaw` belongs to the SA branch: one for each part, none without a jigsaw module.
    """

    sa: Branch
    glca: Branch | None = None
    pwca: Branch | None = None
    rollout: Tensor | None = None
    chosen: Tensor | None = None
    jigsaw: tuple[Branch, ...] = ()

    def branches(self) -> dict[str, Branch]:
        """The branches that ran, by name, in the order of BRANCHES."""
        return {name: branch for name in BRANCHES["dcal"] if (branch := getattr(self, name)) is not None}


class ReidHead(nn.Module):
    """BNNeck, a batch norm whose bias stays 0, and a linear layer without bias: tokens (B, D) to logits (B, C).

    What lies between the two (B, D) is given beside the logits.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.neck = nn.BatchNorm1d(width)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, token: Tensor) -> tuple[Tensor, Tensor]:
        features = self.neck(token)
        return self.classifier(features), features


class FgvcHead(nn.Module):
    """A linear layer: tokens (B, D) to logits (B, C), with None beside them for want of a neck."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, token: Tensor) -> tuple[Tensor, None]:
        return self.classifier(token), None


class DCAL(nn.Module):
    """The self-attention branch of a backbone, with GLCA and PWCA beside it as `options.method` says.

    PWCA has no parameters: it runs the backbone's blocks, norm and head, in training only. `log_variances` holds the
    learned loss weight w of each branch, in the order of BRANCHES; a baseline has none.
    """

    def __init__(self, backbone: TimmModule, classes: int, options: DcalOptions = DEFAULTS) -> None:
        """Raises ValueError for options out of range, and for what the backbone does not offer."""
        super().__init__()
        require_offered(backbone, options)
        build_head = ReidHead if options.head == "reid" else FgvcHead
        self.options = options
        self.classes = classes
        self.backbone = backbone
        self.layers = open_layers(backbone)
        self.heads = nn.ModuleDict({"sa": build_head(self.width, classes)})
        self.glca: GlobalLocalCrossAttention | None = None
        if "glca" in BRANCHES[self.method]:
            self.glca = GlobalLocalCrossAttention(backbone.blocks[-1], backbone.norm)
            self.heads["glca"] = build_head(self.width, classes)
        self.jigsaw: JigsawPatches | None = None
        if options.jigsaw:
            patches = self.grid[0] * self.grid[1]
            self.jigsaw = JigsawPatches(
                backbone.blocks[-1], backbone.norm, patches=patches, prefix=self.prefix, shift=options.jigsaw
            )
            for part in range(PARTS):
                self.heads[f"jigsaw_{part + 1}"] = build_head(self.width, classes)
        self.side_information = SideInformation(options.sides, self.width) if options.sides else None
        if len(BRANCHES[self.method]) > 1:
            self.log_variances = nn.Parameter(torch.zeros(len(BRANCHES[self.method])))

    @property
    def method(self) -> Method:
        """Which branches there are."""
        return self.options.method

    @property
    def pairs(self) -> bool:
        """Whether a training step needs partners."""
        return "pwca" in BRANCHES[self.method]

    @property
    def width(self) -> int:
        """D, the numbers in a branch's token."""
        return int(self.backbone.num_features)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the N patches."""
        rows, columns = self.backbone.patch_embed.grid_size
        return rows, columns

    @property
    def rolls_out(self) -> bool:
        """Whether there is a class token whose attention can be rolled out."""
        return offers(self.backbone).class_token

    @property
    def prefix(self) -> int:
        """How many tokens stand before the patches: the class token, then registers."""
        return int(getattr(self.backbone, "num_prefix_tokens", 0))

    def embedding_size(self, features: Features) -> int:
        """E, the numbers in an embedding of these features."""
        sizes = {
            "sa": self.width * (1 if self.jigsaw is None else 1 + PARTS),
            "glca": self.width * (self.glca is not None),
        }
        return sum(sizes.values()) if features == "concat" else sizes[features]

    def forward(
        self,
        images: Tensor,
        partner: Tensor | None = None,
        sides: Tensor | None = None,
        *,
        glca: bool = True,
        rollout: bool = False,
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> DcalOutput:
        """Images (B, 3, height, width) float32, normalised RGB, to the output of each branch.

        `partner` (B,) int64, a derangement of the batch, is needed in training when the method pairs images and is
        never used in evaluation. `sides` (B,) int64 names each image's combination of camera and view, -1 where
        unknown, to a model with side information. `glca=False` leaves the GLCA branch out, for embeddings of the SA
        token alone. `rollout=True` asks for the rollout and, with GLCA, for the patches that it chooses; no branch
        depends on them (see `GlobalLocalCrossAttention`).

        `gather`, where a batch is shared out over processes, makes of the tokens (B, D) of these images those of the
        whole batch. The branches are then of the whole batch, so that necks and losses see what one process would see.

        Raises ValueError when a training step that needs partners gets none, and for a rollout without class token.
        """
        local = self.glca if glca else None
        if rollout and not self.rolls_out:
            raise ValueError(f"backbone {architecture(self.backbone)!r} has no class token to roll attention out from")
        if not (self.training and self.pairs):
            partner = None
        elif partner is None:
            raise ValueError(f"method {self.method!r} needs `partner` in training: one other image for each image")
        tokens = embed_tokens(self.backbone, images)
        if self.side_information is not None and sides is not None:
            tokens = self.side_information(tokens, sides)
        looks: list[Look] | None = [] if rollout else None
        for layer in self.layers[:-1]:
            (tokens,) = self._run(looks, self._advance, layer, tokens, partner)
        before = tokens
        tokens, paired = self._run(looks, self._conclude, self.layers[-1], tokens, partner, local is not None)
        branch = partial(self._branch, gather)
        output = DcalOutput(branch("sa", self._pool(tokens)))
        if looks:
            output.rollout = class_row(reversed(looks))
            if local is not None:
                output.chosen = local_queries(output.rollout, self.options.ratio, self.prefix)
        if local is not None:
            output.glca = branch("glca", local(tokens))
        if self.jigsaw is not None:
            tokens_of_parts = self.jigsaw(before[: images.shape[0]]).unbind(dim=1)
            output.jigsaw = tuple(branch(f"jigsaw_{i}", token) for i, token in enumerate(tokens_of_parts, start=1))
        if paired is not None:
            output.pwca = branch("sa", self._pool(paired))
        return output

    def _run(self, looks: list[Look] | None, step: Callable[..., Any], layer: Layer, *given: Any) -> list[Any]:
        """What a step gives, but for the queries and keys of the self-attention stream: `looks` keeps them if asked."""
        found: list[Any]
        if self.options.checkpointing and torch.is_grad_enabled():
            *found, query, key = checkpoint(step, layer, *given, use_reentrant=False)
        else:
            *found, query, key = step(layer, *given)
        if looks is not None:
            looks.append((layer, query.detach(), key.detach()))
        return found

    def _advance(self, layer: Layer, tokens: Tensor, partner: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """A layer of the self-attention stream, and of both where there are partners."""
        if partner is None:
            return self_attention(layer, tokens)
        return pair_wise_attention(layer, tokens, partner, self.options.partner_stream)

    def _conclude(
        self, layer: Layer, tokens: Tensor, partner: Tensor | None, whole: bool
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """The last layer, each stream by itself: only the class token where no other is read.

        `whole` says that all tokens of the self-attention stream are.
        """
        pooled = offers(self.backbone).class_token and self.backbone.global_pool == "token"
        if partner is None:
            tokens, query, key = self_attention(layer, tokens, whole=whole or not pooled)
            return tokens, None, query, key
        if pooled:
            return pair_wise_class_attention(layer, tokens, partner, self.options.partner_stream, whole=whole)
        streams, query, key = self._advance(layer, tokens, partner)
        tokens, paired = streams.chunk(2)
        return tokens, paired, query, key

    def _pool(self, tokens: Tensor) -> Tensor:
        """The image's token (B, D) after the norm, as timm takes it: the class token, or what it pools."""
        token: Tensor = self.backbone.forward_head(self.backbone.norm(tokens), pre_logits=True)
        return token

    def _branch(self, gather: Callable[[Tensor], Tensor] | None, head: str, token: Tensor) -> Branch:
        if gather is not None:
            token = gather(token)
        logits, features = self.heads[head](token)
        return Branch(token, logits, features, head)


def embedding(output: DcalOutput, features: Features = "concat") -> Tensor:
    """Unit float32 embeddings (B, E): SA and GLCA tokens, each made unit length, concatenated, made unit again.

    `features` `concat` gives E = 2 D, or D when GLCA did not run; `sa` and `glca` give one token, E = D. With a jigsaw
    module the SA token is followed by those of the parts, a quarter each, as in TransReID: 5 D for D.
    """
    wanted = ("sa", "glca") if features == "concat" else (features,)
    tokens = {name: branch.token.float() for name, branch in output.branches().items() if name in wanted}
    if output.jigsaw and "sa" in tokens:
        parts = [branch.token.float() / len(output.jigsaw) for branch in output.jigsaw]
        tokens["sa"] = torch.cat([tokens["sa"], *parts], dim=1)
    return F.normalize(torch.cat([F.normalize(token, dim=1) for token in tokens.values()], dim=1), dim=1)


def probabilities(output: DcalOutput, prediction: Prediction = "sum") -> Tensor:
    """Class probabilities (B, C) float32, each row of sum 1 (section 4.1).

    `sum` is the mean of SA's and GLCA's, which the largest of their sum wins, or SA's where GLCA did not run.
    """
    wanted = ("sa", "glca") if prediction == "sum" else (prediction,)
    rows = [branch.logits.float().softmax(dim=1) for name, branch in output.branches().items() if name in wanted]
    return torch.stack(rows).mean(dim=0)


def build_dcal(
    backbone: str,
    image_size: tuple[int, int],
    classes: int,
    options: DcalOptions = DEFAULTS,
    *,
    weights: str = "none",
) -> tuple[DCAL, WeightsReport]:
    """Build the model from names and numbers; see `build_backbone` and `DCAL` for their meaning and errors."""
    network, report = build_backbone(
        backbone, image_size, weights=weights, drop_path=options.drop_path, stride=options.stride
    )
    return DCAL(network, classes, options), report


def require_offered(backbone: TimmModule, options: DcalOptions) -> None:
    """Raise ValueError for options out of range, and for what the backbone does not offer."""
    method, name = options.method, architecture(backbone)
    if method not in BRANCHES:
        raise ValueError(f"unknown method {method!r}; choose {', '.join(BRANCHES)}")
    if not 0 < options.ratio <= 1:
        raise ValueError(f"ratio of chosen patches is {options.ratio}, expected a number in (0, 1]")
    if "glca" in BRANCHES[method] and not offers(backbone).glca:
        raise ValueError(
            f"method {method!r} needs a class token for its GLCA branch, and backbone {name!r} has none; choose pwca "
            "or baseline"
        )
    for option, value in (("jigsaw", options.jigsaw), ("side information", options.sides)):
        if value and not offers(backbone).jigsaw:
            raise ValueError(
                f"{option} needs a class token beside the patches in every block, and backbone {name!r} has none"
            )
