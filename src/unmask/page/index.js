"use strict";
(() => {
  const minus = (text) => String(text).replace(/^-/, "\u2212");
  const short = (value) => (value === null ? "\u2013" : minus(Number(value.toPrecision(3))));

  // Sorting: a button in every header; numbers as numbers, cells without a value last whichever way.
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim().replace(/^\u2212/, "-");
    if (text === "" || text === "\u2013" || text === "None") return null;
    const number = Number(text.split(" ")[0]);
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  const sort = (table, column) => {
    const heads = [...table.tHead.rows[0].cells];
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  const sortable = (table) => [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(table, column));
    head.replaceChildren(button);
  });
  document.querySelectorAll("table.sortable").forEach(sortable);

  // The leaderboard that the four selects name.
  const data = JSON.parse(document.getElementById("boards").textContent);
  const at = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const selects = Object.fromEntries(["domain", "encoder", "metric", "removal"].map((id) => [id, document.getElementById(id)]));
  const metricName = (row) => row[at.metric] + (row[at.variant] ? ` (${row[at.variant]})` : "");
  const fill = (select, values, empty) => {
    const before = select.value;
    select.replaceChildren(...values.map((value) => new Option(value === "" ? empty : value, value)));
    if (values.includes(before)) select.value = before;
    select.disabled = values.length < 2;
  };
  const distinct = (rows, value) => [...new Set(rows.map(value))];
  const text = (name) => (row) => row[at[name]] ?? "";

  const refresh = () => {
    fill(selects.domain, distinct(data.rows, text("domain")), "all domains");
    const inDomain = data.rows.filter((row) => text("domain")(row) === selects.domain.value);
    fill(selects.encoder, distinct(inDomain, text("encoder")), "all encoders");
    const ofModel = inDomain.filter((row) => text("encoder")(row) === selects.encoder.value);
    fill(selects.metric, distinct(ofModel, metricName), "");
    const ofMetric = ofModel.filter((row) => metricName(row) === selects.metric.value);
    fill(selects.removal, distinct(ofMetric, text("removal")), "\u2013");
    show(ofMetric.filter((row) => text("removal")(row) === selects.removal.value));
  };

  const element = (tag, content, className) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (content instanceof Node) made.append(content);
    else made.textContent = content;
    return made;
  };
  const bar = (row, low, high) => {
    const place = (value) => (high > low ? (100 * (value - low)) / (high - low) : 50);
    const box = element("span", "", "interval");
    const line = document.createElement("i");
    line.style.left = `${place(row[at.low])}%`;
    line.style.width = `${place(row[at.high]) - place(row[at.low])}%`;
    const point = document.createElement("b");
    point.style.left = `${place(row[at.mean])}%`;
    box.append(line, point);
    box.setAttribute("aria-hidden", "true");
    return box;
  };
  const HEADS = [["rank", "n"], ["explainer", ""], ["family", ""], ["mean", "n"], ["interval", ""], ["against random", ""], ["scores", "n"],
    ["failed", "n"], ["skipped", "n"]];
  const show = (rows) => {
    const table = document.getElementById("board");
    const head = document.createElement("tr");
    head.append(...HEADS.map(([name, className]) => {
      const cell = element("th", name, className);
      cell.scope = "col";
      return cell;
    }));
    table.replaceChildren(element("thead", head), document.createElement("tbody"));
    const low = Math.min(...rows.map((row) => row[at.low] ?? Infinity));
    const high = Math.max(...rows.map((row) => row[at.high] ?? -Infinity));
    for (const row of rows) {
      const line = element("tr", "", row[at.is_control] ? "control" : "");
      const rank = element("td", short(row[at.rank]), "n");
      rank.dataset.value = row[at.rank] ?? "";
      if (row[at.rank] !== null) rank.append(" ", element("small", `[${short(row[at.rank_low])}, ${short(row[at.rank_high])}]`));
      if (row[at.alias_of]) rank.replaceChildren(element("small", `= ${row[at.alias_of]}`));
      const name = element("th", row[at.explainer]);
      name.scope = "row";
      const mean = element("td", short(row[at.mean]), "n");
      mean.dataset.value = row[at.mean] ?? "";
      if (row[at.mean] !== null) mean.append(" ", element("small", `[${short(row[at.low])}, ${short(row[at.high])}]`));
      line.append(rank, name, element("td", row[at.family]), mean, element("td", row[at.mean] === null ? "" : bar(row, low, high)),
        element("td", row[at.versus_random] ?? ""), element("td", row[at.n], "n"), element("td", row[at.failed], "n"), element("td", row[at.skipped], "n"));
      table.tBodies[0].append(line);
    }
    sortable(table);
    const about = document.getElementById("about");
    about.replaceChildren();
    if (!rows.length) return;
    const first = rows[0];
    about.append(`${first[at.direction] === "higher" ? "Higher" : "Lower"} is better. Test accuracy of the models: ${short(first[at.accuracy])}. `);
    if (first[at.controls_separated] === false) about.append(element("strong", "This metric does not separate the controls here: its ranks say little.", "flag"));
  };
  Object.values(selects).forEach((select) => select.addEventListener("change", refresh));
  refresh();
})();
