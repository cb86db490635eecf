// Two classes side by side.

function pairView(value) {
  const names = (value || "").split(",").map(decodeURIComponent);
  let [first, second] = value ? names.map((name) => classByName.get(name)) : usualPair();
  const unknown = names.find((name) => value && !classByName.has(name));
  if (unknown !== undefined || second === undefined) return missing(`There is no class ${unknown || ""}.`);
  const { shared, own, other } = difference(first, second);
  const colours = colouring([...shared, ...own, ...other]);
  const groups = [first, second].map((index) => ({ index, images: classes[index].images.slice(0, 3) }));
  const rows = (columns, note) => columns.map((column) => featureRow(column, colours, note, groups));
  const [nameA, nameB] = [classes[first].name, classes[second].name];
  const part = (title, columns, note) =>
    columns.length > 0 && [h("h2", {}, `${title} (${columns.length})`), rows(columns, note)];
  const pictured = groups.some((group) => group.images.length);
  const content = fromTemplate("pair", {
    heading: first === second ? nameA : `${nameA} or ${nameB}?`,
    chooser: pairChooser(first, second),
    summary: pairSummary(first, second, { shared, own, other }, colours),
    heads: pictured
      ? [
          h("div", { class: "row-label" }),
          [first, second].map((index) => h("p", { class: "column-head" }, classLink(index))),
        ]
      : "",
    rows: [
      pictured && plainRow(h("p", {}, "Best images"), groups),
      part(`Only ${nameA}`, own),
      part(`Only ${nameB}`, other),
      part("Both", shared),
    ],
    legend: legend(),
  });
  return { title: `${nameA} · ${nameB}`, content };
}

/** The pair that is worth a look: the most confused one, else one that a single feature tells apart, else the first. */
function usualPair() {
  const finding = report.findings.find(({ kind }) => kind === "confused");
  return finding ? finding.classes : report.apart.length ? report.apart[0] : [0, 1];
}

function pairSummary(first, second, { shared, own, other }, colours) {
  if (first === second) return "Choose another class to compare it with.";
  const [there, back] = [confusion(first, second), confusion(second, first)];
  const [nameA, nameB] = [classes[first].name, classes[second].name];
  return [
    `They share ${plural(shared.length, "feature")}. ${nameA} has `,
    own.length ? chips(own, colours) : "nothing more",
    ` and ${nameB} `,
    other.length ? chips(other, colours) : "nothing more",
    ". ",
    there + back
      ? `In testing, ${[
          [there, nameA, nameB],
          [back, nameB, nameA],
        ]
          .filter(([count]) => count)
          .map(
            ([count, from, to]) =>
              `${plural(count, "image")} of class ${from} ${count === 1 ? "was" : "were"} taken for ${to}`,
          )
          .join(", ")}.`
      : "In testing, neither was taken for the other.",
  ];
}

function pairChooser(first, second) {
  const list = h(
    "datalist",
    { id: "class-names" },
    classes.map((entry) => h("option", { value: entry.name })),
  );
  const field = (label, index, change) =>
    h(
      "label",
      { class: "choice" },
      h("span", {}, label),
      h("input", {
        list: "class-names",
        value: classes[index].name,
        autocomplete: "off",
        onfocus: (event) => event.target.select(),
        onchange: (event) => {
          const chosen = classByName.get(event.target.value.trim());
          event.target.setCustomValidity(chosen === undefined ? "There is no class of this name." : "");
          if (chosen === undefined) event.target.reportValidity();
          else go(change(chosen));
        },
      }),
    );
  return [
    list,
    field("First class", first, (index) => pairHref(index, second)),
    field("Second class", second, (index) => pairHref(first, index)),
    h("a", { class: "button", href: pairHref(second, first) }, "Swap sides"),
  ];
}
