// All features as cards, and one feature.

const FEATURE_ORDERS = {
  together: { text: "those that occur together", sorted: () => report.feature_order },
  classes: {
    text: "classes, most first",
    sorted: () => sortedFeatures((a, b) => classesWith[b].length - classesWith[a].length),
  },
  weakest: {
    text: "separation, weakest first",
    sorted: () => sortedFeatures((a, b) => (features[a].separation ?? 2) - (features[b].separation ?? 2)),
  },
  number: { text: "number", sorted: () => sortedFeatures((a, b) => features[a].number - features[b].number) },
};
let featureOrder = "together";

function sortedFeatures(compare) {
  return features.map((_, column) => column).sort(compare);
}

function featuresView() {
  const place = h("div");
  const show = (order) => {
    featureOrder = order;
    place.replaceChildren(growing("ul", { class: "cards" }, FEATURE_ORDERS[order].sorted(), featureCard, 24));
  };
  show(featureOrder);
  return {
    title: "Features",
    content: fromTemplate("features", {
      controls: orderChoice(FEATURE_ORDERS, featureOrder, show),
      cards: place,
      legend: legend(),
    }),
  };
}

function featureCard(column) {
  const entry = features[column];
  const count = classesWith[column].length;
  return h(
    "li",
    { class: "card" },
    h("h2", {}, chip(column)),
    h(
      "div",
      { class: "thumbs" },
      entry.images
        .slice(0, 4)
        .map((place) => pictureOf(place, { column, colour: entry.colour, frame: has(images[place].label, column) })),
    ),
    histogramChart(column, { small: true }),
    h(
      "p",
      {},
      count ? `Describes ${plural(count, "class", "classes")}: ` : "Describes no class.",
      enumerated(classesWith[column].slice(0, 5).map(classLink)),
      count > 5 ? ` and ${whole(count - 5)} more.` : count ? "." : "",
    ),
    entry.separation !== null &&
      h("p", {}, `In ${percent(entry.separation)} of all pairs stronger in an image of its classes.`),
    tools.card.map((build) => build(column)),
  );
}

function featureView(value) {
  const column = columnByNumber.get(Number(value));
  if (column === undefined) return missing(`There is no feature ${value}; the model keeps others.`);
  const entry = features[column];
  const { canvas, peak } = averageMap(column, entry.colour);
  const sharing = classesWith[column];
  const best = sharing.filter((index) => classes[index].images.length);
  const content = fromTemplate("feature", {
    heading: [
      h("i", { class: "swatch", style: { "--colour": entry.colour } }),
      nameOf(column) || `Feature ${entry.number}`,
    ],
    summary: featureSummary(column),
    best: entry.images.length
      ? entry.images.map((place) =>
          pictureOf(place, {
            column,
            colour: entry.colour,
            frame: has(images[place].label, column),
            caption: classLink(images[place].label),
          }),
        )
      : empty("No images to show."),
    average: [
      canvas,
      h(
        "p",
        {},
        peak
          ? "Over all images of its classes. Full colour here: " +
              `${percent(peak, 0)} of full strength, the highest average of any place.`
          : "Never active.",
      ),
    ],
    histogram: histogramChart(column),
    separation:
      entry.separation === null
        ? ""
        : "Of an image of its classes and another one, the first has more of it in " +
          `${percent(entry.separation)} of all pairs.`,
    classes: sharing.length
      ? growing("ul", { class: "tiles" }, best.length ? best : sharing, (index) =>
          h(
            "li",
            {},
            classes[index].images
              .slice(0, 1)
              .map((place) => pictureOf(place, { column, colour: entry.colour, frame: true })),
            classLink(index),
          ),
        )
      : empty("It describes no class."),
    unpictured:
      best.length && best.length < sharing.length
        ? [
            "Without pictures: ",
            enumerated(sharing.filter((index) => !classes[index].images.length).map(classLink)),
            ".",
          ]
        : "",
    facts: featureFacts(column),
    tools: tools.feature.map((build) => build(column)),
    legend: legend(),
  });
  return { title: featureLabel(column), content };
}

function featureSummary(column) {
  const count = classesWith[column].length;
  const closest = features[column].closest;
  return [
    nameOf(column) ? `Feature ${features[column].number} of the backbone. ` : "",
    count ? `It describes ${plural(count, "class", "classes")}.` : "It describes no class.",
    closest && [" Most like it is ", chip(closest[0]), `, with a correlation of ${number(closest[1])}.`],
  ];
}

function featureFacts(column) {
  const entry = features[column];
  const pairs = report.optimisation.charged
    .filter(([first, second]) => first === column || second === column)
    .map(([first, second, penalty]) => [first === column ? second : first, penalty]);
  return h(
    "dl",
    { class: "facts" },
    h("dt", {}, "Bias"),
    h(
      "dd",
      {},
      signed(entry.bias, 3),
      h(
        "small",
        {},
        "added to the objective for keeping it, for how peaked its maps are and how rarely they peak at the border",
      ),
    ),
    h("dt", {}, "Redundancy"),
    h(
      "dd",
      {},
      entry.redundancy ? number(-entry.redundancy, 3) : "none",
      h(
        "small",
        {},
        pairs.length
          ? [
              "charged together with ",
              enumerated(
                pairs.slice(0, 5).map(([other, penalty]) => h("span", {}, chip(other), ` ${number(penalty)}`)),
              ),
              pairs.length > 5 ? " …" : "",
            ]
          : "no other kept feature is similar enough to be charged",
      ),
    ),
  );
}
