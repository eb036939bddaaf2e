"use strict";
// The report page: sorting, details, response curves and cell pages. Whatever a model wrote is only ever put into text
// nodes. Data lie in <script type="text/plain" data-pack="NAME">: JSON, deflated, base64 (m3_exp/reporting/page/pack.py).

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Make an element; children are elements or strings (which become text). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// ------------------------------------------------------------------------------------------------------------- data

const packs = new Map();

async function inflate(name) {
  const holder = find(`script[data-pack="${CSS.escape(name)}"]`);
  if (!holder) return null;
  const bytes = Uint8Array.from(atob(holder.textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

/** Return a pack's JSON, or null where the page has none of that name. */
function unpack(name) {
  if (!packs.has(name)) packs.set(name, inflate(name).then((text) => (text === null ? null : JSON.parse(text))));
  return packs.get(name);
}

// ----------------------------------------------------------------------------------------------------------- tables

const originalRows = new WeakMap();
const numeric = /^[-+]?\d+(\.\d+)?$/;

/** Return what a cell is sorted by: a number, a text, or null for nothing (which always comes last). */
function sortKey(cell) {
  const text = (cell.dataset.v ?? cell.textContent).trim();
  if (numeric.test(text)) return Number(text);
  return cell.classList.contains("num") || text === "" ? null : text.toLowerCase();
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
}

/** Sort by a column: its better end first, then the other way round, then as it was. */
function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0];
  if (!originalRows.has(table)) originalRows.set(table, [...body.rows]);
  const order = header.classList.contains("num") ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
  const next = order[(order.indexOf(header.ariaSort) + 1) % 3];
  for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
  header.ariaSort = next;
  const sign = next === "ascending" ? 1 : -1, column = header.cellIndex;
  const keyed = originalRows.get(table).map((row) => [sortKey(row.cells[column]), row]);
  if (next !== "none") keyed.sort(([a], [b]) => compare(a, b, sign));
  body.append(...keyed.map(([, row]) => row));
}

/** One tab stop for all values of a table; arrow keys, Home and End move between them. */
function roam(table) {
  const first = find("button.value", table);
  if (first) first.tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    const from = event.target.closest?.("button.value");
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const to = !from ? null : step ? neighbour(from, ...step)
      : { Home: all("button.value", from.closest("tr"))[0], End: all("button.value", from.closest("tr")).at(-1) }[event.key];
    if (!to) return;
    event.preventDefault();
    enter(to);
  });
}

/** Return the next value in a direction, over cells that have none. */
function neighbour(button, down, right) {
  const cell = button.closest("td"), rows = [...cell.closest("tbody").rows];
  for (let row = rows.indexOf(cell.parentElement) + down, column = cell.cellIndex + right;
    rows[row]?.cells[column]; row += down, column += right) {
    const found = find("button.value", rows[row].cells[column]);
    if (found) return found;
  }
  return null;
}

function enter(button) {
  for (const other of all('button.value[tabindex="0"]', button.closest("table"))) other.tabIndex = -1;
  button.tabIndex = 0;
  button.focus();
}

function showTip(button) {
  const tip = find("#tip"), box = button.getBoundingClientRect();
  tip.textContent = button.dataset.tip;
  tip.hidden = false;
  button.setAttribute("aria-describedby", "tip");
  const below = box.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.top = `${below ? box.bottom + 6 : Math.max(4, box.top - 6 - tip.offsetHeight)}px`;
  tip.style.left = `${Math.max(4, Math.min(box.right - tip.offsetWidth, innerWidth - tip.offsetWidth - 4))}px`;
}

function hideTip() {
  find("#tip").hidden = true;
  for (const button of all('[aria-describedby="tip"]')) button.removeAttribute("aria-describedby");
}

const rowOf = (key) => find(`#cell-list a[href="#cell/${CSS.escape(key)}"]`)?.closest("tr");

/** Show what a value is made of, with links to its cells. */
function showDetail(button) {
  hideTip();
  const cell = button.closest("td"), headers = cell.closest("table").tHead.rows[0].cells;
  const heading = find("button", headers[cell.cellIndex]).textContent;
  const dialog = find("#detail"), links = button.dataset.cells.split(" ").filter(Boolean).map((key) => {
    const row = rowOf(key);
    const [ratio, lam, score, interval] = [3, 5, 7, 8].map((column) => row.cells[column].textContent);
    const shown = [lam ? `λ = ${lam}` : ratio === "no" ? "plain" : "", score && `${score} [${interval.replace(" to ", ", ")}]`];
    return make("li", {}, make("a", { href: `#cell/${key}`, onclick: () => dialog.close() },
      shown.filter(Boolean).join(": ") || row.cells[11].textContent));
  });
  dialog.replaceChildren(
    make("h2", { id: "h-detail" }, `${heading}, ${cell.parentElement.cells[0].textContent}, ${cell.parentElement.cells[1].textContent}`),
    make("p", {}, button.dataset.tip),
    links.length ? make("p", {}, links.length > 1 ? "Its cells, down to single items:" : "Its cell, down to single items:") : "",
    make("ul", {}, ...links),
    make("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close"),
  );
  dialog.showModal();
}

