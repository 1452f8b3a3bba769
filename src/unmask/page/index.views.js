// Tables that choose their rows: every select narrows what the next one offers.
(() => {
  const { data, element, short, distinct } = unmask;
  const MOST = 400; // rows shown at once

  const interval = (value, low, high) =>
    value === null ? short(value) : [short(value), " ", element("small", `[${short(low)}, ${short(high)}]`)];
  const bar = (low, value, high, [least, most]) => {
    const place = (number) => (most > least ? (100 * (Math.min(Math.max(number, least), most) - least)) / (most - least) : 50);
    const [line, point] = [element("i"), element("b")];
    line.style.left = `${place(low)}%`;
    line.style.width = `${place(high) - place(low)}%`;
    point.style.left = `${place(value)}%`;
    const box = element("span", [line, point], "interval");
    box.setAttribute("aria-hidden", "true");
    return box;
  };
  const range = (rows, low, high) =>
    [Math.min(...rows.map((row) => row[low] ?? Infinity)), Math.max(...rows.map((row) => row[high] ?? -Infinity))];
  const verdict = (word) => (word === null || word === undefined ? "" : element("span", word, `verdict ${word.replace(" ", "-")}`));
  const tie = (row) => (row.tie_group === null || row.tie_group === undefined ? "" : element("span", String(row.tie_group), "tie"));
  const percent = (share) => (share === null ? "" : share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);
  const some = (rows, ...names) => rows.some((row) => names.some((name) => row[name] !== null && row[name] !== undefined));

  // A column: its head, what its cells show (text, an element, a list of them), what they sort by, n = a number.
  const text = (head, name) => ({ head, cell: (row) => row[name] ?? "" });
  const figure = (head, name, digits = 3) => ({ head, n: true, cell: (row) => short(row[name], digits), by: (row) => row[name] });

  const control = (id, label, input) => {
    input.id = id;
    return element("label", input.type === "checkbox" ? [input, ` ${label}`] : [`${label} `, input]);
  };
  const fill = (select, values, shown) => {
    const before = select.values?.[select.selectedIndex];
    select.values = values;
    select.replaceChildren(...values.map((value, i) => new Option(shown(value), String(i))));
    select.selectedIndex = Math.max(0, values.indexOf(before));
    select.disabled = values.length < 2;
  };
  const ANY = Symbol("any");

  // `selects`: {id, label, of, shown, any, order}; `hides`: {id, label, test}; `find`: filter explainers by name.
  unmask.view = (id, rows, { selects, hides = [], find = true, columns, note = () => "", style = () => "", lines = (rows) => rows }) => {
    const root = document.getElementById(`view-${id}`);
    if (!root) return;
    const [form, table, status] = [root.querySelector("form"), root.querySelector("table"), root.querySelector(".note")];
    const chosen = selects.map((one) => ({ ...one, select: element("select") }));
    const boxes = hides.filter(({ test }) => rows.some(test)).map((one) => ({ ...one, box: Object.assign(element("input"), { type: "checkbox" }) }));
    const search = Object.assign(element("input"), { type: "search", placeholder: "all, or part of a name", spellcheck: false });
    form.append(...chosen.map((one) => control(`${id}-${one.id}`, one.label, one.select)),
      ...(find ? [control(`${id}-find`, "Explainer", search)] : []),
      ...boxes.map((one) => control(`${id}-${one.id}`, one.label, one.box)));
    let sorted = null;

    const refresh = () => {
      let left = rows;
      for (const { select, of, shown = (value) => value ?? "\u2013", any, order = (values) => values } of chosen) {
        const values = order(distinct(left.map(of)));
        fill(select, any && values.length > 1 ? [ANY, ...values] : values, (value) => (value === ANY ? any : shown(value)));
        const value = select.values[select.selectedIndex];
        if (value !== ANY) left = left.filter((row) => of(row) === value);
      }
      const all = lines(left);
      const words = search.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      const hidden = boxes.filter(({ box }) => box.checked);
      const kept = all.filter((row) => !hidden.some(({ test }) => test(row)) &&
        (!words.length || words.some((word) => row.explainer.toLowerCase().includes(word))));
      show(all, kept.slice(0, MOST));
      status.replaceChildren(...[note(all)].flat());
      if (kept.length > MOST) status.append(` The first ${MOST} of ${kept.length} rows: choose fewer.`);
      else if (kept.length < all.length) status.append(` ${kept.length} of ${all.length} rows.`);
    };

    const show = (all, kept) => {
      const made = columns(all);
      table.tHead.replaceChildren(element("tr", made.map(({ head, n }) => {
        const cell = element("th", head, n ? "n" : "");
        cell.scope = "col";
        return cell;
      })));
      table.tBodies[0].replaceChildren(...kept.map((row) => element("tr", made.map(({ cell, by, n, row: header }) => {
        const shown = element(header ? "th" : "td", cell(row), n ? "n" : "");
        if (header) shown.scope = "row";
        if (by) shown.dataset.value = by(row) ?? "";
        return shown;
      }), style(row))));
      unmask.sortable(table, (head, down) => { sorted = { head, down }; });
      const column = made.findIndex(({ head }) => head === sorted?.head);
      if (column >= 0) unmask.sort(table, column, sorted.down);
    };

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", refresh);
    refresh();
  };

  const pooled = (name) => ({ id: name, label: name[0].toUpperCase() + name.slice(1), of: (row) => row[name], shown: (value) => value ?? `all ${name}s` });
  const hideControls = { id: "controls", label: "hide controls", test: (row) => row.is_control };
  const looks = (row) => [row.is_control ? "control" : "", row.group ?? row.tie_group ? `t${Math.min(row.group ?? row.tie_group, 6)}` : ""].join(" ").trim();
  const metricName = (row) => row.metric + (row.variant ? ` (${row.variant})` : "");

  const named = (row) => (row.submitted ? `${row.explainer} (submitted)` : row.explainer);

  // Aliases in a domain and encoder, by the explainer whose maps they have.
  const aliases = {};
  for (const row of data.boards.filter(({ alias_of }) => alias_of))
    ((aliases[`${row.domain} ${row.encoder}`] ??= {})[row.alias_of] ??= new Set()).add(row.explainer);
  const same = (row) => {
    const found = aliases[`${row.domain} ${row.encoder}`]?.[row.explainer];
    return found ? [row.explainer, element("small", ` = ${[...found].join(", ")}`)] : named(row);
  };
  // Whose maps an explainer has on the models of a domain, or undefined.
  unmask.original = (name, domain) =>
    data.boards.find((row) => row.explainer === name && row.domain === domain && row.encoder === null && row.alias_of)?.alias_of;

  // Who leads, in a sentence.
  const leading = (rows) => {
    const first = rows.find((row) => row.tie_group === 1);
    if (!first) return "";
    const tied = rows.filter((row) => row.tie_group === 1 && row !== first).length;
    return [element("b", named(first)), tied ? ` leads the explainers, and ${tied} ${tied === 1 ? "other ties" : "others tie"} with it (group 1). ` : " leads the explainers, and none ties with it. "];
  };

  unmask.view("ranking", data.ranking, {
    selects: [pooled("domain"), pooled("encoder"), {
      id: "category", label: "Category", of: (row) => row.category, shown: (value) => (value === "all" ? "all, equally" : value),
      order: (values) => ["all", ...values].filter((value, i, all) => values.includes(value) && all.indexOf(value) === i),
    }],
    hides: [hideControls],
    style: looks,
    note: (rows) => leading(rows),
    columns: (rows) => {
      const span = range(rows, "low", "high");
      const rule = (head, name) => some(rows, name) ? [{
        head, n: true, by: (row) => row[name],
        cell: (row) => row[name] === null ? short(null) : [short(row[name]), " ", element("small", `(${short(row[`${name}_rank`])})`)],
      }] : [];
      return [
        { head: "rank", n: true, cell: (row) => interval(row.rank, row.rank_low, row.rank_high), by: (row) => row.rank },
        ...(some(rows, "tie_group") ? [{ head: "tie", cell: tie, by: (row) => row.tie_group }] : []),
        { head: "explainer", row: true, cell: same, by: (row) => row.explainer },
        text("family", "family"),
        { head: "mean rank", n: true, cell: (row) => interval(row.mean_rank, row.low, row.high), by: (row) => row.mean_rank },
        { head: "interval", cell: (row) => bar(row.low, row.mean_rank, row.high, span), by: (row) => row.mean_rank },
        ...rule("Borda (rank)", "borda"), ...rule("rescaled (rank)", "rescaled"),
        ...(some(rows, "p_best") ? [{ head: "first in", n: true, cell: (row) => percent(row.p_best), by: (row) => row.p_best }] : []),
        { head: "no score", n: true, cell: (row) => (row.missing ? `${row.missing} of ${row.scored + row.missing}` : ""), by: (row) => row.missing },
      ];
    },
  });

  const beaten = (row, controls) => {
    if (row.beats === null) return "";
    if (row.beats === "none") return "none";
    const names = row.beats.split(" ");
    const not = controls.filter((name) => !names.includes(name));
    return !not.length ? "all controls" : not.length <= names.length ? `all but ${not.join(", ")}` : names.join(", ");
  };
  const place = (row) => [row.domain, row.encoder, row.metric, row.removal, row.variant].join("\n");
  const scales = Object.fromEntries((data.chance ?? []).map((row) => [place(row), row]));
  const scale = (row) => {
    const found = scales[place(row)];
    if (!found || found.chance === null) return "";
    const ends = `Chance is ${short(found.chance)} (${found.chance_by})`;
    return found.ceiling === null ? `${ends}; ${found.reason}. ` : `${ends}, the ceiling ${short(found.ceiling)} (${found.ceiling_by}). `;
  };
  unmask.view("boards", data.boards, {
    selects: [pooled("domain"), pooled("encoder"), { id: "category", label: "Category", of: (row) => row.category, any: "all categories" },
      { id: "metric", label: "Metric", of: metricName }, { id: "removal", label: "Removal", of: (row) => row.removal }],
    hides: [hideControls, { id: "same", label: "hide equal maps", test: (row) => row.alias_of }],
    style: looks,
    // An alias stands below the explainer whose maps it has.
    lines: (rows) => rows.filter(({ alias_of }) => !alias_of).flatMap((row) => [row, ...rows.filter(({ alias_of }) => alias_of === row.explainer)
      .map((one) => ({ ...one, rank: row.rank, group: row.tie_group }))]),
    note: (rows) => {
      const [first] = rows;
      if (!first) return "No scores.";
      const unclear = first.controls_separated === false
        ? element("strong", " This metric does not separate the controls here: its ranks say little.", "flag") : "";
      return [...[leading(rows)].flat(), `${first.direction === "higher" ? "Higher" : "Lower"} is better. ${scale(first)}Test accuracy of the models: ${short(first.accuracy)}.`, unclear];
    },
    columns: (rows) => {
      const span = range(rows, "low", "high");
      const controls = rows.filter((row) => row.is_control && row.mean !== null).map((row) => row.explainer);
      return [
        { head: "rank", n: true, by: (row) => row.rank,
          cell: (row) => row.alias_of ? element("small", `= ${row.alias_of}`) : interval(row.rank, row.rank_low, row.rank_high) },
        ...(some(rows, "tie_group") ? [{ head: "tie", cell: tie, by: (row) => row.tie_group }] : []),
        { head: "explainer", row: true, cell: named },
        text("family", "family"),
        { head: "mean", n: true, cell: (row) => interval(row.mean, row.low, row.high), by: (row) => row.mean },
        { head: "interval", cell: (row) => (row.mean === null ? "" : bar(row.low, row.mean, row.high, span)), by: (row) => row.mean },
        ...(some(rows, "rescaled") ? [{ head: "rescaled", n: true, cell: (row) => interval(row.rescaled, row.rescaled_low, row.rescaled_high), by: (row) => row.rescaled }] : []),
        ...(some(rows, "p_best") ? [{ head: "first in", n: true, cell: (row) => percent(row.p_best), by: (row) => row.p_best }] : []),
        { head: "against random", cell: (row) => verdict(row.versus_random), by: (row) => row.versus_random },
        ...(some(rows, "names") ? [{ head: "beats", cell: (row) => element("small", beaten(row, controls), "names") }] : []),
        figure("scores", "n"),
        ...["failed", "skipped"].filter((name) => rows.some((row) => row[name])).map((name) => figure(name, name)),
      ];
    },
  });

  const contrast = (row) => (row.contrast === "slope" ? `slope over the mask ratio (${row.encoder})` : `${row.encoder} minus ${row.reference}`);
  const measure = [{ head: "metric", row: true, cell: metricName }, text("removal", "removal"), text("category", "category")];
  if (data.ratio_effects) unmask.view("ratio_effects", data.ratio_effects, {
    selects: [pooled("domain"), { id: "contrast", label: "Contrast", of: contrast, order: (values) => [...values].sort((a, b) => b.startsWith("slope") - a.startsWith("slope")) },
      { id: "images", label: "Images", of: (row) => row.images, shown: (value) => (value === "all" ? "all" : "those that every encoder gets right") }],
    find: false,
    columns: () => [
      ...measure,
      { head: "change", n: true, cell: (row) => interval(row.estimate, row.low, row.high), by: (row) => row.estimate },
      { head: "explanations get", cell: (row) => verdict(row.verdict) },
      figure("p (corrected)", "p_holm", 2), figure("effect (d)", "effect", 2), figure("accuracy", "accuracy", 2),
      { head: "relative to", cell: (row) => row.relative_to ?? "" }, text("better is", "direction"), figure("images", "n"), figure("explainers", "explainers"),
    ],
  });

  const KINDS = { encoder: "encoders", domain: "domains", seed: "pairs of seeds", removal: "removals", split_half: "halves of images" };
  if (data.stability) unmask.view("stability", data.stability, {
    selects: [pooled("domain"), { id: "kind", label: "Between", of: (row) => row.kind, any: "everything", shown: (value) => KINDS[value] ?? value }],
    find: false,
    columns: () => [
      { head: "between", cell: (row) => KINDS[row.kind] ?? row.kind },
      { head: "which", row: true, cell: (row) => (row.a === null ? (row.kind === "split_half" ? "" : "all pairs") : `${row.a}, ${row.b}`) },
      { head: "tau", n: true, cell: (row) => interval(row.value, row.low, row.high), by: (row) => row.value },
      { head: "from 0 to 1", cell: (row) => bar(row.low, row.value, row.high, [0, 1]), by: (row) => row.value },
      figure("expected", "expected"), figure("surely alike", "agreed", 5), figure("surely reversed", "reversed", 5), figure("of pairs", "pairs", 5),
      figure("explainers", "explainers"), figure("images", "n"),
    ],
  });

  if (data.friedman) unmask.view("friedman", data.friedman, {
    selects: [pooled("domain")],
    find: false,
    columns: () => [
      ...measure, figure("chi\u00b2", "statistic"), figure("p", "p", 2), figure("W", "w", 2), figure("images", "n"), figure("explainers", "k"),
      figure("ranks", "detectable_rank"), figure("scores, one pair", "detectable_score"), figure("scores, all pairs", "detectable_score_all"),
      { head: "left out", cell: (row) => element("small", (row.left_out ?? "").replaceAll(" ", ", "), "names long") },
    ],
  });

  if (data.gates) unmask.view("gates", data.gates, {
    selects: [pooled("domain"), { id: "metric", label: "Gate", of: (row) => row.metric }],
    hides: [hideControls],
    style: looks,
    columns: (rows) => [
      text("explainer", "explainer"), text("family", "family"),
      { head: "mean", n: true, cell: (row) => interval(row.mean, row.low, row.high), by: (row) => row.mean },
      text("passes if", "rule"),
      { head: "verdict", cell: (row) => verdict(row.verdict), by: (row) => row.verdict },
      figure("scores", "n"), figure("failed", "failed"),
    ],
  });

  if (data.quality) unmask.view("quality", data.quality, {
    selects: [pooled("domain"), { id: "category", label: "Category", of: (row) => row.category, any: "all categories" }],
    find: false,
    columns: (rows) => [
      ...measure,
      { head: "reliability", n: true, cell: (row) => interval(row.reliability, row.reliability_low, row.reliability_high), by: (row) => row.reliability },
      { head: "images agree", n: true, cell: (row) => interval(row.alpha, row.alpha_low, row.alpha_high), by: (row) => row.alpha },
      { head: "controls apart", n: true, cell: (row) => (row.models ? `${row.separated} of ${row.models}` : short(null)), by: (row) => row.separated / row.models },
      ...(some(rows, "mc") ? [
        { head: "meta-consistency", n: true, cell: (row) => (row.mc === null ? short(null) : [short(row.mc), " ", element("small", row.mc_sd === null ? "" : `\u00b1 ${short(row.mc_sd)}`)]), by: (row) => row.mc },
        figure("noise: same", "iac_nr", 2), figure("noise: same order", "iec_nr", 2), figure("disrupted: differs", "iac_ar", 2), figure("disrupted: worse", "iec_ar", 2),
      ] : []),
      figure("images", "images"), figure("explainers", "explainers"),
    ],
  });

  // The long list of what failed waits until it is opened.
  document.querySelector("[data-opens=failed]")?.addEventListener("toggle", () => unmask.view("failed", data.failed, {
    selects: [{ id: "status", label: "Status", of: (row) => row.status, any: "all" }, { id: "domain", label: "Domain", of: (row) => row.domain, any: "all" },
      { id: "encoder", label: "Encoder", of: (row) => row.encoder, any: "all" }, { id: "metric", label: "Metric", of: (row) => row.metric, any: "all" }],
    columns: () => [text("domain", "domain"), text("encoder", "encoder"), { head: "seeds", cell: (row) => `p${row.pretrain_seed}f${row.finetune_seed}` },
      { head: "explainer", row: true, cell: named }, { head: "metric", cell: metricName }, text("removal", "removal"), text("status", "status"),
      figure("scores", "count"), text("reason", "reason")],
  }), { once: true });
})();
