"""HTML pages read by the standard library's parser, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"img", "link", "meta", "br", "hr", "input"}


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    inside: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(p if isinstance(p, str) else p.text for p in self.inside)

    def all(self, name: str | None = None) -> list[Element]:
        """Elements of a name below this one, in the order of the page."""
        found = []
        for part in self.inside:
            if isinstance(part, Element):
                found += [part] if name in (None, part.name) else []
                found += part.all(name)
        return found

    def one(self, name: str, **attributes: str) -> Element:
        fitting = [e for e in self.all(name) if attributes.items() <= e.attributes.items()]
        assert len(fitting) == 1, (name, attributes, len(fitting))
        return fitting[0]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), "an attribute twice"
        element = Element(tag, dict(attrs))
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def read_page(html: str) -> Element:
    """A page's root; every element must be closed, in order."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], [e.name for e in reader.open]
    return reader.root
