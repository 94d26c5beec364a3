"""What is wrong with a configuration, in one clear line: the key, its value, what is allowed, what is near.

A schema here is the JSON schema of the configuration or of one key, as pydantic makes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

NONE = "none"
"""What stands for None, which TOML lacks."""


def explain(problem: Any, source: str, overrides: Mapping[str, Any], config: Schema) -> str:
    """One line for one problem that pydantic found.

    source names what was validated, overrides holds what an option set instead; config is the schema of all.
    """
    path = [str(part) for part in problem["loc"]]
    key, schema = _locate(path, config)
    where = f"--{key.replace('_', '-')}" if key in overrides else source
    match problem["type"]:
        case "value_error":
            return f"{source}: {problem['ctx']['error']}"
        case "extra_forbidden":
            return f"{where}: unknown key {key}{_suggest(key, _keys(config))}"
        case "missing":
            key = "env.id" if key == "env" else key
            return f"{source}: {key} is missing; give it there or as --{key.replace('_', '-')}"
    value = problem["input"]
    if len(path) > len(key.split(".")) and path[len(key.split("."))].isdigit():
        key = f"{key}[{path[len(key.split('.'))]}]"
        schema = schema.get("items", schema)
    return f"{where}: {key}={shown(value)} is not allowed; it must be {allowed(schema)}"


def _locate(path: list[str], schema: Schema) -> tuple[str, Schema]:
    """The dotted key that an error's path means, without pydantic's union tags, and its schema."""
    definitions = schema["$defs"]
    key: list[str] = []
    for part in path[:2]:
        if key and "properties" not in schema:
            break
        key.append(part)
        schema = schema.get("properties", {}).get(part, {})
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    return ".".join(key), schema


def _keys(config: Schema) -> list[str]:
    """Every dotted key."""
    keys = []
    for name, schema in config["properties"].items():
        section = config["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else {}
        keys += [f"{name}.{key}" for key in section.get("properties", ())] or [name]
    return keys


def _suggest(key: str, known: list[str]) -> str:
    """ "; nearest: ..." for a key that is not among the known, first in its own section."""
    sections = list(dict.fromkeys(dotted.split(".")[0] for dotted in known))
    key = key.replace("-", "_")
    section, _, name = key.rpartition(".")
    if section in sections:
        siblings = [dotted.split(".")[1] for dotted in known if dotted.startswith(f"{section}.")]
        if close := difflib.get_close_matches(name, siblings, n=1):
            return f"; nearest: {section}.{close[0]}"
        if elsewhere := [dotted for dotted in known if dotted.split(".")[-1] == name]:
            return f"; nearest: {elsewhere[0]}"
        return f"; {section} has {', '.join(siblings)}"
    if elsewhere := [dotted for dotted in known if dotted.split(".")[-1] == name]:
        return f"; nearest: {elsewhere[0]}"
    return nearest(key, known + sections) or f"; there are {', '.join(sections)}"


def nearest(word: str, words: list[str]) -> str:
    """ "; nearest: ..." for a word that is not among the words; empty if none is near."""
    close = difflib.get_close_matches(word, words, n=1)
    return f"; nearest: {close[0]}" if close else ""


def allowed(schema: Schema) -> str:
    """What a JSON schema of ours allows, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind == "array":
        return f"a list, each {allowed(schema['items'])}"
    if schema.get("minLength"):
        return "non-empty text"
    bounds = [
        f"{sign} {schema[name]:g}" if schema[name] < 2**53 else f"{sign} 2^63"
        for name, sign in (
            ("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<")
        )
        if name in schema
    ]  # fmt: skip
    words = {
        "integer": "an integer", "number": "a number", "boolean": "true or false", "string": "text",
        "null": NONE, "object": "a table of keys",
    }  # fmt: skip
    return " ".join([words[str(kind)], " and ".join(bounds)]).strip()


def shown(value: Any) -> str:
    """A value as TOML has it, nearly."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def divisors(number: int) -> list[int]:
    """All that divide the number, ascending."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def listed(numbers: list[int]) -> str:
    """Numbers in a line; of many, the first and the last."""
    return (
        ", ".join(map(str, numbers))
        if len(numbers) <= 16
        else (", ".join(map(str, numbers[:15])) + f", ..., {numbers[-1]}")
    )
