"""Text between two marks of the README, of which the first names the script that writes it."""

from __future__ import annotations


def between(readme: str, begin: str, end: str, text: str) -> str:
    """The README with `text` in place of what stood between the marks."""
    if begin not in readme or end not in readme:
        raise SystemExit(f"The README lacks the marks '{begin}' and '{end}'; write them first.")
    before, rest = readme.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{text}\n{end}{after}"
