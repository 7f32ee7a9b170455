"""``recipe explain``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from recipe_engine.cli.common import json_option, print_json

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from recipe_engine.explain import Entry

OUTPUT_VERSION = 1


def _keys(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from recipe_engine.explain import known_keys
    from recipe_engine.plugins import load_catalogue

    return [CompletionItem(key) for key in known_keys(load_catalogue()) if key.startswith(incomplete)]


@click.command()
@click.argument("key", default="", shell_complete=_keys)
@json_option
def command(key: str, as_json: bool) -> int:
    """Say what a key of a recipe means: its type, unit, default and bounds.

    KEY is an option (train.sft.learning_rate), a method (train.sft), a stage (train) or a table (model). Without it,
    the tables of a recipe are listed.
    """
    from recipe_engine.explain import explain
    from recipe_engine.plugins import load_catalogue

    found = explain(key, load_catalogue())
    if as_json:
        entries = [_entry_json(key, entry) for entry in found]
        print_json({"schema_version": OUTPUT_VERSION, "key": key, "found": entries})
        return 0
    click.echo("\n".join(_text(key, entry) for entry in found), nl=False)
    return 0


def _entry_json(key: str, entry: Entry) -> dict[str, Any]:
    prefix = f"{key}." if key else ""
    inside = [{**_about_json(inner), "key": f"{prefix}{inner.name}"} for inner in entry.inside]
    return {**_about_json(entry), "key": key, "inside": inside}


def _about_json(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "summary": entry.summary,
        "distribution": entry.brought_by or None,
        "format": entry.of or None,
        "reward": entry.judge or None,
        "option": _option_json(entry) if entry.option else None,
    }


def _option_json(entry: Entry) -> dict[str, Any]:
    from recipe_engine.explain import type_words
    from recipe_engine.schema import option_schema

    assert entry.option is not None
    declared = option_schema(entry.option)
    return {
        "type": type_words(entry),
        "unit": entry.option.about.unit or None,
        "required": entry.option.required,
        "default": declared.get("default"),
        "needs": entry.option.about.needs or None,
        "schema": declared,
    }


def _text(key: str, entry: Entry) -> str:
    """An entry for people: what it means, then its facts, then what can stand in it."""
    formatter = click.HelpFormatter(width=_width())
    if key:
        origin = f" (format {entry.of})" if entry.of else f" (reward {entry.judge})" if entry.judge else ""
        formatter.write(click.style(f"{key}{origin}", bold=True) + "\n")
    formatter.write_text(entry.summary)
    facts = _facts(entry)
    for rows in (facts, [(inner.name, _line(inner)) for inner in entry.inside]):
        if rows:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_dl(rows)
    return formatter.getvalue()


def _width() -> int:
    import shutil

    return min(shutil.get_terminal_size().columns, 120)


def _facts(entry: Entry) -> list[tuple[str, str]]:
    from recipe_engine.explain import bounds_words, type_words
    from recipe_engine.schema import needed

    brought_by = [("comes with", entry.brought_by)] if entry.brought_by else []
    if entry.option is None:
        return brought_by
    about = entry.option.about
    facts = {
        "type": type_words(entry),
        "unit": about.unit,
        "default": _default(entry),
        "bounds": bounds_words(about),
        "needs": needed(about),
    }
    return [(name, value) for name, value in facts.items() if value] + brought_by


def _line(entry: Entry) -> str:
    """An entry in the list of what it stands in."""
    of = f" Format {entry.of}." if entry.of else f" Reward {entry.judge}." if entry.judge else ""
    if entry.option is None:
        return f"{entry.summary}{of}"
    default = _default(entry)
    return f"{entry.summary}{of} [{default if entry.option.required else f'default: {default}'}]"


def _default(entry: Entry) -> str:
    from recipe_engine.schema import option_schema

    assert entry.option is not None
    if entry.option.required:
        return "must be given"
    value = option_schema(entry.option).get("default")
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
