"""The shortest honest script that fine-tunes the same model on the same rows: what people write by hand."""

import json
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

base, rows_file = sys.argv[1:]
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))

rows = []
for line in open(rows_file):
    row = json.loads(line)
    messages = [
        {"role": "system", "content": "Extract the event as JSON."},
        {"role": "user", "content": row["prompt"]},
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(row["completion"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    rows.append({"input_ids": prompt_ids + answer_ids, "labels": [-100] * len(prompt_ids) + answer_ids})


def collate(batch):
    width = max(len(row["input_ids"]) for row in batch)
    pads = [width - len(row["input_ids"]) for row in batch]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * pad for row, pad in zip(batch, pads)]),
        "attention_mask": torch.tensor([[1] * len(row["input_ids"]) + [0] * pad for row, pad in zip(batch, pads)]),
        "labels": torch.tensor([row["labels"] + [-100] * pad for row, pad in zip(batch, pads)]),
    }


class Say(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            print("first step", flush=True)


arguments = TrainingArguments(
    output_dir="build/bench/out",
    per_device_train_batch_size=16,
    max_steps=2,
    learning_rate=1e-3,
    save_strategy="no",
    report_to="none",
    remove_unused_columns=False,
    use_cpu=True,
    disable_tqdm=True,
)
Trainer(model, arguments, train_dataset=rows, data_collator=collate, callbacks=[Say()]).train()
