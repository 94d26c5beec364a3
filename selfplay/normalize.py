"""What is scaled by running moments: rewards, and the value head's units."""

import torch
from torch import Tensor, nn

from policies.moments import RunningMoments

__all__ = ["RewardScale", "RunningMoments", "popart_"]


class RewardScale(nn.Module):
    """Divides rewards by the running std of the value targets, so that values are of order 1.

    The targets of one iteration come from rewards scaled with the std s of that moment, hence in units of s;
    they are counted as target * s, in units of the game's rewards. The mean is left alone: a shifted
    reward would change which policy is best wherever a match's length depends on the policy.

    An iteration: scale(reward) -> gae -> update(advantage + value).
    Source: Berner et al. 2019, arXiv:1912.06680, divides rewards by a running std; of the targets: ours.
    """

    def __init__(self, *, min_std: float = 1e-4) -> None:
        super().__init__()
        self.moments = RunningMoments(min_std=min_std)

    def scale(self, reward: Tensor) -> Tensor:
        """reward / std of the targets so far; reward of any shape, floating."""
        return reward / self.moments.std.to(reward.dtype)

    @torch.no_grad()
    def update(self, target: Tensor) -> None:
        """Count value targets [T, N], made of rewards that `scale` gave since the last update."""
        self.moments.update(self.unscaled(target))

    def unscaled(self, target: Tensor) -> Tensor:
        """Such targets in units of the game's rewards, float64."""
        return target.to(torch.float64) * self.moments.std


@torch.no_grad()
def popart_(
    weight: Tensor, bias: Tensor, old_mean: Tensor, old_std: Tensor, new_mean: Tensor, new_std: Tensor
) -> None:
    """Rescale a linear value head in place, so that its denormalised outputs stay what they were.

        w <- w * old_std / new_std
        b <- (old_std * b + old_mean - new_mean) / new_std

    weight [K, H], bias [K]; means and stds [] or [K]. For every h:
    new_std * (w h + b) + new_mean is as old_std * (w h + b) + old_mean was.
    Source: van Hasselt et al. 2016, arXiv:1602.07714 (PopArt).
    """
    ratio = old_std / new_std
    shift = (old_mean - new_mean) / new_std
    weight.mul_(ratio.reshape(-1, 1).to(weight.dtype))
    bias.mul_(ratio.to(bias.dtype)).add_(shift.to(bias.dtype))
