"""The tables of a league's database, league.sqlite."""

from __future__ import annotations

SCHEMA = 2
"""Number of the table layout below, kept in the file's user_version."""

TABLES = """
CREATE TABLE committed (iteration INTEGER NOT NULL);
CREATE TABLE configs (
    id INTEGER PRIMARY KEY,
    toml TEXT NOT NULL UNIQUE      -- of the run, which says how to build a player's network
);
CREATE TABLE players (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('learning', 'snapshot', 'bot')),
    role TEXT CHECK (role IN ('main', 'main_exploiter', 'league_exploiter')),  -- null for bots
    parent TEXT REFERENCES players (name),
    version INTEGER,               -- of the published weights; null for what has none
    iteration INTEGER NOT NULL,    -- in which the player joined
    retired INTEGER,               -- iteration in which it left the pool; null while it is met
    agent_steps INTEGER,
    weights TEXT,                  -- SHA-256 of weights/SHA256.safetensors
    config INTEGER REFERENCES configs (id),
    quality REAL,                  -- of snapshots
    prior_mu REAL NOT NULL,        -- rating on joining
    prior_sigma REAL NOT NULL
);
CREATE TABLE lineups (id INTEGER PRIMARY KEY);
CREATE TABLE lineup_seats (
    lineup INTEGER NOT NULL REFERENCES lineups (id) ON DELETE CASCADE,
    seat INTEGER NOT NULL,
    player INTEGER NOT NULL REFERENCES players (id),
    PRIMARY KEY (lineup, seat)
) WITHOUT ROWID;
CREATE TABLE results (             -- how the matches of a lineup ended for each team
    iteration INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('train', 'rating', 'evaluation')),
    lineup INTEGER NOT NULL REFERENCES lineups (id),
    team INTEGER NOT NULL,
    matches INTEGER NOT NULL,
    wins INTEGER NOT NULL,         -- these three are 0 in games without winners
    draws INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    placement REAL NOT NULL,       -- sum of the team's places, 1 the best
    returns REAL NOT NULL,         -- sum of the mean returns of the team's seats
    PRIMARY KEY (iteration, kind, lineup, team)
) WITHOUT ROWID;
CREATE TABLE matches (             -- every match's seed: 8 bytes each, little-endian, as they ended
    iteration INTEGER NOT NULL,
    kind TEXT NOT NULL,
    lineup INTEGER NOT NULL REFERENCES lineups (id),
    seeds BLOB NOT NULL,
    PRIMARY KEY (iteration, kind, lineup)
) WITHOUT ROWID;
CREATE TABLE meetings (            -- of player with opponent, all kinds of matches together
    iteration INTEGER NOT NULL,
    player INTEGER NOT NULL REFERENCES players (id),
    opponent INTEGER NOT NULL REFERENCES players (id),
    team INTEGER NOT NULL,         -- that the player held
    wins INTEGER NOT NULL,
    draws INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    matches INTEGER NOT NULL,
    returns REAL NOT NULL,         -- sum of the player's
    PRIMARY KEY (iteration, player, opponent, team)
) WITHOUT ROWID;
CREATE TABLE payoffs (             -- the sums of meetings, and the same with old matches fading
    player INTEGER NOT NULL REFERENCES players (id),
    opponent INTEGER NOT NULL REFERENCES players (id),
    team INTEGER NOT NULL,
    wins INTEGER NOT NULL,
    draws INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    matches INTEGER NOT NULL,
    returns REAL NOT NULL,
    decayed_wins REAL NOT NULL,
    decayed_draws REAL NOT NULL,
    decayed_losses REAL NOT NULL,
    PRIMARY KEY (player, opponent, team)
) WITHOUT ROWID;
CREATE TABLE ratings (             -- history; the newest row of a player is its rating
    player INTEGER NOT NULL REFERENCES players (id),
    iteration INTEGER NOT NULL,
    mu REAL NOT NULL,
    sigma REAL NOT NULL,
    PRIMARY KEY (player, iteration)
) WITHOUT ROWID;
CREATE VIEW standings AS
    SELECT players.*, coalesce(rating.mu, prior_mu) AS mu, coalesce(rating.sigma, prior_sigma) AS sigma
    FROM players LEFT JOIN ratings AS rating ON rating.player = players.id AND rating.iteration =
        (SELECT max(iteration) FROM ratings WHERE player = players.id);
INSERT INTO committed VALUES (-1);
"""