function startTables() {
  for (const button of all("table.sortable thead button")) button.addEventListener("click", () => sortBy(button.closest("th")));
  all("table.values").forEach(roam);
  const value = (event) => event.target.closest?.("button.value");
  document.addEventListener("pointerover", (event) => (value(event) ? showTip(value(event)) : hideTip()));
  document.addEventListener("focusin", (event) => (value(event)?.matches(":focus-visible") ? showTip(value(event)) : hideTip()));
  document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
  document.addEventListener("click", (event) => value(event) && showDetail(value(event)));
  addEventListener("scroll", () => {
    const focused = document.activeElement;
    if (focused.matches("button.value:focus-visible")) showTip(focused);
    else hideTip();
  }, { passive: true });
  find("#cell-filter").addEventListener("input", filterCells);
  filterCells();
}

function filterCells() {
  const words = find("#cell-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...find("#cell-list").tBodies[0].rows];
  for (const row of rows) {
    const text = [row.dataset.words, ...[...row.cells].map((cell) => cell.textContent)].join(" ").toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  find("#cell-count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} cells`;
}

// ----------------------------------------------------------------------------------------------------------- curves

let plotlyReady;

/** plotly.js is inflated and run once, when a chart is first needed; the page's policy knows its hash. */
function plotly() {
  plotlyReady ??= inflate("plotly").then((text) => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: text }));
    return window.Plotly;
  });
  return plotlyReady;
}

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["paper", "ink", "soft", "rule"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
};
const dark = matchMedia("(prefers-color-scheme: dark)");

/** A line's colour on this paper: black and grey are the page's own, others are lightened in the dark. */
function ink(line) {
  const own = { "#000000": colours().ink, "#666666": colours().soft }[line.colour];
  if (own || !dark.matches) return own ?? line.colour;
  const parts = line.colour.match(/[0-9a-f]{2}/gi).map((hex) => Math.round(parseInt(hex, 16) * 0.7 + 255 * 0.3));
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}
const fixed = (value, digits = 1) => (value === null || value === undefined ? "" : value.toFixed(digits));
const interval = (low, high) => `[${fixed(low)}, ${fixed(high)}]`;

class Curves {
  constructor(data) {
    this.data = data;
    this.hidden = new Set();
    this.slider = find("#alpha");
    this.slider.max = data.alphas.length - 1;
    this.slider.value = data.alphas.indexOf(0.5);
    find("#alphas").append(...data.marked.map((alpha) => make("button", { type: "button", class: "button",
      onclick: () => { this.slider.value = data.alphas.indexOf(alpha); this.update(); } }, String(alpha))));
    this.slider.addEventListener("input", () => this.update());
    find("#study").addEventListener("change", () => this.choose());
    find("#controls").addEventListener("submit", (event) => event.preventDefault());
    for (const radio of all("input[name=unit]")) radio.addEventListener("change", () => this.choose());
    dark.addEventListener("change", () => this.choose());
    addEventListener("resize", () => this.update());
    this.choose();
  }

  get study() { return this.data.studies[Number(find("#study").value)]; }
  get index() { return Number(this.slider.value); }
  get alpha() { return this.data.alphas[this.index]; }
  get unit() { return this.study.relative.length ? find("input[name=unit]:checked").value : "score"; }
  get lines() { return this.study[this.unit]; }
  get mixtures() { return this.study.mixtures; }

  /** The lines drawn: those that are checked; of three experts one triangle. */
  get shown() {
    if (this.mixtures) return [this.lines.find((line) => line.key === this.picked) ?? this.lines.find((line) => line.key === "mean") ?? this.lines[0]];
    return this.lines.filter((line) => !this.hidden.has(line.key));
  }

  /** From now on there is a chart. */
  show() {
    this.near = true;
    this.update();
  }

