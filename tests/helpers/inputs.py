"""What many tests read: words of three topics, and a table of the paper that takes seconds."""

from __future__ import annotations

WORDS = {
    "farm": "barn calf cow dung field fodder hay hen lamb meadow orchard pig plough stable tractor",
    "sea": "anchor bay buoy captain deck gull harbour keel mast sail ship shore sloop tide wave",
    "town": "alley bridge bus church clock court crowd hall market museum park shop square street",
}
TINY_SPEC = """\
title: tiny
panels:
  - title: topics
    task: {name: vital-topics, labels: [0, 1, 2], train_per_label: 30, test_per_label: 20}
    finetune: {learning_rate: 1e-3, weight_decay: 1e-2}
    without: {learning_rate: 1e-3, weight_decay: 1e-2}
    rows:
      - name: random
        w_s: {select: random, size: 6400}
"""
