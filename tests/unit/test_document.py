"""What a recipe's bytes become: positions by hand, and each refusal as the user reads it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recipe_engine.document import (
    MAX_BYTES,
    MAX_DEPTH,
    Document,
    KeyPath,
    Position,
    dotted,
    parse,
    parse_value,
    read,
)
from recipe_engine.errors import InvalidRecipe, Problem, UnresolvedInput

NO_DATES = "dates and times have no place in a recipe, found"
VALUES = "Text goes in double quotes; true and false are in lower case."
ESCAPES = "A backslash itself is written \\\\."
CONTROL = "Line breaks and other control characters are written as escapes, such as \\n."
FINITE = "NaN and infinities have no place in a recipe."
LATER = "and nothing can be added to it. Write the table in one place."
UNREAD = "the file cannot be read:"
TWICE = "Keep one of the two."
EMPTY = 'the recipe is empty. It begins with version = 1, in JSON with "version": 1.'
SURROGATE = "expected text, found a NUL or half of a surrogate pair. Remove the escape that spells it."
DEEP = f"tables and arrays are nested more than {MAX_DEPTH} deep. Flatten them."
LONG = f"expected a number or a word of at most 640 characters, found a longer one. {VALUES}"
BIG = "The largest is 9223372036854775807."
OPEN_TOML = "the string that begins here is not closed. Text over several lines goes in three quotes."


def toml(text: str | bytes) -> Document:
    return parse(text if isinstance(text, bytes) else text.encode(), "r.toml", syntax="toml")


def json_(text: str | bytes) -> Document:
    return parse(text if isinstance(text, bytes) else text.encode(), "r.json", syntax="json")


def refusals(text: str | bytes, suffix: str) -> list[str]:
    with pytest.raises(InvalidRecipe) as refused:
        toml(text) if suffix == "toml" else json_(text)
    return [str(problem).removeprefix(f"r.{suffix}:") for problem in refused.value.problems]


def places(document: Document) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Key and value position by dotted path."""
    return {
        dotted(path): (
            (key.line, key.column),
            (document.values[path].line, document.values[path].column),
        )
        for path, key in document.keys.items()
    }


def test_positions_in_toml() -> None:
    document = toml(
        "# comment [x]\n"
        "version = 1\n"
        "[model]  # why\n"
        "base = 'hub:a/b'\n"
        "[train.sft]\n"
        'a.b . "c.d" = -1.5e+3\n'
        "modules = [\n"
        '  "q", # ]\n'
        "  { x = 1, y.z = [] },\n"
        "]\n"
        "[train]\n"
        "last = true\n"
    )
    assert places(document) == {
        "version": ((2, 1), (2, 11)),
        "model": ((3, 2), (3, 1)),
        "model.base": ((4, 1), (4, 8)),
        "train": ((11, 2), (11, 1)),
        "train.sft": ((5, 8), (5, 1)),
        "train.sft.a": ((6, 1), (6, 1)),
        "train.sft.a.b": ((6, 3), (6, 3)),
        'train.sft.a.b."c.d"': ((6, 7), (6, 15)),
        "train.sft.modules": ((7, 1), (7, 11)),
        "train.sft.modules[0]": ((8, 3), (8, 3)),
        "train.sft.modules[1]": ((9, 3), (9, 3)),
        "train.sft.modules[1].x": ((9, 5), (9, 9)),
        "train.sft.modules[1].y": ((9, 12), (9, 12)),
        "train.sft.modules[1].y.z": ((9, 14), (9, 18)),
        "train.last": ((12, 1), (12, 8)),
    }
    assert document.tree["train"]["sft"]["a"] == {"b": {"c.d": -1500.0}}


def test_positions_of_arrays_of_tables() -> None:
    document = toml("[[a.b]]\nx = 1\n[[ a.b ]]\n[a.b.c]\ny = 2\n[[a.b.d]]\n[a]\nz = 3\n")
    assert places(document) == {
        "a": ((7, 2), (7, 1)),
        "a.b": ((1, 5), (1, 1)),
        "a.b[0]": ((1, 5), (1, 1)),
        "a.b[0].x": ((2, 1), (2, 5)),
        "a.b[1]": ((3, 6), (3, 1)),
        "a.b[1].c": ((4, 6), (4, 1)),
        "a.b[1].c.y": ((5, 1), (5, 5)),
        "a.b[1].d": ((6, 7), (6, 1)),
        "a.b[1].d[0]": ((6, 7), (6, 1)),
        "a.z": ((8, 1), (8, 5)),
    }
    assert document.tree == {"a": {"b": [{"x": 1}, {"c": {"y": 2}, "d": [{}]}], "z": 3}}