  /** Another study or unit: new checkboxes and comparison, then everything that depends on alpha. */
  choose() {
    all("input[name=unit]").forEach((radio) => { radio.disabled = !this.study.relative.length; radio.checked = radio.value === this.unit; });
    find("#shown").replaceChildren(make("legend", {}, "Shown"), ...this.lines.map((line) => this.checkbox(line)));
    const { header, rows, words } = this.study;
    find("#comparison").replaceChildren(
      make("thead", {}, make("tr", {}, ...header.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((text) => make("td", {}, text))))),
    );
    find("#words").replaceChildren(...words.map((text) => make("li", {}, text)));
    this.update();
  }

  checkbox(line) {
    if (this.mixtures) {
      const radio = make("input", { type: "radio", name: "line", value: line.key, checked: line === this.shown[0], onchange: () => { this.picked = line.key; this.update(); } });
      return make("label", {}, radio, swatch(line), line.name);
    }
    const box = make("input", { type: "checkbox", checked: !this.hidden.has(line.key), onchange: () => {
      if (box.checked) this.hidden.delete(line.key); else this.hidden.add(line.key);
      this.update();
    } });
    return make("label", {}, box, swatch(line), line.name);
  }

  update() {
    const text = this.alpha.toPrecision(this.alpha < 1 ? 2 : 3).replace(/\.?0+$/, "");
    find("#alpha-value").textContent = text;
    this.slider.setAttribute("aria-valuetext", `alpha ${text}`);
    all("#alphas button").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.textContent) === this.alpha)));
    this.table(text);
    find("#explained").textContent = this.explained();
    find("#claims").textContent = this.claims();
    cancelAnimationFrame(this.frame);
    if (this.near && find("#chart").clientWidth) this.frame = requestAnimationFrame(() => this.draw());
  }

  explained() {
    if (this.mixtures) return this.triangleExplained();
    const first = this.study.experts[0] ?? "the first expert";
    const sided = new Set(this.shown.flatMap((line) => line.draws.filter((d) => d.said).map((d) => `α = ${d.alpha} draw ${d.draw}: ${d.said}`)));
    const told = sided.size ? ` Of these all but one expert: ${[...sided].join("; ")}.` : "";
    const draws = this.shown.some((line) => line.draws.length) ? ` Open circles: real draws of λ.${told}` : "";
    const plain = this.shown.some((line) => line.plain !== null) ? " Dotted levels: the method's own default (plain)." : "";
    return `λ is the share of ${first}. A node was really merged and evaluated; its area is the weight that α gives it. `
      + `Bands and bars: 95 %, of bands over items, of E also over sampled λ and DARE masks.${plain}${draws}`;
  }

  /** Whether E at this alpha is free of interpolation error: sampled lambdas stand beside the nodes. */
  corrected(line) { return line.corrected && this.alpha >= this.data.marked[0] && this.alpha <= this.data.marked.at(-1); }

  /** What the signs are of, or why nothing is claimed at this alpha. */
  claims() {
    const { signs, why } = this.study.claims, starred = this.lines.some((line) => !this.corrected(line));
    const star = starred ? "E*: from the nodes alone; its interval holds what the curve may bend between them. " : "";
    const points = this.unit === "score" ? "" : " E − plain of a benchmark is in points of its score.";
    if (why) return `${star}Nothing is claimed of E − plain: ${why}.${points}`;
    if (this.data.marked.includes(this.alpha)) return `${star}${signs}${points}`;
    if (starred) return `${star}Nothing is claimed at this α: ${this.data.outside}.${points}`;
    return `No sign at this α: signs stand at the paper's seven, which are one family.${points}`;
  }

  /** E − plain with its interval, and at the paper's alphas its sign; empty where it is not compared. */
  gain(line) {
    const found = line.gain[this.index], mark = line.marks[this.data.marked.indexOf(this.alpha)];
    if (!found) return "";
    const [value, low, high] = found.map((x) => (x < 0 ? "−" : "+") + fixed(Math.abs(x)));
    return `${value} [${low}, ${high}]${{ better: " ▲", worse: " ▼", untold: " ≈" }[mark] ?? ""}`;
  }

  table(alpha) {
    const unit = this.unit === "score" ? "%" : "% of better parent";
    const sd = this.lines.some((line) => line.sd);
    const header = ["", `E[score | α = ${alpha}], ${unit}`, "95 % interval", ...(sd ? ["sd between draws"] : []), ...(this.mixtures ? [] : ["at λ = 1/2"]), "plain", "E − plain", "items"];
    find("#expected thead").replaceChildren(make("tr", {}, ...header.map((text, at) => make("th", { scope: "col", class: at ? "num" : "" }, text))));
    find("#expected tbody").replaceChildren(...this.lines.map((line) => {
      const e = line.e[this.index], half = this.mixtures ? [] : [fixed(line.at[line.lams.indexOf(0.5)])];
      const cells = [fixed(e) + (this.corrected(line) ? "" : " E*"), interval(line.e_low[this.index], line.e_high[this.index]), ...(sd ? [fixed(line.sd?.[this.index])] : []),
        ...half, fixed(line.plain), this.gain(line), line.n + (line.unscored ? ` (${line.unscored} unscored)` : "")];
      return make("tr", { "data-line": line.key }, make("th", { scope: "row" }, swatch(line), line.name), ...cells.map((text) => make("td", { class: "num" }, text)));
    }));
  }

  async draw() {
    const Plotly = await plotly(), chart = find("#chart");
    if (this.mixtures) {
      const layout = this.triangleLayout(chart.clientWidth);
      chart.style.height = `${layout.height}px`;
      await Plotly.react(chart, this.triangle(chart.clientWidth), layout, { displayModeBar: false, responsive: false });
      chart.setAttribute("aria-label", `Score of ${this.shown[0].name} over the mixtures of three experts, and the Dirichlet density of alpha ${this.alpha}; the table below has the numbers`);
      return;
    }
    chart.style.height = "";
    const traces = [...this.shown.flatMap((line, at) => this.traces(line, at)), ...this.reference(), ...this.density()];
    await Plotly.react(chart, traces, this.layout(), { displayModeBar: false, responsive: false });
    chart.setAttribute("aria-label", `Response curves of ${this.shown.map((line) => line.name).join(", ")} over lambda, and the Beta density of alpha ${this.alpha}; the table below has the numbers`);
  }

  traces(line, place) {
    const colour = ink(line), heavy = ["mean", "minimum"].includes(line.key), own = line.key !== "minimum";
    const at = (lam) => line.lams.indexOf(lam);
    const band = { x: [...line.lams, ...[...line.lams].reverse()], y: [...line.high, ...[...line.low].reverse()], fill: "toself",
      fillcolor: `${colour}22`, line: { width: 0 }, mode: "lines", hoverinfo: "skip" };
    const curve = { x: line.lams, y: line.at, mode: "lines", line: { color: colour, width: heavy ? 3 : 1.6, dash: line.dash }, hoverinfo: "skip" };
    const nodes = { x: line.nodes, y: line.nodes.map((lam) => line.at[at(lam)]), mode: "markers", name: line.name,
      marker: { color: colour, symbol: line.symbol, size: line.weights[this.index].map((w) => (own ? 5 + 24 * Math.sqrt(w) : 6)), opacity: 0.85, line: { color: colours().paper, width: 1 } },
      text: line.nodes.map((lam, k) => `λ = ${lam}: ${fixed(line.at[at(lam)])} ${interval(line.low[at(lam)], line.high[at(lam)])}${own ? `<br>weight ${fixed(100 * line.weights[this.index][k])} %` : ""}`),
      hovertemplate: `<b>${line.name}</b><br>%{text}<extra></extra>` };
    const draws = { x: line.draws.map((d) => d.lam), y: line.draws.map((d) => d.value), mode: "markers",
      marker: { color: colour, symbol: "circle-open", size: 8, line: { width: 1.6 } },
      text: line.draws.map((d) => `draw ${d.draw} of α = ${d.alpha}, λ = ${d.lam}${d.said ? ` (${d.said})` : ""}: ${fixed(d.value)}`), hovertemplate: `<b>${line.name}</b><br>%{text}<extra></extra>` };
    const plain = line.plain === null ? [] : [{ x: [0, 1], y: [line.plain, line.plain], mode: "lines", line: { color: colour, width: 1, dash: "1px,3px" },
      hovertemplate: `<b>${line.name}</b>, plain: ${fixed(line.plain)}<extra></extra>` }];
    const e = line.e[this.index], low = line.e_low[this.index], high = line.e_high[this.index];
    const expected = { x: [1.06 + 0.03 * place], y: [e], mode: "markers", marker: { color: colour, symbol: line.symbol, size: 9 },
      error_y: { type: "data", symmetric: false, array: [high - e], arrayminus: [e - low], color: colour, thickness: 1.4, width: 3 },
      hovertemplate: `<b>${line.name}</b><br>E[score | α = ${this.alpha}] = ${fixed(e)} ${interval(low, high)}<extra></extra>` };
    return [...(heavy || this.shown.length <= 4 ? [band] : []), curve, nodes, draws, ...plain, expected];
  }

  reference() {
    if (this.unit === "score") return [];
    return [{ x: [0, 1], y: [100, 100], mode: "lines", line: { color: colours().soft, width: 1 }, hovertemplate: "better parent<extra></extra>" }];
  }

  /** Beta(alpha, alpha) below the curves, as high as the axis goes; the paper's seven stand thin behind it. */
  density() {
    const xs = Array.from({ length: 161 }, (_, k) => (1 - Math.cos(Math.PI * (k + 0.5) / 161)) / 2);
    const beta = (index) => xs.map((x) => Math.min(DENSITY_TOP, Math.exp((this.data.alphas[index] - 1) * Math.log(x * (1 - x)) - this.data.log_beta[index])));
    const thin = this.data.marked.map((alpha) => ({ x: xs, y: beta(this.data.alphas.indexOf(alpha)), yaxis: "y2", mode: "lines", line: { color: colours().rule, width: 1 }, hoverinfo: "skip" }));
    return [...thin, { x: xs, y: beta(this.index), yaxis: "y2", mode: "lines", fill: "tozeroy", fillcolor: `${colours().soft}33`, line: { color: colours().ink, width: 1.6 }, hoverinfo: "skip" }];
  }

  layout() {
    const c = colours(), right = 1.06 + 0.03 * this.shown.length;
    const axis = { gridcolor: c.rule, zeroline: false, linecolor: c.soft, tickcolor: c.soft, ticks: "outside", ticklen: 4, fixedrange: true };
    const note = (text, x, y, more) => ({ text, x, y, showarrow: false, font: { color: c.soft, size: 12 }, ...more });
    return {
      ...this.look(), margin: { l: 56, r: 12, t: 28, b: 46 },
      xaxis: { ...axis, range: [-0.025, right], showgrid: false, title: { text: "λ", standoff: 6 }, tickvals: [0, 0.125, 0.25, 0.5, 0.75, 0.875, 1], ticktext: ["0", "1/8", "1/4", "1/2", "3/4", "7/8", "1"], anchor: "y2" },
      yaxis: { ...axis, domain: [0.27, 1], rangemode: "tozero", title: { text: this.unit === "score" ? "score, %" : "% of the better parent", standoff: 8 } },
      yaxis2: { ...axis, domain: [0, 0.19], range: [0, DENSITY_TOP], tickvals: [0, 1, 2, 3], showgrid: false, title: { text: "density", standoff: 14 } },
      annotations: [
        note("E[score | α]", right, 1, { xref: "x", yref: "paper", xanchor: "right", yanchor: "bottom" }),
        note(`Beta(${find("#alpha-value").textContent}, ${find("#alpha-value").textContent})`, right, 0.185, { xref: "x", yref: "paper", xanchor: "right", yanchor: "bottom" }),
      ],
      shapes: [{ type: "line", xref: "x", yref: "paper", x0: 0.5, x1: 0.5, y0: 0, y1: 1, line: { color: c.soft, width: 1, dash: "1px,4px" } }],
    };
  }

  look() {
    const c = colours();
    return {
      showlegend: false, dragmode: false, hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: c.ink },
      hoverlabel: { bgcolor: c.paper, bordercolor: c.soft, font: { color: c.ink } },
    };
  }

  // ------------------------------------------------------------------------------- three experts: one triangle

  /** "0.25 lm + 0.75 math", of shares in the experts' order. */
  mixture(shares) {
    return shares.map((share, k) => [share, this.study.experts[k] ?? `expert ${k + 1}`]).filter(([share]) => share > 0)
      .map(([share, name]) => `${Number(share.toPrecision(3))} ${name}`).join(" + ");
  }

  triangleExplained() {
    const [line] = this.shown, wins = line.gains_low?.some((low) => low > 0);
    const region = !line.gains_low ? "" : wins ? " Dots: better than each expert alone with 95 % (over items, one mixture at a time)."
      : " No mixture is better than each expert alone with 95 %.";
    const sided = line.draws.filter((d) => d.said).map((d) => `α = ${d.alpha} draw ${d.draw}: ${d.said}`);
    const told = sided.length ? ` Of these all but one expert: ${sided.join("; ")}.` : "";
    const draws = line.draws.length ? ` Open diamonds: real draws.${told}` : "";
    const unit = this.unit === "score" ? "score" : "score in % of the better parent's";
    return `Colours: ${unit}. A corner is an expert alone, with its score. A filled circle was merged and evaluated; its area is the weight that α gives it.`
      + `${line.sampled.length ? " Open circles: sampled mixtures." : ""}${draws}${region} Grey: where α draws its mixtures.`;
  }

  triangle(width) {
    const [line] = this.shown, c = colours(), order = this.data.order, fine = lattice(order), at = (points) => ({ x: points.map(across), y: points.map(up) });
    const place = (shares) => fine.findIndex((point) => point.every((share, k) => Math.abs(share - shares[k]) < 1e-4));
    const shown = this.plots(width), tile = (side) => (1.34 * side) / order, blues = [[0, dark.matches ? "#16324a" : "#eef5fa"], [1, dark.matches ? "#7cc4ee" : "#0072b2"]];
    const won = (k) => (line.gains ? `<br>least gain on an expert ${fixed(line.gains[k])} ${interval(line.gains_low[k], line.gains_high[k])}` : "");
    const surface = { ...at(fine), mode: "markers", marker: { symbol: "hexagon2", size: tile(shown.side), color: line.at, colorscale: blues, line: { width: 0 } },
      text: fine.map((shares, k) => `${this.mixture(shares)}: ${fixed(line.at[k])}${won(k)}`), hovertemplate: "%{text}<extra></extra>" };
    const better = fine.map((_, k) => k).filter((k) => line.gains_low && line.gains_low[k] > 0).map((k) => fine[k]);
    const dots = { ...at(better), mode: "markers", marker: { size: 3, color: c.ink }, hoverinfo: "skip" };
    const nodes = { ...at(line.nodes), mode: "markers", marker: { color: c.ink, size: line.weights[this.index].map((w) => 5 + 24 * Math.sqrt(w)), opacity: 0.85, line: { color: c.paper, width: 1 } },
      text: line.nodes.map((shares, k) => `${this.mixture(shares)}: ${fixed(line.at[place(shares)])}<br>weight ${fixed(100 * line.weights[this.index][k])} %`), hovertemplate: `<b>${line.name}</b><br>%{text}<extra></extra>` };
    const ring = (points, symbol, text) => ({ ...at(points), mode: "markers", marker: { symbol, size: 8, color: c.ink, line: { width: 1.4 } }, text, hovertemplate: "%{text}<extra></extra>" });
    const sampled = ring(line.sampled, "circle-open", line.sampled.map((shares) => `sampled: ${this.mixture(shares)}`));
    const draws = ring(line.draws.map((d) => d.lam), "diamond-open", line.draws.map((d) => `draw ${d.draw} of α = ${d.alpha}, ${this.mixture(d.lam)}: ${fixed(d.value)}`));
    const inner = lattice(order - 3).map((point) => point.map((share) => (share * (order - 3) + 1) / order));
    const middle = this.data.log_middle[this.index], height = (shares) => Math.exp(middle + (this.alpha - 1) * shares.reduce((sum, share) => sum + Math.log(3 * share), 0));
    const density = { ...at(inner), xaxis: "x2", yaxis: "y2", mode: "markers", hoverinfo: "skip", marker: { symbol: "hexagon2", size: tile(shown.small), line: { width: 0 },
      color: inner.map((shares) => Math.min(height(shares), 12)), cmin: 0, cmax: 12, colorscale: [[0, c.paper], [1, c.ink]] } };
    const border = (axis) => ({ x: [0, 1, 0.5, 0], y: [0, 0, TALL, 0], xaxis: `x${axis}`, yaxis: `y${axis}`, mode: "lines", line: { color: c.soft, width: 1 }, hoverinfo: "skip" });
    const steps = Array.from({ length: 81 }, (_, k) => k / 80);
    const scale = { x: steps.map((step) => 0.2 + 0.6 * step), y: steps.map(() => SCALE), mode: "markers", hoverinfo: "skip", marker: { symbol: "square", size: 10, color: steps, colorscale: blues, line: { width: 0 } } };
    return [surface, scale, dots, border(""), nodes, sampled, draws, density, border("2")];
  }

  /** Where both triangles stand, in shares of the chart, and their sides in pixels; one below the other on a narrow screen. */
  plots(width) {
    const room = width - 24, narrow = width < 640, side = Math.min(460, (narrow ? 1 : 0.56) * room / 1.16), small = 0.55 * side;
    const rows = [(TALL + 0.3) * side, (TALL + 0.2) * small], height = narrow ? rows[0] + rows[1] + 20 : rows[0];
    const main = 1.16 * side / room, aside = 1.16 * small / room;
    const columns = narrow ? [[0, main], [0, aside]] : [[0, main], [main + 0.04, main + 0.04 + aside]];
    const lines = narrow ? [[1 - rows[0] / height, 1], [0, rows[1] / height]] : [[0, 1], [0.3, 0.3 + rows[1] / height]];
    return { side, small, height, columns, lines };
  }

  triangleLayout(width) {
    const [line] = this.shown, c = colours(), { height, columns, lines } = this.plots(width);
    const ends = [Math.min(...line.at), Math.max(...line.at)].map((value) => fixed(value) + " %");
    const axis = { visible: false, fixedrange: true, range: [-0.08, 1.08] };
    const note = (text, x, y, more) => ({ text, x, y, showarrow: false, font: { color: c.ink, size: 12 }, ...more });
    const corner = [[0.5, TALL, "bottom"], [0, 0, "top"], [1, 0, "top"]];
    const named = this.study.experts.map((name, k) => {
      const alone = lattice(this.data.order).findIndex((point) => point[k] === 1), [x, y, yanchor] = corner[k];
      return note(`${name}  ${fixed(line.at[alone])}`, x, y, { xref: "x", yref: "y", yanchor, yshift: yanchor === "top" ? -12 : 12 });
    });
    return {
      ...this.look(), width, height: height + 40, margin: { l: 12, r: 12, t: 20, b: 20 },
      xaxis: { ...axis, domain: columns[0] }, yaxis: { ...axis, domain: lines[0], range: [-0.2, TALL + 0.1] },
      xaxis2: { ...axis, domain: columns[1], anchor: "y2" }, yaxis2: { ...axis, domain: lines[1], range: [-0.15, TALL + 0.05], anchor: "x2" },
      annotations: [...named, note(ends[0], 0.18, SCALE, { xref: "x", yref: "y", xanchor: "right" }), note(ends[1], 0.82, SCALE, { xref: "x", yref: "y", xanchor: "left" }),
        note(`Dirichlet(${[1, 1, 1].fill(find("#alpha-value").textContent).join(", ")})`, 0.5, -0.03, { xref: "x2", yref: "y2", yanchor: "top", font: { color: c.soft, size: 12 } })],
    };
  }
}

