"""Chat templates of ten families of models, after their published formats, each with a tokenizer that knows its tokens.

The templates are short and our own; what counts is what they write around the messages: where a turn begins, what ends
it, what they refuse and what they rewrite.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests import tiny


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        special: its special tokens.
        eos: the end-of-sequence token that its tokenizer names.
        bos: its begin-of-sequence token, ``""`` for none.
        template: its chat template.
    """

    special: tuple[str, ...]
    eos: str
    bos: str
    template: str

    def write(self, folder: Path) -> Path:
        """A folder with its tokenizer."""
        return tiny.write_tokenizer(
            folder, special=self.special, eos=self.eos, bos_token=self.bos, chat_template=self.template
        )


CHATML = Family(
    ("<|im_start|>", "<|im_end|>"),
    "<|im_end|>",
    "",
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
)
LLAMA_2 = Family(
    ("<s>", "</s>"),
    "</s>",
    "<s>",
    "{% set first = messages[0].role == 'system' %}"
    "{% for m in (messages[1:] if first else messages) %}"
    "{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.first and first %}<<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n{% endif %}"
    "{{ m.content.strip() }} [/INST]{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}",
)
LLAMA_3 = Family(
    ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content.strip() }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
)
MISTRAL = Family(
    ("<s>", "</s>", "[INST]", "[/INST]"),
    "</s>",
    "<s>",
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set before = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set before = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {% if loop.last or loop.index0 == rest | length - 2 %}{{ before }}{% endif %}"
    "{{ m.content }}[/INST]{% else %} {{ m.content.strip() }}{{ eos_token }}{% endif %}{% endfor %}",
)
GEMMA = Family(
    ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    "<eos>",
    "<bos>",
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content.strip() }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
)
PHI_3 = Family(
    ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
    "<|endoftext|>",
    "",
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
)
QWEN_3 = Family(
    ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "<|im_end|>",
    "",
    # A turn that is answered loses its thoughts as soon as another one follows.
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}<think>\n\n</think>\n\n{% endif %}"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
)
ZEPHYR = Family(
    ("<s>", "</s>"),
    "</s>",
    "<s>",
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
)
DEEPSEEK = Family(
    ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    "<｜end▁of▁sentence｜>",
    "<｜begin▁of▁sentence｜>",
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% else %}<｜Assistant｜>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
)
COMMAND = Family(
    (
        *("<BOS_TOKEN>", "<EOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        *("<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
    ),
    "<|END_OF_TURN_TOKEN|>",
    "<BOS_TOKEN>",
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
    "{% if m.role == 'assistant' %}<|CHATBOT_TOKEN|>{% else %}<|{{ m.role.upper() }}_TOKEN|>{% endif %}"
    "{{ m.content.strip() }}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
)
