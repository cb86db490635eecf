// All classes, and one class.

const classList = { order: "similar", query: "" };

function classesView() {
  const place = h("div");
  const status = h("p", { class: "hint", role: "status", "aria-live": "polite" });
  const show = () => {
    const found = CLASS_ORDERS[classList.order]
      .sorted()
      .filter((index) => folded(classes[index].name).includes(classList.query));
    status.textContent = found.length === classes.length ? "" : `${plural(found.length, "class", "classes")} found.`;
    place.replaceChildren(
      found.length
        ? growing("ul", { class: "cards narrow" }, found, classCard)
        : empty("No class has that in its name."),
    );
  };
  classList.query = "";
  show();
  const controls = [
    filterField("Find a class", (query) => {
      classList.query = query;
      show();
    }),
    orderChoice(CLASS_ORDERS, classList.order, (order) => {
      classList.order = order;
      show();
    }),
  ];
  return { title: "Classes", content: fromTemplate("classes", { controls, status, cards: place }) };
}

function classCard(index) {
  const entry = classes[index];
  const colours = colouring(entry.features);
  return h(
    "li",
    { class: "card class-card" },
    entry.images.length ? pictureOf(entry.images[0]) : h("span", { class: "picture none", "aria-hidden": "true" }),
    h(
      "div",
      {},
      h("h2", {}, classLink(index)),
      h("p", {}, testResult(index)),
      h(
        "p",
        { class: "chip-list" },
        entry.features.map((column) => chip(column, colours)),
      ),
    ),
  );
}

function classView(value) {
  const index = classByName.get(value);
  if (index === undefined) return missing(`There is no class ${value}.`);
  const entry = classes[index];
  const shownFeatures = [...entry.features, ...entry.nearest.flatMap((near) => near.other)];
  const colours = colouring(shownFeatures);
  const own = [{ index, images: entry.images }];
  const content = fromTemplate("class", {
    heading: entry.name,
    summary: [
      `Described by ${plural(entry.features.length, "feature")}: `,
      chips(entry.features, colours),
      `. Of its ${plural(entry.n_test, "test image")} ${whole(entry.n_right)} ${entry.n_right === 1 ? "is" : "are"} `,
      `right; it was learned from ${plural(entry.n_train, "training image")}.`,
    ],
    rows: entry.images.length
      ? [
          plainRow(h("p", {}, `The best ${report.split === "train" ? "training" : "test"} images of the class`), own),
          entry.features.map((column, place) => featureRow(column, colours, featureNote(index, column, place), own)),
        ]
      : [
          empty("This report has no pictures of this class."),
          h(
            "ul",
            {},
            entry.features.map((column, place) =>
              h("li", {}, chip(column, colours), " ", featureNote(index, column, place)),
            ),
          ),
        ],
    nearest: nearestList(index, colours),
    confusions: confusionLists(index),
    swaps: swapTable(
      entry.swaps.map((swap) => ({ index, ...swap })),
      { withClass: false },
    ),
    tools: tools.class.map((build) => build(index)),
    legend: legend(),
  });
  return { title: entry.name, content };
}

function featureNote(index, column, place) {
  const others = classesWith[column].filter((other) => other !== index);
  return [
    others.length
      ? [
          "Also in ",
          enumerated(others.slice(0, 3).map(classLink)),
          others.length > 3 ? ` and ${whole(others.length - 3)} more` : "",
          ". ",
        ]
      : "In no other class. ",
    h(
      "abbr",
      { title: "Correlation of the feature with the class in the dense model, relative to the largest one" },
      "Similarity",
    ),
    ` ${number(classes[index].similarity[place])}`,
  ];
}

function nearestList(index, colours) {
  const near = classes[index].nearest;
  if (!near.length) return empty("No other class shares a feature with it.");
  return h(
    "ul",
    { class: "pairs" },
    near.map((entry) =>
      h(
        "li",
        {},
        classes[entry.class_index].images.slice(0, 1).map((place) => pictureOf(place)),
        h(
          "div",
          {},
          h("strong", {}, classLink(entry.class_index)),
          h("p", {}, differenceSentence(entry, index, colours)),
          h("p", {}, pairLink(index, entry.class_index, "Compare side by side")),
        ),
      ),
    ),
  );
}

function confusionLists(index) {
  const said = report.confusions.filter(([actual]) => actual === index);
  const heard = report.confusions.filter(([, predicted]) => predicted === index);
  const list = (entries, other) =>
    h(
      "ul",
      {},
      entries
        .slice(0, 12)
        .map((entry) =>
          h("li", {}, classLink(entry[other]), ` ${whole(entry[2])} ×, `, pairLink(index, entry[other], "compare")),
        ),
    );
  const shown = [...report.wrong].filter((place) => images[place].label === index || images[place].predicted === index);
  return [
    h("div", {}, h("h3", {}, "Its test images are taken for"), said.length ? list(said, 1) : empty("nothing else")),
    h(
      "div",
      {},
      h("h3", {}, "Taken for it are test images of"),
      heard.length ? list(heard, 0) : empty("no other class"),
    ),
    shown.length > 0 &&
      h(
        "div",
        { class: "wide" },
        h("h3", {}, `Mistakes among the ${report.split === "train" ? "training" : "test"} images`),
        h("div", { class: "thumbs" }, shown.slice(0, 8).map(mistakeFigure)),
      ),
  ];
}

/** Exchanges of a feature and what they cost; `entries` have the class in `index`. */
function swapTable(entries, { withClass }) {
  if (!entries.length) return empty("Every exchange would make two classes alike.");
  const largest = Math.max(...entries.map((entry) => Math.abs(entry.cost))) || 1;
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Exchanges of features" },
    h(
      "table",
      { class: "plain" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          [withClass && "class", "would get", "instead of", "cost"]
            .filter(Boolean)
            .map((text) => h("th", { scope: "col" }, text)),
        ),
      ),
      h(
        "tbody",
        {},
        entries.map(({ index, feature, instead_of: given, cost, taken_by: owner }) =>
          h(
            "tr",
            {},
            withClass && h("th", { scope: "row" }, classLink(index)),
            h("td", {}, chip(feature)),
            h(
              "td",
              {},
              chip(given),
              owner !== null && h("small", {}, "a cheaper exchange would make it the same as ", classLink(owner)),
            ),
            h("td", { class: "bars" }, bar(cost / largest, number(cost, 3))),
          ),
        ),
      ),
    ),
  );
}
