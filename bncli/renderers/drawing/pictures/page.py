"""A picture as SVG inside a page: its colours are the page's variables, its letters the page's."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from bncli.renderers.drawing.pictures.figure import figure_of, own_style
from bncli.renderers.drawing.pictures.marks import NAMED
from bncli.renderers.drawing.pictures.names import SIZE
from bncli.renderers.drawing.pictures.palette import PLACEHOLDERS
from bncli.report import printable

if TYPE_CHECKING:
    from bncli.pictures import Picture
    from bncli.renderers.drawing.pictures.layout import Medium

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"

COLOR = re.compile(r"#0102[0-9a-f]{2}")
"""A colour that stands for a role."""

NUMBER = re.compile(r"-?\d+\.\d+")

ROLES = {color: role for role, color in PLACEHOLDERS.items()}


def svg_of(picture: Picture, medium: Medium) -> str:
    """The picture as an `svg` element, whose identifiers no other picture on a page has.

    Its name is its title; its text is for the page to show beside it, where all read it once. It
    needs the variables `--bn-ROLE` for the roles of the palette.
    """
    with own_style(**{"svg.hashsalt": "bncli"}):
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        figure = figure_of([picture], medium, PLACEHOLDERS)
        buffer = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    drawn = ET.fromstring(buffer.getvalue())  # noqa: S314  # which matplotlib wrote just now
    _clean(drawn)
    width, height = (float(drawn.get("viewBox", "").split()[place]) for place in (2, 3))
    root = ET.Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img"})
    title = printable(picture.title)
    said = f"{picture.key}\0{title}\0{picture.text}".encode(errors="backslashreplace")
    key = hashlib.sha256(ET.tostring(drawn) + said).hexdigest()[:10]
    root.set("aria-labelledby", f"bn-{key}-title")
    root.set("font-size", f"{SIZE:g}")
    ET.SubElement(root, "title", id=f"bn-{key}-title").text = title
    root.extend(list(drawn))
    _rename(root, key)
    return ET.tostring(root, encoding="unicode")


def _clean(drawn: ET.Element) -> None:
    """Take out what a page does not need, and put variables in the place of colours."""
    for element in list(drawn.iter()):
        for child in list(element):
            empty = child.tag == f"{SVG}defs" and child.find(f"{SVG}path") is None
            if empty or child.tag == f"{SVG}metadata":
                element.remove(child)
    for figure in drawn.iterfind(f"{SVG}g"):
        if (paper := figure.find(f"{SVG}g[@id='patch_1']")) is not None:
            figure.remove(paper)  # the page has a paper of its own
    for element in drawn.iter():
        element.tag = element.tag.removeprefix(SVG)
        if (target := element.attrib.pop(f"{XLINK}href", None)) is not None:
            element.set("href", target)
        name = element.get("id", "")
        if name.startswith(NAMED):
            del element.attrib["id"]
            note = ET.Element("title")
            note.text = name.removeprefix(NAMED)
            element.insert(0, note)
        for attribute in ("d", "x", "y", "transform"):
            if attribute in element.attrib:
                element.set(attribute, _rounded(element.attrib[attribute]))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        element.attrib.pop("clip-path", None)  # nothing is drawn outside of its panel
        if "style" in element.attrib:
            _restyle(element)
    _lift(drawn)
    _prune(drawn)
    for element in drawn.iter():
        if element.text and not element.text.strip():
            element.text = None
        element.tail = "\n" if element.tag in ("g", "defs") else None


def _rounded(text: str) -> str:
    """Numbers to a hundredth of a pixel, in one line."""
    numbers = NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), text)
    return re.sub(r"\s+", " ", numbers).strip()


def _restyle(element: ET.Element) -> None:
    """The style with variables as colours, and without the font, which is the page's."""
    kept = []
    for declaration in element.attrib.pop("style").split(";"):
        key, _, value = declaration.partition(":")
        key, value = key.strip(), value.strip()
        if key == "font":
            if "bold" in value.split("'")[0] or value.startswith("700"):
                kept.append("font-weight:600")
        elif key in ("font-size", "font-family", "font-style", "-webkit-text-anchor"):
            continue
        elif key:
            kept.append(f"{key}:{value}")
    style = ";".join(kept)
    style = COLOR.sub(lambda found: f"var(--bn-{ROLES[found[0]]})", style)
    if style:
        element.set("style", style)


def _lift(drawn: ET.Element) -> None:
    """Give a group the style that all its marks share, once."""
    for group in drawn.iter("g"):
        marks = [child for child in group if child.tag == "use"]
        styles = {mark.get("style") for mark in marks}
        if len(marks) > 1 and len(marks) == len(group) and len(styles) == 1:
            (style,) = styles
            group.set("style", style or "")
            for mark in marks:
                mark.attrib.pop("style", None)


def _prune(element: ET.Element) -> None:
    """Take out groups of nothing."""
    for child in list(element):
        _prune(child)
        if child.tag == "g" and not len(child):
            element.remove(child)


def _rename(root: ET.Element, key: str) -> None:
    """Number the identifiers that are referred to, and take out the others."""
    wanted = {
        target[1:] for element in root.iter() if (target := element.get("href", "")).startswith("#")
    }
    names: dict[str, str] = {}
    for element in root.iter():
        name = element.get("id", "")
        if name in wanted:
            element.set("id", names.setdefault(name, f"bn-{key}-{len(names)}"))
        elif name and not name.startswith(f"bn-{key}-"):
            del element.attrib["id"]
    for element in root.iter():
        if (target := element.get("href", "")).startswith("#"):
            element.set("href", f"#{names[target[1:]]}")
