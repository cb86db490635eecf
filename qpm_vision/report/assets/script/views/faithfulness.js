// Whether heat maps say what decides: curves and areas beside those of other methods, shifts, parts, reach.

function faithfulnessView() {
  const { measured, verdict } = report.faithfulness;
  const title = "Heat maps";
  if (!measured) return { title, content: fromTemplate("faithfulness", {}) };
  const score = `Share of pixels against the mean ${measured.deletion.score}`;
  return {
    title,
    content: fromTemplate("faithfulness", {
      verdict: h("strong", {}, verdict.sentence),
      remarks: h(
        "ul",
        { class: "findings remarks" },
        verdict.remarks.map((remark) => h("li", {}, remark)),
      ),
      how: howMeasured(measured),
      key: methodKey(measured.deletion.methods),
      deletion: areaChart(measured.deletion, `${score}, the hottest pixels deleted first`, "pixels deleted (%)"),
      insertion: areaChart(measured.insertion, `${score}, the hottest pixels shown first`, "pixels shown (%)"),
      areas: areaTable(
        [
          ["deletion", measured.deletion, verdict.deletion],
          ["insertion", measured.insertion, verdict.insertion],
        ],
        measured.agreement,
      ),
      rule: verdict.rule,
      featureCurves: [
        methodKey(measured.feature_deletion.methods),
        areaChart(
          measured.feature_deletion,
          `Share of pixels deleted against the mean ${measured.feature_deletion.score}`,
          "pixels deleted (%)",
        ),
      ],
      featureAreas: areaTable([["deletion", measured.feature_deletion, verdict.feature_deletion]]),
      shiftNote: shiftNote(measured),
      shifts: shiftTable(measured.stability),
      pointingNote: pointingNote(measured.pointing),
      pointing: measured.pointing ? pointingTable(measured.pointing) : "",
      reach: reachTable(measured.reach),
    }),
  };
}

/** The verdict with a link to what it comes from, or that there is none; for pages that show heat maps. */
function trustLine() {
  const { missing, verdict } = report.faithfulness;
  return [
    verdict ? verdict.sentence : missing,
    " ",
    h("a", { href: "#faithfulness" }, verdict ? "How that was measured" : "What to do"),
  ];
}

function howMeasured({ images, input_size: size, map_size: [rows, columns] }) {
  return (
    `In ${plural(images, "test image")} of ${size} pixels, pixels were replaced by those of the mean training image, ` +
    `those first that a method highlights most. The maps have ${rows} × ${columns} places. Differences are means over ` +
    "the images ± their standard error."
  );
}

// -- deletion and insertion -----------------------------------------------------------------------------------------

const methodTitle = (method) => report.faithfulness.titles[method];

/** Which line is which, for these curves. */
function methodKey(methods) {
  const sample = (method) =>
    svg(
      "svg",
      { viewBox: "0 0 30 8", class: "sample", "aria-hidden": "true" },
      svg("path", { d: "M0,4H30", class: `line ${method}` }),
    );
  return h(
    "p",
    { class: "key" },
    Object.keys(methods).map((method) => h("span", {}, sample(method), methodTitle(method))),
  );
}

function areaChart({ methods }, label, below) {
  const lines = Object.entries(methods).map(([method, { mean }]) => ({
    kind: method,
    points: mean.map((value, step) => [(100 * step) / (mean.length - 1), value]),
  }));
  if (!lines.length) return empty("No image had anything to delete.");
  const areas = Object.entries(methods).map(([method, { area }]) => `${methodTitle(method)} ${number(area)}`);
  return curveChart(lines, { label: `${label}. Areas under the curves: ${areas.join(", ")}.`, below });
}

/** Areas of all methods: [[heading, curves, which are better than random regions]]. */
function areaTable(ways, agreement = null) {
  const methods = Object.keys(ways[0][1].methods);
  const columns = [
    ...ways.flatMap(([heading, curves, better]) => [
      [`area under ${heading}`, (method) => number(curves.methods[method].area, 3)],
      [
        `${heading}, against random regions`,
        (method) => (method === "random" ? "–" : againstRandom(curves.methods[method], better[method])),
      ],
    ]),
    ...(agreement
      ? [["correlation with the heat maps", (method) => (method in agreement ? numberOrNone(agreement[method]) : "–")]]
      : []),
  ];
  return figureTable("Areas under the curves", "which pixels come first", methods, methodTitle, columns);
}

