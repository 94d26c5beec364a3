"""The peer: a recurrent PPO that is one compiled function, games included, in the manner of PureJaxRL.

    python -m benchmarks.peers.jax_ppo connect_four [--interleaved] [--seconds 10] [--games 1024]

Connect Four in two forms: both seats step on every move, as is usual in JAX (rows are twice the decisions),
or --interleaved, only the seat to move. Each seat is a lane of its own then: a row's memory is a queue of
its two seats, and in learning the moves of equal parity are the sequence of an ordinary LSTM. A decision
whose reply has not been played yet is learned from in the next iteration. The cut of a cart-pole match
counts as its end. `benchmarks.peers.jax_check` holds games against ours, and replay, advantages and
gradient against references.

Best of 256 to 4,096 games and 4 to 64 minibatches, which differ by 15% at most. Also tried, on two cores,
in thousands of decisions a second of Connect Four interleaved with 8 minibatches, where less than 5 is
noise: two host devices of a core each 207, one device with threads in its operations 137 to 171; the
weight's gradient as one product 205, by autodiff 202 (at 16 minibatches 2 to 3% less, twice), a backward
pass by hand 202; one product for input and memory in acting 205; the learner's scan unrolled by 2 189, by
16 160; sampling by the inverse CDF 206; lanes not shuffled 208. Flags: YNNPACK off 180, Eigen single-
threaded 205, vectors of 512 bits 215, fast math 211, freed memory kept 207, huge pages 208.

T decisions of a lane, R rows of the network in a step, K seats that share a row by turns, L = K R lanes.
"""

from __future__ import annotations

import os

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from benchmarks.peers import jax_games
from benchmarks.peers.common import CannotRun, Measured, Meter, main
from benchmarks.peers.jax_games import Game

HIDDEN = 128
GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2
LEARNING_RATE, MAX_NORM, ENTROPY, VALUE = 5e-4, 0.5, 0.01, 0.5

Tree = Any


class Rows(NamedTuple):
    """What was stored of decisions [T, N]."""

    obs: jax.Array
    mask: jax.Array | None
    action: jax.Array
    logp: jax.Array
    value: jax.Array
    first: jax.Array
    reward: jax.Array
    late: jax.Array
    over: jax.Array


class Actor(NamedTuple):
    """One core's games in mid-play."""

    key: jax.Array
    state: Tree
    first: jax.Array  # [R] bool, the match has just begun
    memory: jax.Array  # [K, 2, R, H], h and c of the seat to move, then of the one that waits
    tail: Rows | None  # [K, R], the last decisions: their rewards and next values come with the next rollout
    tail_memory: jax.Array  # [K, 2, R, H], the memory before them


class Learner(NamedTuple):
    """Weights and Adam's moments."""

    params: Tree
    mean: Tree
    square: Tree
    count: jax.Array


class Lanes(NamedTuple):
    """What is learned from, [T, L]."""

    obs: jax.Array
    mask: jax.Array | None
    action: jax.Array
    logp: jax.Array
    first: jax.Array
    advantage: jax.Array
    target: jax.Array


def init_params(key: jax.Array, game: Game) -> Tree:
    """Encoder 128, LSTM 128, one layer for logits and value."""
    keys = jax.random.split(key, 4)

    def weight(key: jax.Array, inputs: int, outputs: int) -> jax.Array:
        return jax.random.normal(key, (inputs, outputs)) / inputs**0.5

    return {
        "encoder": weight(keys[0], game.obs_size, HIDDEN),
        "encoder_bias": jnp.zeros(HIDDEN),
        "input": weight(keys[1], HIDDEN, 4 * HIDDEN),
        "recurrent": weight(keys[2], HIDDEN, 4 * HIDDEN),
        "bias": jnp.zeros(4 * HIDDEN).at[HIDDEN : 2 * HIDDEN].set(1.0),
        "head": weight(keys[3], HIDDEN, game.num_actions + 1) * 0.1,
        "head_bias": jnp.zeros(game.num_actions + 1),
    }


def inputs(params: Tree, obs: jax.Array) -> jax.Array:
    """obs [..., n] -> the input's share of the gates [..., 4H]."""
    encoded = jax.nn.relu(obs.astype(jnp.float32) @ params["encoder"] + params["encoder_bias"])
    return encoded @ params["input"] + params["bias"]