def test_a_table_that_headers_only_mention_stands_where_it_is_mentioned_first() -> None:
    assert places(toml("[a.b]\n[a.c]\n")) == {
        "a": ((1, 2), (1, 2)),
        "a.b": ((1, 4), (1, 1)),
        "a.c": ((2, 4), (2, 1)),
    }


def test_positions_after_strings_that_look_like_structure() -> None:
    document = toml(
        'a = """""x"""""\n'
        "b = '''\n[no]\nk = 1 ' '' '''''\n"
        'c = "\\"] # no"\n'
        "d = '[[' # yes [\n"
        "'e f' = 1\n"
        '"\\u0067" = ""\n'
        "1.5 = ''\n"
    )
    assert document.tree["a"] == '""x""'
    assert document.tree["b"].endswith("' '' ''")
    assert places(document) == {
        "a": ((1, 1), (1, 5)),
        "b": ((2, 1), (2, 5)),
        "c": ((5, 1), (5, 5)),
        "d": ((6, 1), (6, 5)),
        '"e f"': ((7, 1), (7, 9)),
        "g": ((8, 1), (8, 12)),
        "1": ((9, 1), (9, 1)),
        "1.5": ((9, 3), (9, 7)),
    }


def test_positions_in_json() -> None:
    document = json_('{"version": 1,\n "a\\u0041\\ud83d\\ude00": [1e+16, {"b": null}],\n\t"": {"\\"": []}}')
    assert document.tree == {"version": 1, "aA😀": [1e16, {"b": None}], "": {'"': []}}
    assert places(document) == {
        "version": ((1, 2), (1, 13)),
        '"aA😀"': ((2, 2), (2, 25)),
        '"aA😀"[0]': ((2, 26), (2, 26)),
        '"aA😀"[1]': ((2, 33), (2, 33)),
        '"aA😀"[1].b': ((2, 34), (2, 39)),
        '""': ((3, 2), (3, 6)),
        '""."\\""': ((3, 7), (3, 13)),
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_columns_count_characters_and_no_byte_order_mark(mark: bytes, end: str) -> None:
    document = toml(mark + f'a = ["é😀", 1]{end}"ü" = 2{end}'.encode())
    assert places(document) == {
        "a": ((1, 1), (1, 5)),
        "a[0]": ((1, 6), (1, 6)),
        "a[1]": ((1, 12), (1, 12)),
        '"ü"': ((2, 1), (2, 7)),
    }
    assert document.source.startswith(mark)
    same = json_(mark + f'{{"é😀": 1,{end} "b": 2}}'.encode())
    assert places(same) == {'"é😀"': ((1, 2), (1, 8)), "b": ((2, 2), (2, 7))}


def test_places_are_a_mapping() -> None:
    document = toml("a = [1]\n")
    assert dict(document.keys) == {("a",): Position(1, 1), ("a", 0): Position(1, 6)}
    assert document.keys == toml("a = [2]\n").keys
    assert len(document.values) == 2
    assert ("b",) not in document.values


def test_a_path_that_is_not_there_has_its_nearest_ancestors_place() -> None:
    document = toml("x = 1\n[a.b]\nc = 1\n")
    assert document.key_position(("a", "b", "new", 3)) == Position(2, 4)
    assert document.value_position(("a", "b", "c", "d")) == Position(3, 5)
    assert document.value_position(("a", "b")) == Position(2, 1)
    assert document.key_position(("new",)) == document.value_position(()) == Position(1, 1)


def test_a_problem_stands_at_the_key_or_the_value() -> None:
    document = toml("a.b = 1\n")
    assert document.problem(("a", "b"), "no.") == Problem("r.toml", 1, 3, "a.b", "no.", "")
    assert document.problem(("a", "b"), "no.", "Yes.", at="value") == Problem("r.toml", 1, 7, "a.b", "no.", "Yes.")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("train", "sft", "target_modules", 2), "train.sft.target_modules[2]"),
        (("gate", "rouge.rougeL"), 'gate."rouge.rougeL"'),
        (("a", 0, 1, "b"), "a[0][1].b"),
        (("", "é", 'q"'), '""."é"."q\\""'),
        (("a\nb", "\ud800"), '"a\\nb"."\\ud800"'),
    ],
)
def test_dotted(path: KeyPath, text: str) -> None:
    assert dotted(path) == text


