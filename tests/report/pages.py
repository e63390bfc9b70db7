"""Reading a page back: which tags it has, whether they close, and what a browser would fetch or run."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """The tags, attributes and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        if "script" in self._open:
            self.scripts.append(data)
        elif "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        """Visible text, white space collapsed."""
        return " ".join(" ".join(self.words).split())


def require_self_contained(html: str) -> Page:
    """Assert that the page closes its tags, runs no script and fetches nothing; return it."""
    page = _require_closed(html)
    assert "script" not in page.tags
    return page


def require_only_its_own_script(html: str) -> Page:
    """Assert the same of a page with a script: the policy names it by its hash, and what else is in there is data."""
    page = _require_closed(html)
    kinds = [value for tag, name, value in page.attributes if (tag, name) == ("script", "type")]
    assert kinds == ["application/json"] * (page.tags.count("script") - 1)
    policy = next(value for tag, name, value in page.attributes if (tag, name) == ("meta", "content"))
    allowed = re.search(r"script-src 'sha256-([^']+)'$", policy)[1]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts]
    assert hashes.count(allowed) == 1
    return page


def _require_closed(html: str) -> Page:
    page = Page(html)
    assert not {"iframe", "link", "object", "embed", "base", "form"} & set(page.tags)
    assert not [attribute for attribute in page.attributes if attribute[1].startswith("on")]
    for tag, name, value in page.attributes:
        if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
            assert value.startswith("data:image/"), (tag, name, value[:80])
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    return page