const DENSITY_TOP = 3.2;
const SCALE = -0.17; // the height of the scale of colours below a triangle
const TALL = Math.sqrt(0.75); // of a triangle with sides of 1
/** Where shares of three experts are drawn: the first at the top, the second at the left, the third at the right. */
const across = ([first, , third]) => third + first / 2;
const up = ([first]) => first * TALL;
/** The shares on a lattice, in the order of the page's numbers: ascending by the first share, then by the second. */
const lattice = (order) => Array.from({ length: order + 1 }, (_, i) => Array.from({ length: order + 1 - i }, (_, j) => [i / order, j / order, (order - i - j) / order])).flat();
const GLYPHS = { circle: "●", square: "■", "triangle-up": "▲", "triangle-down": "▼", "triangle-left": "◀", "triangle-right": "▶",
  diamond: "◆", cross: "✚", x: "✖", pentagon: "⬟", hexagon: "⬢", star: "★" };
const swatch = (line) => Object.assign(make("span", { class: "swatch", "aria-hidden": "true" }, GLYPHS[line.symbol]), { style: `color: ${ink(line)}` });

/** Numbers at once, so that nothing moves later; the chart when it comes near, or a little after the page has opened. */
async function startCurves() {
  if (!find("#controls")) return;
  const curves = new Curves(await unpack("curves"));
  const watch = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && curves.show(), { rootMargin: "800px" });
  watch.observe(find("#chart"));
  setTimeout(() => curves.show(), 1500);
}

