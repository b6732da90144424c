"""What the checks say, in Korean, from korean.txt.

Sentences are put together from parts; what was filled in is therefore looked up as well. What is not listed (an
exception's text, what a student's cell printed) stays as it is.
"""

import re
from functools import cache, lru_cache
from pathlib import Path

_DEPTH = 4
"""Sentences within one another. A student's text is filled in too, and must not be followed for ever."""
_CHARACTERS = 800


def korean(text: str) -> str:
    """The sentence in Korean; as it is when it is none of the checks'."""
    return (_said(text, _DEPTH) if len(text) <= _CHARACTERS else None) or text


@lru_cache(maxsize=20_000)
def _said(text: str, depth: int) -> str | None:
    if found := _sentences().get(text):
        return found
    # Several of one kind stand in a row: that is not one long sentence.
    if "; " in text and all(each := [_said(part, depth) for part in text.split("; ")]):
        return "; ".join(filter(None, each))
    for literal, pattern, sentence in _patterns():
        if literal in text and (match := pattern.fullmatch(text)):
            filled = match.groups()
            return sentence.format(*(((depth and _said(part, depth - 1)) or part) for part in filled))
    return None


@cache
def _sentences() -> dict[str, str]:
    text = Path(__file__).with_name("korean.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(zip(lines[::2], lines[1::2], strict=True))


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], str]]:
    """A text that must be in it, the pattern and the Korean of each sentence with a gap, those that say most first."""
    made = []
    for english, sentence in _sentences().items():
        parts = re.split(r"\{n?\}", english)
        if len(parts) > 1:
            pattern = re.escape(english).replace(r"\{\}", "(.+?)").replace(r"\{n\}", r"(\S+)")
            made.append((len("".join(parts)), max(parts, key=len), re.compile(pattern, re.DOTALL), sentence))
    return [each[1:] for each in sorted(made, key=lambda each: -each[0])]
