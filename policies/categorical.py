"""A masked categorical choice: logits [..., n], legal [..., n] bool (None: all), by inverse transform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def log_probs(logits: Tensor, legal: Tensor | None) -> Tensor:
    """Log-probabilities [..., n], very low but finite where illegal, so that products with 0 stay 0."""
    if legal is not None:
        logits = logits.masked_fill(~legal, torch.finfo(logits.dtype).min)
    return torch.log_softmax(logits, dim=-1)


def draw(logits: Tensor, legal: Tensor | None, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """uniform [...] in [0, 1) -> choice [...] int64, -1 where nothing is legal, and its logp [...]."""
    if logits.device.type == "cpu":
        return _draw_on_cpu(logits, legal, uniform)
    return _draw_by_sums(logits, legal, uniform)


def _draw_by_sums(logits: Tensor, legal: Tensor | None, uniform: Tensor) -> tuple[Tensor, Tensor]:
    every = log_probs(logits, legal)
    cumulative = every.exp().cumsum(dim=-1)
    # Scaled to the sum as rounded, so that the draw does not pass the last choice ...
    passed = cumulative > uniform[..., None] * cumulative[..., -1:]
    if legal is None:
        legal = torch.ones_like(passed)
    # ... and held to the legal ones, for a parallel sum need not be monotone in its last bit.
    passed &= legal
    last = legal.shape[-1] - 1 - legal.flip(-1).byte().argmax(dim=-1)
    choice = torch.where(passed.any(dim=-1), passed.byte().argmax(dim=-1), last)
    logp = every.gather(-1, choice[..., None])[..., 0]
    return choice.where(legal.any(dim=-1), -1), logp


def _draw_on_cpu(logits: Tensor, legal: Tensor | None, uniform: Tensor) -> tuple[Tensor, Tensor]:
    from policies import head_kernels

    if legal is None:
        legal = torch.ones_like(logits, dtype=torch.bool)
    if logits.dim() != 2:
        n = logits.shape[-1]
        choice, logp = _draw_on_cpu(logits.reshape(-1, n), legal.reshape(-1, n), uniform.reshape(-1))
        return choice.reshape(uniform.shape), logp.reshape(uniform.shape)
    choice, logp = logits.new_empty(len(logits), dtype=torch.int64), logits.new_empty(len(logits))
    head_kernels.sample(*(x.numpy() for x in (logits, legal, uniform, choice, logp)))
    return choice, logp


def best(logits: Tensor, legal: Tensor | None) -> tuple[Tensor, Tensor]:
    """The likeliest choice [...], -1 where nothing is legal, and its logp [...]."""
    logp, choice = log_probs(logits, legal).max(dim=-1)
    return choice if legal is None else choice.where(legal.any(dim=-1), -1), logp


def evaluate(logits: Tensor, legal: Tensor | None, choice: Tensor) -> tuple[Tensor, Tensor]:
    """logp [...] of choices [...] and entropy [...] in nats; very low but finite logp where illegal."""
    if logits.device.type != "cpu" or logits.dtype != torch.float32:
        return reference_evaluate(logits, legal, choice)
    n = logits.shape[-1]
    if legal is None:
        legal = torch.ones_like(logits, dtype=torch.bool)
    logp, entropy = _Evaluate.apply(
        logits.reshape(-1, n).contiguous(), legal.reshape(-1, n).contiguous(), choice.reshape(-1)
    )
    return logp.reshape(choice.shape), entropy.reshape(choice.shape)


def reference_evaluate(logits: Tensor, legal: Tensor | None, choice: Tensor) -> tuple[Tensor, Tensor]:
    """`evaluate` by its definition, on any device."""
    every = log_probs(logits, legal)
    logp = every.gather(-1, choice[..., None])[..., 0]
    # The illegal have no share in the entropy, nor a gradient of 0 times the lowest number.
    known = every if legal is None else every.masked_fill(~legal, 0.0)
    return logp, -(every.exp() * known).sum(dim=-1)


class _Evaluate(torch.autograd.Function):
    """`reference_evaluate` on a CPU: rows R, one pass each way."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, legal: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
        from policies import head_kernels

        prob = torch.empty_like(logits)
        log_total, logp, entropy = logits.new_empty(3, len(logits))
        arrays = (logits, legal, choice, prob, log_total, logp, entropy)
        head_kernels.evaluate(*(x.numpy() for x in arrays))
        ctx.save_for_backward(logits, legal, choice, prob, log_total, entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        from policies import head_kernels

        saved = ctx.saved_tensors
        grad = torch.empty_like(saved[0])
        arrays = (*saved, *(x.contiguous() for x in grads), grad)
        head_kernels.evaluate_backward(*(x.numpy() for x in arrays))
        return grad, None, None


def kl(logits: Tensor, reference: Tensor, legal: Tensor | None) -> Tensor:
    """KL(p || q) [...] = sum_a p(a) (log p(a) - log q(a)) over the legal; logits of p and q [..., n]."""
    p, q = log_probs(logits, legal), log_probs(reference, legal)
    return (p.exp() * (p - q)).sum(dim=-1)
