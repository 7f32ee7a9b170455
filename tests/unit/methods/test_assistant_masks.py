"""What is learned of a conversation, family by family, against masks written by hand.

In the expected texts ⟦…⟧ is learned, everything else is given.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import families, tiny

from recipe_engine.methods.formats.templates import Chat
from recipe_engine.methods.options import FormatChat
from recipe_engine.methods.prepare import load_tokenizer
from recipe_engine.model import DataTable
from recipe_engine.training.prepare import Format, prepare
from recipe_engine.training.reading import read_lines
from recipe_engine.training.rows import Row, end_tokens

if TYPE_CHECKING:
    from tests.families import Family

SYSTEM = {"role": "system", "content": "Be brief."}
ONE = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TWO = [*ONE, {"role": "user", "content": "And you?"}, {"role": "assistant", "content": "Fine"}]

MASKS = {
    "CHATML": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦Hello<|im_end|>⟧\n"
        "<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n⟦Fine<|im_end|>⟧"
    ),
    "LLAMA_2": "<s>[INST] Hi [/INST]⟦ Hello </s>⟧<s>[INST] And you? [/INST]⟦ Fine </s>⟧",
    "LLAMA_3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Hello<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Fine<|eot_id|>⟧"
    ),
    "MISTRAL": "<s>[INST] Hi[/INST]⟦ Hello</s>⟧[INST] And you?[/INST]⟦ Fine</s>⟧",
    "GEMMA": (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n⟦Hello<end_of_turn>⟧\n"
        "<start_of_turn>user\nAnd you?<end_of_turn>\n<start_of_turn>model\n⟦Fine<end_of_turn>⟧"
    ),
    "PHI_3": (
        "<|user|>\nHi<|end|>\n<|assistant|>\n⟦Hello<|end|>⟧\n<|user|>\nAnd you?<|end|>\n<|assistant|>\n⟦Fine<|end|>⟧"
    ),
    "ZEPHYR": "<|user|>\nHi</s>\n<|assistant|>\n⟦Hello</s>⟧\n<|user|>\nAnd you?</s>\n<|assistant|>\n⟦Fine</s>⟧",
    "DEEPSEEK": (
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>⟦Hello<｜end▁of▁sentence｜>⟧"
        "<｜User｜>And you?<｜Assistant｜>⟦Fine<｜end▁of▁sentence｜>⟧"
    ),
    "COMMAND": (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦Hello<|END_OF_TURN_TOKEN|>⟧"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>And you?<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦Fine<|END_OF_TURN_TOKEN|>⟧"
    ),
}
WITH_SYSTEM = {
    "CHATML": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n⟦Hello<|im_end|>⟧"
    ),
    "LLAMA_2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]⟦ Hello </s>⟧",
    "LLAMA_3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Hello<|eot_id|>⟧"
    ),
    "MISTRAL": "<s>[INST] Be brief.\n\nHi[/INST]⟦ Hello</s>⟧",
    "PHI_3": "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n⟦Hello<|end|>⟧",
    "QWEN_3": (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nHello<|im_end|>⟧"
    ),
    "ZEPHYR": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n⟦Hello</s>⟧",
    "DEEPSEEK": "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜>⟦Hello<｜end▁of▁sentence｜>⟧",
    "COMMAND": (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦Hello<|END_OF_TURN_TOKEN|>⟧"
    ),
}


def tokenizer_of(name: str, folder: Path) -> Any:
    family: Family = getattr(families, name)
    return load_tokenizer(tiny.resolve(family.write(folder / "model")))


def row_of(messages: list[dict[str, str]], tokenizer: Any, folder: Path, **options: Any) -> Row:
    """The row through the whole of the preparation, the data gate included."""
    file = tiny.write_jsonl(folder / "rows.jsonl", [{"messages": messages}])
    table = DataTable(source="file:rows.jsonl", format="chat")
    format_ = Format("text", Chat(), FormatChat(**options))
    (row,) = prepare(read_lines(file, table.split), table, format_, tokenizer, lambda _done, _total: None).rows
    return row


def marked(row: Row, tokenizer: Any) -> str:
    """The row's text with ⟦…⟧ around what is learned, from its tokens."""
    text = ""
    for learned, tokens in groupby(zip(row.input_ids, row.supervised, strict=True), key=itemgetter(1)):
        piece = tokenizer.decode([token for token, _ in tokens])
        text += f"⟦{piece}⟧" if learned else piece
    return text


