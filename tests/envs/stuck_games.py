"""Games that cannot be examined in this process: one never comes back, one takes the process with it."""

from __future__ import annotations

import os
import time

from envs.connect_four import ConnectFour


class Sleeps(ConnectFour):
    def restart(self, games, seeds):
        time.sleep(600)


class Crashes(ConnectFour):
    def step(self, actions):
        os.abort()


class ForgetsTheTurn(ConnectFour):
    def step(self, actions):
        super().step(actions)
        self.to_act[self._matches.ply == 3] = False
