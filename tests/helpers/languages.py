"""Small tables of made-up sentences in many languages."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

LANGUAGES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
TOPICS = ("food", "sport", "money")


def table(language: str, count: int, seed: int) -> tuple[list[str], list[str]]:
    """`count` sentences and their topics, each topic as often as the others."""
    chance = random.Random(seed)
    content = LANGUAGES[language]
    labels = [TOPICS[row % len(TOPICS)] for row in range(count)]
    texts = []
    for label in labels:
        nouns = (noun.replace("_", " ") for noun in chance.sample(content[label].split(), 2))
        texts.append(chance.choice(content["frames"]).format(*nouns))
    return texts, labels