REFUSED_TOML = {
    # What is no text.
    "": f"1:1: {EMPTY}",
    " \t\r\n\n# only [a] comment": f"1:1: {EMPTY}",
    "\ufeff": f"1:1: {EMPTY}",
    "a = 1\nb = '\0'": "2:6: expected UTF-8 text, found a NUL character. Save the file as UTF-8.",
    # Syntax.
    "a = \n": f"1:5: expected a value, found the end of the line. {VALUES}",
    "a = \r\n": f"1:5: expected a value, found the end of the line. {VALUES}",
    "a =": f"1:4: expected a value, found the end of the file. {VALUES}",
    "a = True": f"1:5: expected a value, found 'True'. {VALUES}",
    "a": "1:2: expected '=' after the key, found the end of the file. A pair is written key = value.",
    "a: 1": "1:2: expected '=' after the key, found ':'. A pair is written key = value.",
    "a = 1 2": "1:7: expected the end of the line, found '2'. A list goes in brackets.",
    'a = "b", "c"': "1:8: expected the end of the line, found ','. A list goes in brackets.",
    "x = 1\r\n[a b]": "2:4: expected the end of the table's header, found 'b'. It is written [stage.method].",
    "[[a]\n": "1:4: expected the end of the table's header, found ']'. It is written [stage.method].",
    "= 1": "1:1: expected a key or a [table], found '='. A comment begins with #.",
    "a.é = 1": "1:3: expected a key, found 'é'. Other keys than letters, digits, _ and - are quoted.",
    "a = [1 2]": "1:8: expected ',' or ']' in the array, found '2'. Commas stand between items.",
    "a = [1,\n": f"2:1: expected a value, found the end of the file. {VALUES}",
    "a = {b = 1": "1:11: expected ',' or '}' in the table, found the end of the file. It stands on one line.",
    "a = 1\rb = 2": "1:6: expected the end of the line, found '\\r'. A list goes in brackets.",
    "# a\rb": f"1:4: a string or comment cannot hold '\\r' as it is. {CONTROL}",
    'a = "\x01"': f"1:6: a string cannot hold '\\x01' as it is. {CONTROL}",
    "a = " + "é" * 50: f"1:5: expected a value, found '{'é' * 40}…'. {VALUES}",
    # Strings.
    'a = "x\n[b]\n': f"1:5: {OPEN_TOML}",
    "a = 'x\n": f"1:5: {OPEN_TOML}",
    'a = 1\nb = """x\n': f"2:5: {OPEN_TOML}",
    "a = '''x''": f"1:5: {OPEN_TOML}",
    'a = "é\\d"': f"1:7: expected a known escape after the backslash. {ESCAPES}",
    'a = """\n\\ud80x"""': f"2:1: expected hexadecimal digits in this escape. {ESCAPES}",
    'a = "\\ud800"': f"1:6: this escape does not spell a character. {ESCAPES}",
    # Values.
    "a = nan": f"1:5: a: expected a finite number, found 'nan'. {FINITE}",
    "[t]\na = [1.0, -inf]": f"2:11: t.a[1]: expected a finite number, found '-inf'. {FINITE}",
    "a = 1e999": f"1:5: a: expected a finite number, found '1e999'. {FINITE}",
    "a = 9223372036854775808": f"1:5: a: expected an integer of 64 bits, found '9223372036854775808'. {BIG}",
    "a = " + "9" * 5000: f"1:5: {LONG}",
    "a = 0x" + "f" * 5000: f"1:5: {LONG}",
    "a = 1979-05-27 07:32:00Z": f"1:5: a: {NO_DATES} '1979-05-27'. {VALUES}",
    "a = { b = 07:32:00 }": f"1:11: a.b: {NO_DATES} '07'. {VALUES}",
    "a = 2000-02-30": f"1:5: {NO_DATES} '2000-02-30'. {VALUES}",
    'a = "\\u0000"': f"1:5: a: {SURROGATE}",
    '"\\u0000" = 1': f'1:1: "\\u0000": {SURROGATE}',
    # Defined twice.
    "a = 1\nb = 2\na = 3": f"3:1: a: this key was given before, at line 1, column 1. {TWICE}",
    "a = 1\r\n'a' = 3\r\n": f"2:1: a: this key was given before, at line 1, column 1. {TWICE}",
    "[t]\na.b = 1\n[t.u]\n[t.a]\n": f"4:1: t.a: this key was given before, at line 2, column 1. {TWICE}",
    "[t.u]\n[t]\n[t]": f"3:1: t: this key was given before, at line 2, column 2. {TWICE}",
    "[[t]]\n[t]": f"2:1: t: this key was given before, at line 1, column 3. {TWICE}",
    "[t]\n[[t]]": f"2:1: t: this key was given before, at line 1, column 2. {TWICE}",
    "[[t]]\nk = {a = 1, a = 2}": f"2:13: t[0].k.a: this key was given before, at line 2, column 6. {TWICE}",
    "k = [{a = 1},\n{a = 1, a = 2}]": f"2:9: k[1].a: this key was given before, at line 2, column 2. {TWICE}",
    "a = {b = [1,\n2]}\na = {b = 1}": f"3:1: a: this key was given before, at line 1, column 1. {TWICE}",
    "a = 1\na.b = 2": f"2:1: a.b: a was given at line 1, column 1, {LATER}",
    "a = {}\n[a.b]": f"2:1: a.b: a was given at line 1, column 1, {LATER}",
    "[a.b]\n[a]\nb.c = 2": f"3:1: a.b.c: a.b was given at line 1, column 4, {LATER}",
    # Nesting.
    "a = " + "[" * MAX_DEPTH: f"1:68: {DEEP}",
    "[t]\na = " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1): f"2:67: {DEEP}",
    "x = 1\n" + "a." * 500 + "b = 1": f"2:130: {DEEP}",
}

