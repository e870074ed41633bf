"use strict";
(() => {
  const { texts, table: data } = JSON.parse(document.getElementById("data").textContent);

  // Figures: a key hides families and chooses a latent size in its own figure only.
  for (const figure of document.querySelectorAll("figure:has(> .grid)")) {
    const buttons = [...figure.querySelectorAll(".families button")];
    const radios = [...figure.querySelectorAll(".sizes input")];
    const parts = [...figure.querySelectorAll("[data-family], [data-size]")].filter((p) => p.tagName === "g");
    if (!parts.length) continue;
    const update = () => {
      const hidden = new Set(buttons.filter((b) => b.ariaPressed === "false").map((b) => b.dataset.family));
      const chosen = radios.find((r) => r.checked);
      for (const part of parts) {
        const { family, size } = part.dataset;
        part.classList.toggle("off", hidden.has(family) || Boolean(chosen && size && size !== chosen.value));
      }
      const drawn = new Set(parts.filter((p) => !chosen || !p.dataset.size || p.dataset.size === chosen.value).map((p) => p.dataset.family));
      for (const b of buttons) b.classList.toggle("absent", !drawn.has(b.dataset.family));
    };
    const isolate = (button) => {
      const alone = buttons.every((b) => (b.ariaPressed === "true") === (b === button));
      for (const b of buttons) b.ariaPressed = String(alone || b === button);
      update();
    };
    for (const button of buttons) {
      button.addEventListener("click", (event) => {
        if (event.shiftKey) { isolate(button); return; }
        button.ariaPressed = String(button.ariaPressed === "false");
        update();
      });
      button.addEventListener("dblclick", () => isolate(button));
    }
    for (const radio of radios) radio.addEventListener("change", update);
    update(); // browsers restore choices when a page is loaded again
  }

  // The point nearest to the pointer says what it is.
  const tip = document.getElementById("tip");
  const REACH = 24;
  const place = (chart, event) => {
    let best = null, least = REACH ** 2;
    for (const mark of chart.querySelectorAll("g:not(.off) > use[data-t], g:not(.off) > g > use[data-t]")) {
      if (mark.closest(".off")) continue;
      const box = mark.getBoundingClientRect();
      const far = (box.x + box.width / 2 - event.clientX) ** 2 + (box.y + box.height / 2 - event.clientY) ** 2;
      if (far < least) [least, best] = [far, box];
      if (best === box) tip.dataset.text = mark.dataset.t;
    }
    tip.hidden = !best;
    if (!best) return;
    tip.textContent = texts[tip.dataset.text];
    const x = Math.min(best.right + 8, document.documentElement.clientWidth - tip.offsetWidth - 4);
    const y = best.bottom + 8 + tip.offsetHeight > innerHeight ? best.top - tip.offsetHeight - 8 : best.bottom + 8;
    tip.style.left = `${Math.max(4, x)}px`;
    tip.style.top = `${Math.max(4, y)}px`;
  };
  for (const chart of document.querySelectorAll("svg.chart")) {
    chart.addEventListener("pointermove", (event) => place(chart, event));
    chart.addEventListener("pointerdown", (event) => place(chart, event));
    chart.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Folds open for a link to something in them, and for printing.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details.fold")) fold.open = true; });

  // Table of fits: sort, search, further columns, CSV.
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const index = new Map([...body.rows].map((row, i) => [row, i]));
  const values = (row) => data.rows[index.get(row)].values;
  const heads = () => [...table.tHead.rows[0].cells];
  const missing = (v) => v === "";
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    const column = heads().indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const h of heads()) h.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [values(row)[column], row]);
    rows.sort(([a], [b]) => missing(a) || missing(b) ? missing(a) - missing(b) : (down ? -1 : 1) * compare(a, b));
    body.append(...rows.map(([, row]) => row));
  });

  const [search, field, flag, count] = ["filter", "field", "flag", "count"].map((id) => document.getElementById(id));
  const wanted = (text) => {
    const limit = /^(<=?|>=?|=)\s*(-?[\d.]+(?:e-?\d+)?)$/i.exec(text.trim().replace("−", "-"));
    if (limit) {
      const [, sign, number] = limit, n = Number(number);
      const test = { "<": (v) => v < n, "<=": (v) => v <= n, ">": (v) => v > n, ">=": (v) => v >= n, "=": (v) => v === n }[sign];
      return (value) => typeof value === "number" && test(value);
    }
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return (value) => words.every((w) => String(value).toLowerCase().includes(w));
  };
  const filter = () => {
    const fits = wanted(search.value);
    let left = 0;
    for (const row of body.rows) {
      const all = values(row);
      const found = field.value === "" ? fits(/^[<>=]/.test(search.value) ? "" : all.join(" ")) : fits(all[field.value]);
      const keep = (search.value.trim() === "" || found) && (!flag.value || row.dataset.flag === flag.value);
      row.hidden = !keep;
      left += keep;
    }
    const which = field.value === "" && /^[<>=]/.test(search.value) ? "; choose a column to compare with a number" : "";
    count.textContent = `${left} of ${body.rows.length} fits${which}`;
  };
  for (const input of [search, field, flag]) input.addEventListener("input", filter);
  filter();

  const more = document.getElementById("more");
  const columns = () => {
    for (const row of [table.tHead.rows[0], ...body.rows]) while (row.cells.length > data.first) row.lastElementChild.remove();
    if (!more.checked) return;
    for (const column of data.columns.slice(data.first)) {
      const head = document.createElement("th"), button = document.createElement("button");
      head.scope = "col"; head.title = column.unit; head.setAttribute("aria-sort", "none");
      button.type = "button"; button.textContent = column.label;
      head.append(button);
      table.tHead.rows[0].append(head);
    }
    for (const row of body.rows) data.rows[index.get(row)].texts.forEach((text, i) => {
      const cell = row.insertCell();
      cell.textContent = text;
      if (typeof values(row)[data.first + i] === "number") cell.className = "n";
    });
  };
  more.addEventListener("change", columns);
  columns();

  document.getElementById("save").addEventListener("click", () => {
    const quote = (value) => /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
    const names = data.columns.map((c) => c.unit ? `${c.label} (${c.unit})` : c.label);
    const lines = [names, ...[...body.rows].filter((row) => !row.hidden).map(values)];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", lines.map((line) => line.map(quote).join(",")).join("\r\n"), "\r\n"], { type: "text/csv" }));
    link.download = "fits.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
})();
