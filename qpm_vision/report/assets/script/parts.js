// Parts that several views are made of.

const classHref = (index) => `#class=${encodeURIComponent(classes[index].name)}`;
const featureHref = (column) => `#feature=${features[column].number}`;
const pairHref = (first, second) =>
  `#pair=${encodeURIComponent(classes[first].name)},${encodeURIComponent(classes[second].name)}`;

const classLink = (index) => h("a", { href: classHref(index) }, classes[index].name);
const pairLink = (first, second, text) => h("a", { href: pairHref(first, second) }, text);

/** A feature as a link with its colour. */
function chip(column, colours = null) {
  const colour = colours ? colours.get(column) : features[column].colour;
  const name = nameOf(column);
  const text = name ? [name, h("small", {}, features[column].number)] : `feature ${features[column].number}`;
  return h("a", { class: "chip", href: featureHref(column) }, h("i", { style: { "--colour": colour } }), text);
}

const chips = (columns, colours) => enumerated(columns.map((column) => chip(column, colours)));

/** A bar with its value beside it; `share` in [−1, 1] of the longest one. */
function bar(share, text, kind = "") {
  const width = `${(100 * Math.min(1, Math.abs(share))).toFixed(1)}%`;
  const filled = h("i", { class: share < 0 ? `negative ${kind}` : kind, style: { width } });
  return [h("span", { class: "bar", "aria-hidden": "true" }, filled), h("span", { class: "value" }, text)];
}

/** A row of pictures for one feature: its label, and its map on each image. */
function featureRow(column, colours, note, groups) {
  return h(
    "div",
    { class: "feature-row" },
    h("div", { class: "row-label" }, h("h3", {}, chip(column, colours)), note && h("p", {}, note)),
    groups.map(({ index, images: places }) =>
      h(
        "div",
        { class: "row-pictures" },
        places.map((place) => pictureOf(place, { column, colour: colours.get(column), frame: has(index, column) })),
      ),
    ),
  );
}

/** The row above: the plain images. */
function plainRow(label, groups) {
  return h(
    "div",
    { class: "feature-row" },
    h("div", { class: "row-label" }, label),
    groups.map(({ images: places }) =>
      h(
        "div",
        { class: "row-pictures" },
        places.map((place) => pictureOf(place)),
      ),
    ),
  );
}

/** What tells another class from this one, as a sentence. */
function differenceSentence({ shared, own, other: theirs }, index, colours) {
  const all = classes[index].features.length;
  return [
    `shares ${shared} of ${all}; it has `,
    theirs.length ? chips(theirs, colours) : "nothing more",
    theirs.length && own.length ? " where this one has " : own.length ? ", this one also " : "",
    own.length ? chips(own, colours) : "",
  ];
}

/** A list that grows when its end comes near, so that a thousand entries are not all built at once. */
function growing(tag, attributes, entries, build, step = 48) {
  const list = h(tag, attributes);
  let built = 0;
  const more = () => {
    const next = entries.slice(built, built + step);
    built += next.length;
    list.append(...next.map(build));
    if (built < entries.length) whenNear(list.lastElementChild, more);
  };
  more();
  return list;
}

/** A choice of an order, as a labelled select. */
function orderChoice(orders, current, onchange) {
  const select = h(
    "select",
    { onchange: (event) => onchange(event.target.value) },
    Object.entries(orders).map(([value, { text }]) => h("option", { value, selected: value === current }, text)),
  );
  return h("label", { class: "choice" }, h("span", {}, "Order"), select);
}

/** A field that filters as one types. */
function filterField(label, oninput) {
  return h(
    "label",
    { class: "choice" },
    h("span", {}, label),
    h("input", { type: "search", autocomplete: "off", oninput: (event) => oninput(folded(event.target.value.trim())) }),
  );
}

const empty = (text) => h("p", { class: "empty" }, text);

/** Small text that says where a class stands. */
function testResult(index) {
  const { n_right: right, n_test: count } = classes[index];
  return count ? `${whole(right)} of ${plural(count, "test image")} right` : "no test images";
}

/** Orders for lists of classes: what they are called, and the classes in it. */
const CLASS_ORDERS = {
  similar: { text: "similar ones together", sorted: () => report.class_order },
  name: { text: "name", sorted: () => sortedClasses((a, b) => collator.compare(classes[a].name, classes[b].name)) },
  worst: {
    text: "recall, worst first",
    sorted: () => sortedClasses((a, b) => (accuracyOf(a) ?? 2) - (accuracyOf(b) ?? 2)),
  },
  mistakes: { text: "mistakes, most first", sorted: () => sortedClasses((a, b) => mistakesOf[b] - mistakesOf[a]) },
};
const collator = new Intl.Collator(undefined, { numeric: true });

function sortedClasses(compare) {
  return classes.map((_, index) => index).sort(compare);
}
