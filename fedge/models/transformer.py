"""A small transformer that predicts the next token at every position of a text.

Pre-norm, causal, learned positions, GELU. What structured pruning cuts is the inside
of the feed-forward parts, which hold most of the weights; attention and the width of
the residual stream stay (`fedge.compress.structured`).

Source: Vaswani et al. (2017), arXiv:1706.03762; Radford et al. (2019), "Language Models
are Unsupervised Multitask Learners", section 2.3, for the order of normalizations.
"""

import math

import torch
from torch import Tensor, nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo

_HEADS = (4, 2, 1)  # the first that divides the width
_INITIAL_DEVIATION = 0.02  # of embeddings, as in GPT-2


class CausalAttention(nn.Module):
    """Each position mixes what it and those before it say; float32 (n, time, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = next(heads for heads in _HEADS if width % heads == 0)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 (n, time, width)."""
        time, width = inputs.shape[-2:]
        parts = self.query_key_value(inputs).unflatten(
            -1, (3, self.num_heads, width // self.num_heads)
        )
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.num_heads)
        # Written out rather than torch's fused form: that one cannot be stacked over
        # clients (`fedge.train.stacked`), and the texts are short.
        hidden = torch.ones(time, time, dtype=torch.bool, device=inputs.device).triu(1)
        shares = scores.masked_fill(hidden, -math.inf).softmax(-1)
        mixed: Tensor = self.output((shares @ value).transpose(1, 2).flatten(-2))
        return mixed


class Block(nn.Module):
    """Attention, then a feed-forward part, each added to what it reads normalized."""

    def __init__(self, width: int, units: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(width), CausalAttention(width), nn.Dropout(dropout)
        )
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, units),
            nn.GELU(),
            nn.Linear(units, width),
            nn.Dropout(dropout),
        )

    def forward(self, state: Tensor) -> Tensor:
        """Return float32 (n, time, width)."""
        state = state + self.attention(state)
        outputs: Tensor = state + self.feed_forward(state)
        return outputs


class Transformer(nn.Module):
    """Embeddings (`config.hidden`), blocks (`config.widths` units), output layer."""

    def __init__(self, config: ModelConfig, info: DataInfo) -> None:
        super().__init__()
        (time,) = info.input_shape
        width = config.hidden
        self.embedding = nn.Embedding(info.num_outputs, width)
        self.positions = nn.Embedding(time, width)
        for embedding in (self.embedding, self.positions):
            nn.init.normal_(embedding.weight, std=_INITIAL_DEVIATION)
        self.blocks = nn.Sequential(
            *(Block(width, units, config.dropout) for units in config.widths)
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, info.num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return float32 logits (n, time, vocabulary) for int64 tokens (n, time)."""
        state = self.embedding(tokens) + self.positions.weight[: tokens.shape[-1]]
        logits: Tensor = self.output(self.norm(self.blocks(state)))
        return logits


def make_transformer(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return the net; position t sees the tokens up to t and predicts the next.

    It reads texts of at most the length that `info` says.
    """
    return Transformer(config, info)
