"""From a row to text: what stands where, what is learned, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import tiny

from recipe_engine.contract import Segment
from recipe_engine.errors import UnresolvedInput
from recipe_engine.methods.formats.conversation import conversation
from recipe_engine.methods.formats.templates import Chat, Instruction
from recipe_engine.methods.options import FormatChat, FormatInstruction, PromptFields
from recipe_engine.methods.prepare import load_tokenizer

TokenizerOf = Callable[..., Any]

REWRITES_EARLIER = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['role'] == 'assistant' and not loop.last %}(said){% else %}{{ message['content'] }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
REWRITES_PROMPT = (
    "{{ messages | length }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)
WITHOUT_END = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}x"


@pytest.fixture
def tokenizer_of(tmp_path: Path) -> TokenizerOf:
    """``tokenizer_of(**keywords)``: a tokenizer as ``tests.tiny.write_tokenizer`` makes it, opened by the engine."""

    def make(**keywords: Any) -> Any:
        return load_tokenizer(tiny.resolve(tiny.write_tokenizer(tmp_path / "tokenizer", **keywords)))

    return make


def learned(text: str) -> Segment:
    return Segment(text, supervised=True)


def given(text: str) -> Segment:
    return Segment(text, supervised=False)


def test_instruction_in_the_chat_template(tokenizer: Any) -> None:
    row = {"prompt": "Hi", "completion": "Hello"}
    assert Instruction().segments(row, FormatInstruction(), tokenizer) == [
        given("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        learned("Hello<|im_end|>"),
    ]


def test_instruction_with_fields_and_system(tokenizer: Any) -> None:
    options = FormatInstruction(fields=PromptFields(prompt="q", completion="a"), system="Be brief.")
    assert Instruction().segments({"q": "Hi", "a": "Hello"}, options, tokenizer) == [
        given("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        learned("Hello<|im_end|>"),
    ]


def test_instruction_in_a_plain_template(tokenizer_of: TokenizerOf) -> None:
    options = FormatInstruction(template="Q: {prompt}\nA: ")
    row = {"prompt": "Hi", "completion": "Hello"}
    expected = [given("Q: Hi\nA: "), learned("Hello<|im_end|>")]
    assert list(Instruction().segments(row, options, tokenizer_of(chat_template=None))) == expected


def test_a_plain_template_begins_as_the_tokenizer_begins_plain_text(tokenizer_of: TokenizerOf) -> None:
    options = FormatInstruction(template="Q: {prompt}\nA: ")
    segments = Instruction().segments({"prompt": "Hi", "completion": "Hello"}, options, tokenizer_of(bos=True))
    assert list(segments) == [given("<s>Q: Hi\nA: "), learned("Hello<|im_end|>")]


def test_a_prompt_that_looks_like_a_template_is_not_filled_again(tokenizer: Any) -> None:
    options = FormatInstruction(template="{prompt}|{prompt}|")
    first, _ = Instruction().segments({"prompt": "{prompt}{x}", "completion": "a"}, options, tokenizer)
    assert first.text == "{prompt}{x}|{prompt}{x}|"


def test_every_answer_of_a_conversation_is_learned_and_nothing_else(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2"},
    ]
    assert Chat().segments({"messages": messages}, FormatChat(), tokenizer) == [
        given("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"),
        learned("1<|im_end|>"),
        given("\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"),
        learned("2<|im_end|>"),
    ]


def test_the_segments_are_what_the_template_renders(tokenizer: Any) -> None:
    messages = tiny.chat_rows(1)[0]["messages"]
    text = "".join(segment.text for segment in conversation(messages, tokenizer))
    assert text + "\n" == tokenizer.apply_chat_template(messages, tokenize=False)


def test_system_only_where_the_conversation_has_none(tokenizer: Any) -> None:
    talk = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    options = FormatChat(system="mine")
    own = Chat().segments({"messages": [{"role": "system", "content": "theirs"}, *talk]}, options, tokenizer)
    added = Chat().segments({"messages": talk}, options, tokenizer)
    assert "theirs" in own[0].text
    assert "mine" not in own[0].text
    assert added[0].text.startswith("<|im_start|>system\nmine<|im_end|>\n")


def test_a_template_without_an_end_gets_one(tokenizer_of: TokenizerOf) -> None:
    tokenizer = tokenizer_of(chat_template=WITHOUT_END)
    segments = Instruction().segments({"prompt": "Hi", "completion": "Hello"}, FormatInstruction(), tokenizer)
    assert segments[-1] == learned("Hello\n<|im_end|>")


def test_prompt_is_what_stands_before_the_answer_in_a_row(tokenizer: Any) -> None:
    plain = FormatInstruction(template="Q: {prompt}\nA: ", fields=PromptFields(prompt="q", completion="a"))
    assert Instruction().prompt([{"role": "user", "content": "Hi"}], plain, tokenizer) == "Q: Hi\nA: "
    expected = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert Instruction().prompt([{"role": "user", "content": "Hi"}], FormatInstruction(), tokenizer) == expected
    assert Chat().prompt([{"role": "user", "content": "Hi"}], FormatChat(), tokenizer) == expected


def test_question() -> None:
    assert Instruction().question({"prompt": "Hi", "completion": "x"}, FormatInstruction()) == "Hi"
    assert Chat().question(tiny.chat_rows(1)[0], FormatChat()) == "And then?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"completion": "x"}, 'the field "prompt" is missing; the row has completion'),
        ({}, 'the field "prompt" is missing; the row has none'),
        ({"prompt": "x", "b": 1, "a": 2}, 'the field "completion" is missing; the row has a, b, prompt'),
        ({"prompt": 3, "completion": "x"}, 'the field "prompt" is not text'),
        ({"prompt": "x", "completion": None}, 'the field "completion" is not text'),
        ({"prompt": "x", "completion": ""}, 'the field "completion" is empty'),
        ({"prompt": "x", "completion": " \n"}, 'the field "completion" is empty'),
        (
            {"prompt": "x", "completion": "a<|im_end|>b"},
            "the answer contains the special token <|im_end|>, so what follows it would never be written",
        ),
    ],
)
def test_instruction_rows_that_do_not_fit(row: dict[str, Any], message: str, tokenizer: Any) -> None:
    for options in (FormatInstruction(), FormatInstruction(template="{prompt}:")):
        with pytest.raises(ValueError, match=r".") as caught:
            Instruction().segments(row, options, tokenizer)
        assert str(caught.value) == message


def test_a_plain_template_that_leaves_nothing_before_the_answer(tokenizer_of: TokenizerOf) -> None:
    row, options = {"prompt": "", "completion": "x"}, FormatInstruction(template="{prompt}")
    with pytest.raises(ValueError, match=r"^nothing stands before the answer$"):
        Instruction().segments(row, options, tokenizer_of())
    assert Instruction().segments(row, options, tokenizer_of(bos=True))[0] == given("<s>")


USER, ANSWER = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, 'the field "messages" is not a list of messages'),
        ("Hi", 'the field "messages" is not a list of messages'),
        ([], 'the field "messages" is not a list of messages'),
        (["Hi"], "message 1 has no text in content"),
        ([USER, {"role": "assistant"}], "message 2 has no text in content"),
        ([USER, {"role": "assistant", "content": ["x"]}], "message 2 has no text in content"),
        (
            [{"role": "human", "content": "x"}],
            'message 1 has the role "human", not one of system, user, assistant, tool',
        ),
        ([{"content": "x"}], 'message 1 has the role "None", not one of system, user, assistant, tool'),
        ([USER, {"role": "assistant", "content": " "}], "message 2, the assistant's, is empty"),
        ([ANSWER], "the first message is the assistant's: nothing asks for it"),
        (
            [USER, ANSWER, USER],
            "the last message is not the assistant's, so there is nothing to learn from it",
        ),
        (
            [USER, {"role": "assistant", "content": "a<|im_end|>b"}],
            "the answer contains the special token <|im_end|>, so what follows it would never be written",
        ),
    ],
)
def test_conversations_that_do_not_fit(messages: Any, message: str, tokenizer: Any) -> None:
    row = {} if messages is None else {"messages": messages}
    with pytest.raises(ValueError, match=r".") as caught:
        Chat().segments(row, FormatChat(), tokenizer)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            REWRITES_EARLIER,
            (
                "the chat template rewrites earlier answers, so they cannot be learned where they stand; "
                'train_on = "last" learns the last one'
            ),
        ),
        (REWRITES_PROMPT, "the chat template rewrites the prompt once it is answered"),
    ],
)
def test_templates_that_rewrite_are_refused(template: str, message: str, tokenizer_of: TokenizerOf) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        conversation(tiny.chat_rows(1)[0]["messages"], tokenizer_of(chat_template=template))
    assert str(caught.value) == message


def test_a_template_that_rewrites_earlier_messages_serves_single_answers(tokenizer_of: TokenizerOf) -> None:
    segments = conversation([USER, ANSWER], tokenizer_of(chat_template=REWRITES_EARLIER))
    assert segments == [given("user: u<|im_end|>\nassistant: "), learned("a<|im_end|>")]


def test_what_the_template_itself_refuses(tokenizer_of: TokenizerOf) -> None:
    tokenizer = tokenizer_of(chat_template=REFUSES_SYSTEM)
    with pytest.raises(ValueError, match=r"^the chat template refuses it: no system here$"):
        conversation([{"role": "system", "content": "s"}, USER, ANSWER], tokenizer)


def test_without_a_chat_template_the_way_out_is_named(tokenizer_of: TokenizerOf) -> None:
    with pytest.raises(UnresolvedInput, match=r"^The tokenizer has no chat template") as caught:
        conversation([USER, ANSWER], tokenizer_of(chat_template=None))
    assert "template = " in caught.value.hint