// ------------------------------------------------------------------------------------------------------------ cells

const [ID, SAMPLE, VALUE, EXTRACTED, REASON, FINISH, TOKENS, NOTES, ANSWER, PROMPT] = Array(10).keys();
const VERDICTS = { right: "✓ right", wrong: "✗ wrong", partly: "◐ partly", unscored: "? unscored" };

function verdict(value) {
  if (value === null) return "unscored";
  return value === 1 ? "right" : value === 0 ? "wrong" : "partly";
}

function verdictMark(item) {
  const kind = verdict(item[VALUE]);
  const text = kind === "partly" ? `◐ ${item[VALUE].toFixed(2)}` : VERDICTS[kind];
  return make("span", { class: `verdict ${kind}` }, text);
}

const answerText = (item) => item[ANSWER] ?? "";
const oneLine = (text) => text.trim().replace(/\s+/g, " ").slice(0, 240);

async function showCell(key) {
  const view = find("#cell"), cell = await unpack(`cell-${key}`);
  if (!cell) {
    view.replaceChildren(make("h1", { id: "h-cell", tabindex: -1 }, "No such cell"), make("p", {}, "This page has no cell of that address. ", make("a", { href: "#cells" }, "All cells")));
    return;
  }
  const prompts = (await unpack(`prompts-${cell.benchmark}`)) ?? {};
  const label = { done: "", incomplete: "Incomplete: ", failed: "Failed: ", left: "Not run yet. " }[cell.state];
  view.replaceChildren(
    steps(key),
    make("h1", { id: "h-cell", tabindex: -1 }, cell.title),
    make("p", { class: "score" }, `${label}${cell.score}`),
    cell.failure ? make("p", { class: "warning" }, cell.failure) : "",
    cell.note ? make("p", { class: "warning" }, cell.note) : "",
    make("details", {}, make("summary", {}, "Where it comes from, and how to make it again"), make("dl", { class: "facts" },
      ...cell.facts.flatMap(([name, value]) => fact(name, value)),
      ...fact("these weights", make("code", {}, cell.merge)), ...fact("this cell again", make("code", {}, cell.retry)))),
    ...(cell.items.length ? itemList(cell, prompts, key) : [make("p", {}, "There are no items to show.")]),
  );
  document.title = cell.title;
}

