"use strict";
// Headings of the ranked table become buttons that sort it. Without this script it stands in the
// order of the ranking.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...sorted([...body.rows], column, down));
    });
  });
}

// Rows without a value (of runs that diverged) stay at the end, whichever way the others go.
function sorted(rows, column, down) {
  const keyed = rows.map((row) => ({ row, key: key(row.cells[column]) }));
  const there = keyed.filter(({ key }) => key !== null);
  const lacking = keyed.filter(({ key }) => key === null);
  there.sort((a, b) => (down ? -1 : 1) * compared(a.key, b.key));
  return [...there, ...lacking].map(({ row }) => row);
}

function key(cell) {
  const value = cell.dataset.value;
  if (value !== undefined) return Number(value);
  const words = cell.textContent.trim();
  return words === "" || words === "–" ? null : words;
}

// Numbers stand before words.
function compared(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : a.localeCompare(b);
}
