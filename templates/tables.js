// A column's button sorts upwards, then downwards, then as it was; a cell's key is its data-value, else its text.
const { compare } = new Intl.Collator("en", { numeric: true });
for (const table of all("table.sortable")) {
  const body = table.tBodies[0], places = [...body.rows], header = [...table.tHead.rows[0].cells];
  header.forEach((cell, column) => {
    cell.append(make("button", { type: "button", className: "sort", onclick() {
      const turn = { none: "ascending", ascending: "descending", descending: "none" }[cell.ariaSort];
      for (const other of header) other.ariaSort = other === cell ? turn : "none";
      const key = ({ cells }) => cells[column].dataset.value ?? cells[column].textContent.trim();
      const order = (a, b) => !key(a) - !key(b) || compare(key(a), key(b)) * (turn === "ascending" ? 1 : -1);
      body.append(...(turn === "none" ? places : [...places].sort(order)));
    } }, ...cell.childNodes));
    cell.ariaSort = "none";
  });
  table.classList.add("sorts");
}
for (const box of all(".differ")) box.onchange = () => one("table", box.closest("section")).classList.toggle("alike-hidden", box.checked);
