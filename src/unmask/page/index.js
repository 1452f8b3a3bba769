// What the page's scripts share: making elements, writing numbers, reading packed tables; and the light or dark theme.
const unmask = {
  element(tag, content = "", className = "") {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...[content].flat());
    return made;
  },
  // Three significant digits, an en dash for none.
  short(value, digits = 3) {
    return value === null || value === undefined ? "\u2013" : String(Number(value.toPrecision(digits))).replace(/^-/, "\u2212");
  },
  // The data in a script element: JSON, deflated, in base64.
  async unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
  },
  distinct: (values) => [...new Set(values)],
};
unmask.data = Object.fromEntries(Object.entries(await unmask.unpacked("tables")).map(([name, table]) => {
  const columns = Object.entries(table.columns).map(([key, column]) =>
    [key, Array.isArray(column) ? column : column.at.map((place) => column.of[place])]);
  const rows = Array.from({ length: table.rows }, (_, i) => Object.fromEntries(columns.map(([key, values]) => [key, values[i]])));
  return [name, rows];
}));

(() => {
  const button = document.getElementById("theme");
  const names = ["auto", "light", "dark"];
  const keep = (write) => { try { return write(); } catch { return null; } }; // no storage for files in some browsers
  const set = (name) => {
    document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
  };
  const saved = keep(() => localStorage.getItem("unmask-theme"));
  set(names.includes(saved) ? saved : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    set(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
    keep(() => localStorage.setItem("unmask-theme", document.documentElement.dataset.theme));
  });
})();

// Several figures of one title: buttons to choose one by.
document.querySelectorAll(".figures").forEach((group) => {
  const figures = [...group.querySelectorAll("figure")];
  if (figures.length < 2) return;
  const buttons = figures.map((figure) => Object.assign(unmask.element("button", figure.dataset.label), { type: "button" }));
  const choose = (chosen) => figures.forEach((figure, i) => {
    figure.hidden = i !== chosen;
    buttons[i].setAttribute("aria-pressed", String(i === chosen));
  });
  buttons.forEach((button, i) => button.addEventListener("click", () => choose(i)));
  const bar = unmask.element("p", buttons, "tabs");
  figures[0].before(bar);
  choose(0);
});
