// The trial table: sorted by its buttons, searched, a page at a time.

const ROWS = 50;
const COLUMNS = [ // name, what it is sorted by, what is shown
  ["trial", (row) => row[0], (row) => String(row[0])],
  ["state", (row) => row[1], (row) => stateMark(row[1])],
  [DATA.metric, (row) => row[2], (row) => (row[2] === null ? "" : row[2].toFixed(4))],
  ["best epoch", (row) => row[3], (row) => (row[3] === null ? "" : String(row[3]))],
  ["epochs", (row) => row[4], (row) => String(row[4])],
  ["time", (row) => row[5], (row) => clock(row[5])],
  ["config", null, (row) => configCell(row)],
  ["reason", (row) => row[8], (row) => row[8]],
  ["source", (row) => row[7], (row) => row[7]],
  ["node", (row) => row[6], (row) => row[6]],
];
const table = { sorted: 2, down: DATA.mode === "max", page: 0, texts: null };

function configCell(row) {
  const cell = make("div");
  row[9].forEach((value, i) => {
    if (value !== null) cell.append(make("span", "", `${clipped(DATA.trials.keys[i], 40)} `, make("b", "", clipped(value, 60))));
  });
  return cell;
}

function showTable() {
  const head = byId("table").querySelector("thead tr");
  COLUMNS.forEach(([name, by], i) => {
    const cell = headCell(by ? null : name);
    if (!by) cell.className = "plain";
    if (by) {
      const button = make("button", "", name);
      button.type = "button";
      button.addEventListener("click", () => sortBy(i));
      cell.append(button);
    }
    head.append(cell);
  });
  table.texts = DATA.trials.rows.map((row) => [row[0], row[1], figure4(row[2]), row[6], row[7], row[8],
    ...row[9].map((value, i) => (value === null ? "" : `${DATA.trials.keys[i]}=${value} ${DATA.trials.keys[i]} ${value}`))]
    .join(" ").toLowerCase());
  byId("search").addEventListener("input", () => showRows(0));
  byId("earlier").addEventListener("click", () => showRows(table.page - 1));
  byId("later").addEventListener("click", () => showRows(table.page + 1));
  byId("unpick").addEventListener("click", () => { pick(null); if (state.unpick) state.unpick(); });
  showRows(0);
}

function sortBy(column) {
  table.down = table.sorted === column ? !table.down : column === 2 && DATA.mode === "max";
  table.sorted = column;
  showRows(0);
}

function sortedRows() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean), by = COLUMNS[table.sorted][1];
  const rows = DATA.trials.rows.filter((row, i) => (!state.picked || state.picked.has(row[0])) &&
    words.every((word) => table.texts[i].includes(word)));
  const empty = (value) => value === null || value === "";
  return rows.sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    if (empty(x) || empty(y)) return empty(x) - empty(y) || a[0] - b[0]; // what is empty comes last, either way
    return (x < y ? -1 : x > y ? 1 : 0) * (table.down ? -1 : 1) || a[0] - b[0];
  });
}

function showRows(page) {
  const rows = sortedRows(), pages = Math.max(1, Math.ceil(rows.length / ROWS)), body = byId("table").querySelector("tbody");
  table.page = Math.max(0, Math.min(page, pages - 1));
  body.replaceChildren(...rows.slice(table.page * ROWS, (table.page + 1) * ROWS).map(rowOf));
  byId("table").querySelectorAll("thead th").forEach((cell, i) => {
    if (COLUMNS[i][1]) cell.setAttribute("aria-sort", i !== table.sorted ? "none" : table.down ? "descending" : "ascending");
  });
  const left = DATA.trials.num_left_out ? ` (${DATA.trials.num_left_out.toLocaleString("en")} more are in the ledger)` : "";
  byId("count").textContent = `${rows.length.toLocaleString("en")} of ${DATA.trials.rows.length.toLocaleString("en")} trials${left}`;
  byId("page").textContent = `page ${table.page + 1} of ${pages}`;
  byId("earlier").disabled = table.page === 0;
  byId("later").disabled = table.page === pages - 1;
  byId("page").parentElement.hidden = pages === 1;
  byId("unpick").hidden = !state.picked;
  byId("unpick").textContent = state.picked ? `Picked by the ranges: ${state.picked.size}. Show all` : "";
}

function rowOf(row) {
  const line = make("tr", row[0] === DATA.trials.best ? "best" : "");
  COLUMNS.forEach(([name, by, shown], i) => {
    const kind = name === "config" ? "config" : name === "reason" ? "why" : ["source", "node"].includes(name) ? "short" : [0, 2, 3, 4, 5].includes(i) ? "n" : "";
    line.append(make("td", kind, null, shown(row)));
  });
  return line;
}
