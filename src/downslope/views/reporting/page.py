"""One HTML page of a report's content; it asks for nothing outside itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from downslope.views.page_parts import part
from downslope.views.reporting.figures import Shown
from downslope.views.reporting.findings import VERDICT_WORDS, Counted, Told
from downslope.views.reporting.markup import Markup, joined, tag, text
from downslope.views.reporting.ranked import LACKING, Cell, RankedTable


@dataclass(frozen=True)
class Content:
    """What a report says.

    Attributes:
        result: sentences; notices: what is lacking, and why.
        table: the ranked settings; None where there is nothing to rank.
        figures: those that apply; not_drawn: a sentence for each that could not be made.
        asked: names and what they are; columns: the same of a table's columns.
        command: a shell command that makes the runs, if one did; python: a program that does.
        versions: of what the report was made with, by name.
    """

    title: str
    result: tuple[str, ...]
    notices: tuple[str, ...]
    table: RankedTable | None
    figures: tuple[Shown, ...]
    not_drawn: tuple[str, ...]
    findings: tuple[Told, ...]
    counted: Counted
    asked: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    command: str | None
    python: str
    versions: Mapping[str, str] = field(default_factory=dict)


def page_of(content: Content) -> str:
    """The page, whole."""
    sections = [
        ("settings", "Settings, best first", _table(content.table)),
        ("figures", "Figures", _figures(content)),
        ("findings", "Findings", _findings(content)),
        ("asked", "What was asked", _pairs(content.asked)),
        ("columns", "Columns of the table", _columns(content)),
        ("again", "How to make it again", _again(content)),
        ("versions", "Versions", _pairs(content.versions.items())),
    ]
    there = [(name, heading, inside) for name, heading, inside in sections if inside]
    links = [tag("li", tag("a", heading, href=f"#{name}")) for name, heading, _ in there]
    body = [
        tag(
            "header",
            tag("p", "Downslope report", class_="faint"),
            tag("h1", content.title),
            tag("nav", tag("ul", *links), aria_label="Sections"),
        ),
        tag(
            "main",
            tag("p", " ".join(content.result), class_="lead", id="result"),
            *(tag("p", notice, class_="note") for notice in content.notices),
            *(
                tag("section", tag("h2", heading, id=name), inside, aria_labelledby=name)
                for name, heading, inside in there
            ),
        ),
        tag("script", Markup(_SCRIPT)),
    ]
    html = tag("html", _head(content.title), tag("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


_SCRIPT = part("report.js")
_STYLE = part("report.css")


def _head(title: str) -> Markup:
    allowed = (
        "default-src 'none'; img-src data:; "
        f"style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=allowed),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} – Downslope report"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(_STYLE)),
    )


def _hash(inside: str) -> str:
    """A style sheet or script as the page's own policy names it: no other is let in."""
    return "sha256-" + b64encode(sha256(inside.encode()).digest()).decode("ascii")


def _table(table: RankedTable | None) -> Markup:
    if table is None:
        return Markup("")
    heads = [
        tag(
            "th",
            heading,
            scope="col",
            class_=("number" if number else "words") + (" long" if len(heading) > 14 else ""),
            aria_sort="ascending" if heading == "place" else None,
        )
        for heading, number in zip(table.headings, table.numbers, strict=True)
    ]
    rows = [
        tag("tr", *(_cell(c, n) for c, n in zip(row, table.numbers, strict=True)))
        for row in table.rows
    ]
    shown = len(table.rows)
    caption = "The order: fewest diverged seeds first, then the median of the others."
    if shown < table.settings:
        caption = f"The best {shown} of {table.settings:,} settings. {caption}"
    if any(cell.words == LACKING for row in table.rows for cell in row):
        caption += f" {LACKING}: every seed diverged."
    made = tag(
        "table",
        tag("thead", tag("tr", *heads)),
        tag("tbody", joined(rows, Markup("\n"))),
        class_="sortable",
    )
    return joined([tag("p", caption, class_="faint"), _scrolling(made, "Settings, best first")])


