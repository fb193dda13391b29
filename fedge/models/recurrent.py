"""Recurrent nets that predict the next token at every position of a text.

Source: Cho et al. (2014), arXiv:1406.1078, for the GRU; Hochreiter and Schmidhuber
(1997), Neural Computation 9(8), for the LSTM; embedding-recurrent-linear is the shape
of the language models in McMahan et al. (2017), arXiv:1602.05629.
"""

from itertools import pairwise

from torch import Tensor, nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo


class Recurrent(nn.Module):
    """Embedding (`config.hidden`), recurrent layers (`config.widths`), output layer."""

    def __init__(
        self, kind: type[nn.GRU] | type[nn.LSTM], config: ModelConfig, info: DataInfo
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(info.num_outputs, config.hidden)
        sizes = [config.hidden, *config.widths]
        # One layer each, because a single nn.GRU wants all layers equally wide.
        self.layers = nn.ModuleList(
            kind(inputs, outputs, batch_first=True)
            for inputs, outputs in pairwise(sizes)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(sizes[-1], info.num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return float32 logits (n, time, vocabulary) for int64 tokens (n, time)."""
        state: Tensor = self.embedding(tokens)
        for layer in self.layers:
            state = self.dropout(layer(state)[0])
        logits: Tensor = self.output(state)
        return logits


def make_gru(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return the net; position t sees the tokens up to t and predicts the next."""
    return Recurrent(nn.GRU, config, info)


def make_lstm(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return the net; position t sees the tokens up to t and predicts the next."""
    return Recurrent(nn.LSTM, config, info)
