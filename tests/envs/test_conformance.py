"""Every native game keeps the vector protocol, and `check` catches games that do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from envs.conformance import check
from envs.connect_four import ConnectFour
from envs.registry import native_games
from envs.vector import GameError
from tests.envs.mixed_game import MixedGame, MixedMatch


@pytest.mark.parametrize("id", native_games())
@pytest.mark.parametrize("num_games", [1, 6])
def test_native_games_conform(id, num_games):
    check(native_games()[id], num_games=num_games, num_steps=100)


def test_a_game_of_every_kind_of_action_conforms():
    check(MixedGame, num_steps=30)


def test_connect_four_with_openings_conforms():
    check(lambda num_games: ConnectFour(num_games, opening_plies=12), seed=3)


class InPlayAtFirst(ConnectFour):
    def __init__(self, num_games):
        super().__init__(num_games)
        self.over[0] = False


class DoubleReward(ConnectFour):
    def __init__(self, num_games):
        super().__init__(num_games)
        self.reward = self.reward.astype(np.float64)


class TeamsFromOne(ConnectFour):
    teams = (1, 2)


class NoLegalAction(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.groups[0].mask[""][self._matches.ply == 5] = False


class MaskHidesAColumn(ConnectFour):
    """What the caller sees is not what the game allows."""

    def __init__(self, num_games):
        super().__init__(num_games)
        self.groups[0].mask[""] = self._matches.mask.copy()
        self._hide()

    def restart(self, games, seeds):
        super().restart(games, seeds)
        self._hide()

    def step(self, actions):
        super().step(actions)
        self._hide()

    def _hide(self):
        shown = self.groups[0].mask[""]
        shown[...] = self._matches.mask
        shown[..., 0] &= ~shown[..., 1:].any(axis=-1)


class RestartTouchesAnother(ConnectFour):
    def restart(self, games, seeds):
        if 0 not in games and not self.over[0] and len(games):
            games, seeds = np.append(games, 0), np.append(seeds, seeds[:1])
        super().restart(games, seeds)


class RestartTouchesOthersUnseen(ConnectFour):
    """The other matches forget their discs, which shows only when a line should win."""

    def restart(self, games, seeds):
        super().restart(games, seeds)
        if len(games):
            self._matches.discs[np.setdiff1d(np.arange(self.num_games), games)] = 0


class OwnRandomness(ConnectFour):
    def __init__(self, num_games):
        super().__init__(num_games, opening_plies=6)
        self._rng = np.random.default_rng()

    def restart(self, games, seeds):
        super().restart(games, self._rng.integers(2**64, size=len(games), dtype=np.uint64))


class SlotInSeed(ConnectFour):
    def __init__(self, num_games):
        super().__init__(num_games, opening_plies=6)

    def restart(self, games, seeds):
        super().restart(games, seeds + games.astype(np.uint64))


class FormerMatchLeaks(ConnectFour):
    def restart(self, games, seeds):
        former = self._matches.discs[games].copy()
        super().restart(games, seeds)
        self._matches.discs[games] |= former & np.uint64(1)


class NotZeroSum(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.reward[:, 1] = np.maximum(self.reward[:, 1], 0)


class RewardIsNaN(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.reward[self._matches.ply == 3] = np.nan


class RewardStays(ConnectFour):
    def step(self, actions):
        before = self.reward.copy()
        super().step(actions)
        self.reward[before != 0] = before[before != 0]


class DeadIsToAct(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.to_act[self.terminated[:, 0], 0] = True


class NobodyIsToAct(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.to_act[self._matches.ply == 4] = False


class StepChangesTheFinished(ConnectFour):
    def step(self, actions):
        waiting = self.over.copy()
        super().step(actions)
        self.terminated[waiting] = False


class OneSeatEnds(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.terminated[:, 1] = False


class EndsBothWays(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.truncated[...] = self.terminated


class RestartKeepsTruncated(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.truncated |= self.terminated
        self.terminated[...] = False


class ObsOutOfSpace(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.groups[0].obs[""][self._matches.ply == 3] = 2


class ReplacesItsArray(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.reward = self.reward.copy()


class ClampsTheIllegal(ConnectFour):
    def step(self, actions):
        action = actions[0][""]
        legal = (action >= 0) & (action < 7)
        legal &= np.take_along_axis(self._matches.mask, np.where(legal, action, 0)[..., None], axis=2)[..., 0]
        super().step(({"": np.where(legal, action, self._matches.mask.argmax(axis=2))},))


class IllegalHalfPlayed(ConnectFour):
    def step(self, actions):
        try:
            super().step(actions)
        except GameError:
            self._matches.discs[0] = 0
            raise


class IllegalNotNamed(ConnectFour):
    def step(self, actions):
        try:
            super().step(actions)
        except GameError as error:
            raise GameError("connect_four: illegal action") from error


class StateForgets(ConnectFour):
    def set_state(self, state):
        super().set_state(state | {"discs": self._matches.discs.copy()})


class StateIsNoCopy(ConnectFour):
    def state(self):
        return self._matches._asdict()


class NamesMissing(ConnectFour):
    def action_names(self, game):
        return super().action_names(game)[1:]


class BotPlaysIllegally(ConnectFour):
    bots = {"first": lambda obs, mask, rng: {"": np.zeros(len(mask[""]), np.int64)}}  # noqa: RUF012


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (InPlayAtFirst, "in play before the first restart"),
        (DoubleReward, "reward is float64, not float32"),
        (TeamsFromOne, r"teams \(1, 2\)"),
        (NoLegalAction, "no legal action"),
        (MaskHidesAColumn, "an illegal action is accepted"),
        (RestartTouchesAnother, "restart touches a match not asked for"),
        (RestartTouchesOthersUnseen, "restart touches a match not asked for"),
        (OwnRandomness, "equal seeds and actions differ"),
        (SlotInSeed, "depends on its slot"),
        (FormerMatchLeaks, "or on the one before"),
        (NotZeroSum, "do not sum to 0"),
        (RewardIsNaN, "the reward is not finite"),
        (RewardStays, "step rewards a match that was over"),
        (DeadIsToAct, "a seat whose episode has ended is to act"),
        (NobodyIsToAct, "nobody is to act"),
        (StepChangesTheFinished, "step changes terminated of a match that was over"),
        (OneSeatEnds, "over must mean that every seat has ended"),
        (EndsBothWays, "both terminated and truncated"),
        (RestartKeepsTruncated, "restart does not clear truncated"),
        (ObsOutOfSpace, "is not in MultiBinary"),
        (ReplacesItsArray, "reward is replaced by another array"),
        (ClampsTheIllegal, "an illegal action is accepted"),
        (IllegalHalfPlayed, "a refused action changes the future"),
        (IllegalNotNamed, "the GameError does not say"),
        (StateForgets, "does not go on identically"),
        (StateIsNoCopy, "it must be a copy"),
        (NamesMissing, "6 names"),
        (BotPlaysIllegally, "action 0 is illegal"),
    ],
)
def test_a_broken_game_is_caught(broken, message):
    with pytest.raises((AssertionError, GameError), match=message):
        check(broken, num_steps=100)


class Changed(MixedGame):
    """Actions are changed before the game sees them, so that it takes what is illegal."""

    def step(self, actions):
        actor, helper = ({path: leaf.copy() for path, leaf in leaves.items()} for leaves in actions)
        self.change(actor, helper)
        super().step((actor, helper))

    def change(self, actor, helper):
        raise NotImplementedError


class TakesNaN(Changed):
    def change(self, actor, helper):
        np.nan_to_num(actor["aim"], copy=False)


class ClampsTheAim(Changed):
    def change(self, actor, helper):
        np.clip(actor["aim"], -1, 1, out=actor["aim"])


class ClampsTheMove(Changed):
    def change(self, actor, helper):
        np.maximum(actor["move"], 1, out=actor["move"])


class ClampsAUsedTarget(Changed):
    def change(self, actor, helper):
        used = actor["move"] == 3
        actor["target"][used] = np.clip(actor["target"][used], 0, 3)


class TakesAnyDial(Changed):
    def change(self, actor, helper):
        helper["0"][..., 1] = np.where(self.to_act[:, 1:], 1, -1)  # 0 is illegal


class TakesAnySwitch(Changed):
    def change(self, actor, helper):
        np.minimum(helper["1"], 1, out=helper["1"])


class NoBotOfTheHelper(MixedGame):
    def __init__(self, num_games):
        super().__init__(num_games)
        self.bots = {"half": self.bots["still"][0]}


class HelperBotActsIllegally(MixedGame):
    def __init__(self, num_games):
        super().__init__(num_games)
        actor, _ = self.bots["still"]
        self.bots = {"far": (actor, lambda obs, mask, rng: {"0": np.full((len(mask["0"]), 2), 2)})}


class SameNames(MixedGame):
    def __init__(self, num_games):
        super().__init__(num_games)
        self.seat_names = ("actor_0", "actor_0")


class RestartOfNoneClears(MixedGame):
    def restart(self, games, seeds):
        super().restart(games, seeds)
        if len(games) == 0:
            self.reward[...] = 0


class RaisingMatch(MixedMatch):
    def step(self, actions):
        return super().step(actions) if self.left > 2 else self.missing


class Raises(MixedGame):
    match = RaisingMatch


class DropsInPlay(Raises):
    def step(self, actions):
        super().step(actions)
        self.over &= ~self.dropped


class UnseenStateIsNaN(MixedGame):
    def step(self, actions):
        super().step(actions)
        self.privileged[""][~self.over] = np.nan


class PrivilegedDependsOnTheSlot(MixedGame):
    def step(self, actions):
        super().step(actions)
        self.privileged[""][0] += 1


class NoPrivilegedSpace(MixedGame):
    def __init__(self, num_games):
        super().__init__(num_games)
        del self.privileged_space


class UnevenlyPaid(MixedGame):
    """Each step is off by less than what is rounded away, a match is not."""

    def step(self, actions):
        super().step(actions)
        self.reward[...] = np.where(self.over[:, None], 0, np.float32([9e-6, 0]))


class Told(MixedGame):
    """What is said of the actor's actions is wrong."""

    told: dict = {}  # noqa: RUF012

    def __init__(self, num_games):
        super().__init__(num_games)
        actor, helper = self.groups
        self.groups = (dataclasses.replace(actor, **self.told), helper)


