"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const options = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
  const boxes = (kind) => [...document.querySelectorAll(`input[data-${kind}]`)];
  const drawn = new Set();

  // Shown: null meta means "for every choice". Grey legend entries stay with their family.
  const chosen = () => ({
    family: new Set(boxes("family").filter((b) => b.checked).map((b) => Number(b.dataset.family))),
    size: new Set(boxes("size").filter((b) => b.checked).map((b) => Number(b.dataset.size))),
  });
  const visible = (traces) => {
    const { family, size } = chosen();
    const fits = (set, value) => value === null || value === undefined || set.has(value);
    return traces.map((t) => !t.meta || (fits(family, t.meta.family) && fits(size, t.meta.size)));
  };
  const apply = (id) => Plotly.restyle(id, { visible: visible(charts[id].data) });

  const queue = Object.keys(charts);
  const next = () => {
    const id = queue.shift();
    if (!id) { document.documentElement.dataset.drawn = "true"; return; }
    const spec = charts[id];
    const shown = visible(spec.data);
    Plotly.newPlot(id, spec.data.map((t, i) => ({ ...t, visible: shown[i] })), spec.layout, options).then(() => {
      drawn.add(id);
      setTimeout(next);
    });
  };
  next();

  document.getElementById("controls").addEventListener("change", () => drawn.forEach(apply));
  document.getElementById("all").addEventListener("click", () => {
    [...boxes("family"), ...boxes("size")].forEach((b) => { b.checked = true; });
    drawn.forEach(apply);
  });
  if (window.innerWidth < 700) document.querySelector("#controls details").open = false;

  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "ascending";
    headers.forEach((h) => h.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : (down ? -1 : 1) * compare(a, b));
    body.append(...rows.map(([, row]) => row));
  }));

  const search = document.getElementById("filter");
  const flag = document.getElementById("flag");
  const count = document.getElementById("count");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of body.rows) {
      const text = [...row.cells].map((c) => c.textContent).join(" ").toLowerCase();
      const keep = words.every((w) => text.includes(w)) && (!flag.value || row.dataset.flag === flag.value);
      row.hidden = !keep;
      left += keep;
    }
    count.textContent = `${left} of ${body.rows.length} fits`;
  };
  search.addEventListener("input", filter);
  flag.addEventListener("change", filter);
  filter();
})();
