// The overview: how good the model is, where to look first, which class has which feature.

function overviewView() {
  return {
    title: "Overview",
    content: fromTemplate("overview", {
      legend: legend(),
      trust: trustLine(),
      glance: glance(),
      findings: findingsList(),
      matrix: matrix(),
      apart: apartList(),
    }),
  };
}

/** A few classes that share features, each with all its features on its best image. */
function glance() {
  const pictured = (index) => classes[index].images.length > 0;
  const kin = (index) => classes[index].nearest.filter((near) => pictured(near.class_index));
  const shared = (index) =>
    kin(index)
      .slice(0, 2)
      .reduce((sum, near) => sum + near.shared, 0);
  const candidates = classes.map((_, index) => index).filter(pictured);
  if (!candidates.length) return empty("This report has no pictures.");
  const first = candidates.reduce((best, index) => (shared(index) > shared(best) ? index : best));
  const rows = [
    first,
    ...kin(first)
      .slice(0, 2)
      .map((near) => near.class_index),
  ];
  const colours = colouring(rows.flatMap((index) => classes[index].features));
  return rows.map((index) => {
    const [place] = classes[index].images;
    return h(
      "div",
      { class: "glance" },
      pictureOf(place, { caption: h("strong", {}, classLink(index)) }),
      classes[index].features.map((column) =>
        pictureOf(place, { column, colour: colours.get(column), frame: true, caption: chip(column, colours) }),
      ),
    );
  });
}

const FINDINGS = {
  confused: ({ classes: [first, second], features: columns, value }) => [
    pairLink(first, second, `${classes[first].name} and ${classes[second].name}`),
    ` are taken for each other in ${plural(value, "test image")}. `,
    columns.length === 1 ? "One feature tells them apart: " : `${whole(columns.length)} features tell them apart: `,
    chips(columns.slice(0, 4), colouring(columns)),
    columns.length > 4 ? " …" : "",
  ],
  "weak class": ({ classes: [index] }) => [
    classLink(index),
    `: only ${whole(classes[index].n_right)} of its ${plural(classes[index].n_test, "test image")} are right.`,
  ],
  "weak feature": ({ features: [column], value }) => [
    chip(column),
    ` hardly separates its classes from others: in only ${percent(value)} of all pairs has the image of its classes `,
    "more of it.",
  ],
  twins: ({ features: columns, value }) => [
    chips(columns, colouring(columns)),
    ` say much the same: their activations have a correlation of ${number(value)}.`,
  ],
  idle: ({ features: [column] }) => [chip(column), " describes no class; fewer features would do."],
  gain: ({ classes: [index], features: [get, give], value }) => [
    classLink(index),
    " would raise the objective by ",
    number(-value, 3),
    " with ",
    chip(get),
    " instead of ",
    chip(give),
    "; the solver was stopped before it found that.",
  ],
};

function findingsList() {
  if (!report.findings.length) return empty("Nothing stands out.");
  return h(
    "ul",
    { class: "findings" },
    report.findings.map((finding) => h("li", {}, FINDINGS[finding.kind](finding))),
  );
}

function apartList() {
  if (!report.apart.length) return empty("None: every two classes differ in more than one feature.");
  const rest = report.n_apart - report.apart.length;
  const list = growing(
    "ul",
    { class: "pairs" },
    report.apart,
    ([first, second]) => {
      const { own, other } = difference(first, second);
      const count = confusion(first, second) + confusion(second, first);
      const colours = colouring([...own, ...other]);
      return h(
        "li",
        {},
        pairLink(first, second, `${classes[first].name} · ${classes[second].name}`),
        h("span", {}, chips(own, colours), " ↔ ", chips(other, colours)),
        h("small", {}, count ? `${plural(count, "mistake")} in testing` : "never confused in testing"),
      );
    },
    24,
  );
  return [
    h("p", {}, `${plural(report.n_apart, "pair")} of classes, those that are confused most first.`),
    h(
      "div",
      { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Pairs told apart by one feature" },
      list,
    ),
    rest > 0 && h("p", {}, `${whole(rest)} more are not listed.`),
  ];
}