def _cell(cell: Cell, number: bool) -> Markup:
    value = None if cell.value is None else repr(cell.value)
    return tag("td", cell.words, class_="number" if number else "words", data_value=value)


def _scrolling(inside: Markup, name: str) -> Markup:
    """What may be wider than a phone, in a part that scrolls by itself (by the keyboard too)."""
    return tag("div", inside, class_="scroll", role="region", aria_label=name, tabindex="0")


def _figures(content: Content) -> Markup:
    made = [
        tag(
            "figure",
            tag(
                "img",
                src=one.address,
                alt=one.alternative,
                width=str(one.width * 2 // 3),
                height=str(one.height * 2 // 3),
            ),
            tag("figcaption", tag("strong", f"{one.title}. "), one.caption),
        )
        for one in content.figures
    ]
    return joined([*made, *(tag("p", words, class_="note") for words in content.not_drawn)])


def _findings(content: Content) -> Markup:
    made = [_finding(one) for one in content.findings]
    if content.counted.why_not:
        made.append(tag("p", content.counted.why_not, class_="faint"))
    elif content.counted.of > 1:
        made.append(_counts(content.counted))
    return joined(made)


def _finding(one: Told) -> Markup:
    cause = "" if one.cause == "unknown" else f", {one.cause.replace('-', ' ')}"
    verdict = tag("span", f"{one.verdict.replace('-', ' ')}{cause}", class_="verdict")
    inside = [
        tag("h3", one.title),
        tag("p", verdict, Markup(" "), tag("span", f"({one.confidence})", class_="faint")),
        tag("p", one.sentence),
    ]
    if one.advice is not None:
        inside.append(tag("p", "To try: ", tag("code", one.advice)))
    if one.evidence:
        rows = [
            tag("tr", tag("th", name, scope="row"), tag("td", value, class_="number"),
                tag("td", where))
            for name, value, where in one.evidence
        ]  # fmt: skip
        table = _simple("Evidence", ("what was measured", "value", "where"), rows)
        inside.append(_scrolling(table, f"Evidence: {one.title}"))
    return tag("div", *inside, class_="finding")


def _counts(counted: Counted) -> Markup:
    which = (
        f"All {counted.of:,} runs"
        if counted.explained == counted.of
        else f"{counted.explained:,} of the {counted.of:,} runs, evenly spread, "
    )
    rows = [
        tag("tr", tag("th", verdict.replace("-", " "), scope="row"),
            tag("td", f"{runs:,}", class_="number"), tag("td", VERDICT_WORDS[verdict]))
        for verdict, runs in counted.verdicts
    ]  # fmt: skip
    table = _simple("", ("verdict", "runs", "meaning"), rows)
    return joined([
        tag("h3", "Verdicts"),
        tag("p", f"{which.rstrip()} were explained."),
        _scrolling(table, "Verdicts"),
    ])  # fmt: skip


def _simple(caption: str, headings: Sequence[str], rows: Sequence[Markup]) -> Markup:
    heads = [
        tag("th", heading, scope="col", class_="number" if place == 1 else None)
        for place, heading in enumerate(headings)
    ]
    told = [tag("caption", caption)] if caption else []
    return tag("table", *told, tag("thead", tag("tr", *heads)), tag("tbody", *rows))


def _pairs(pairs: object) -> Markup:
    assert hasattr(pairs, "__iter__")
    made = [joined([tag("dt", name), tag("dd", words)]) for name, words in pairs]
    return tag("dl", *made) if made else Markup("")


def _columns(content: Content) -> Markup:
    notes = [tag("p", text(f"Note: {note}"), class_="note") for note in content.notes]
    return joined([_pairs(content.columns), *notes])


def _again(content: Content) -> Markup:
    made = []
    if content.command is not None:
        made += [tag("p", "In a shell:"), _code(content.command, "Shell command", "wrapped")]
    made += [tag("p", "In Python:"), _code(content.python, "Python program")]
    return joined(made)


def _code(words: str, name: str, kind: str | None = None) -> Markup:
    inside = tag("code", words)
    return tag("pre", inside, class_=kind, tabindex="0", role="region", aria_label=name)
