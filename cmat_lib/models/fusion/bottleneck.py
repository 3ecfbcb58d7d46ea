"""Fusion by attention bottlenecks: modalities meet only in a few tokens that all of them read and write."""

from collections.abc import Callable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from cmat_lib.models.fusion.tokens import AttendingFusion, Features, Width, positions

# Layer and its input (B, m, D) -> weights and output.
Step = Callable[[nn.TransformerEncoderLayer, Tensor], tuple[Tensor | None, Tensor]]


class BottleneckLayer(nn.Module):
    """One transformer layer per modality over its own tokens and the bottleneck tokens.

    Every modality writes its own version of the bottleneck tokens; the next layer reads their mean (Nagrani et al.,
    *Attention Bottlenecks for Multimodal Fusion*, arXiv 2107.00135, equations 8 and 9). `sizes` are the tokens of each
    modality, in order; `bottlenecks` tokens come last; `layer` makes one of a modality's transformer layers.
    """

    def __init__(self, sizes: Mapping[str, int], bottlenecks: int, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.sizes, self.bottlenecks = dict(sizes), bottlenecks
        self.own = nn.ModuleDict({name: layer() for name in sizes})

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens after the layer: (B, M, D) to (B, M, D)."""
        return self.walk(tokens, lambda layer, x: (None, layer(x)))[1]

    def walk(self, tokens: Tensor, step: Step) -> tuple[list[Tensor | None], Tensor]:
        """The layer, each modality's part of it run by `step`: weights (B, h, m, m) of each, and tokens (B, M, D)."""
        *groups, shared = tokens.split([*self.sizes.values(), self.bottlenecks], dim=1)
        done = [step(layer, torch.cat([x, shared], 1)) for layer, x in zip(self.own.values(), groups, strict=True)]
        own = [out[:, : -self.bottlenecks] for _, out in done]  # (B, m - bottlenecks, D) each
        shared = torch.stack([out[:, -self.bottlenecks :] for _, out in done]).mean(0)  # (B, bottlenecks, D)
        return [weights for weights, _ in done], torch.cat([*own, shared], dim=1)

    def whole_map(self, weights: list[Tensor], share: float | None = None) -> Tensor:
        """One map over all tokens (B, h, M, M) from the weights that `walk` gives; 0 where two tokens do not meet.

        The modalities' rows of a bottleneck token are added, times `share`: by default one over their number, so that
        rows sum to 1, as the layer averages what the modalities write.
        """
        share = 1 / len(weights) if share is None else share
        start, size = 0, sum(self.sizes.values())
        whole = weights[0].new_zeros(*weights[0].shape[:2], size + self.bottlenecks, size + self.bottlenecks)
        for part, own in zip(weights, self.sizes.values(), strict=True):
            here = slice(start, start + own)
            whole[..., here, here], whole[..., here, size:] = part[..., :own, :own], part[..., :own, own:]
            whole[..., size:, here] = share * part[..., own:, :own]
            whole[..., size:, size:] += share * part[..., own:, own:]
            start += own
        return whole


class BottleneckFusion(AttendingFusion):
    """Attention bottleneck tokens: what modalities tell each other has to pass through a few shared tokens.

    A bottleneck token starts as a learned vector, its position. In the first layer the modalities write to it, in the
    second they read what the others wrote; so one layer alone lets them meet in the mean over all tokens only. An
    unseen modality has no tokens. The `bottleneck_tokens`, four as in the source, come last.
    """

    settings = (*AttendingFusion.settings, "bottleneck_tokens")

    def __init__(self, *dims: Width, bottleneck_tokens: int = 4, **wiring) -> None:
        super().__init__(*dims, **wiring)
        shared = [f"bottleneck {number}" for number in range(1, bottleneck_tokens + 1)]
        self.token_names, self.bottlenecks = (*chain(*self.parts.values()), *shared), bottleneck_tokens
        self.pos_embedding = positions(len(self.token_names), self.output_dim)
        sizes = {name: len(names) for name, names in self.parts.items()}
        self.add_layers(lambda: BottleneckLayer(sizes, bottleneck_tokens, self.new_layer))

    def tokens(self, features: Features) -> Tensor:
        """Tokens with positions, bottleneck tokens last: (B, M, D)."""
        rows = [*self.project(features).values()]
        rows.append(rows[0].new_zeros(rows[0].shape[0], self.bottlenecks, self.output_dim))
        return torch.cat(rows, dim=1) + self.pos_embedding  # (B, M, D)

    def pool(self, transformed: Tensor) -> Tensor:
        """Fused vector of the tokens that the last layer wrote: (B, M, D) to (B, D)."""
        return self.output_proj(transformed.mean(dim=1))  # (B, D)
