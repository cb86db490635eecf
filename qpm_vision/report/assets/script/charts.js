// Charts, drawn as SVG with the colours of the page.

/** How strong a feature is in the images of its classes and in all others: two outlines over one axis. */
function histogramChart(column, { small = false } = {}) {
  const { low, high, own, others } = features[column].histogram;
  const [width, height] = small ? [200, 44] : [520, 170];
  const foot = small ? 0 : 42;
  const x = (place) => (width * place) / own.length;
  // Each outline to its own height: one narrow peak would flatten the other.
  const outline = (shares) => {
    const most = Math.max(...shares) || 1;
    const y = (share) => height - ((height - 4) * share) / most;
    const steps = shares.map((share, place) => `L${x(place)},${y(share)}L${x(place + 1)},${y(share)}`);
    return `M0,${height}${steps.join("")}L${width},${height}Z`;
  };
  const found = features[column].separation;
  const label =
    `Activation of ${featureLabel(column)} in images of its classes and in others, from ${number(low, 1)} to ` +
    `${number(high, 1)} standard deviations above its mean` +
    (found === null ? "" : `; in ${percent(found)} of all pairs the image of its classes has more`);
  const chart = svg("svg", {
    viewBox: `0 0 ${width} ${height + foot}`,
    role: "img",
    "aria-label": label,
    class: "histogram",
  });
  chart.append(svg("path", { d: outline(others), class: "others" }), svg("path", { d: outline(own), class: "own" }));
  if (!small) {
    chart.append(svg("line", { x1: 0, x2: width, y1: height, y2: height, class: "axis" }));
    for (const tick of ticks(low, high, 6)) {
      const at = (width * (tick - low)) / (high - low);
      chart.append(svg("line", { x1: at, x2: at, y1: height, y2: height + 5, class: "axis" }));
      if (at > 8 && at < width - 8)
        chart.append(svg("text", { x: at, y: height + 18, "text-anchor": "middle" }, number(tick, tick % 1 ? 1 : 0)));
    }
    chart.append(
      svg("text", { x: width / 2, y: height + 38, "text-anchor": "middle" }, "standard deviations above the mean"),
    );
  }
  return chart;
}

/** Round numbers between two others. */
function ticks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const result = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9 * step; tick += step)
    result.push(Number(tick.toPrecision(12)));
  return result;
}

/** A chart without its lines, and where on it a point lies: x from 0 to `last`, y marked with [value, text]. */
function chartFrame({ label, below, last, span: [scaled, low, high], marks }) {
  const [width, height, left, foot] = [520, 210, 70, 44];
  const x = (value) => left + ((width - left - 8) * value) / last;
  const y = (value) => height - ((height - 12) * (scaled(value) - low)) / (high - low);
  const chart = svg("svg", {
    viewBox: `0 0 ${width} ${height + foot}`,
    role: "img",
    "aria-label": label,
    class: "lines",
  });
  for (const [mark, text] of marks) {
    chart.append(svg("line", { x1: left, x2: width - 8, y1: y(mark), y2: y(mark), class: "grid" }));
    chart.append(svg("text", { x: left - 8, y: y(mark) + 4, "text-anchor": "end" }, text));
  }
  for (const tick of ticks(0, last, 5)) {
    chart.append(svg("text", { x: x(tick), y: height + 18, "text-anchor": "middle" }, tick));
  }
  chart.append(svg("text", { x: (left + width) / 2, y: height + 40, "text-anchor": "middle" }, below));
  return { chart, x, y };
}

/** Curves over percent of the pixels: [{kind, points: [[percent, value]]}], of values that lie about [0, 1]. */
function curveChart(lines, { label, below }) {
  const values = lines.flatMap((line) => line.points.map(([, value]) => value));
  const [low, high] = [Math.min(0, ...values), Math.max(1, ...values)];
  const marks = ticks(low, high, 5).map((mark) => [mark, number(mark, 1)]);
  const { chart, x, y } = chartFrame({ label, below, last: 100, span: [(value) => value, low, high], marks });
  for (const { kind, points } of lines) {
    const path = points.map(([share, value], place) => `${place ? "L" : "M"}${x(share)},${y(value)}`);
    chart.append(svg("path", { d: path.join(""), class: `line ${kind}` }));
  }
  return chart;
}

/** Lines over seconds: [{name, kind, points: [[seconds, value]]}], as steps: a value holds until the next. */
function timeChart(lines, { label, unit, logarithmic = false }) {
  const points = lines.flatMap((line) => line.points);
  if (!points.length) return empty("The solver left no trace.");
  const last = Math.max(...points.map(([seconds]) => seconds)) || 1;
  const scaled = (value) => (logarithmic ? Math.log10(value) : value);
  let low = Math.min(...points.map(([, value]) => scaled(value)));
  let high = Math.max(...points.map(([, value]) => scaled(value)));
  if (logarithmic) [low, high] = [Math.floor(low), Math.ceil(high)];
  if (!(high > low)) [low, high] = [low - 1, high + 1];
  const marks = logarithmic
    ? Array.from({ length: high - low + 1 }, (_, place) => 10 ** (low + place))
    : ticks(low, high, 4);
  const said = (mark) => (logarithmic ? `${mark >= 1 ? mark : mark.toPrecision(1)}${unit}` : whole(mark));
  const { chart, x, y } = chartFrame({
    label,
    below: "seconds",
    last,
    span: [scaled, low, high],
    marks: marks.map((mark) => [mark, said(mark)]),
  });
  for (const { kind, points: own } of lines) {
    const path = own.map(([seconds, value], place) =>
      place ? `H${x(seconds)}V${y(value)}` : `M${x(seconds)},${y(value)}`,
    );
    chart.append(svg("path", { d: `${path.join("")}H${x(last)}`, class: `line ${kind}` }));
  }
  return h(
    "div",
    {},
    lines.length > 1 &&
      h(
        "p",
        { class: "key" },
        lines.map(({ name, kind }) => h("span", {}, h("i", { class: kind }), name)),
      ),
    chart,
  );
}
