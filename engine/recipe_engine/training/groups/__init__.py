"""RLOO and GRPO: several answers to each prompt, and an answer is worth what it is better than the others.

TRL's trainers hold the advantages and the losses; prompts, answers, rewards, reference and checkpoints are those of
``train.ppo``.
"""
