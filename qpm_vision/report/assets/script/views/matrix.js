// The class × feature matrix. Only the rows in sight are built, so that a thousand classes cost no more than thirty.

const ROW_HEIGHT = 24;
const SPARE_ROWS = 8;

function matrix() {
  const state = { order: "similar", query: "", column: null };
  const columns = report.feature_order;
  const status = h("p", { class: "hint", role: "status", "aria-live": "polite" });
  const body = h("tbody");
  const above = h("tbody", { "aria-hidden": "true" }, h("tr", {}, h("td", { colspan: columns.length + 2 })));
  const below = above.cloneNode(true);
  const header = h("tr");
  const cell = Math.max(17, Math.min(30, Math.floor(860 / columns.length)));
  const table = h(
    "table",
    { class: "matrix", "aria-label": "Which class has which feature", style: { "--cell": `${cell}px` } },
    h("thead", {}, header),
    above,
    body,
    below,
  );
  const box = h(
    "div",
    { class: "scroll matrix-box", tabindex: "0", role: "region", "aria-label": "Matrix of classes and features" },
    table,
  );
  let rows = [];

  function sorted() {
    const order = CLASS_ORDERS[state.order].sorted();
    const found = state.query ? order.filter((index) => matches(index, state.query)) : order;
    if (state.column === null) return found;
    return [
      ...found.filter((index) => has(index, state.column)),
      ...found.filter((index) => !has(index, state.column)),
    ];
  }

  function matches(index, query) {
    return folded(classes[index].name).includes(query);
  }

  function refresh() {
    rows = sorted();
    box.scrollTop = 0;
    table.setAttribute("aria-rowcount", rows.length + 1);
    const sharing = state.column === null ? "" : ` Classes with ${featureLabel(state.column)} come first.`;
    status.textContent =
      (rows.length === classes.length ? "" : `${plural(rows.length, "class", "classes")} found.`) + sharing;
    header.replaceChildren(...headings());
    show();
  }

  function headings() {
    return [
      h("th", { scope: "col" }, "class"),
      h(
        "th",
        { scope: "col", class: "accuracy" },
        h("abbr", { title: "Share of test images that are right" }, "right"),
      ),
      ...columns.map((column) =>
        h(
          "th",
          { scope: "col", "aria-sort": column === state.column ? "descending" : "none" },
          h(
            "button",
            {
              type: "button",
              title: `${featureLabel(column)}: put its ${plural(classesWith[column].length, "class", "classes")} first`,
              "aria-label": `Classes with ${featureLabel(column)} first`,
              onclick: () => {
                state.column = state.column === column ? null : column;
                refresh();
              },
            },
            h("span", {}, nameOf(column) || String(features[column].number)),
          ),
        ),
      ),
    ];
  }

  let drawn = "";
  function show(force = true) {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const last = Math.min(rows.length, first + Math.ceil((box.clientHeight || 480) / ROW_HEIGHT) + 2 * SPARE_ROWS);
    if (!force && drawn === `${first}:${last}`) return;
    drawn = `${first}:${last}`;
    body.replaceChildren(...rows.slice(first, last).map((index, place) => matrixRow(index, first + place, columns)));
    for (const [spacer, count] of [
      [above, first],
      [below, rows.length - last],
    ]) {
      spacer.hidden = count === 0;
      spacer.firstElementChild.firstElementChild.style.height = `${count * ROW_HEIGHT}px`;
    }
  }

  box.addEventListener("scroll", () => requestAnimationFrame(() => show(false)), { passive: true });
  body.addEventListener("pointerover", ({ target }) => {
    const cell = target.closest("td[data-column]");
    if (!cell) return;
    const { name } = classes[cell.parentElement.dataset.index];
    status.textContent = `${name} has ${featureLabel(Number(cell.dataset.column))}.`;
  });
  refresh();
  return [
    h(
      "div",
      { class: "controls" },
      filterField("Find a class", (query) => {
        state.query = query;
        refresh();
      }),
      orderChoice(CLASS_ORDERS, state.order, (order) => {
        state.order = order;
        refresh();
      }),
    ),
    box,
    status,
  ];
}

function matrixRow(index, place, columns) {
  const share = accuracyOf(index);
  return h(
    "tr",
    { "aria-rowindex": place + 2, "data-index": index },
    h("th", { scope: "row" }, classLink(index)),
    h(
      "td",
      { class: share !== null && share < 0.9 ? "accuracy low" : "accuracy" },
      share === null ? "–" : percent(share, 0),
    ),
    columns.map((column) =>
      has(index, column)
        ? h(
            "td",
            { "data-column": column },
            h("a", {
              href: featureHref(column),
              tabindex: "-1",
              "aria-label": featureLabel(column),
              style: { "--colour": features[column].colour },
            }),
          )
        : h("td"),
    ),
  );
}