class UsesNoLeaf(Told):
    told = {"uses": {"targets": {"move": (1,)}}}  # noqa: RUF012


class UsesByABox(Told):
    told = {"uses": {"target": {"aim": (1,)}}}  # noqa: RUF012


class UsesNoChoice(Told):
    told = {"uses": {"target": {"move": (0,)}}}  # noqa: RUF012


class PointsAtNothing(Told):
    told = {"points": {"target": "last"}}  # noqa: RUF012


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (TakesNaN, "an illegal action is accepted at match 5, seat 0"),
        (ClampsTheAim, "an illegal action is accepted at match 5, seat 0"),
        (ClampsTheMove, "an illegal action is accepted at match 5, seat 0"),
        (ClampsAUsedTarget, "an illegal action is accepted at match 5, seat 0"),
        (TakesAnyDial, "an illegal action is accepted at match 5, seat 1"),
        (TakesAnySwitch, "an illegal action is accepted at match 5, seat 1"),
        (NoBotOfTheHelper, "bot 'half' is of 1 groups"),
        (HelperBotActsIllegally, "seat 1: .*illegal"),
        (SameNames, "are not 2 names, all different"),
        (RestartOfNoneClears, "restart of no match changes the view"),
        (Raises, "raises in legal play: match .*AttributeError"),
        (DropsInPlay, "is dropped, but not over"),
        (UnseenStateIsNaN, "privileged '' is not in Box"),
        (PrivilegedDependsOnTheSlot, "depends on its slot"),
        (NoPrivilegedSpace, "one of privileged and privileged_space"),
        (UnevenlyPaid, "do not sum to 0"),
        (UsesNoLeaf, "uses 'targets' is of no action leaf"),
        (UsesByABox, "depends on 'aim', which is not another leaf that is Discrete"),
        (UsesNoChoice, r"names \[0\]"),
        (PointsAtNothing, "points 'target' .* does not fit obs 'last'"),
    ],
)
def test_a_broken_game_of_many_kinds_is_caught(broken, message):
    with pytest.raises((AssertionError, GameError), match=message):
        check(broken, num_steps=30)
