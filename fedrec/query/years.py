"""Years in a request, by rule: numbers are what a small language model reads worst, and what rules read best."""

import re

_WORDS = {"twenties": 20, "thirties": 30, "forties": 40, "fifties": 50, "sixties": 60, "seventies": 70}
_WORDS |= {"eighties": 80, "nineties": 90}
_CHINESE = {"二十": 20, "三十": 30, "四十": 40, "五十": 50, "六十": 60, "七十": 70, "八十": 80, "九十": 90}
_YEAR = r"(1[89]\d\d|20\d\d)"
# What may stand between: with "no thrills before 1990" the thrills are ruled out, and the years are asked for.
_BETWEEN = (
    r"that|which|is|are|was|were|came|come|comes|out|made|shot|filmed|released|produced|dated|from|any|anything|films?"
    r"|movies?|at|all|of|the|those|these|ones?|years?|stuff|want|like|show|see|watch|to|me|interested|in|much|old|older"
    r"|ever|has|have|been|do|did"
)
_REFUSED = rf"\b(?:nothing|none|not|no|never|without|don['’]t|isn['’]t|aren['’]t)\b(?:\s+(?:{_BETWEEN}))*\s+"
# Which years these are, the reader says: it knows the catalogue.
_AGES = re.compile(
    r"(?<!-)\b(?:older|oldies?|classics?|vintage|retro|recent|recently|newer|newest|newly|latest|modern|contemporary)\b"
    r"|(?<!-)\bold\b(?! (?:man|men|woman|women|lady|people|friends?)\b)(?<!years old)(?<!year old)"
    r"|\bnew\b(?! (?:york|orleans|zealand|jersey|england|mexico|delhi|year))|\b(?:this year|last few years)\b"
    r"|老(?!师|人|虎|鼠|板|婆|公)|经典|怀旧|新(?!西兰|加坡|疆|年|闻|娘)|最近|旧|近年|近几年|今年|早期"
)
Span = tuple[int | None, int | None]
# Tried in this order; the first that fits says it.
_SPANS: tuple[tuple[str, str], ...] = (
    (rf"{_YEAR}\s*(?:年)?\s*(?:-|–|to|through|and|till|until|到|至)\s*{_YEAR}", "both"),
    (rf"{_REFUSED}(?:before|earlier than|older than)\s+{_YEAR}", "first"),
    (rf"{_REFUSED}(?:after|later than|newer than)\s+{_YEAR}", "last"),
    (rf"(?:since|no earlier than)\s+{_YEAR}", "first"),
    (rf"{_YEAR}\s*(?:on\b|onwards?\b|or later|or newer|at the earliest|年?(?:以后|以来|起)|\+)", "first"),
    (rf"(?:until|till|up to|no later than)\s+{_YEAR}", "last"),
    (rf"{_YEAR}\s*(?:or earlier|or older|at the latest)", "last"),
    (rf"(?:after|later than|newer than)\s+{_YEAR}|{_YEAR}\s*(?:年?之后|年后)", "after"),
    (rf"(?:before|earlier than|older than)\s+{_YEAR}|{_YEAR}\s*(?:年?(?:以前|之前)|年前)", "before"),
    (rf"(?<![0-9a-z]){_YEAR}(?!\s*(?:s(?![a-z0-9])|年代))", "year"),
)
_DECADES = (
    r"(?<![0-9a-z])((?:18|19|20)\d0)(?:['’]?s(?![a-z0-9])|年代)",
    r"(?:(?<=\W)|^)['’]?([2-9]0)['’]?s(?![a-z0-9])|(?<!\d)([2-9]0)年代",
)


def years_in(text: str) -> Span | None:
    """The span of years that a request names, inclusive, None for an open end; None if it names none.

    >>> years_in("a 90s thriller"), years_in("nothing that came out before 1985"), years_in("older than 1950")
    ((1990, 1999), (1985, None), (None, 1949))
    >>> years_in("Blade Runner, but funny") is None
    True
    """
    text = text.casefold()
    if (decade := _decade(text)) is not None:
        return decade, decade + 9
    for pattern, kind in _SPANS:
        if (match := re.search(pattern, text)) is not None:
            years = sorted(int(group) for group in match.groups() if group)
            return _span(kind, years[0], years[-1])
    return None


def says_an_age(text: str) -> bool:
    """Whether a request speaks of old or new ones without a number.

    >>> [says_an_age(text) for text in ("an old western", "recently released", "for my six-year-old", "in New York")]
    [True, True, False, False]
    """
    return _AGES.search(text.casefold()) is not None


def _decade(text: str) -> int | None:
    whole, short = (re.search(pattern, text) for pattern in _DECADES)
    if whole is not None:
        return int(whole[1])
    if short is not None:
        return 1900 + int(short[1] or short[2])
    for names in (_WORDS, _CHINESE):
        for word, tens in names.items():
            if word in text and (names is _WORDS or f"{word}年代" in text):
                return 1900 + tens
    return None


def _span(kind: str, first: int, last: int) -> Span:
    match kind:
        case "first":
            return first, None
        case "last":
            return None, last
        case "after":
            return first + 1, None
        case "before":
            return None, last - 1
    return first, last