def cell(gates: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """gates [N, 4H], c [N, H] -> h, c."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _scan(weight: jax.Array, gates: jax.Array, keep: jax.Array, memory: jax.Array) -> jax.Array:
    def step(carry: Tree, now: Tree) -> tuple[Tree, jax.Array]:
        (h, c), (gates, keep) = carry, now
        h, c = cell(gates + (h * keep) @ weight, c * keep)
        return (h, c), h

    return jax.lax.scan(step, (memory[0], memory[1]), (gates, keep))[1]


@jax.custom_vjp
def recur(weight: jax.Array, gates: jax.Array, keep: jax.Array, memory: jax.Array) -> jax.Array:
    """weight [H, 4H], inputs' gates [T, N, 4H], keep [T, N, 1] (0 resets), memory [2, N, H] -> h [T, N, H].

    The weight's gradient is one product over all T, instead of T products that are added up.
    """
    return _scan(weight, gates, keep, memory)


def _recur_forward(weight: jax.Array, gates: jax.Array, keep: jax.Array, memory: jax.Array) -> Tree:
    hidden, pull = jax.vjp(lambda gates: _scan(weight, gates, keep, memory), gates)
    return hidden, (pull, hidden, keep, memory)


def _recur_backward(saved: Tree, grad: jax.Array) -> Tree:
    pull, hidden, keep, memory = saved
    (gates,) = pull(grad)
    before = jnp.concatenate([memory[:1], hidden[:-1]]) * keep
    return before.reshape(-1, HIDDEN).T @ gates.reshape(-1, 4 * HIDDEN), gates, None, None


recur.defvjp(_recur_forward, _recur_backward)


def outputs(params: Tree, hidden: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """h [..., H] -> log-probabilities [..., n], value [...]."""
    out = hidden @ params["head"] + params["head_bias"]
    logits = out[..., :-1] if mask is None else jnp.where(mask, out[..., :-1], -1e9)
    return jax.nn.log_softmax(logits), out[..., -1]


def of_action(logp: jax.Array, action: jax.Array) -> jax.Array:
    """logp [..., n], action [...] -> [...]."""
    return jnp.where(action[..., None] == jnp.arange(logp.shape[-1]), logp, 0).sum(-1)


def act(game: Game, params: Tree, actor: Actor, _: None) -> tuple[Actor, Rows]:
    """One step of every game."""
    key, sample, chance = jax.random.split(actor.key, 3)
    obs, mask = game.view(actor.state)
    memory = jnp.where(actor.first[:, None], 0, actor.memory)
    h, c = cell(inputs(params, obs) + memory[0, 0] @ params["recurrent"], memory[0, 1])
    logp, value = outputs(params, h, mask)
    action = jax.random.categorical(sample, logp)
    step = game.step(actor.state, action, chance)
    rows = Rows(
        obs, mask, action, of_action(logp, action), value, actor.first, step.reward, step.late, step.over
    )
    memory = jnp.concatenate([memory[1:], jnp.stack([h, c])[None]])
    return actor._replace(key=key, state=step.state, first=step.over, memory=memory), rows


def rollout(game: Game, params: Tree, actor: Actor, horizon: int) -> tuple[Actor, Rows]:
    """T decisions of every lane -> what is to be learned from and K steps beyond it, [T K + K, R]."""
    play = partial(act, game, params)
    actor, rows = jax.lax.scan(play, actor, length=(horizon - 1) * game.turns)
    after, tail = jax.lax.scan(play, actor, length=game.turns)
    window = jax.tree.map(lambda *parts: jnp.concatenate(parts), actor.tail, rows, tail)
    return after._replace(tail=tail, tail_memory=actor.memory), window


def lanes(game: Game, window: Rows) -> Lanes:
    """[T K + K, R] by steps -> [T, L] by seats, with advantages."""
    turns = game.turns
    length = len(window.first) - turns
    first, over, reward = window.first[:length], window.over[:length], window.reward[:length]
    if turns == 2:  # what happens in the other's move belongs to the move before it
        reward = reward + jnp.where(over, 0, window.late[1:-1])
        over = over | window.over[1:-1]
        first = first.at[1:].set(first[1:] | first[:-1])

    def by_lane(x: jax.Array) -> jax.Array:
        return x[:length].reshape(length // turns, -1, *x.shape[2:])

    live = 1.0 - by_lane(over)
    value = by_lane(window.value)
    delta = by_lane(reward) + GAMMA * live * by_lane(window.value[turns:]) - value

    def back(later: jax.Array, now: Tree) -> tuple[jax.Array, jax.Array]:
        delta, live = now
        later = delta + GAMMA * LAMBDA * live * later
        return later, later

    advantage = jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, live), reverse=True)[1]
    obs, mask, action, logp = jax.tree.map(by_lane, (window.obs, window.mask, window.action, window.logp))
    return Lanes(obs, mask, action, logp, by_lane(first), advantage, advantage + value)


def replay(params: Tree, batch: Lanes, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities [T, N, n] and values [T, N] of lanes from memory [2, N, H]."""
    keep = 1.0 - batch.first[..., None]
    hidden = recur(params["recurrent"], inputs(params, batch.obs), keep, memory)
    return outputs(params, hidden, batch.mask)


def loss(params: Tree, batch: Lanes, memory: jax.Array) -> jax.Array:
    """PPO's clipped objective, half the squared error of the value, entropy."""
    logp, value = replay(params, batch, memory)
    ratio = jnp.exp(of_action(logp, batch.action) - batch.logp)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    policy = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    entropy = -(jnp.exp(logp) * jnp.maximum(logp, -1e4)).sum(-1)
    return (policy + VALUE * 0.5 * (value - batch.target) ** 2 - ENTROPY * entropy).mean()


def adam(learner: Learner, grads: Tree) -> Learner:
    """One step with the gradient's norm held."""
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
    scale = jnp.minimum(1.0, MAX_NORM / (norm + 1e-6))
    count = learner.count + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * scale * g, learner.mean, grads)
    square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * (scale * g) ** 2, learner.square, grads)
    rate = LEARNING_RATE * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    params = jax.tree.map(lambda p, m, s: p - rate * m / (jnp.sqrt(s) + 1e-5), learner.params, mean, square)
    return Learner(params, mean, square, count)


