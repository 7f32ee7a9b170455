"""Implementations by name, and requirements."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from tests.unit.written import builtins

from recipe_engine.descriptors import Method, Requirement
from recipe_engine.errors import StageFailed, UnfitEnvironment
from recipe_engine.lazy import bugs_named, check_symbols, load_symbol, unmet


def test_a_name_is_imported_when_it_is_asked_for() -> None:
    assert load_symbol("recipe_engine.descriptors:Method") is Method


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:Name", "no_such_module:Name cannot be loaded: No module named 'no_such_module'."),
        (
            "recipe_engine.descriptors:Nmae",
            "recipe_engine.descriptors:Nmae cannot be loaded: module 'recipe_engine.descriptors'",
        ),
        ("recipe_engine.contract", "recipe_engine.contract cannot be loaded: module 'recipe_engine.contract' has no"),
    ],
)
def test_a_name_that_does_not_exist_says_why(name: str, says: str) -> None:
    with pytest.raises(UnfitEnvironment) as refused:
        load_symbol(name)
    assert str(refused.value).startswith(says)
    assert isinstance(refused.value.__cause__, ImportError | AttributeError)


def test_versions_that_will_do() -> None:
    assert [*unmet([Requirement(package="pluggy"), Requirement(package="pluggy", specifier=">=1.5,<100")])] == []


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    (refused,) = unmet([Requirement(package="pluggy"), Requirement(package="no-such-package", extra="nf4")])
    assert refused.message == "no-such-package is not installed."
    assert refused.hint == 'Install it: pip install "recipe-engine[nf4]"'


def test_a_package_that_is_too_old_is_named_with_both_versions() -> None:
    (refused,) = unmet([Requirement(package="pluggy", specifier=">=99")])
    assert refused.message == f"pluggy {version('pluggy')} is installed, >=99 is needed."


def test_symbols_that_are_there_and_one_that_is_not() -> None:
    check_symbols([Requirement(package="pluggy", symbols=("pluggy:PluginManager",)), Requirement(package="x")])
    with pytest.raises(UnfitEnvironment, match="pluggy:PluginManger cannot be loaded"):
        check_symbols([Requirement(package="pluggy", symbols=("pluggy:PluginManger",))])


def test_the_builtin_methods_need_what_they_say_and_it_is_here() -> None:
    for registered in builtins().methods.values():
        assert [*unmet(registered.descriptor.requires)] == []


def test_what_a_plugin_needs_is_named_itself_as_the_engine_has_no_extra_for_it() -> None:
    needed = Requirement(package="no-such-package", specifier=">=2,<3")
    (refused,) = unmet([needed], "recipe-dpo")
    assert refused.hint == 'Install it: pip install "no-such-package>=2,<3"'


def test_a_bug_of_a_plugin_names_it_and_keeps_its_traceback() -> None:
    empty: dict[str, str] = {}
    with pytest.raises(StageFailed) as failed, bugs_named("recipe-dpo"):
        empty["nothing"]
    assert failed.value.message == "KeyError: 'nothing'"
    assert failed.value.hint == "This is a bug of the plugin recipe-dpo, not of the recipe."
    (note,) = failed.value.__notes__
    assert note.startswith("Traceback (most recent call last):")
    assert 'empty["nothing"]' in note


@pytest.mark.parametrize(("plugin", "error"), [("", KeyError("a")), ("recipe-dpo", UnfitEnvironment("b"))])
def test_our_own_bugs_and_what_a_user_can_mend_stay_as_they_are(plugin: str, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, bugs_named(plugin):
        raise error
    assert raised.value is error
