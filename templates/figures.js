// The chosen layer, and head, are lit in every figure, with their numbers beside it.
const put = (made, given) => {
  for (const name in given) made.setAttribute(name, given[name]);
  return made;
};
const draw = (tag, given) => put(document.createElementNS(one("svg").namespaceURI, tag), given),
  numbers = (text) => (text ?? "").split(" ").map(Number),
  rect = (at) => at.getBoundingClientRect(),
  tables = (figure) => all(`#numbers-${figure.id} table`),
  slider = make("input", { type: "range", min: 0, value: 0 }), spoken = make("output");
const light = (svg, name, x, y, width, height) => {
  one("." + name, svg)?.remove();
  svg[name === "lit" ? "prepend" : "append"](draw("rect", { class: name, x, y, width, height }));
};
const choose = (n, head) => {
  slider.value = n;
  for (const figure of all("figure")) {
    const named = tables(figure).flatMap((table) => {
      const row = [...table.tBodies[0].rows].find((row) => row.cells[0].textContent.split("–")[0] === `${n}`);
      return row ? [...row.cells].map((cell, k) => [table.tHead.rows[0].cells[k].textContent, cell.textContent]) : [];
    });
    for (const svg of all("[data-at]", figure)) {
      const [first, step, top, bottom] = numbers(svg.dataset.at), x = first + (n - 0.5) * step,
        [low, pitch] = numbers(svg.dataset.rows), name = svg.previousElementSibling?.textContent;
      light(svg, "lit", x, top, step, bottom - top);
      if (svg.dataset.down === "head" && head >= 0) light(svg, "pin", x, low + (head - 0.5) * pitch, step, pitch);
      const at = named.findIndex(([column]) => column === name);
      if (at >= 0) svg.nextElementSibling.dataset.now = named.splice(at, 1)[0][1];
    }
    one(".readout", figure).textContent = named.slice(0, 9).map((pair) => pair.join(" ")).join(" · ");
  }
  all(".chosen").forEach((mark) => mark.classList.remove("chosen"));
  const values = all(`[data-l="${n}"]`).map((row) => {
    row.children[head]?.classList.add("chosen");
    return row.dataset.v.split("|")[head];
  });
  spoken.textContent = `layer ${n}` + (head >= 0 ? `, head ${head}: ${values.join(" · ")}` : "");
};
onpointerdown = onpointermove = ({ target, clientX, clientY }) => {
  const group = target.parentElement;
  if (group?.dataset.l) return choose(+group.dataset.l, [...group.children].indexOf(target));
  const svg = target.closest?.("svg[data-at]");
  if (!svg) return;
  const box = rect(svg), { width, height } = svg.viewBox.baseVal, { at, rows, down, cells } = svg.dataset,
    place = (text, at) => Math.round((at - numbers(text)[0]) / numbers(text)[1]),
    n = place(at, (clientX - box.left) * width / box.width),
    row = place(rows, (clientY - box.top) * height / box.height);
  if (n < 0 || n > slider.max) return;
  choose(n, down === "head" ? row : -1);
  const value = cells?.split(";")[row]?.split(" ")[n];
  if (value) one(".readout", svg.closest("figure")).textContent = `layer ${n}, ${down} ${row}: ${value}`;
};
slider.oninput = () => choose(slider.value, -1);
const network = one("#network .more");
if (network) {
  slider.max = one("[data-count]").dataset.count - 1;
  network.append(make("label", {}, "Layer ", slider), spoken);
}

// Rows of one family of weights alone, in every figure that has them.
for (const line of all("figure:has([data-family]) .more")) {
  const names = new Set(all("[data-family]").map((row) => row.dataset.family));
  const pick = make("select", { className: "pick", onchange() {
    for (const other of all(".pick")) other.value = pick.value;
    for (const row of all("[data-family]")) row.hidden = pick.value !== "all" && row.dataset.family !== pick.value;
  } }, ...["all", ...names].map((name) => make("option", {}, name)));
  line.append(make("label", {}, "Family ", pick));
}

// A figure as a drawing that needs no page, as a picture, and its numbers.
const drawing = (figure) => {
  const frame = rect(figure), { width, height } = frame, made = draw("svg", { width, height });
  made.append(draw("style"), one("defs").cloneNode(true), draw("rect", { class: "ground" }));
  made.firstChild.append(one("style").textContent);
  const placed = (at, { left, width, height }, y) => {
    made.append(put(at, { x: left - frame.left, y: y - frame.top, width, height }));
  };
  for (const svg of all("svg", figure)) placed(svg.cloneNode(true), rect(svg), rect(svg).top);
  for (const word of all(".panel-title, .panel-measure, .track > span:not(.ticks), .ticks span, .keys span", figure)) {
    const { font, color } = getComputedStyle(word), text = draw("text", { style: `font:${font};fill:${color}` });
    text.append(word.textContent);
    placed(text, rect(word), rect(word).bottom - rect(word).height / 4);
  }
  return new XMLSerializer().serializeToString(made);
};
const save = (figure, kind, href) => make("a", { download: `${figure.id}.${kind}`, href }).click(),
  asSvg = (figure) => "data:image/svg+xml," + encodeURIComponent(drawing(figure));
const KINDS = {
  SVG: (figure) => save(figure, "svg", asSvg(figure)),
  PNG: async (figure) => {
    const image = make("img", { src: asSvg(figure) }), canvas = make("canvas");
    await image.decode();
    [canvas.width, canvas.height] = [image.width * 3, image.height * 3];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    save(figure, "png", canvas.toDataURL());
  },
  CSV: (figure) => save(figure, "csv", "data:text/csv," + encodeURIComponent(tables(figure).map((table) => [...table.rows].map(
    (row) => [...row.cells].map((cell) => `"${cell.textContent.replace("−", "-")}"`).join()).join("\n")).join("\n\n"))),
};
for (const figure of all("figure")) for (const kind in KINDS) {
  if (kind !== "CSV" || tables(figure)[0]) one(".more", figure).append(make("button", { className: "save", onclick: () => KINDS[kind](figure) }, kind));
}
