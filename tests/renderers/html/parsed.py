"""A page as browsers read it, and strictly: any mistake in it is an error."""

from __future__ import annotations

import html5lib

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str):
    """The page's root element. Raises html5lib's ParseError."""
    return html5lib.HTMLParser(strict=True).parse(text)


def parsed_fragment(text: str):
    return html5lib.HTMLParser(strict=True).parseFragment(text, container="div")


def every(root, name: str):
    """The elements of a name, of HTML or of SVG."""
    return [each for each in root.iter() if each.tag in (f"{HTML}{name}", f"{SVG}{name}")]


def said(element) -> str:
    """All the text in an element, as one line."""
    return " ".join("".join(element.itertext()).split())


def classed(root, name: str):
    """The elements of a class."""
    return [each for each in root.iter() if name in (each.get("class") or "").split()]


def sections(root) -> dict[str, object]:
    """The sections of a page, by their headings."""
    found = {}
    for section in every(root, "section"):
        (heading,) = every(section, "h2")
        found[said(heading)] = section
    return found


def rows(table) -> list[list[str]]:
    """The cells of a table, its head first."""
    return [[said(cell) for cell in row] for row in every(table, "tr")]
