"""URLs as texts."""

from __future__ import annotations

import pytest

from bncli.loaders import split_spec
from bncli.urls import cut_spec, hidden, is_web, path_begins, query_begins, shown_of, typed_of


@pytest.mark.parametrize(
    ("spec", "url", "name"),
    [
        ("s3://b/x.pt::bn", "s3://b/x.pt", "bn"),
        ("memory://x.pt::a::b", "memory://x.pt", "a::b"),
        ("http://[::1]:80/x.pt::bn", "http://[::1]:80/x.pt", "bn"),
        ("http://[::1]:80/x.pt", "http://[::1]:80/x.pt", ""),
        ("http://h/x[1].pt?a=1::bn[0]", "http://h/x[1].pt?a=1", "bn[0]"),
    ],
)
def test_the_name_behind_a_url(spec, url, name):
    assert cut_spec(spec) == (url, name)
    path, found = split_spec(spec)
    assert (path.url, found) == (url, name)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no https://me:secret@h/x?a=secret here", "no https://h/x?... here"),
        ("'https://h/x?a=secret::bn': no", "'https://h/x?...': no"),
        ("https://h/x?...: no", "https://h/x?...: no"),
        ("s3://k:secret@b/x", "s3://b/x"),
        ("hf://me/net@main/x", "hf://me/net@main/x"),
        ("what? a=b", "what? a=b"),
    ],
)
def test_what_is_left_out_of_a_sentence(text, left):
    assert hidden(text) == left


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("https://host/a/b?c/d", "/a/b", "?c/d"),
        ("https://host?c=/d", "", "?c=/d"),
        ("s3://bucket/a?.pt", "/a?.pt", ""),
        ("s3://bucket", "", ""),
    ],
)
def test_parts(url, path, query):
    assert url[path_begins(url) : query_begins(url)] == path
    assert url[query_begins(url) :] == query
    assert is_web(url) is url.startswith("https")


def test_what_is_shown_means_the_url_again():
    url = "https://me:secret@means/x?a=secret"
    assert shown_of(url) == shown_of(url) == "https://means/x?..."
    assert typed_of("https://means/x?...") == url
    assert typed_of("https://means/y?...") == "https://means/y?..."
