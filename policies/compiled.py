"""A policy's layers on a CPU with the interpreter out of the way: arrays in, arrays out.

What `policies.policy.Policy.unroll` does with linear layers and LSTMs as one kernel, to rounding. In small
batches all between its products took several times as long as they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from policies import activations, gemm, head_kernels, linear, lstm_kernels, network_kernels, simd
from policies.activations import F32, JIT, forget_stale
from policies.lstm import LSTM

if TYPE_CHECKING:
    from policies.policy import Policy


forget_stale(__file__, activations, gemm, head_kernels, linear, lstm_kernels, network_kernels, simd)


class Stepped(NamedTuple):
    """R rows after one step."""

    output: np.ndarray  # [R, K] of the output layer, the value's as it is
    value: np.ndarray  # [R] in units of reward
    state: np.ndarray  # [L, 2, R, H]


class Drawn(NamedTuple):
    """R decisions, each a choice of n."""

    choice: np.ndarray  # [R] int64, -1 where nothing is legal
    logp: np.ndarray  # [R]
    value: np.ndarray  # [R] in units of reward
    state: np.ndarray  # [L, 2, Q, H] of all rows, of which these are some


class _Bound(NamedTuple):
    """What every decision needs of a policy, looked up once: asking torch each time costs too much."""

    bias: Tensor  # the output's, by which it shows whether parameters have been moved or replaced
    std: Tensor  # the value's, by which it shows for buffers
    place: int  # where the bias lies
    kept: list[Tensor]  # whatever lies at the addresses, which stays there as long as this
    addresses: np.ndarray  # of the parameters, and of mean and std of the value
    encode: Callable[[Mapping[str, np.ndarray]], np.ndarray]  # leaves [M, ...] -> what the first layer reads
    inputs: int  # its width
    outputs: int  # of the output layer


class Compiled:
    """The layers of a policy with one LSTM core and a shared critic, from observation to output."""

    def __init__(self, policy: Policy, core: LSTM) -> None:
        """core: the policy's."""
        self._policy, self._core = policy, core
        self.widths = np.array([len(bias) for bias in policy.encoder.bias], np.int64)
        self._found: _Bound | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_found": None}  # a copy looks up its own

    @property
    def params(self) -> list[Tensor]:
        """The policy's, in the order in which `network_kernels` has them."""
        core, policy = self._core, self._policy
        layers = zip(core.input_weight, core.hidden_weight, core.bias, strict=True)
        hidden = zip(policy.encoder.weight, policy.encoder.bias, strict=True)
        output = (policy.output_weight, policy.output_bias)
        return [x for layer in (*hidden, *layers, output) for x in layer]

    @property
    def usable(self) -> bool:
        """Whether it may be called now: on a CPU whose GEMM kernels can call."""
        bias = self._policy.output_bias
        return gemm.AVAILABLE and not self._core.plain and bias.is_cpu and bias.dtype == torch.float32

    @property
    def _bound(self) -> _Bound:
        """Looked up anew where the parameters, or all buffers, have been moved or replaced: all at once."""
        found, bias, std = self._found, self._policy.output_bias, self._policy.value_std
        if found is None or found.bias is not bias or found.std is not std or found.place != bias.data_ptr():
            found = self._found = self._look_up()
        return found

    def _look_up(self) -> _Bound:
        policy = self._policy
        bias, std = policy.output_bias, policy.value_std
        kept = [x.detach() for x in (*self.params, policy.value_mean, std)]
        assert all(x.is_contiguous() for x in kept)
        addresses = np.array([x.data_ptr() for x in kept], np.int64)
        read, inputs = policy.input.reader(), policy.input.output_size
        return _Bound(bias, std, bias.data_ptr(), kept, addresses, read, inputs, len(bias))

    def encoded(self, obs: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
        """What the first layer reads, x [M, F], of obs leaves [M, ...]."""
        return _encoded(self._bound, obs, rows)

    def addresses(self, half: gemm.Half) -> tuple[np.ndarray, list[Tensor]]:
        """Where the parameters lie now, and mean and std of the value; and these, which keep them there.

        half: of copies of the weights in bfloat16.
        """
        bound = self._bound
        if not half:
            return bound.addresses, bound.kept
        kept = [x.to(torch.bfloat16) if x.dim() == 2 else x for x in bound.kept]
        return np.array([x.data_ptr() for x in kept], np.int64), kept

    def step(self, obs: Mapping[str, np.ndarray], is_first: np.ndarray, state: np.ndarray) -> Stepped:
        """obs leaves [R, ...], is_first [R] bool, state [L, 2, R, H]."""
        after, rows = state.copy(), np.arange(len(is_first))
        assert state.shape[2] == len(rows), (state.shape, len(rows))
        bound = self._bound
        x = self._entering(bound, obs, is_first, after, rows)
        stepped = Stepped(*_empty(bound, len(x)), after)
        _step(x, is_first, after, rows, bound.addresses, self.widths, stepped.output, stepped.value)
        return stepped

    def draw(
        self,
        obs: Mapping[str, np.ndarray],
        legal: np.ndarray | None,
        is_first: np.ndarray,
        state: np.ndarray,
        rows: np.ndarray,
        uniform: np.ndarray,
    ) -> Drawn:
        """Choices drawn as by `policies.categorical.draw`; legal [R, n] bool, uniform [R] in [0, 1).

        rows [R], none twice: which of the Q in state [L, 2, Q, H] are theirs, which go on in place.
        """
        bound = self._bound
        x = self._entering(bound, obs, is_first, state, rows)
        output, value = _empty(bound, len(x))
        choices = output.shape[1] - 1
        legal = np.ones((len(x), choices), bool) if legal is None else np.ascontiguousarray(legal)
        uniform = np.ascontiguousarray(uniform)
        assert legal.shape == (len(x), choices), (legal.shape, output.shape)
        assert uniform.shape == (len(x),), (uniform.shape, len(x))
        drawn = Drawn(np.empty(len(x), np.int64), np.empty(len(x), np.float32), value, state)
        _draw(
            x, is_first, state, rows, bound.addresses, self.widths, legal, uniform, output, value,
            drawn.choice, drawn.logp,
        )  # fmt: skip
        return drawn

    def _entering(
        self, bound: _Bound, obs: Mapping[str, np.ndarray], is_first: np.ndarray, state: np.ndarray,
        rows: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """What the first layer reads; the kernels look at no shape."""
        layers, vectors, width = self._core.state_shape
        assert state.shape == (layers, vectors, state.shape[2], width), (state.shape, self._core.state_shape)
        assert state.dtype == np.float32, state.dtype
        assert state.flags.carray, state.flags
        assert is_first.shape == rows.shape, (is_first.shape, rows.shape)
        return _encoded(bound, obs, len(rows))


def _encoded(bound: _Bound, obs: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    x = bound.encode(obs)
    assert x.shape == (rows, bound.inputs), (x.shape, rows)
    assert x.dtype == np.float32, x.dtype
    return x if x.flags.carray else np.require(x, requirements=("C", "W"))  # kernels take its address


def _empty(bound: _Bound, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """For output and value."""
    return np.empty((rows, bound.outputs), np.float32), np.empty(rows, np.float32)


ROWS = 128
"""Decided at a time, about: what lies between the layers stays in the second cache."""


@numba.njit(**JIT)
def _step(x, is_first, state, rows, address, widths, y, value):  # type: ignore[no-untyped-def]
    """x [R, F], is_first [R] -> y [R, K] and value [R], written.

    rows [R]: which of the Q in state [L, 2, Q, H] are theirs, which go on in place.
    address: of weights, as in `policies.network_kernels`; widths: of the encoder's layers.
    """
    for row in rows:
        assert 0 <= row < state.shape[2]
    threads = gemm.set_num_threads(np.int32(1))
    # Of wide layers the weights themselves are much to read: more rows at a time.
    pieces = max(1, len(rows) // max(ROWS, state.shape[3]))
    for piece in range(pieces):
        part = slice(piece * len(rows) // pieces, (piece + 1) * len(rows) // pieces)
        _piece(x[part], is_first[part], state, rows[part], address, widths, y[part])
    mean, std = gemm.floats(address[-2], 1)[0], gemm.floats(address[-1], 1)[0]
    for r in range(len(rows)):
        value[r] = y[r, y.shape[1] - 1] * std + mean
    gemm.set_num_threads(threads)


@numba.njit(**JIT)
def _draw(  # type: ignore[no-untyped-def]
    x, is_first, state, rows, address, widths, legal, uniform, y, value, choice, logp
):
    """`_step`, and choices [R] with their log-probabilities [R], written."""
    _step(x, is_first, state, rows, address, widths, y, value)
    head_kernels.sample(y[:, : y.shape[1] - 1], legal, uniform, choice, logp)


@numba.njit(**JIT)
def _piece(x, is_first, state, rows, address, widths, y):  # type: ignore[no-untyped-def]
    number, units, at = len(rows), state.shape[3], 2 * widths.shape[0]
    below = np.empty((number, widths[-1] if len(widths) else x.shape[1]), np.float32)
    network_kernels.encode(x, address, widths, None, below[:, : below.shape[1]])
    gates, hidden_in = np.empty((number, 4 * units), np.float32), np.empty((number, units), np.float32)
    for layer in range(state.shape[0]):
        hidden = state[layer, 0]
        for k in range(number):
            for j in range(units):  # a loop is four times as fast as a slice's assignment
                hidden_in[k, j] = F32(0.0) if is_first[k] else hidden[rows[k], j]
        gemm.matmul_t(below, address[at], gates, False)
        gemm.matmul_t(hidden_in, address[at + 1], gates, True)
        bias = gemm.floats(address[at + 2], 4 * units)
        lstm_kernels.forward_at(gates, bias, is_first, rows, hidden, state[layer, 1])
        below, at = np.empty((number, units), np.float32), at + 3
        for k in range(number):
            for j in range(units):
                below[k, j] = hidden[rows[k], j]
    gemm.matmul_t(below, address[at], y, False)
    network_kernels.shift(y, address[at + 1])
