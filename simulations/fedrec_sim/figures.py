"""How figures are written for a person, in the terminal and in the report alike."""


def with_spread(mean: float, std: float, seeds: int) -> str:
    """A mean, with its standard deviation where there are several seeds.

    >>> with_spread(0.12345, 0.0021, 3), with_spread(0.12345, 0.0, 1)
    ('0.1235 ± 0.0021', '0.1235')
    """
    return f"{mean:.4f} ± {std:.4f}" if seeds > 1 else f"{mean:.4f}"


def in_bytes(count: float) -> str:
    """Bytes in decimal units, three digits.

    >>> in_bytes(999), in_bytes(49_152), in_bytes(1_500_000), in_bytes(999_999)
    ('999 B', '49.2 kB', '1.5 MB', '1 MB')
    """
    if round(count) < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if float(f"{count:.3g}") < 1000:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:,.3g} TB"


def in_time(seconds: float) -> str:
    """Seconds as a person says them.

    >>> in_time(7.26), in_time(59.7), in_time(200), in_time(3_900)
    ('7.3 s', '1 min 00 s', '3 min 20 s', '1 h 05 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def in_epsilon(epsilon: float | None) -> str:
    """An epsilon, or that nothing is promised: an empty field could be read as zero.

    >>> in_epsilon(7.996), in_epsilon(None)
    ('8.00', 'not private')
    """
    return "not private" if epsilon is None else f"{epsilon:.2f}"


def printable(text: str) -> str:
    """One line without control characters: titles and reasons come from outside.

    >>> printable("Heat\\x1b[31m (1995)\\n")
    'Heat[31m (1995)'
    """
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def count_partners(partners: int | list[str]) -> int:
    """Partners of a committed round: the coordinator names them, a log may only count them."""
    return partners if isinstance(partners, int) else len(partners)