function againstRandom({ less_than_random: less, error }, better) {
  const margin = error === null ? "" : ` ± ${number(error, 3)}`;
  return [`${signed(-less, 3)}${margin}`, h("small", {}, better === null ? "unknown" : better ? "better" : "no better")];
}

/** A table of figures that a phone shows row by row: columns are [[heading, cell of a row]]. */
function figureTable(label, corner, rows, titleOf, columns) {
  const head = (text) => h("th", { scope: "col" }, text);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h(
      "table",
      { class: "plain figures even" },
      h("thead", {}, h("tr", {}, head(corner), columns.map(([heading]) => head(heading)))),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, titleOf(row)),
            columns.map(([heading, cell]) => h("td", { "data-label": heading }, cell(row))),
          ),
        ),
      ),
    ),
  );
}

const numberOrNone = (value) => (value === null ? "–" : number(value));
const percentOrNone = (value, digits = 1) => (value === null ? "–" : percent(value, digits));

// -- shifts, parts, reach -------------------------------------------------------------------------------------------

function shiftNote({ input_size: size, map_size: [rows, columns], stability: { shifts } }) {
  const place = size / Math.max(rows, columns);
  const most = Math.max(...shifts);
  return (
    "Mean correlation of the map of a feature before and after the image is shifted. Maps that move with the image " +
    "agree more after they are shifted back. " +
    (most < place / 2
      ? `A place is ${number(place, place % 1 ? 1 : 0)} pixels wide, so that shifts of up to ${most} can hardly tell ` +
        "moving from staying."
      : "")
  );
}

const SHIFT_ROWS = {
  shifted_back: "map shifted back",
  not_shifted_back: "map not shifted back",
  other_image: "map of another image",
  same_class: "images that keep their class",
};

function shiftTable(stability) {
  const columns = stability.shifts.map((shift, place) => [
    plural(shift, "pixel"),
    (row) => (row === "same_class" ? percentOrNone : numberOrNone)(stability[row][place]),
  ]);
  return figureTable("Stability under shifts", "compared with", Object.keys(SHIFT_ROWS), (row) => SHIFT_ROWS[row], columns);
}

function pointingNote(pointing) {
  if (!pointing) return "Not measured: where parts are in the images of these data is not known.";
  const count = pointing.features.length;
  return (
    `${plural(count, "feature")} ${count === 1 ? "stands" : "stand"} for a part, ${whole(pointing.without_meaning)} ` +
    `for none (${pointing.rule}). The strongest place of the map lies in the box of the part in so many of the test ` +
    `images; each feature counts once, ± the standard error over them. Places are known in ${whole(pointing.located)} of ` +
    `${plural(pointing.test_images, "test image")}. What is more than with the box of another image follows the image ` +
    "at hand."
  );
}

function pointingTable({ kinds }) {
  if (!Object.keys(kinds).length) return empty("No feature stands for a part that takes a place.");
  return figureTable("Pointing at parts", "part", Object.keys(kinds), (kind) => kind, [
    ["features", (kind) => whole(kinds[kind].features)],
    [
      "in the box",
      (kind) => [
        h("strong", {}, percentOrNone(kinds[kind].hit)),
        kinds[kind].error === null ? "" : ` ± ${number(100 * kinds[kind].error, 1)}`,
      ],
    ],
    ["box of another image", (kind) => percentOrNone(kinds[kind].other_image)],
    ["random place", (kind) => percentOrNone(kinds[kind].chance)],
    ["middle of the image", (kind) => percentOrNone(kinds[kind].centre)],
  ]);
}

function reachTable({ own, own_area: ownArea, near, near_area: nearArea }) {
  const rows = {
    "within the place": [own, ownArea],
    "within the place and its neighbours": [near, nearArea],
  };
  return figureTable("Reach", "where", Object.keys(rows), (row) => row, [
    ["of what the place depends on", (row) => percentOrNone(rows[row][0], 2)],
    ["if it depended on all of the image alike", (row) => percent(rows[row][1], 2)],
  ]);
}
