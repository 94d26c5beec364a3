"""The second hot loop: one batch of fragments in, a better policy out. PPO over whole lanes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from policies.heads import HeadInput
from policies.policy import Leaves, Policy
from selfplay import data_parallel, losses
from selfplay.compiled_gradients import Arrays, CompiledGradients
from selfplay.config import PPOConfig
from selfplay.cuda_graphs import GraphedGradients
from selfplay.data_parallel import Brought, Siblings
from selfplay.fragments import Fragment, concatenate
from selfplay.normalize import RewardScale, RunningMoments, popart_
from selfplay.optim import SecondMoment, adam_step_, clip_gradient_, flatten_, views
from selfplay.replay import ReplayDifference, check_replay
from selfplay.returns import gae, vtrace
from selfplay.schedules import linear
from selfplay.transfer import to_device
from selfplay.weights import load_weights

ADAM_EPS = 1e-5


class Batch(NamedTuple):
    """What the loss needs of N lanes, as tensors on the learner's device."""

    obs: Leaves  # [T, N, ...]
    mask: Leaves  # [T, N, n]
    is_first: Tensor  # [T, N]
    action: Leaves  # [T, N, ...]
    logp: Tensor  # [T, N] of the policy that acted; under V-trace, of the one that began this epoch
    advantage: Tensor  # [T, N]
    target: Tensor  # [T, N] of the value, in units of (scaled) reward
    state: Tensor  # [L, S, N, H] entering t = 0

    def lanes(self, index: Tensor) -> Batch:
        """The part with these lanes."""

        def pick(x: Tensor | Leaves) -> Any:
            if isinstance(x, dict):
                return {path: leaf.index_select(1, index) for path, leaf in x.items()}
            return x.index_select(1, index)

        parts = {name: pick(x) for name, x in self._asdict().items() if name != "state"}
        return Batch(**parts, state=self.state.index_select(2, index))


