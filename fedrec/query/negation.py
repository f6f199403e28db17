"""What a request rules out, found by the words that lead to it, so that the model reads refusals apart from the rest.

A small language model reads "no horror" as being about horror. So the scope of a negation is cut out by rule, read as
if it were asked for, and then subtracted.

Reference: Chapman et al. 2001, doi:10.1006/jbin.2001.1029 (NegEx): cue words, and a scope that ends at a word or sign.
"""

import re

_CUES = (
    r"\b(?:no|not|never|neither|nor|without|except(?: for)?|excluding|exclude|minus|avoid|skip|hate|dislike|zero"
    r"|nothing|anything but|other than|rather than|instead of|free of|tired of|sick of|leave out|hold the|spare me"
    r"|(?:can|do|does|is|are|must|should|would)(?:n['’]t| ?not)(?: want| like| stand| need)?"
    r"|cannot(?: stand)?)\b(?! only\b)"
    r"|除了|不要|不想看|不是|不含|别太|别|没有"
)
_ENDS = (
    r"[,.;:!?，。；？！]|\s[-–—]\s|\b(?:but|from|in|of the|made|released|before|after|since|between|until|that|which"
    r"|like|similar|please|for|though|everything)\b|都可以|$"
)
_AROUND = re.compile(r"\bkeep\b(?P<inside>.+?)\bout\b(?: of it)?", re.IGNORECASE)
_SCOPE = re.compile(rf"(?P<cue>{_CUES})(?P<inside>.*?)(?={_ENDS}|{_CUES})", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]")
# Words that are left of a cue and say nothing: what remains of "but not horror" asks for nothing.
_LEFT_OVER = re.compile(
    r"\b(?:but|and|or|with|i|we|any|a|an|please|absolutely|though)\b|[^\w]|的|片|电影", re.IGNORECASE
)


def split_refusals(text: str) -> tuple[str, tuple[str, ...]]:
    """The rest of a request, and what it rules out, in order.

    >>> split_refusals("a quiet thriller, no horror or gore, from the 90s")
    ('a quiet thriller, , from the 90s', ('horror or gore',))
    >>> split_refusals("nothing that came out before 1990")
    ('nothing that came out before 1990', ())
    """
    refused: list[str] = []

    def take(match: re.Match[str]) -> str:
        inside = match["inside"].strip()
        if not _WORD.search(inside):  # a cue without anything in its scope is about something else
            return match[0]
        refused.append(inside)
        return " "

    rest = _SCOPE.sub(take, _AROUND.sub(take, text))
    return re.sub(r"[ \t]+", " ", rest).strip(), tuple(refused)


def says_something(text: str) -> bool:
    """Whether more than a leading word is left.

    >>> says_something("but "), says_something("a funny film")
    (False, True)
    """
    return bool(_LEFT_OVER.sub("", text))