const fact = (name, value) => [make("dt", {}, name), make("dd", {}, value)];

/** Links to the list and to the cells beside this one, in the order of the list as it stands. */
function steps(key) {
  const rows = [...find("#cell-list").tBodies[0].rows].filter((row) => !row.hidden);
  const at = rows.indexOf(rowOf(key));
  const link = (row, arrow) => (row ? make("a", { href: find("a", row).hash }, arrow) : "");
  return make("p", { class: "steps screen" }, make("a", { href: "#cells" }, "All cells"), link(rows[at - 1], "← previous cell"), link(at < 0 ? null : rows[at + 1], "next cell →"));
}

function itemList(cell, prompts, key) {
  const entries = cell.items.map((item) => ({ item, prompt: prompts[item[PROMPT]] ?? null, node: null }));
  const list = make("ol", { class: "items" });
  for (const entry of entries) list.append((entry.node = itemNode(entry, cell, key)));
  const counts = Map.groupBy ? Map.groupBy(entries, (entry) => verdict(entry.item[VALUE])) : group(entries);
  const status = make("span", { role: "status" });
  const search = make("input", { type: "search", placeholder: "in prompts and answers", autocomplete: "off" });
  const radios = ["all", ...Object.keys(VERDICTS)].filter((kind) => kind === "all" || counts.has(kind)).map((kind) => make("label", {},
    make("input", { type: "radio", name: "verdict", value: kind, checked: kind === "all" }), ` ${kind} (${kind === "all" ? entries.length : counts.get(kind).length})`));
  const filters = make("div", { class: "filters", role: "search", "aria-label": "items" },
    make("fieldset", {}, make("legend", {}, "Items"), ...radios), make("label", {}, "Search ", search),
    make("button", { type: "button", class: "button", onclick: () => openAll(entries) }, "Open or close all shown"), status);
  const apply = () => {
    const kind = find("input[name=verdict]:checked", filters).value, wanted = search.value.toLowerCase();
    let shown = 0;
    for (const { item, prompt, node } of entries) {
      const text = [item[ID], item[EXTRACTED], item[REASON], item[ANSWER], prompt].join("\n").toLowerCase();
      node.hidden = !((kind === "all" || verdict(item[VALUE]) === kind) && text.includes(wanted));
      shown += node.hidden ? 0 : 1;
    }
    status.textContent = `${shown} of ${entries.length} items`;
  };
  filters.addEventListener("input", apply);
  apply();
  const header = make("div", { class: "item-header", "aria-hidden": "true" }, ...["verdict", "item", "extracted", "answer"].map((text) => make("span", {}, text)));
  return [filters, header, list];
}

