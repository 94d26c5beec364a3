"""Speed in CI: a ratio to a fixed plain loop of the same run, never an absolute time.

Measured 1.7 and 2.4 (two cores of an EPYC, Zen 5); the bounds leave room for other processors and noise.
"""

from benchmarks import guard
from policies.lstm import LSTM
from selfplay.players import PolicyPlayer

ACTING, LEARNING = 1.1, 1.6


def test_we_are_faster_than_a_plain_loop():
    ratios = guard.measure()
    assert ratios.acting > ACTING
    assert ratios.learning > LEARNING


def test_a_slow_core_is_seen(monkeypatch):
    """The cell by its definition, in torch's own functions."""
    made = LSTM.__init__

    def plain(self, *arguments):
        made(self, *arguments)
        self.plain = True

    monkeypatch.setattr(LSTM, "__init__", plain)
    ratios = guard.measure()
    assert ratios.learning < LEARNING


def test_a_second_forward_is_seen(monkeypatch):
    decide = PolicyPlayer.decide

    def wasteful(self, *arguments):
        decide(self, *arguments)
        return decide(self, *arguments)

    monkeypatch.setattr(PolicyPlayer, "decide", wasteful)
    assert guard.measure().acting < ACTING
