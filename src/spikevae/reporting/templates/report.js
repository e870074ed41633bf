"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  const keys = (kind) => [...document.querySelectorAll(`.key button[data-${kind}]`)];
  const hidden = { family: new Set(), size: new Set() };
  const drawn = new Set();

  // A trace without a family or size in its meta is shown for every choice; a panel with nothing left is taken away.
  const visible = (traces) => traces.map((t) => !t.meta || (!hidden.family.has(t.meta.family) && !hidden.size.has(t.meta.size)));
  const apply = (id) => {
    const shown = visible(charts[id].data);
    const tied = charts[id].data.some((t) => t.meta);
    const any = charts[id].data.some((t, i) => t.meta && shown[i]);
    const panel = document.getElementById(id).closest(".panel");
    const on = !panel.classList.toggle("off", tied && !any);
    Plotly.restyle(id, { visible: shown });
    if (on) Plotly.Plots.resize(id);
  };
  const refresh = () => {
    for (const kind of ["family", "size"]) {
      for (const button of keys(kind)) button.setAttribute("aria-pressed", String(!hidden[kind].has(Number(button.dataset[kind]))));
    }
    drawn.forEach(apply);
  };

  const queue = Object.keys(charts);
  const next = () => {
    const id = queue.shift();
    if (!id) { document.documentElement.dataset.drawn = "true"; return; }
    Plotly.newPlot(id, charts[id].data, charts[id].layout, options).then(() => {
      drawn.add(id);
      if (hidden.family.size + hidden.size.size) apply(id);
      setTimeout(next);
    });
  };
  next();

  for (const kind of ["family", "size"]) {
    for (const button of keys(kind)) {
      button.addEventListener("click", () => {
        const value = Number(button.dataset[kind]);
        if (!hidden[kind].delete(value)) hidden[kind].add(value);
        refresh();
      });
    }
  }
  for (const button of document.querySelectorAll(".key .all")) {
    button.addEventListener("click", () => {
      hidden.family.clear();
      hidden.size.clear();
      refresh();
    });
  }

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
