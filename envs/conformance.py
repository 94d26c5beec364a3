"""Does a game keep the vector protocol? `check(make_env)` plays random legal actions and says what breaks.

B games, A seats of the game, S seats of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from gymnasium import spaces

from envs.layout import check_layout
from envs.leaves import leaf_spaces
from envs.random_play import View, arrays, is_float, play_on, random_actions, restart, take, trace, view
from envs.rows import num_choices
from envs.vector import GameError, Group, Tree, VectorEnv

MakeEnv = Callable[[int], VectorEnv]


def check(make_env: MakeEnv, *, num_games: int = 6, num_steps: int = 120, seed: int = 0) -> None:
    """Raises AssertionError (or the game's own GameError) at the first breach of the protocol.

    make_env(num_games) gives a fresh game. Beyond the protocol's words it asks that a match in play
    always has a seat to act, that each seat's ending is shown once, and that a match depends on its
    seed and actions alone: not on its slot, nor on what was played there before.
    """
    check_layout(make_env(num_games), num_games)
    _check_play(make_env(num_games), num_steps, seed)
    _check_restart_of_none(make_env(num_games), num_steps, seed)
    _check_deterministic(make_env, num_games, num_steps, seed)
    _check_restart_is_local(make_env, num_games, num_steps, seed)
    _check_independent(make_env, num_games, num_steps, seed)
    _check_illegal_actions(make_env, num_games, num_steps, seed)
    _check_state(make_env, num_games, num_steps, seed)
    _check_words(make_env(num_games), seed)
    _check_bots(make_env(num_games), num_steps, seed)


def _require(holds: bool | np.bool_, env: VectorEnv, message: str) -> None:
    if not holds:
        raise AssertionError(f"{env.id}: {message}")


def _refuse(flags: np.ndarray, env: VectorEnv, message: str) -> None:
    """Fails, naming the place, where flags [B] or [B, A] has a true entry."""
    if flags.any():
        place = zip(("match", "seat"), np.argwhere(flags)[0].tolist())
        _require(False, env, f"{', '.join(f'{word} {index}' for word, index in place)}: {message}")


def _require_same(env: VectorEnv, one: View, two: View, message: str) -> None:
    for name, array in one.items():
        same = np.array_equal(array, two[name], equal_nan=is_float(array))
        _require(same, env, f"{message}: {name}")


# What holds at every moment of random play.


def _check_play(env: VectorEnv, num_steps: int, seed: int) -> None:
    """Plays on, with some matches waiting to be opened, and checks every view."""
    rng = np.random.default_rng(seed)
    shown = arrays(env)
    total = np.zeros(env.reward.shape)  # [B, A] rewards of the slot's match so far
    ended = np.ones_like(env.to_act)  # [B, A] the seat's episode in this slot's match has ended
    opened = np.arange(0, env.num_games, 2)
    for _ in range(num_steps):
        restart(env, opened, rng)
        _check_dropped(env)
        ended[opened] = False
        total[opened] = 0
        for name in ("reward", "terminated", "truncated", "over"):
            _require(not getattr(env, name)[opened].any(), env, f"restart does not clear {name}")
        _check_view(env, ended)
        before, waiting = view(env), env.over.copy()
        env.step(random_actions(env, rng))
        _check_dropped(env)
        _check_step(env, before, waiting, ended)
        ended |= env.terminated | env.truncated
        total += env.reward
        _check_view(env, ended)
        _check_sum(env, total)
        opened = np.flatnonzero(env.over & (rng.random(env.num_games) < 0.5))
    for name, array in arrays(env).items():
        _require(array is shown[name], env, f"{name} is replaced by another array, not overwritten in place")


def _check_view(env: VectorEnv, ended: np.ndarray) -> None:
    """What must hold between any two calls; ended [B, A] as in `_check_play`."""
    _check_dropped(env)
    _refuse(env.to_act & ended, env, "a seat whose episode has ended is to act")
    _refuse(env.over[:, None] & env.to_act, env, "a seat is to act in a match that is over")
    _refuse(~env.over & ~env.to_act.any(axis=1), env, "nobody is to act in a match in play")
    _refuse(~np.isfinite(env.reward), env, "the reward is not finite")
    _check_sum(env, env.reward)
    for path, space in leaf_spaces(getattr(env, "privileged_space", spaces.Dict())).items():
        for game in np.flatnonzero((env.to_act | env.truncated).any(axis=1)):
            row = env.privileged[path][game]  # type: ignore[attr-defined]
            _require(space.contains(row), env, f"match {game}: privileged {path!r} is not in {space}: {row}")
    for group in env.groups:
        _check_rows(env, group)


def _check_sum(env: VectorEnv, reward: np.ndarray) -> None:
    """reward [B, A], of a step or of the match so far, sums to 0 over the seats where that is promised."""
    if env.zero_sum:
        rounding = 1e-5 * np.maximum(1, np.abs(reward).sum(axis=1))
        _refuse(np.abs(reward.sum(axis=1)) > rounding, env, "zero_sum, but the rewards do not sum to 0")


def _check_dropped(env: VectorEnv) -> None:
    """Legal play lets no game raise; where one does, its match is over without a result."""
    dropped = getattr(env, "dropped", np.zeros(env.num_games, np.bool_))
    _refuse(dropped & ~env.over, env, "a match is dropped, but not over")
    _refuse(dropped & (env.terminated | env.truncated).any(axis=1), env, "a dropped match ends for a seat")
    _refuse(dropped, env, f"the game raises in legal play: {getattr(env, 'cause', '')}")


def _check_rows(env: VectorEnv, group: Group) -> None:
    """Valid obs rows lie in their space, and a seat that is to act has a legal action."""
    for path, space in leaf_spaces(group.observation_space).items():
        for game, place in np.argwhere((env.to_act | env.truncated)[:, group.seats]):
            row = group.obs[path][game, place]
            where = f"match {game}, seat {group.seats[place]}"
            _require(space.contains(row), env, f"{where}: obs {path!r} is not in {space}: {row}")
    for path, space in leaf_spaces(group.action_space).items():
        if path not in group.mask:
            continue
        for part in np.split(group.mask[path], np.cumsum(num_choices(space))[:-1], axis=2):
            stuck = env.to_act.copy()
            stuck[:, group.seats] &= ~part.any(axis=2)
            stuck[:, np.setdiff1d(np.arange(len(env.teams)), group.seats)] = False
            _refuse(stuck, env, f"mask {path!r} has no legal action")


def _check_step(env: VectorEnv, before: View, waiting: np.ndarray, ended: np.ndarray) -> None:
    """One step from `before`; waiting [B] were over then, ended [B, A] had ended before it."""
    now = view(env)
    for name in before.keys() - {"reward"}:
        same = np.array_equal(before[name][waiting], now[name][waiting], equal_nan=is_float(now[name]))
        _require(same, env, f"step changes {name} of a match that was over")
    _refuse((env.reward != 0) & waiting[:, None], env, "step rewards a match that was over")
    ends = (env.terminated | env.truncated) & ~waiting[:, None]
    _refuse(env.terminated & env.truncated, env, "both terminated and truncated")
    _refuse(ends & ended, env, "the episode ends a second time")
    _refuse(env.over != (ended | ends).all(axis=1), env, "over must mean that every seat has ended")


def _check_words(env: VectorEnv, seed: int) -> None:
    """render and action_names give what a person can read."""
    restart(env, np.arange(env.num_games), np.random.default_rng(seed))
    for _ in range(3):
        env.step(random_actions(env, np.random.default_rng(seed)))
    sizes = {int(space.n) for group in env.groups if isinstance(space := group.action_space, spaces.Discrete)}
    for game in range(env.num_games):
        _require(isinstance(env.render(game), str), env, f"render({game}) is not text")
        names = env.action_names(game)
        if names is not None:
            _require(len(set(names)) == len(names), env, f"action_names({game}) has a name twice: {names}")
            _require(len(names) in sizes, env, f"action_names({game}) has {len(names)} names, not {sizes}")


def _check_bots(env: VectorEnv, num_steps: int, seed: int) -> None:
    """Every scripted player acts legally, or the game raises GameError; it has a bot for each group."""
    for name, bot in env.bots.items():
        bots = bot if isinstance(bot, tuple) else (bot,)
        _require(len(bots) == len(env.groups), env, f"bot {name!r} is of {len(bots)} groups")
        rng = np.random.default_rng(seed)
        restart(env, np.flatnonzero(env.over), rng)
        for _ in range(num_steps):
            actions = random_actions(env, rng)
            for group, leaves, own in zip(env.groups, actions, bots):
                acts = env.to_act[:, group.seats]
                obs, mask = (
                    {path: leaf[acts] for path, leaf in tree.items()} for tree in (group.obs, group.mask)
                )
                for path, rows in own(obs, mask, rng).items():
                    leaves[path][acts] = rows
            env.step(actions)
            restart(env, np.flatnonzero(env.over), rng)


# What the future depends on.


def _check_deterministic(make_env: MakeEnv, num_games: int, num_steps: int, seed: int) -> None:
    """Equal seeds and actions give equal matches."""
    env, again = make_env(num_games), make_env(num_games)
    order = np.arange(num_games)
    traces = zip(trace(env, num_steps, seed, order), trace(again, num_steps, seed, order))
    for step, (one, two) in enumerate(traces):
        _require_same(env, one, two, f"equal seeds and actions differ after step {step}")


def _check_restart_is_local(make_env: MakeEnv, num_games: int, num_steps: int, seed: int) -> None:
    """Restarting some matches in mid-play leaves the others as where nothing is ever restarted."""
    plain, struck = make_env(num_games), make_env(num_games)
    order, odd = np.arange(num_games), np.arange(num_games) % 2 == 1
    restart(plain, order, np.random.default_rng(seed))
    restart(struck, order, np.random.default_rng(seed))
    plays = (play_on(env, num_steps, seed + 1, order, reopen=False) for env in (plain, struck))
    for step, (one, _) in enumerate(zip(*plays)):
        if step % 3 == 1:
            restart(struck, np.flatnonzero(odd), np.random.default_rng(seed + step))
        one, two = take(one, ~odd), take(view(struck), ~odd)
        _require_same(plain, one, two, f"restart touches a match not asked for (step {step})")


def _check_restart_of_none(env: VectorEnv, num_steps: int, seed: int) -> None:
    """Opening no match changes nothing."""
    none = np.zeros(0, np.int64)
    for step, before in enumerate(trace(env, num_steps, seed, np.arange(env.num_games))):
        env.restart(none, none.astype(np.uint64))
        _require_same(env, before, view(env), f"restart of no match changes the view (step {step})")


def _check_independent(make_env: MakeEnv, num_games: int, num_steps: int, seed: int) -> None:
    """They do so in any slot, and whatever was played there before."""
    env, used = make_env(num_games), make_env(num_games)
    order = np.arange(num_games)
    for _ in trace(used, num_steps, seed + 1, order):
        pass
    traces = zip(trace(env, num_steps, seed, order), trace(used, num_steps, seed, order[::-1]))
    for step, (one, two) in enumerate(traces):
        _require_same(env, one, two, f"a match depends on its slot or on the one before (step {step})")


def _check_illegal_actions(make_env: MakeEnv, num_games: int, num_steps: int, seed: int) -> None:
    """An illegal action of a seat that is to act raises GameError, and all goes on as without it."""
    plain, tried = make_env(num_games), make_env(num_games)
    order = np.arange(num_games)
    traces = zip(trace(plain, num_steps, seed, order), trace(tried, num_steps, seed, order))
    for step, (one, two) in enumerate(traces):
        _require_same(plain, one, two, f"a refused action changes the future (step {step})")
        for actions, where in _illegal_actions(tried, np.random.default_rng(step)):
            try:
                tried.step(actions)
            except GameError as error:
                named = tried.id in str(error) and where in str(error)
                _require(named, tried, f"the GameError does not say {tried.id!r} and {where!r}: {error}")
            else:
                _require(False, tried, f"an illegal action is accepted at {where}")
            _require_same(plain, one, view(tried), f"a refused action changes the view ({where})")


def _illegal_actions(env: VectorEnv, rng: np.random.Generator) -> Iterator[tuple[tuple[Tree, ...], str]]:
    """Actions that are legal but in one place, and that place as a GameError must name it."""
    for index, group in enumerate(env.groups):
        acting = np.argwhere(env.to_act[:, group.seats])
        if len(acting) == 0:
            continue
        game, place = acting[-1]
        for path, space in leaf_spaces(group.action_space).items():
            mask = group.mask[path][game, place] if path in group.mask else None
            for part, value in _illegal_values(space, mask):
                actions = random_actions(env, rng)
                own = {leaf: rows[game, place] for leaf, rows in actions[index].items()}
                if _is_used(group, path, own):
                    rows = actions[index][path]
                    rows.reshape(*rows.shape[:2], -1)[game, place, part] = value
                    yield actions, f"match {game}, seat {group.seats[place]}"


def _illegal_values(space: spaces.Space, mask: np.ndarray | None) -> Iterator[tuple[int, float]]:
    """(part of the leaf, a value that it may not take): masked, below and above what it may be, not a number.

    mask [n]: what is legal of all parts side by side.
    """
    choices = num_choices(space)
    if choices:
        start = np.broadcast_to(np.ravel(getattr(space, "start", 0)), len(choices))
        part, low, size = len(choices) - 1, int(start[-1]), choices[-1]
        legal = np.ones(size, np.bool_) if mask is None else mask[-size:]
        values = [*(low + np.flatnonzero(~legal)[:1]).tolist(), low - 1, low + size]
        info = np.iinfo(space.dtype)
        yield from ((part, value) for value in values if info.min <= value <= info.max)
    elif isinstance(space, spaces.Box):
        part, low, high = space.low.size - 1, space.low.flat[-1], space.high.flat[-1]
        if np.issubdtype(space.dtype, np.floating):
            yield part, np.nan
            if np.isfinite(low):
                yield part, np.nextafter(low, -np.inf)
            if np.isfinite(high):
                yield part, high + max(1, abs(high))


def _is_used(group: Group, path: str, own: Tree) -> bool:
    """Whether the seat's action `own` (leaf -> [...]) uses the leaf, so that it must be legal."""
    if path not in group.uses:
        return True
    primaries = group.uses[path].items()
    return any(int(own[name]) in choices and _is_used(group, name, own) for name, choices in primaries)


def _check_state(make_env: MakeEnv, num_games: int, num_steps: int, seed: int) -> None:
    """set_state(state()) goes on identically, in the same env and in another; state is a copy."""
    env, other = make_env(num_games), make_env(num_games)
    order = np.arange(num_games)
    for _ in trace(env, 7, seed, order):
        pass
    state = env.state()
    if state is None:
        return
    kept = {name: array.copy() for name, array in state.items()}
    future = list(play_on(env, num_steps, seed + 1, order))
    for name, array in kept.items():
        same = np.array_equal(state[name], array, equal_nan=is_float(array))
        _require(same, env, f"state {name!r} changes as play goes on; it must be a copy")
    for name, follower in (("the same", env), ("another", other)):
        follower.set_state(state)
        for step, (one, two) in enumerate(zip(future, play_on(follower, num_steps, seed + 1, order))):
            _require_same(env, one, two, f"set_state in {name} env does not go on identically (step {step})")
