// The gallery browser: one image, the maps of the chosen explainers side by side.
await (async () => {
  const root = document.getElementById("gallery");
  if (!root) return;
  const { element, distinct, data } = unmask;
  const plates = await unmask.unpacked("plates");
  const at = (id) => document.getElementById(`gallery-${id}`);
  const [domainSelect, encoderSelect] = [at("domain"), at("encoder")];
  const level = Object.fromEntries([...plates.alphabet].map((letter, i) => [letter, i]));
  const colours = Object.fromEntries(Object.entries(plates.colours).map(([kind, list]) =>
    [kind, list.map((hex) => [0, 2, 4].map((place) => parseInt(hex.slice(place, place + 2), 16)))]));
  const [chosen, known] = [new Set(), new Map(plates.explainers.map((one) => [one.name, one]))];
  let image = 0;

  const domain = () => plates.domains[domainSelect.selectedIndex];
  // Explainers best first as the ranking of a domain has them, then those that it does not rank.
  const ranked = () => {
    const rows = data.ranking.filter((row) => row.domain === domain().name && row.encoder === null && row.category === "all");
    const rows_by = new Map(rows.map((row) => [row.explainer, row]));
    const order = distinct([...rows.map((row) => row.explainer), ...known.keys()]).filter((name) => known.has(name));
    return order.map((name) => ({ ...known.get(name), row: rows_by.get(name) }));
  };
  const drawn = (name) => Object.values(domain().models[0].plates).some(({ maps }) => maps[name] && !maps[name].startsWith("!"));
  const controls = [...known.keys()].filter((name) => name.startsWith("random"));
  const random = controls.includes("random_patch") ? ["random_patch"] : controls.slice(0, 1);
  const sets = {
    all: () => [...known.keys()],
    none: () => [],
    best: () => {
      const shown = ranked().filter(({ name, row }) => row && drawn(name));
      return [...shown.filter(({ family }) => family !== "control").slice(0, 7).map(({ name }) => name), ...random];
    },
    family: () => [...distinct(plates.explainers.map(({ family }) => family)).filter((family) => family !== "control")
      .map((family) => ranked().find((one) => one.family === family).name), ...random],
  };

  const paint = (canvas, map, kind) => {
    const side = Math.round(Math.sqrt(map.length));
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(side, side);
    [...map].forEach((letter, i) => pixels.data.set([...colours[kind][level[letter]], 255], 4 * i));
    context.putImageData(pixels, 0, 0);
  };
  const outline = (picture) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${picture.side} ${picture.side}`);
    svg.setAttribute("aria-hidden", "true");
    for (const className of ["under", "line"]) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", picture.outline);
      path.setAttribute("class", className);
      svg.append(path);
    }
    return svg;
  };
  const picture = (shown, alt, className = "") => Object.assign(element("img", "", className), { src: shown.uri, alt });
  const tile = (content, caption, shown) => element("figure", [element("div", [...content, outline(shown)], "stack"), element("figcaption", caption)], "tile");
  const mapTile = ({ name, signed, row }, map, shown) => {
    const tie = row?.tie_group ? element("span", String(row.tie_group), `tie t${Math.min(row.tie_group, 6)}`) : "";
    const words = name.split(/(?<=[_@])/).flatMap((word) => [word, element("wbr")]);
    const original = unmask.original(name, domain().name);
    const caption = [...words, element("small", row ? ` rank ${unmask.short(row.rank)} ` : original ? ` = ${original}` : ""), tie];
    if (!map || map === "-" || map.startsWith("!"))
      return tile([element("span", !map ? "no map" : map === "-" ? "empty map" : map.slice(1), "nothing")], caption, shown);
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Map of ${name}`);
    paint(canvas, map, signed ? "signed" : "other");
    return tile([picture(shown, "", "grey"), canvas], caption, shown);
  };

  const draw = () => {
    const shown = domain().images[image];
    const models = encoderSelect.value === "" ? domain().models : [domain().models[Number(encoderSelect.value)]];
    const wanted = ranked().filter(({ name }) => chosen.has(name));
    at("count").textContent = `${wanted.length} of ${known.size} chosen`;
    at("maps").replaceChildren(...models.flatMap((model) => {
      const plate = model.plates[image];
      const ratio = model.ratio === null ? "no mask ratio" : `${model.drawn ? "mean mask ratio" : "mask ratio"} ${unmask.short(model.ratio)}`;
      const head = element("h3", [model.encoder, element("small", ` ${ratio}, test accuracy ${unmask.short(model.accuracy)}`)]);
      if (!plate) return [head, element("p", "This page keeps no maps of this image under this encoder.")];
      head.append(element("small", `; predicts ${plate.prediction}, `), element("small", plate.correct ? "correct" : "wrong", plate.correct ? "" : "flag"));
      return [head, element("div", [tile([picture(shown, shown.class)], ["image ", element("small", shown.class)], shown),
        ...wanted.map((one) => mapTile(one, plate.maps[one.name], shown))], "tiles")];
    }));
  };

  // One radio button per image, one box per explainer.
  const choices = () => {
    root.querySelector(".images div").replaceChildren(...domain().images.map((shown, i) => {
      const input = Object.assign(element("input"), { type: "radio", name: "gallery-image", value: String(i), checked: i === image });
      input.addEventListener("change", () => { image = i; draw(); });
      return element("label", [input, picture(shown, ""), element("span", shown.class)]);
    }));
    encoderSelect.replaceChildren(...domain().models.map((model, i) => new Option(model.encoder + (i ? "" : " (most accurate)"), String(i))),
      ...(domain().models.length > 1 ? [new Option("all encoders", "")] : []));
    encoderSelect.disabled = domain().models.length < 2;
  };
  const boxes = new Map();
  root.querySelector(".families").append(...distinct(plates.explainers.map(({ family }) => family)).map((family) =>
    element("fieldset", [element("legend", family), ...plates.explainers.filter((one) => one.family === family).map(({ name }) => {
      const box = Object.assign(element("input"), { type: "checkbox", value: name });
      box.addEventListener("change", () => { if (box.checked) chosen.add(name); else chosen.delete(name); draw(); });
      boxes.set(name, box);
      return element("label", [box, ` ${name}`]);
    })])));
  const choose = (names) => {
    chosen.clear();
    names.forEach((name) => chosen.add(name));
    boxes.forEach((box, name) => { box.checked = chosen.has(name); });
  };

  domainSelect.append(...plates.domains.map(({ name }) => new Option(name)));
  domainSelect.disabled = plates.domains.length < 2;
  domainSelect.addEventListener("change", () => { image = 0; choices(); draw(); });
  encoderSelect.addEventListener("change", draw);
  root.querySelectorAll("[data-choose]").forEach((button) => button.addEventListener("click", () => { choose(sets[button.dataset.choose]()); draw(); }));
  for (const name of ["outline", "over", "large"]) {
    const apply = () => root.classList.toggle(name, at(name).checked);
    at(name).addEventListener("change", apply);
    apply();
  }
  for (const [kind, list] of Object.entries(colours)) {
    const context = document.getElementById(`scale-${kind}`).getContext("2d");
    list.forEach((colour, i) => { context.fillStyle = `rgb(${colour})`; context.fillRect(i, 0, 1, 1); });
  }
  choices();
  choose(sets.best());
  root.hidden = false;
  draw();
})();