def learn(learner: Learner, batch: Lanes, memory: jax.Array, key: jax.Array, minibatches: int) -> Learner:
    """One epoch over minibatches of whole lanes; every core has its share of each."""
    order = jax.random.permutation(key, batch.first.shape[1]).reshape(minibatches, -1)

    def update(learner: Learner, chosen: jax.Array) -> tuple[Learner, None]:
        part = jax.tree.map(lambda x: x[:, chosen], batch)
        grads = jax.grad(loss)(learner.params, part, memory[:, chosen])
        return adam(learner, jax.lax.pmean(grads, "core")), None

    return jax.lax.scan(update, learner, order)[0]


def iterate(
    learner: Learner, actors: Actor, *, game: Game, horizon: int, minibatches: int
) -> tuple[Learner, Actor]:
    """Rollout and learning on one core; its actor's leaves [1, ...]."""
    actor = jax.tree.map(lambda x: x[0], actors)
    memory = jnp.moveaxis(actor.tail_memory, 0, 1).reshape(2, -1, HIDDEN)
    actor, window = rollout(game, learner.params, actor, horizon)
    key, shuffle = jax.random.split(actor.key)
    learner = learn(learner, lanes(game, window), memory, shuffle, minibatches)
    return learner, jax.tree.map(lambda x: x[None], actor._replace(key=key))


def init(key: jax.Array, game: Game, games: int, cores: int) -> tuple[Learner, Actor]:
    """Weights, and games [cores, ...] that have played their first K steps."""
    params = init_params(key, game)
    zeros = jax.tree.map(jnp.zeros_like, params)

    def actor(key: jax.Array) -> Actor:
        key, start = jax.random.split(key)
        rows = game.rows * games // cores
        memory = jnp.zeros((game.turns, 2, rows, HIDDEN))
        begun = Actor(key, game.start(start, games // cores), jnp.ones(rows, bool), memory, None, memory)
        played, tail = jax.lax.scan(partial(act, game, params), begun, length=game.turns)
        return played._replace(tail=tail)

    actors = jax.jit(jax.vmap(actor))(jax.random.split(key, cores))
    return Learner(params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32)), actors


GAMES = {
    "cartpole": jax_games.CARTPOLE,
    "connect_four": jax_games.CONNECT_FOUR,
    "rock_paper_scissors": jax_games.ROCK_PAPER_SCISSORS,
}


def measure(
    workload: str,
    seconds: float,
    *,
    games: int,
    minibatches: int,
    horizon: int,
    cores: int,
    interleaved: bool = False,
) -> Measured:
    """Whole iterations after compilation."""
    if workload not in GAMES:
        raise CannotRun("the game is Python: compiled with the network it would be another game")
    game = jax_games.CONNECT_FOUR_IN_TURN if interleaved else GAMES[workload]
    spec = PartitionSpec("core")
    step = jax.jit(
        jax.shard_map(
            partial(iterate, game=game, horizon=horizon, minibatches=minibatches),
            mesh=Mesh(jax.devices()[:cores], ("core",)),
            in_specs=(PartitionSpec(), spec),
            out_specs=(PartitionSpec(), spec),
            check_vma=False,
        ),
        donate_argnums=(0, 1),
    )
    learner, actors = init(jax.random.key(0), game, games, cores)
    rows = horizon * game.turns * game.rows * games
    meter = Meter(seconds)
    while True:
        learner, actors = step(learner, actors)
        jax.block_until_ready(learner)
        if not meter.tick(round(rows * game.decides), rows):
            return meter.result()


SETTINGS = {
    "cartpole": {"games": 2048, "minibatches": 32, "horizon": 16, "cores": 2},
    "connect_four": {"games": 1024, "minibatches": 32, "horizon": 16, "cores": 2, "interleaved": False},
    "rock_paper_scissors": {"games": 1024, "minibatches": 32, "horizon": 16, "cores": 2},
    "simple_tag": {"games": 0, "minibatches": 0, "horizon": 0, "cores": 0},
}


if __name__ == "__main__":
    main(__doc__, measure, SETTINGS)
