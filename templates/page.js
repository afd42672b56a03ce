// Sorting and filtering, and nothing else: without this script every row is there, in its order.
(() => {
  "use strict";
  const collator = new Intl.Collator("en", { numeric: true });
  const isGroup = (row) => row.querySelector("th[scope=rowgroup]") !== null;

  // The sort key of a row in a column: the cell's data-value, else its text; "" where there is nothing.
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell === undefined ? "" : (cell.dataset.value ?? cell.textContent.trim());
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? collator.compare(a, b) : x - y;
  };

  // A group's heading is shown over the rows of its group: not over none, and not where rows are sorted across groups.
  const headings = (table) => {
    const sorted = table.querySelector("th[aria-sort=ascending], th[aria-sort=descending]") !== null;
    for (const body of table.tBodies) {
      const rows = [...body.rows];
      for (const row of rows.filter(isGroup)) {
        row.hidden = sorted || !rows.some((other) => !isGroup(other) && !other.hidden);
      }
    }
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const places = [...table.tBodies].flatMap((body) =>
      [...body.rows].filter((row) => !isGroup(row)).map((row) => ({ row, body })));
    const header = [...table.tHead.rows[0].cells];

    const sort = (column, direction) => {
      header.forEach((cell, at) => cell.hasAttribute("aria-sort") &&
        cell.setAttribute("aria-sort", at === column ? direction : "none"));
      const order = [...places];
      if (direction !== "none") {
        const sign = direction === "ascending" ? 1 : -1;
        order.sort((a, b) => {
          const [x, y] = [key(a.row, column), key(b.row, column)];
          return x === "" || y === "" ? (x === "") - (y === "") : sign * compare(x, y);
        });
      }
      for (const { row, body } of order) (direction === "none" ? body : table.tBodies[0]).append(row);
      headings(table);
    };

    header.forEach((cell, column) => {
      if (cell.hasAttribute("data-unsorted")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      if (cell.querySelector("a")) button.setAttribute("aria-label", `Sort by ${cell.textContent.trim()}`);
      else button.append(...cell.childNodes);
      cell.append(button);
      cell.setAttribute("aria-sort", "none");
      // First click upwards, second downwards, third as it was.
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      button.addEventListener("click", () => sort(column, next[cell.getAttribute("aria-sort")]));
    });
    table.classList.add("sorts");
  }

  // A fieldset's boxes say which verdicts are shown in the table that stands in its section.
  for (const filter of document.querySelectorAll("fieldset.filter")) {
    const rows = [...filter.closest("section").querySelectorAll("tr[data-verdict]")];
    const boxes = [...filter.querySelectorAll("input[type=checkbox]")];
    const said = document.createElement("output");
    const update = () => {
      const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
      // A row over several models has several verdicts, and is shown for each of them.
      for (const row of rows) row.hidden = !row.dataset.verdict.split(" ").some((verdict) => wanted.has(verdict));
      new Set(rows.map((row) => row.closest("table"))).forEach(headings);
      said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
    };
    filter.append(said);
    filter.addEventListener("change", update);
    filter.hidden = false;
    update();
  }
})();
