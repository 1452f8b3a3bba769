// Sorting: a button in every header; numbers as numbers, cells without a value last whichever way.
(() => {
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim().replace(/^\u2212/, "-");
    if (text === "" || text === "\u2013") return null;
    const number = Number(text.split(" ")[0]);
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);

  unmask.sort = (table, column, down) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  // `sorted` is told what a click has sorted by.
  unmask.sortable = (table, sorted = () => {}) => [...table.tHead.rows[0].cells].forEach((head, column) => {
    const name = head.textContent;
    const button = Object.assign(unmask.element("button", name), { type: "button" });
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      unmask.sort(table, column, down);
      sorted(name, down);
    });
    head.replaceChildren(button);
  });
  document.querySelectorAll("table.sortable").forEach((table) => unmask.sortable(table));
})();