class Learner:
    """Owns the policy that learns, its optimiser and its normalisers."""

    def __init__(
        self,
        policy: Policy,
        config: PPOConfig,
        *,
        seed: int | np.random.SeedSequence,
        num_threads: int = 1,
        siblings: Siblings | None = None,
    ) -> None:
        """num_threads: lanes of a minibatch are shared among so many threads, each with its own forward.

        siblings: learners of equal state, which share the batches with this one.
        """
        self.siblings = siblings
        self.policy, self.config = policy, config
        self.device = next(policy.parameters()).device
        self.magnet: Policy | None = copy.deepcopy(policy) if config.magnet_coef else None
        self.params = list(policy.parameters())
        self.flat = flatten_(self.params)
        self.adam = torch.optim.Adam([self.flat], lr=config.lr, eps=ADAM_EPS, fused=True)
        self.second_moment = SecondMoment.zeros([self.flat])
        self.reward_scale = RewardScale().to(self.device)
        self.target_moments = RunningMoments().to(self.device)
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.version = 0
        self.num_shards = num_threads if self.device.type == "cpu" else 1
        # One torch thread each: the shards are the parallelism.
        threads = ThreadPoolExecutor(self.num_shards, initializer=torch.set_num_threads, initargs=(1,))
        self.pool = threads if self.num_shards > 1 else None
        # [shards, P + 8]: gradient, the terms of `_TERMS`, and a place for the weight of all these.
        self.grads = self.flat.new_zeros(self.num_shards, len(self.flat) + len(_TERMS) + 1)
        self.grad_views = [views(row[: len(self.flat)], self.params) for row in self.grads]
        self.compiled = CompiledGradients.of(policy, config)
        self.graphed = GraphedGradients(self._whole, self._held) if self.device.type == "cuda" else None

    def check_replay(self, fragments: Sequence[Fragment]) -> ReplayDifference | None:
        """Refuse fragments that do not replay to what was logged (see `selfplay.replay`)."""
        return check_replay(self.policy, concatenate(fragments), self.version)

    def update(
        self,
        fragments: Sequence[Fragment],
        *,
        progress: float = 0.0,
        brought: Sequence[Brought] | None = None,
    ) -> dict[str, float]:
        """One iteration of PPO on the fragments of all rollouts, of N lanes together; gives its metrics.

        progress: how far the schedules have come, 0 at their start, 1 and more at their end.
        brought: by all siblings, `data_parallel.bring` of the fragments; at least one has some.
        """
        config = self.config
        if brought is None:
            brought = data_parallel.bring(fragments, self.version, self.siblings)
        fragment = data_parallel.side_by_side(fragments, brought)
        steps = sum(each.steps for each in brought)
        lr = linear(config.lr, config.lr_final, progress)
        entropy_coef = linear(config.entropy, config.entropy_final, progress)
        for group in self.adam.param_groups:
            group["lr"] = lr

        reward = to_device(fragment.reward, self.device)
        if config.normalize_reward:
            reward = self.reward_scale.scale(reward)
        batch, explained_variance = self._prepare(fragment, reward)
        self._count_targets(batch.target)
        arrays = self._arrays(batch)
        totals: dict[str, float] = {}
        updates = 0
        trained = 0
        for _ in range(config.epochs):
            if config.advantage == "vtrace" and updates:
                batch, _ = self._prepare(fragment, reward)
                arrays = self._arrays(batch)
            for lanes, total in self._minibatches([each.lanes for each in brought]):
                for name, value in self._step(batch, arrays, lanes, entropy_coef).items():
                    totals[name] = totals.get(name, 0.0) + value
                updates += 1
                trained += total * fragment.is_first.shape[0]
        data_parallel.observe(self.policy, batch.obs, self.siblings)
        self.version += 1
        if self.magnet is not None and self.version % config.magnet_iterations == 0:
            self.magnet.load_state_dict(self.policy.state_dict())
        return {name: value / updates for name, value in totals.items()} | {
            "loss/explained_variance": explained_variance,
            "ppo/lr": lr,
            "ppo/entropy_coef": entropy_coef,
            "data/staleness": sum(each.staleness for each in brought) / steps,
            "data/staleness_max": max(each.staleness_max for each in brought),
            "data/sample_reuse": trained / steps,
        }

    def _minibatches(self, num_lanes: Sequence[int]) -> Iterator[tuple[Tensor, int]]:
        """Own lanes [K] of every minibatch, and the number of all siblings'; num_lanes: of each sibling.

        Everybody draws for all, so that their generators stay equal.
        """
        orders = [torch.from_numpy(self.generator.permutation(lanes)) for lanes in num_lanes]
        own = orders[self.siblings.rank if self.siblings else 0].to(self.device)
        parts = self.config.num_minibatches
        totals = map(sum, zip(*([len(part) for part in each.tensor_split(parts)] for each in orders)))
        for lanes, total in zip(own.tensor_split(parts), totals, strict=True):
            if total:
                yield lanes, total

    def _prepare(self, fragment: Fragment, reward: Tensor) -> tuple[Batch, float]:
        """Tensors with advantages and value targets, and the value's explained variance.

        reward [T, N]: the fragment's, in the units of the value.
        """
        config = self.config

        def tensor(array: np.ndarray) -> Tensor:
            return to_device(array, self.device)

        def tensors(tree: Mapping[str, np.ndarray]) -> Leaves:
            return {path: tensor(leaf) for path, leaf in tree.items()}

        value, next_value = tensor(fragment.value), tensor(fragment.next_value)
        terminated, truncated = tensor(fragment.terminated), tensor(fragment.truncated)
        obs, mask, action = tensors(fragment.obs), tensors(fragment.mask), tensors(fragment.action)
        is_first, state = tensor(fragment.is_first), tensor(fragment.initial_state)
        logp = tensor(fragment.logp)
        endings = (reward, value, next_value, terminated, truncated)
        gamma, lam = config.gamma, config.gae_lambda
        if config.advantage == "vtrace" and fragment.num_lanes:
            with torch.no_grad():
                out = self.policy.unroll(obs, is_first, state)
                present, _ = self.policy.head.evaluate(out.head, mask, action)
            trace = vtrace(*endings, logp, present, gamma=gamma, lam=lam)
            advantage, target, logp = trace.advantage, trace.target, present
        else:
            advantage = gae(*endings, gamma=gamma, lam=lam)
            target = advantage + value
        unexplained = data_parallel.variance(target - value, self.siblings)
        explained = 1 - float(unexplained / data_parallel.variance(target, self.siblings).clamp(min=1e-8))
        if config.normalize_advantage:
            advantage = data_parallel.normalize(advantage, self.siblings)
        return Batch(obs, mask, is_first, action, logp, advantage, target, state), explained

    def _count_targets(self, target: Tensor) -> None:
        """Move the running moments; the value's outputs stay the same while its units move."""
        policy = self.policy
        if self.config.normalize_reward:
            moments, reward = self.reward_scale.moments, self.reward_scale.unscaled(target)
            data_parallel.update(moments, reward, self.siblings)
        if not self.config.normalize_value:
            return
        data_parallel.update(self.target_moments, target, self.siblings)
        old_mean, old_std = policy.value_mean.clone(), policy.value_std.clone()
        policy.value_mean.copy_(self.target_moments.mean)
        policy.value_std.copy_(self.target_moments.std)
        popart_(*policy.value_layer(), old_mean, old_std, policy.value_mean, policy.value_std)

    def _arrays(self, batch: Batch) -> Arrays | None:
        """The batch for the compiled gradients; None where autograd makes them, or others have all lanes."""
        if self.compiled is None or not self.compiled.usable or not batch.is_first.numel():
            return None
        return self.compiled.arrays(batch)

    def _step(
        self, batch: Batch, arrays: Arrays | None, lanes: Tensor, entropy_coef: float
    ) -> dict[str, float]:
        """One gradient step on a minibatch, of which siblings may have further lanes."""
        if len(lanes):
            row = self._shared_gradients(batch, arrays, lanes, entropy_coef)
        else:
            row = self.grads[0].zero_()
        if self.siblings is not None:
            row.mul_(len(lanes))
            row[-1] = len(lanes)
            self.siblings.add_(row)
            row[:-1].div_(row[-1])
        self.flat.grad, terms = row[: len(self.flat)], row[len(self.flat) : -1]
        clip_gradient_(self.flat, self.second_moment, self.config.grad_clip_sigma, norm=terms[-1])
        values = terms.tolist()  # the step's one wait for the device
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"loss or gradient is not finite: {dict(zip(_TERMS, values, strict=True))}"
            )
        adam_step_(self.adam, values[-1], self.config.max_grad_norm)
        return dict(zip(_TERMS, values, strict=True))

    def _shared_gradients(
        self, batch: Batch, arrays: Arrays | None, lanes: Tensor, entropy_coef: float
    ) -> Tensor:
        """`grads[0]`, made the mean loss's gradient and terms but the norm; lanes spread over the threads."""
        shards = lanes.chunk(self.num_shards)
        run = self.pool.map if self.pool else map
        if self.graphed is not None:
            terms = [self.graphed(batch, lanes, entropy_coef)]
        else:

            def gradients(shard: Tensor, grads: list[Tensor]) -> Tensor:
                if arrays is None:
                    return self._gradients(batch.lanes(shard), entropy_coef, grads)
                assert self.compiled is not None
                return self.compiled(arrays, shard.numpy(), entropy_coef, grads)

            terms = list(run(gradients, shards, self.grad_views))
        first, *others = self.grads[: len(shards)]
        for row, means in zip((first, *others), terms, strict=True):
            row[len(self.flat) : -2] = means
        if others:
            first.mul_(len(shards[0]) / len(lanes))
        for shard, other in zip(shards[1:], others, strict=True):
            first.add_(other, alpha=len(shard) / len(lanes))
        return first

    def _whole(self, batch: Batch, entropy_coef: Tensor) -> Tensor:
        """`_gradients` of a minibatch that is not shared among threads."""
        return self._gradients(batch, entropy_coef, self.grad_views[0])

    def _held(self) -> list[Tensor]:
        """What `_gradients` reads and writes beside a batch."""
        magnet = () if self.magnet is None else self.magnet.state_dict().values()
        return [*self.policy.state_dict().values(), *magnet, self.grads]

    def _gradients(self, batch: Batch, entropy_coef: float | Tensor, grads: list[Tensor]) -> Tensor:
        """The mean loss's gradients over these lanes, to `grads`; gives its terms' means (`_TERMS`)."""
        config, policy = self.config, self.policy
        # On a CPU only the compiled gradients know bfloat16.
        half = config.autocast and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            out = policy.unroll(batch.obs, batch.is_first, batch.state)
            reference = self._magnet_head(batch)
        logp, entropy = policy.head.evaluate(out.head, batch.mask, batch.action)
        loss, terms = losses.ppo_loss(
            losses.Elements(logp, entropy, out.value, batch.logp, batch.advantage, batch.target),
            policy.value_std,
            clip=config.clip,
            dual_clip=config.dual_clip,
            value_coef=config.value_coef,
            entropy_coef=entropy_coef,
        )
        magnet = torch.zeros_like(loss)
        if self.magnet is not None:
            assert reference is not None
            magnet = policy.head.kl(out.head, self.magnet.head, reference, batch.mask, batch.action).mean()
            loss = loss + config.magnet_coef * magnet
        torch._foreach_copy_(grads, torch.autograd.grad(loss, self.params))
        return torch.cat((terms, magnet.detach()[None]))

    @torch.no_grad()
    def _magnet_head(self, batch: Batch) -> HeadInput | None:
        if self.magnet is None:
            return None
        return self.magnet.unroll(batch.obs, batch.is_first, batch.state).head

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the policy's parameters and buffers by name."""
        return {name: x.detach().cpu().numpy().copy() for name, x in self.policy.state_dict().items()}

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Everything that the next update depends on: arrays, and what JSON can hold."""
        named = {"policy": self.policy, "reward": self.reward_scale, "target": self.target_moments}
        if self.magnet is not None:
            named["magnet"] = self.magnet
        tensors = {f"{k}:{name}": x for k, module in named.items() for name, x in module.state_dict().items()}
        for k, moment in enumerate(views(self.second_moment.average[0], self.params)):
            tensors[f"second_moment:{k}"] = moment
        for name, slot in self.adam.state_dict()["state"].get(0, {}).items():
            each = views(slot, self.params) if slot.dim() else [slot] * len(self.params)
            tensors |= {f"adam:{k}:{name}": x for k, x in enumerate(each)}
        meta = {
            "version": self.version,
            "second_moment_updates": self.second_moment.num_updates,
            "generator": self.generator.bit_generator.state,
        }
        return {name: x.detach().cpu().numpy().copy() for name, x in tensors.items()}, meta

    def set_state(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            part, key = name.split(":", 1)
            parts.setdefault(part, {})[key] = array
        load_weights(self.policy, parts["policy"])
        load_weights(self.reward_scale, parts["reward"])
        load_weights(self.target_moments, parts["target"])
        if self.magnet is not None:
            load_weights(self.magnet, parts["magnet"])
        for key, array in parts["second_moment"].items():
            views(self.second_moment.average[0], self.params)[int(key)].copy_(torch.tensor(array))
        own = {key: torch.tensor(array) for key, array in parts.get("adam", {}).items()}
        slots: dict[int, dict[str, Tensor]] = {}
        if own:
            slots[0] = {"step": own["0:step"]}
            for name in ("exp_avg", "exp_avg_sq"):
                slots[0][name] = torch.cat([own[f"{k}:{name}"].reshape(-1) for k in range(len(self.params))])
        self.adam.load_state_dict({**self.adam.state_dict(), "state": slots})
        self.second_moment.num_updates = meta["second_moment_updates"]
        self.generator.bit_generator.state = meta["generator"]
        self.version = meta["version"]


_TERMS = (
    "loss/policy", "loss/value", "loss/entropy", "loss/kl", "loss/clip_fraction", "loss/magnet_kl",
    "loss/grad_norm",
)  # fmt: skip
