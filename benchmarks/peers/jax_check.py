"""What `jax_ppo` measures is sound: its games are ours, and it learns from what was played.

PYTHONPATH=. .peers/jax_ppo/bin/python -m benchmarks.peers.jax_check
"""

from __future__ import annotations

from benchmarks.peers import jax_games, jax_ppo  # first: sets JAX's flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.jax_games import Game
from benchmarks.peers.rows import NativeRows, make

GAMES = {
    "cartpole": jax_games.CARTPOLE,
    "rock_paper_scissors": jax_games.ROCK_PAPER_SCISSORS,
    "connect_four": jax_games.CONNECT_FOUR,
}
NUM_GAMES = 64


def seats_first(x: np.ndarray, seats: int) -> np.ndarray:
    """Rows with a match's seats side by side -> rows of seat 0, then of seat 1."""
    return x.reshape(-1, seats, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def check_rules(workload: str, game: Game, steps: int = 600) -> None:
    """The same random legal actions give what our game shows and pays, step by step."""
    ours = make(workload, NUM_GAMES)
    assert isinstance(ours, NativeRows)
    rng = np.random.default_rng(0)
    state = game.start(jax.random.key(0), NUM_GAMES)
    view, step = jax.jit(game.view), jax.jit(game.step)
    ended = 0
    for _ in range(steps):
        if workload == "cartpole":  # begins by chance
            state = jnp.array(ours.obs), state[1]
        obs, mask = view(state)
        np.testing.assert_allclose(obs, seats_first(ours.obs, ours.seats), atol=1e-6)
        if mask is not None:
            acting = seats_first(ours.acting, ours.seats)
            np.testing.assert_array_equal(mask[acting], seats_first(ours.mask, ours.seats)[acting])
            assert (mask[~acting].sum(1) == 1).all()
        action = (rng.random(ours.mask.shape) * ours.mask).argmax(1)
        ours.step(action)
        done = step(state, jnp.array(seats_first(action, ours.seats)), jax.random.key(1))
        np.testing.assert_array_equal(done.reward, seats_first(ours.reward, ours.seats))
        np.testing.assert_array_equal(done.over, seats_first(ours.terminated | ours.truncated, ours.seats))
        state = done.state
        ended += int(done.over.sum())
    assert ended > NUM_GAMES
    print(f"{workload}: {steps * NUM_GAMES} steps as ours, {ended} endings")


def played(game: Game) -> tuple[dict, jax_ppo.Rows, jax_ppo.Lanes, jax.Array]:
    """Weights, and the fourth window of play under them with its memory."""
    learner, actors = jax_ppo.init(jax.random.key(3), game, NUM_GAMES, 1)
    actor = jax.tree.map(lambda x: x[0], actors)
    params = jax.tree.map(lambda x: 3 * x, learner.params)  # far from uniform
    for _ in range(4):
        memory = jnp.moveaxis(actor.tail_memory, 0, 1).reshape(2, -1, jax_ppo.HIDDEN)
        actor, window = jax_ppo.rollout(game, params, actor, 16)
    return params, window, jax_ppo.lanes(game, window), memory


def check_replay(name: str, game: Game) -> None:
    """Replayed from their memory, decisions have the log-probabilities and values of play: ratio 1."""
    params, window, batch, memory = played(game)
    logp, value = jax_ppo.replay(params, batch, memory)
    difference = jnp.abs(jax_ppo.of_action(logp, batch.action) - batch.logp).max()
    stored = window.value[: value.size // window.value.shape[1]].reshape(value.shape)
    off = jnp.abs(value - stored).max()
    assert batch.first.any()
    assert max(difference, off) < 1e-3, (difference, off)
    print(f"{name}: replay is off by {difference:.1e} in log-probability, {off:.1e} in value")


def check_turns() -> None:
    """Advantages of two seats in turn, against a loop over matches that follows each seat."""
    game = jax_games.CONNECT_FOUR_IN_TURN
    _, window, batch, _ = played(game)
    reward, late, value, over = map(np.asarray, (window.reward, window.late, window.value, window.over))
    length, lanes = len(value) - 2, reward.shape[1]
    advantage = np.zeros((length + 2, lanes))
    for lane in range(lanes):
        for t in reversed(range(length)):
            paid, after = reward[t, lane], 0.0
            if not over[t, lane]:
                paid += late[t + 1, lane]
                if not over[t + 1, lane]:
                    after = jax_ppo.GAMMA * value[t + 2, lane]
                    after += jax_ppo.GAMMA * jax_ppo.LAMBDA * advantage[t + 2, lane]
            advantage[t, lane] = paid + after - value[t, lane]
    shown = np.asarray(batch.advantage).reshape(length, lanes)
    np.testing.assert_allclose(shown, advantage[:length], atol=1e-4)
    lost = (late[1:-1] < 0) & ~over[:length]
    assert lost.any()
    print(f"connect_four in turn: advantages as by hand, {lost.sum()} decisions lost by the reply")


def check_gradient() -> None:
    """The recurrent weight's gradient is autodiff's."""
    params, _, batch, memory = played(jax_games.CONNECT_FOUR_IN_TURN)
    ours = jax.grad(jax_ppo.loss)(params, batch, memory)
    quick, jax_ppo.recur = jax_ppo.recur, jax_ppo._scan
    plain = jax.grad(jax_ppo.loss)(params, batch, memory)
    jax_ppo.recur = quick
    for name, grad in ours.items():
        np.testing.assert_allclose(grad, plain[name], atol=1e-5 * float(jnp.abs(plain[name]).max() + 1))
    print("gradient as autodiff's")


if __name__ == "__main__":
    for name, game in GAMES.items():
        check_rules(name, game)
    for name, game in [*GAMES.items(), ("connect_four in turn", jax_games.CONNECT_FOUR_IN_TURN)]:
        check_replay(name, game)
    check_turns()
    check_gradient()