function group(entries) {
  const found = new Map();
  for (const entry of entries) found.set(verdict(entry.item[VALUE]), [...(found.get(verdict(entry.item[VALUE])) ?? []), entry]);
  return found;
}

function openAll(entries) {
  const shown = entries.filter(({ node }) => !node.hidden).map(({ node }) => find("details", node));
  const open = !shown.every((details) => details.open);
  for (const details of shown) details.open = open;
}

/** One item: its verdict on a line; opened, what was asked, what the model wrote, what was read of it and why. */
function itemNode({ item, prompt }, cell, key) {
  const details = make("details", { class: "item" }, make("summary", {},
    verdictMark(item), make("span", {}, item[SAMPLE] ? `${item[ID]} (sample ${item[SAMPLE]})` : item[ID]),
    make("span", {}, item[EXTRACTED] ?? "–"), make("span", { class: "answer-line" }, oneLine(answerText(item)))));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(itemBody(item, prompt, cell, key));
  });
  return make("li", { "data-item": item[ID] }, details);
}

function itemBody(item, prompt, cell, key) {
  const half = (title, text, kind) => make("div", {}, make("h3", {}, title), make("pre", { class: `text ${kind}`, tabindex: 0, role: "region", "aria-label": title }, text));
  const finish = { length: ", cut at the limit of tokens", stop: "" }[item[FINISH]] ?? (item[FINISH] ? `, ${item[FINISH]}` : "");
  const wrote = `The model's answer${item[TOKENS] ? ` (${item[TOKENS]} tokens${finish})` : ""}`;
  const notes = Object.entries(item[NOTES] ?? {}).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  const across = make("div", { class: "across screen" });
  across.append(make("button", { type: "button", class: "button", onclick: () => showAcross(across, item, cell, key) }, "The same item in the other cells"));
  return make("div", { class: "body" },
    half("Prompt", prompt ?? "not here", ""), half(wrote, item[ANSWER] === null ? "not here" : item[ANSWER] || "(nothing)", "model"),
    make("dl", { class: "facts" },
      ...fact("extracted", item[EXTRACTED] === null ? "nothing" : make("code", {}, item[EXTRACTED])),
      ...fact("verdict", verdictMark(item)), ...(item[REASON] ? fact("reason", item[REASON]) : []),
      ...(notes.length ? fact("notes", make("pre", {}, notes.join("\n"))) : [])),
    across);
}