REFUSED_JSON = {
    "": f"1:1: {EMPTY}",
    " \r\n": f"1:1: {EMPTY}",
    "{}": f"1:1: {EMPTY}",
    "\ufeff\ufeff{}": "1:1: the file cannot be parsed: Unexpected UTF-8 BOM (decode using utf-8-sig). "
    "Compare it with a recipe that works.",
    '{"a":\n"\0"}': "2:2: expected UTF-8 text, found a NUL character. Save the file as UTF-8.",
    # The root.
    " [1]": "1:2: expected an object in braces, found '['. A recipe is one JSON object.",
    "null": "1:1: expected an object in braces, found 'null'. A recipe is one JSON object.",
    "NaN": "1:1: expected an object in braces, found 'NaN'. A recipe is one JSON object.",
    "{}\n{}": "2:1: expected the end of the file, found '{'. A recipe is one JSON object.",
    # Syntax.
    '{"a": 1,\n}': "2:1: expected a key in double quotes, found '}'. No comma follows the last.",
    "{'a': 1}": '1:2: expected a key in double quotes, found "\'". No comma follows the last.',
    '{"a" 1}': "1:6: expected ':' after the key, found '1'. A pair is written \"key\": value.",
    '{"a": 1 "b": 2}': "1:9: expected ',' or a closing bracket, found '\"'. Commas stand between items.",
    '{"a": [1': "1:9: expected ',' or a closing bracket, found the end of the file. Commas stand between items.",
    '{"é": True}': f"1:7: expected a value, found 'True'. {VALUES}",
    '{"a": [1,]}': f"1:10: expected a value, found ']'. {VALUES}",
    '{"a":\n': f"2:1: expected a value, found the end of the file. {VALUES}",
    "// a\n{}": f"1:1: expected a value, found '/'. {VALUES}",
    '{"a": "x': "1:7: the string that begins here is not closed. It ends with a double quote.",
    '{"a": "x\n"}': f"1:9: a string cannot hold the end of the line as it is. {CONTROL}",
    '{"a": "x\t"}': f"1:9: a string cannot hold '\\t' as it is. {CONTROL}",
    '{"a": "\\x"}': f"1:8: expected a known escape after the backslash. {ESCAPES}",
    '{"a": "\\u12"}': f"1:9: expected four hexadecimal digits after \\u. {ESCAPES}",
    # Values.
    '{"a": NaN}': f"1:7: a: expected a finite number, found 'NaN'. {FINITE}",
    '{"a": [-Infinity]}': f"1:8: a[0]: expected a finite number, found '-Infinity'. {FINITE}",
    '{"a": 1e999}': f"1:7: a: expected a finite number, found '1e999'. {FINITE}",
    '{"a": -9223372036854775809}': f"1:7: a: expected an integer of 64 bits, found '-9223372036854775809'. {BIG}",
    '{"a": ' + "1" * 5000 + "}": f"1:7: {LONG}",
    '{"a": "\\ud800"}': f"1:7: a: {SURROGATE}",
    '{"a": "\\ude00\\ud83d"}': f"1:7: a: {SURROGATE}",
    '{"a": {"\\ud800": 1}}': f'1:8: a."\\ud800": {SURROGATE}',
    '{"a": "\\u0000"}': f"1:7: a: {SURROGATE}",
    # Nesting.
    '{"a": ' + "[" * 500: f"1:70: {DEEP}",
    '{"a":' * 65: f"1:321: {DEEP}",
}


