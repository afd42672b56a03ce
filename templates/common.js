// Folds that open for a link, and a filter of claims: without a script every row and figure is there and reads.
"use strict";
const all = (css, at = document) => [...at.querySelectorAll(css)];
const one = (css, at) => all(css, at)[0];
const make = (tag, given, ...inner) => {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...inner);
  return made;
};

const unfold = () => {
  const target = document.getElementById(location.hash.slice(1));
  for (let at = target; (at = at?.parentElement.closest("details")); ) at.open = true;
  target?.scrollIntoView();
};
onhashchange = unfold;
unfold();

// Boxes choose verdicts, the field a text; a row over several models is shown for each of its verdicts.
for (const filter of all(".filter")) {
  const rows = all("tr[data-verdict]", filter.closest("section")), said = make("output");
  (filter.oninput = () => {
    const off = all("[value]:not(:checked)", filter).map((box) => box.value);
    const text = one("[type=search]", filter).value.toLowerCase();
    for (const row of rows) row.hidden = row.dataset.verdict.trim().split(" ").every((word) => off.includes(word))
      || !row.textContent.toLowerCase().includes(text);
    said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
  })();
  filter.append(said);
  filter.hidden = false;
}

// The entry of the contents whose section is being read stays in view.
const seen = new IntersectionObserver((entries) => {
  const at = entries.find((entry) => entry.isIntersecting), link = one(`nav a[href="#${at?.target.id}"]`);
  link?.closest("ul").scrollTo(link.offsetLeft - 60, 0);
}, { rootMargin: "-30% 0% -69%" });
all("main > section").forEach((section) => seen.observe(section));