/** Every other cell's answer to the same item, in the order of the list. */
async function showAcross(place, item, cell, key) {
  const keys = all("#cell-list tbody a").map((link) => link.hash.slice("#cell/".length)).filter((other) => other !== key);
  const cells = (await Promise.all(keys.map((other) => unpack(`cell-${other}`))))
    .map((other, at) => [keys[at], other]).filter(([, other]) => other?.benchmark === cell.benchmark);
  const lines = cells.flatMap(([other, { title, items }]) => items
    .filter((found) => found[ID] === item[ID] && found[SAMPLE] === item[SAMPLE])
    .map((found) => make("li", {}, verdictMark(found), " ", make("a", { href: `#cell/${other}` }, title), make("pre", {}, found[ANSWER] ?? ""))));
  const heading = make("h3", { tabindex: -1 }, lines.length ? `The same item in ${lines.length} other ${lines.length === 1 ? "cell" : "cells"}` : "No other cell has this item");
  place.replaceChildren(heading, make("ul", {}, ...lines));
  heading.focus();
}

// ----------------------------------------------------------------------------------------------------------- routes

const pageTitle = document.title;
let cameFrom = null;

async function route() {
  const key = location.hash.match(/^#cell\/(.+)$/)?.[1];
  const view = find("#cell"), report = find("#report");
  hideTip();
  if (key) {
    if (view.hidden) cameFrom = [document.activeElement, scrollY];
    await showCell(decodeURIComponent(key));
    report.hidden = true;
    view.hidden = false;
    scrollTo(0, 0);
    find("#h-cell").focus();
  } else if (!view.hidden) {
    report.hidden = false;
    view.hidden = true;
    view.replaceChildren();
    document.title = pageTitle;
    comeBack();
  }
  for (const link of all("nav a")) {
    if (link.hash === (key ? "#cells" : location.hash)) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

/** Return to the link that opened a cell, or to the section that the address names. */
function comeBack() {
  const [element, top] = cameFrom ?? [null, 0];
  const section = document.getElementById(location.hash.slice(1));
  const within = element && element !== document.body && (!section || section.contains(element));
  requestAnimationFrame(() => {
    if (section && !within) section.scrollIntoView();
    else scrollTo(0, top);
    if (within) element.focus({ preventScroll: true });
  });
}

startTables();
startCurves();
addEventListener("hashchange", route);
route();
