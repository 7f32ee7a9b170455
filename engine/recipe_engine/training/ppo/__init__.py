"""Proximal policy optimization: answers are sampled, judged, and made more or less likely; see docs/rlhf.md.

``options`` says what can be chosen, ``rollout`` writes answers, ``policy`` and ``readout`` say what the models think of
them, ``judging`` and ``advantages`` turn scores into what each token was worth, ``objective`` and ``update`` move the
policy, and ``loop`` goes round.
"""
