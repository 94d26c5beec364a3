"""LSTM with layer normalisation, over whole lanes with exact resets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.linear import linear


class LayerNormLSTM(nn.Module):
    """A stack of LSTM layers whose gates and cells are normalised. State [L, 2, N, H] as the LSTM's.

        (h, c) <- 0 where is_first_t;  i, f, g, o = split(LN(x_t W_x^T) + LN(h W_h^T) + b)
        c <- sigmoid(f) c + sigmoid(i) tanh(g);  h <- sigmoid(o) tanh(LN(c))

    LN takes mean and variance over a row's features. The gates' two have gains of their own and share
    the bias b; the cell's has both. The cell that is carried on is not normalised.
    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450, equations 20 to 22.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.state_shape = (num_layers, 2, hidden_size)
        self.output_size = hidden_size
        sizes = [input_size] + [hidden_size] * (num_layers - 1)

        def parameters(value: float, *shapes: tuple[int, ...]) -> nn.ParameterList:
            return nn.ParameterList(nn.Parameter(torch.full(shape, value)) for shape in shapes)

        width = 4 * hidden_size
        self.input_weight = parameters(0.0, *((width, k) for k in sizes))
        self.hidden_weight = parameters(0.0, *((width, hidden_size) for _ in sizes))
        self.bias = parameters(0.0, *((width,) for _ in sizes))
        self.input_gain = parameters(1.0, *((width,) for _ in sizes))
        self.hidden_gain = parameters(1.0, *((width,) for _ in sizes))
        self.cell_gain = parameters(1.0, *((hidden_size,) for _ in sizes))
        self.cell_bias = parameters(0.0, *((hidden_size,) for _ in sizes))
        for w_in, w_hid, bias in zip(self.input_weight, self.hidden_weight, self.bias, strict=True):
            nn.init.orthogonal_(w_in)
            nn.init.orthogonal_(w_hid)
            # Remember by default: forget gate bias 1 (Jozefowicz et al. 2015, section 4).
            nn.init.ones_(bias.data[hidden_size : 2 * hidden_size])

    def forward(self, x: Tensor, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, N, K], is_first [T, N] bool, state [L, 2, N, H] -> [T, N, H], state [L, 2, N, H]."""
        states = []
        for layer in range(self.state_shape[0]):
            x, last = self._unroll(layer, x, is_first, state[layer])
            states.append(last)
        return x, torch.stack(states)

    def _unroll(self, layer: int, x: Tensor, is_first: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One layer: x [T, N, K], state (h, c) [2, N, H] -> [T, N, H], state [2, N, H]."""
        length, lanes = is_first.shape
        width, size = self.bias[layer].shape, self.cell_gain[layer].shape
        inputs = linear(x.reshape(length * lanes, -1), self.input_weight[layer])
        inputs = functional.layer_norm(inputs, width, self.input_gain[layer], self.bias[layer])
        outputs = []
        hidden, cell = state
        for gates, first in zip(inputs.reshape(length, lanes, -1), is_first, strict=True):
            hidden = hidden.masked_fill(first[:, None], 0.0)
            cell = cell.masked_fill(first[:, None], 0.0)
            recurrent = linear(hidden, self.hidden_weight[layer])
            recurrent = functional.layer_norm(recurrent, width, self.hidden_gain[layer])
            i, f, g, o = (gates + recurrent).chunk(4, dim=1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            normed = functional.layer_norm(cell, size, self.cell_gain[layer], self.cell_bias[layer])
            hidden = torch.sigmoid(o) * torch.tanh(normed)
            outputs.append(hidden)
        return torch.stack(outputs), torch.stack((hidden, cell))
