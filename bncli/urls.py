"""URLs as texts: their parts, what people see of them, and the name of a tensor behind one."""

from __future__ import annotations

import re

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""How a URL begins. The one letter of a Windows drive is not a scheme."""
WEB = ("http://", "https://")
"""Schemes whose URLs have a query behind a question mark, which elsewhere is part of a pattern."""
HIDDEN = "?..."
"""What stands for a query, which may be a signature or hold a password."""
USER = re.compile(r"""(?<=://)[^\s/@?#'"]+@""")
BROKEN_USER = re.compile(r"[^/?#@:]*:(?![0-9]*(?:[/?#]|$))[^@]*[/?#][^@]*@")
"""A name and a password with a sign in it that should have been escaped: a port is a number."""
QUERY = re.compile(r"""(?<=://)([^\s?#'"]+)[?#](?!\.\.\.)[^\s'"]*=[^\s'"]*""")
"""What is left out of the URLs in a text."""

_typed: dict[str, str] = {}
"""What people see of a URL -> the URL itself, where they differ."""
_shown: dict[str, str] = {}
"""The other way round."""


def scheme_of(url: str) -> str:
    """How it begins, with ://; "" for what is no URL."""
    found = SCHEME.match(url)
    return found[0] if found else ""


def is_web(url: str) -> bool:
    """Whether a web server has it."""
    return url.lower().startswith(WEB)


def path_begins(url: str) -> int:
    """Where the path begins, behind the host or bucket."""
    front = scheme_of(url)
    ends = re.search("[/?#]" if is_web(url) else "/", url[len(front) :])
    return len(front) + ends.start() if ends else len(url)


def query_begins(url: str) -> int:
    """Where the query of a web server's URL begins, its end where it has none."""
    found = re.search("[?#]", url) if is_web(url) else None
    return found.start() if found else len(url)


def cut_spec(spec: str) -> tuple[str, str]:
    """A URL and the name in its file behind ::, "" for none.

    The :: of an IPv6 address, which stands in brackets, is another one.
    """
    found = re.match(r"[^:]+://[^/?#]*\]", spec) if is_web(spec) else None
    begin = found.end() if found else len(scheme_of(spec))
    url, _, name = spec[begin:].partition("::")
    return spec[:begin] + url, name


def shown_of(url: str) -> str:
    """The URL as people may see it; where two would look alike, the later one has a number."""
    if url in _shown:
        return _shown[url]
    front, at = scheme_of(url), path_begins(url)
    if is_web(url) and BROKEN_USER.match(url, len(front)):
        return shown_of(front + url[len(front) :].rpartition("@")[2])
    host = url[len(front) : at]
    if front.lower() != "hf://":  # where @ is before a revision
        host = host.rpartition("@")[2]
    stop = query_begins(url)
    if not is_web(url) and (found := re.search(r"\?[^/]*=", url)):
        stop = found.start()  # and no pattern
    shown = front + host + url[at:stop] + (HIDDEN if stop < len(url) else "")
    if shown == url:
        return url
    number, first = 1, shown
    while shown in _typed:
        number += 1
        shown = f"{first}({number})"
    _typed[shown], _shown[url] = url, shown
    return shown


def typed_of(shown: str) -> str:
    """The URL that people see as this text; any other text as it is."""
    return _typed.get(shown, shown)


def hidden(text: str) -> str:
    """A text without the user names, passwords and queries of the URLs in it."""
    if "://" not in text:
        return text
    return QUERY.sub(rf"\1{HIDDEN}", USER.sub("", text))
