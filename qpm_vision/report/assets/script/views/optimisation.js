// How the features were chosen, and what that cost.

const MOST_CHARGED = 12;
const MOST_SWAPS = 20;

function optimisationView() {
  const found = report.optimisation;
  const gap =
    found.gap === null
      ? "No bound is known, so nobody knows how far from the best it is."
      : `At most ${percent(found.gap, found.gap < 0.001 ? 3 : 2)} below the best there is, proven.`;
  const swaps = classes
    .flatMap((entry, index) => entry.swaps.slice(0, 1).map((swap) => ({ index, ...swap })))
    .sort((a, b) => a.cost - b.cost);
  return {
    title: "Optimisation",
    content: fromTemplate("optimisation", {
      summary: [
        `${features.length} of ${whole(found.n_features)} features are kept, chosen by ${found.solver} in `,
        `${number(found.runtime, 1)} s `,
        `(stopped: ${found.termination}). The objective is ${number(found.objective)}. ${gap}`,
      ],
      prices: priceTable(),
      bound: boundChart(),
      gap: gapChart(),
      charged: chargedTable(),
      bias: biasTable(),
      swaps: swapTable(swaps.slice(0, MOST_SWAPS), { withClass: true }),
    }),
  };
}

function priceTable() {
  const { best_of_all: all, best_of_kept: keptBest, similarity, redundancy, bias } = report.optimisation.prices;
  const total = similarity + redundancy + bias;
  const steps = [
    [
      "Every class has its best features of all",
      all,
      "total",
      `An upper limit: each takes what suits it best out of ${whole(report.optimisation.n_features)}, however many ` +
        "that are in all.",
    ],
    [
      `Only ${features.length} are kept`,
      keptBest - all,
      "",
      "What it costs to describe all classes with few features, chosen with redundancy and bias in mind.",
    ],
    ["No two classes alike", similarity - keptBest, "", "What classes give up so that each has a set of its own."],
    [
      "Redundancy",
      redundancy,
      "",
      `Penalties of kept pairs that are similar. ${percent(report.optimisation.penalised_share)} of all pairs have ` +
        `one, those with a similarity from ${number(report.optimisation.threshold, 3)}.`,
    ],
    ["Bias", bias, "", "For features with peaked maps away from the border."],
    ["Objective", total, "total", "Similarity, redundancy and bias together."],
  ];
  const most = Math.max(all, keptBest, similarity, total) || 1;
  let level = 0; // each step begins where the one before it ended
  return h(
    "ol",
    { class: "prices" },
    steps.map(([title, value, kind, about]) => {
      const [from, to] = kind ? [0, value] : [level, level + value];
      level = to;
      const sides = {
        left: `${(100 * Math.max(0, Math.min(from, to))) / most}%`,
        width: `${(100 * Math.abs(to - from)) / most}%`,
      };
      const text = kind ? number(value) : value ? signed(value, Math.abs(value) < 0.01 ? 4 : 2) : "0";
      return h(
        "li",
        { class: kind },
        h("div", {}, h("strong", {}, title), h("p", {}, about)),
        h(
          "div",
          { class: "bars" },
          h(
            "span",
            { class: "bar step", "aria-hidden": "true" },
            h("i", { class: value < 0 ? "negative" : "", style: sides }),
          ),
          h("span", { class: "value" }, text),
        ),
      );
    }),
  );
}

function boundChart() {
  const { trace, objective, bound } = report.optimisation;
  const lines = [
    {
      name: "bound",
      kind: "bound",
      points: trace.filter(([, , value]) => value !== null).map(([seconds, , value]) => [seconds, value]),
    },
    {
      name: "best objective",
      kind: "objective",
      points: trace.filter(([, value]) => value !== null).map(([seconds, value]) => [seconds, value]),
    },
  ].filter((line) => line.points.length);
  return timeChart(lines, {
    label: `Objective (at last ${number(objective)}) and bound (${bound === null ? "none" : number(bound)}) over time`,
    unit: "",
  });
}

function gapChart() {
  const points = report.optimisation.trace
    .filter(([, objective, bound]) => objective !== null && bound !== null)
    .map(([seconds, objective, bound]) => [
      seconds,
      Math.max(1e-3, (100 * (bound - objective)) / Math.max(1e-9, Math.abs(objective))),
    ]);
  if (!points.length) return empty("There is no bound, so there is no gap.");
  return timeChart([{ name: "gap", kind: "bound", points }], {
    label: "Proven gap over time, in percent, on a logarithmic scale",
    unit: " %",
    logarithmic: true,
  });
}

function chargedTable() {
  const { charged } = report.optimisation;
  if (!charged.length) return empty("No two kept features are similar enough to be charged.");
  const most = charged[0][2];
  return [
    h(
      "p",
      {},
      `${plural(charged.length, "pair")} of kept features ${charged.length === 1 ? "is" : "are"} charged`,
      charged.length > MOST_CHARGED ? `; the dearest ${MOST_CHARGED}:` : ":",
    ),
    h(
      "ul",
      { class: "charges" },
      charged
        .slice(0, MOST_CHARGED)
        .map(([first, second, penalty]) =>
          h(
            "li",
            {},
            h("span", {}, chip(first), " and ", chip(second)),
            h("div", { class: "bars" }, bar(penalty / most, number(penalty, 3))),
          ),
        ),
    ),
  ];
}

function biasTable() {
  const order = sortedFeatures((a, b) => features[b].bias - features[a].bias);
  const ends = features.length > 8 ? [...order.slice(0, 4), ...order.slice(-4)] : order;
  const most = Math.max(...ends.map((column) => Math.abs(features[column].bias))) || 1;
  return h(
    "ul",
    { class: "charges" },
    ends.map((column) =>
      h(
        "li",
        {},
        chip(column),
        h("div", { class: "bars" }, bar(features[column].bias / most, signed(features[column].bias, 3))),
      ),
    ),
  );
}
