"""Command-line options made of the configuration's keys, and checked by the configuration itself."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from selfplay import config as configuration
from selfplay.errors import UserError

TABLES = ("env.kwargs", "env.train_kwargs", "policy.uses", "policy.points", "policy.parts", "league.mix")


class Parser(argparse.ArgumentParser):
    """argparse with whole option names, and with every mistake as one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Wide, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        values, unknown = self.parse_known_intermixed_args(args, namespace)  # play A --games 10 B
        self._refuse(unknown)
        return values

    def _refuse(self, words: Sequence[str]) -> None:
        for word in words:
            if word.startswith("-"):
                raise UserError(f"unknown option {word}{self._nearest(word.partition('=')[0])}")
        if words:
            raise UserError(f"unexpected argument {words[0]!r}; see {self.prog} --help")

    def _nearest(self, word: str) -> str:
        names = [name for action in self._actions for name in action.option_strings]
        ends = [name for name in names if name.rpartition(".")[2] == word.lstrip("-")]
        close = ends or difflib.get_close_matches(word, names, n=1)
        return f"; nearest: {close[0]}" if close else f"; {self.prog} --help lists them all"


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)


def whole(low: int) -> Any:
    """argparse's type of integers of at least `low`."""

    def whole(text: str) -> int:
        value = int(text)
        if value < low:
            raise ValueError(text)
        return value

    whole.__name__ = f"whole number >= {low}"  # argparse names it: "invalid ... value: '0'"
    return whole


@dataclass(frozen=True, slots=True)
class Parsed:
    """A command line taken apart."""

    config: str | None  # CONFIG, if given
    overrides: dict[str, Any]  # value by dotted key of the configuration
    options: argparse.Namespace  # the command's own options


class ConfigParser(Parser):
    """CONFIG and `--section.key value` for every key; a command adds options of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(add_help=False, **options)
        self.add_argument("-h", "--help", action="store_true", help="explain every option, and end")
        self._kinds: dict[str, str] = {}
        self._keys: dict[str, argparse.Action] = {}
        groups: dict[str, Any] = {}
        for key, description, default, kind in configuration.leaves():
            section = key.rpartition(".")[0] or "run"
            if section not in groups:
                groups[section] = self.add_argument_group(section)
            self._kinds[key] = kind
            self._keys[key] = _add(groups[section], key, kind, description)
            self._keys[key].default = default

    def parse(self, argv: Sequence[str]) -> Parsed:
        """Take a command line apart; for --help print it and raise SystemExit(0)."""
        words, kwargs = take_kwargs(argv)
        defaults = {key: action.default for key, action in self._keys.items()}
        for action in self._keys.values():
            action.default = argparse.SUPPRESS
        namespace, left = self.parse_known_args(words)
        config = left.pop(0) if left and not left[0].startswith("-") else None
        self._refuse(left)
        if namespace.help:
            self._print_help(defaults, config)
            raise SystemExit(0)
        values = vars(namespace)
        given = {key: _typed(values.pop(key), self._kinds[key]) for key in self._keys if key in values}
        return Parsed(config, given | kwargs, namespace)

    def _print_help(self, defaults: Mapping[str, Any], config: str | None) -> None:
        """Explain every key with the default that CONFIG gives it."""
        table = configuration.read(configuration.find(config)) if config else {}
        for key, action in self._keys.items():
            section, _, name = key.rpartition(".")
            value = (table.get(section, {}) if section else table).get(name, defaults[key])
            default = "must be given" if value is None and key == "env.id" else f"default: {_shown(value)}"
            action.help = f"{action.help} ({default})".replace("%", "%%")
        self.print_help()


def _add(group: Any, key: str, kind: str, description: str) -> argparse.Action:
    is_table = key in TABLES
    flag = f"--{key.replace('_', '-')}"
    is_plain = kind.startswith(
        ("one of", "true or", "text", "non-empty text", "a table")
    )  # the metavar says it all
    action: argparse.Action = group.add_argument(
        f"{flag}.KEY" if is_table else flag,
        dest=key,
        nargs="*" if kind.startswith("a list") else None,
        metavar="VALUE" if is_table else _metavar(kind),
        help=description if is_plain else f"{description}; {kind}",
    )
    return action


def take_kwargs(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take out `--env.kwargs.KEY VALUE` and its like, and spell the other options with hyphens."""
    rest, kwargs = [], {}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        dotted = name.removeprefix("--").replace("-", "_")
        if word.startswith("--") and any(dotted.startswith(f"{table}.") for table in TABLES):
            text = value if equals else next(words, None)
            if text is None:
                raise UserError(f"{name} needs a value")
            kwargs[dotted] = _scalar(text)
        else:
            rest.append(name.replace("_", "-") + equals + value if word.startswith("--") else word)
    return rest, kwargs


def _typed(text: str | list[str], kind: str) -> Any:
    """The value that words on the command line mean for a key."""
    if isinstance(text, str):
        return text if kind.endswith("text") else _scalar(text)
    items = [item if kind.endswith("text") and not item.startswith("[") else _scalar(item) for item in text]
    return items[0] if len(items) == 1 and isinstance(items[0], list) else items


def _scalar(text: str) -> Any:
    """A TOML value, or the text itself."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _metavar(kind: str) -> str:
    if kind.startswith("one of "):
        return "|".join(kind.removeprefix("one of ").split(", "))
    if kind == "true or false":
        return "true|false"
    starts = {"an integer": "N", "a number": "X", "a list": "VALUE", "non-empty": "TEXT"}
    return next(metavar for start, metavar in starts.items() if kind.startswith(start))


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) or "empty"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
