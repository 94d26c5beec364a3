"""Action distributions: what the policy's last layer means."""

from __future__ import annotations

import gymnasium
import torch
from gymnasium import spaces
from torch import Tensor


class CategoricalHead:
    """One choice of n, the illegal ones at probability exactly 0. Logits [..., n]."""

    def __init__(self, space: gymnasium.Space) -> None:
        if not isinstance(space, spaces.Discrete) or space.start != 0:
            raise ValueError(f"no action head for {space}; allowed: Discrete(n) from 0")
        self.num_inputs = int(space.n)
        self.num_uniforms = 1

    def log_probs(self, logits: Tensor, mask: dict[str, Tensor]) -> Tensor:
        """Logits [..., n] and legal [..., n] -> log-probabilities, the dtype's minimum where illegal."""
        legal = mask.get("")
        if legal is not None:
            logits = logits.masked_fill(~legal, torch.finfo(logits.dtype).min)
        return torch.log_softmax(logits, dim=-1)

    def sample(
        self, logits: Tensor, mask: dict[str, Tensor], uniform: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Inverse transform of uniform [R, 1] in [0, 1) -> action [R] int64, its logp [R]."""
        if logits.device.type == "cpu":
            return self._sample_on_cpu(logits, mask, uniform)
        log_probs = self.log_probs(logits, mask)
        probs = log_probs.exp()
        # Scaled to the sum as rounded, so that the draw never passes the last legal action.
        cumulative = probs.cumsum(dim=-1)
        action = (cumulative <= uniform * cumulative[..., -1:]).sum(dim=-1)
        return {"": action}, log_probs.gather(-1, action[..., None])[..., 0]

    def _sample_on_cpu(
        self, logits: Tensor, mask: dict[str, Tensor], uniform: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        from policies import head_kernels

        legal = mask[""] if "" in mask else torch.ones_like(logits, dtype=torch.bool)
        action, logp = logits.new_empty(len(logits), dtype=torch.int64), logits.new_empty(len(logits))
        head_kernels.sample(*(x.numpy() for x in (logits, legal, uniform[:, 0], action, logp)))
        return {"": action}, logp

    def best(self, logits: Tensor, mask: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The likeliest action [R] and its logp [R]."""
        logp, action = self.log_probs(logits, mask).max(dim=-1)
        return {"": action}, logp

    def evaluate(
        self, logits: Tensor, mask: dict[str, Tensor], action: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """logp of the actions taken and entropy in nats, both [...]."""
        log_probs = self.log_probs(logits, mask)
        logp = log_probs.gather(-1, action[""][..., None])[..., 0]
        return logp, -(log_probs.exp() * log_probs).sum(dim=-1)