@pytest.mark.parametrize(("text", "message"), REFUSED_TOML.items(), ids=range(len(REFUSED_TOML)))
def test_what_toml_is_refused(text: str, message: str) -> None:
    assert refusals(text, "toml") == [message]


@pytest.mark.parametrize(("text", "message"), REFUSED_JSON.items(), ids=range(len(REFUSED_JSON)))
def test_what_json_is_refused(text: str, message: str) -> None:
    assert refusals(text, "json") == [message]


@pytest.mark.parametrize("suffix", ["toml", "json"])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"\xff\xfea\0", "1:1: expected UTF-8 text, found the byte 0xff. Save the file as UTF-8."),
        (
            b"\xef\xbb\xbf#\xc3\xa9\n#\xc3\xa9\xe9\n",
            "2:3: expected UTF-8 text, found the byte 0xe9. Save the file as UTF-8.",
        ),
        (
            b"# \xed\xa0\x80",
            "1:3: expected UTF-8 text, found the byte 0xed. Save the file as UTF-8.",
        ),
        (
            b"#" * (MAX_BYTES + 1),
            "1:1: the recipe is larger than 1,048,576 bytes (1 MiB). Data goes in files of its own.",
        ),
    ],
)
def test_what_bytes_are_refused(source: bytes, message: str, suffix: str) -> None:
    assert refusals(source, suffix) == [message]


def test_all_unfit_values_are_named_at_once() -> None:
    assert refusals('a = nan\nb = [2000-01-01]\n[c]\n"\\u0000" = "\\u0000"\n', "toml") == [
        f"1:5: a: expected a finite number, found 'nan'. {FINITE}",
        f"2:6: b[0]: {NO_DATES} '2000-01-01'. {VALUES}",
        f'4:1: c."\\u0000": {SURROGATE}',
        f'4:12: c."\\u0000": {SURROGATE}',
    ]


def test_all_repeated_json_keys_are_named_with_both_places() -> None:
    assert refusals('{"a": {"b": 1, "\\u0062": 2},\n "a": NaN, "c": 1, "a": 3}', "json") == [
        f"1:16: a.b: this key was given before, at line 1, column 8. {TWICE}",
        f"2:2: a: this key was given before, at line 1, column 2. {TWICE}",
        f"2:20: a: this key was given before, at line 1, column 2. {TWICE}",
    ]


@pytest.mark.parametrize("value", [(1 << 63) - 1, -(1 << 63)])
def test_integers_of_64_bits_are_accepted(value: int) -> None:
    assert toml(f"a = {value}").tree == json_(f'{{"a": {value}}}').tree == {"a": value}


def test_both_syntaxes_nest_equally_deep() -> None:
    inside = MAX_DEPTH - 1
    arrays = "[" * inside + "1" + "]" * inside
    shallow = toml(f"a = {arrays}")
    assert shallow.tree == json_(f'{{"a": {arrays}}}').tree
    assert max(map(len, shallow.keys)) == MAX_DEPTH
    header = ".".join("a" * inside)
    assert max(map(len, toml(f"[{header}]\nb = 1\n").keys)) == MAX_DEPTH
    assert refusals(f"[{header}]\nb = []\n", "toml") == [f"2:5: {DEEP}"]
    assert refusals(f"a = [{arrays}]", "toml") == [f"1:68: {DEEP}"]
    assert refusals(f'{{"a": [{arrays}]}}', "json") == [f"1:70: {DEEP}"]


