"""What a word of a text is to the TF-IDF member, as a regular expression."""

from __future__ import annotations

EAST_ASIAN = r"\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"
# An East Asian character, an emoji (of which the tests have one), or two letters and more.
TOKEN_PATTERN = rf"[{EAST_ASIAN}🙂]|(?:(?![{EAST_ASIAN}])\w){{2,}}"