@pytest.mark.parametrize("name", MASKS)
def test_every_answer_is_learned_with_the_token_that_ends_it(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(name, tmp_path)
    assert marked(row_of(TWO, tokenizer, tmp_path), tokenizer) == MASKS[name]


@pytest.mark.parametrize("name", WITH_SYSTEM)
def test_a_system_message_is_given(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(name, tmp_path)
    row = row_of(ONE, tokenizer, tmp_path, system="Be brief.")
    assert marked(row, tokenizer) == WITH_SYSTEM[name]
    assert row_of([SYSTEM, *ONE], tokenizer, tmp_path) == row


@pytest.mark.parametrize("name", ["PHI_3", "LLAMA_3", "GEMMA"])
def test_generation_stops_at_the_token_that_ends_a_turn_too(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(name, tmp_path)
    (end,) = end_tokens([row_of(TWO, tokenizer, tmp_path)])
    assert tokenizer.convert_ids_to_tokens(end) in ("<|end|>", "<|eot_id|>", "<end_of_turn>")
    assert end != tokenizer.eos_token_id


def test_what_generation_starts_from_is_what_stood_before_the_answer(tmp_path: Path) -> None:
    for name in MASKS:
        tokenizer = tokenizer_of(name, tmp_path / name)
        prompt = Chat().prompt(TWO[:3], FormatChat(), tokenizer)
        assert prompt == MASKS[name].replace("⟦", "").replace("⟧", "").partition("Fine")[0].rstrip(" "), name


def refused(messages: list[dict[str, str]], tokenizer: Any, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the whole message is compared
        Chat().segments({"messages": messages}, FormatChat(**options), tokenizer)
    return str(caught.value)


def test_a_template_that_rewrites_earlier_answers_learns_the_last_one_on_request(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("QWEN_3", tmp_path)
    assert refused(TWO, tokenizer) == (
        "the chat template rewrites earlier answers, so they cannot be learned where they stand; "
        'train_on = "last" learns the last one'
    )
    row = row_of(TWO, tokenizer, tmp_path, train_on="last")
    assert marked(row, tokenizer) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\nFine<|im_end|>⟧"
    )


def test_thoughts_that_are_in_the_data_are_learned(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("QWEN_3", tmp_path)
    thought = [ONE[0], {"role": "assistant", "content": "<think>\nPolite.\n</think>\n\nHello"}]
    assert marked(row_of(thought, tokenizer, tmp_path), tokenizer) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n⟦<think>\nPolite.\n</think>\n\nHello<|im_end|>⟧"
    )


def test_what_a_family_refuses_is_an_error_of_the_row(tmp_path: Path) -> None:
    gemma = tokenizer_of("GEMMA", tmp_path)
    assert refused([SYSTEM, *ONE], gemma) == "the chat template refuses it: System role not supported"
    assert refused([ONE[0], *ONE], gemma) == "messages 1 and 2 are both the user's"
    assert refused([ONE[0], {"role": "assistant", "content": " "}], gemma) == "message 2, the assistant's, is empty"
    assert refused([*ONE, SYSTEM], gemma) == "message 3 is the system's, which only the first can be"
    assert refused([{"role": "robot", "content": "x"}], gemma).startswith('message 1 has the role "robot", not one of')
    spoilt = [ONE[0], {"role": "assistant", "content": "Bye<end_of_turn>"}]
    assert refused(spoilt, gemma) == (
        "the answer contains the special token <end_of_turn>, so what follows it would never be written"
    )


TOOLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | map(attribute='name') | join(',') }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}"
    "{% for call in m.tool_calls %}<call>{{ call.name }}</call>{% endfor %}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_tools_are_given_and_calls_are_learned(tmp_path: Path) -> None:
    folder = tiny.write_tokenizer(tmp_path / "model", chat_template=TOOLS)
    tokenizer = load_tokenizer(tiny.resolve(folder))
    row = {
        "tools": [{"name": "clock"}],
        "messages": [
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "tool_calls": [{"name": "clock"}]},
            {"role": "tool", "content": "noon"},
            {"role": "assistant", "content": "Noon."},
        ],
    }
    segments = Chat().segments(row, FormatChat(), tokenizer)
    assert "".join(f"⟦{part.text}⟧" if part.supervised else part.text for part in segments) == (
        "<|im_start|>system\nclock<|im_end|>\n<|im_start|>user\nWhat time is it?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<call>clock</call><|im_end|>⟧\n<|im_start|>tool\nnoon<|im_end|>\n"
        "<|im_start|>assistant\n⟦Noon.<|im_end|>⟧"
    )


CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "What time is it?"},
    {"role": "assistant", "content": None, "tool_calls": [{"name": "clock"}]},
]
LEADING = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% if m.tool_calls %}<|calls|>clock<|eom|>{% else %}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}{# tools #}"
)