@pytest.mark.parametrize("opening", ["[", '{"a":', "a=[", "a={a=", "a.", "[a."])
@pytest.mark.parametrize("suffix", ["toml", "json"])
@pytest.mark.parametrize("size", [MAX_BYTES, 10 * MAX_BYTES])
def test_hostile_nesting_is_refused_fast(opening: str, suffix: str, size: int) -> None:
    source = (opening * (size // len(opening))).encode()
    start = time.process_time()
    refusals(source, suffix)
    assert time.process_time() - start < 2


def test_read_takes_the_syntax_from_the_suffix(tmp_path: Path) -> None:
    for name, text in {"a.toml": "a = 1", "a.TOML": "a = 1", "a.json": '{"a": 1}'}.items():
        (tmp_path / name).write_text(text)
        document = read(tmp_path / name)
        assert (document.file, document.tree) == (str(tmp_path / name), {"a": 1})
        assert document.source == text.encode()


@pytest.mark.parametrize(("name", "found"), [("a.yaml", ".yaml"), ("recipe", "no suffix")])
def test_read_knows_two_suffixes(name: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("a = 1")
    with pytest.raises(InvalidRecipe) as refused:
        read(name)
    assert [str(problem) for problem in refused.value.problems] == [
        f"{name}: expected a file that ends in .toml or .json, found {found}. Name the file after its syntax."
    ]


def test_read_says_why_a_file_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d.toml").mkdir()
    Path("loop.toml").symlink_to("loop.toml")
    messages = {
        "no.toml": "no.toml: there is no such file. Check the path of the recipe.",
        "d.toml": "d.toml: this is a directory. Name the recipe in it.",
        "loop.toml": f"loop.toml: {UNREAD} Too many levels of symbolic links. Check the path of the recipe.",
        "\0.toml": f"\0.toml: {UNREAD} its name holds a NUL character. Check the path of the recipe.",
    }
    for name, message in messages.items():
        with pytest.raises(UnresolvedInput) as refused:
            read(name)
        assert str(refused.value) == message


def test_read_does_not_load_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(InvalidRecipe, match=r"large\.toml:1:1: the recipe is larger than 1,048,576 bytes"):
        read(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        (" 3 ", 3),
        ("true", True),
        ('"a b"', "a b"),
        ("'#'", "#"),
        ("[1, 'x']", [1, "x"]),
        ("{ a.b = 1 }", {"a": {"b": 1}}),
        ("abc", "abc"),
        ("hub:owner/model", "hub:owner/model"),
        ("./mine.py", "./mine.py"),
        ("train[:95%]", "train[:95%]"),
        ("a=b#c", "a=b#c"),
        ("truely", "truely"),
        ("é", "é"),
    ],
)
def test_one_value(text: str, value: Any) -> None:
    assert parse_value(text) == value


MORE = "expected one value, found more. Text goes in quotes."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a value, found nothing."),
        (" ", "expected a value, found nothing."),
        ("nan", f"expected a finite number, found 'nan'. {FINITE}"),
        ("-inf", f"expected a finite number, found '-inf'. {FINITE}"),
        ("NaN", f"expected a value, found 'NaN'. {VALUES}"),
        ("True", f"expected a value, found 'True'. {VALUES}"),
        ("None", f"expected a value, found 'None'. {VALUES}"),
        (".5", f"expected a value, found '.5'. {VALUES}"),
        ("a b", f"expected a value, found 'a'. {VALUES}"),
        ("2000-01-01", f"{NO_DATES} '2000-01-01'. {VALUES}"),
        ("12px", "expected the end of the line, found 'px'. A list goes in brackets."),
        ("1\nb = 2", MORE),
        ("1 # c", MORE),
        ("1\n[b]", MORE),
        ("1\nvalue = 2", f"this key was given before, at line 1, column 1. {TWICE}"),
        ("\udcff", "the value is not UTF-8."),
        ("[" * 100, DEEP),
    ],
)
def test_what_is_not_one_value(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        parse_value(text)
    assert str(refused.value) == message


def test_the_import_is_light() -> None:
    probe = (
        "import sys, recipe_engine; before = set(sys.modules); import recipe_engine.document;"
        "new = set(sys.modules) - before;"
        "print(*sorted(name for name in new if name.split('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True, text=True)
    assert done.stdout.split() == [
        "recipe_engine._positions",
        "recipe_engine.document",
        "recipe_engine.errors",
    ]