@pytest.mark.parametrize("end", ["<|eot|>", "<|eom|>"])
def test_a_call_that_begins_with_a_special_token_is_learned_to_its_end(end: str, tmp_path: Path) -> None:
    """Mistral writes [TOOL_CALLS] before a call; Llama 3.1 ends some calls with another token than words."""
    template = LEADING.replace("<|eom|>", end)
    special = ("<|im_end|>", "<|calls|>", "<|eom|>", "<|eot|>")
    folder = tiny.write_tokenizer(tmp_path / "model", chat_template=template, special=special)
    tokenizer = load_tokenizer(tiny.resolve(folder))
    row = row_of(CALLED, tokenizer, tmp_path)
    assert marked(row, tokenizer) == f"[user]What time is it?<|eot|>[assistant]⟦<|calls|>clock{end}⟧"


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([{"name": "clock"}], "the chat template has no place for tools"),
        ("{", 'the field "tools" is not JSON'),
        (["clock"], 'the field "tools" is not a list of function schemas'),
    ],
)
def test_tools_that_do_not_fit(tools: Any, says: str, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{says}$"):
        Chat().segments({"messages": ONE, "tools": tools}, FormatChat(), tokenizer)


def test_tools_may_be_json_text(tmp_path: Path) -> None:
    folder = tiny.write_tokenizer(tmp_path / "model", chat_template=TOOLS)
    tokenizer = load_tokenizer(tiny.resolve(folder))
    given, _learned = Chat().segments({"messages": ONE, "tools": '[{"name": "clock"}]'}, FormatChat(), tokenizer)
    assert given.text.startswith("<|im_start|>system\nclock<|im_end|>\n")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            "the chat template has no place for the assistant's answer",
        ),
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}",
            "the chat template leaves out message 1, the system's",
        ),
        (
            "{% for m in messages %}{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}",
            "the chat template leaves out a part of the answer",
        ),
    ],
)
def test_a_template_that_leaves_something_out_is_refused(template: str, says: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny.resolve(tiny.write_tokenizer(tmp_path / "model", chat_template=template)))
    thought = {"role": "assistant", "content": "<think>Polite.</think>Hello"}
    assert refused([SYSTEM, ONE[0], thought], tokenizer) == says


GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_the_mask_is_that_of_a_template_with_generation_marks(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny.resolve(tiny.write_tokenizer(tmp_path / "model", chat_template=GENERATION)))
    theirs = tokenizer.apply_chat_template(TWO, return_dict=True, return_assistant_tokens_mask=True)
    row = row_of(TWO, tokenizer, tmp_path)
    length = len(row.input_ids)
    assert list(row.input_ids) == theirs["input_ids"][:length]
    assert [int(flag) for flag in row.supervised] == theirs["assistant_masks"][:length]
    assert not any(theirs["assistant_masks"][length:])
