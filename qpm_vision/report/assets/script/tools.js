// Controls on the cards and pages of features and on the pages of classes. What serves the page may put its own into
// window.qpmReport.tools: functions that get a position and return an element.

const tools = { feature: [namingForm], card: [], class: [] };

/** Lets a person name a feature. */
function namingForm(column) {
  const problem = h("p", { class: "problem", role: "alert" });
  const field = h("input", {
    type: "text",
    value: nameOf(column) || "",
    maxlength: LONGEST_NAME,
    autocomplete: "off",
    placeholder: "such as: red crown",
  });
  return h(
    "form",
    {
      class: "naming",
      onsubmit: (event) => {
        event.preventDefault();
        const name = field.value.trim().replace(/\s+/gu, " ");
        const wrong = nameProblem(column, name);
        problem.textContent = wrong || "";
        if (wrong) return;
        rename(column, name);
        showNames();
        render({ keepPlace: true });
      },
    },
    h("label", {}, h("span", {}, "What would you call it?"), field),
    h("button", { type: "submit" }, "Name it"),
    problem,
  );
}

/** Says which names are not in the run yet, and gives them as a file. */
function showNames() {
  const bar = document.getElementById("new-names");
  bar.hidden = newNames.size === 0;
  if (bar.hidden) return;
  const url = URL.createObjectURL(new Blob([namesTable()], { type: "text/csv" }));
  bar.replaceChildren(
    h(
      "p",
      {},
      `${plural(newNames.size, "new name")}, known to this browser only. To keep what is named here, download the `,
      "table and run ",
      h("code", {}, "qpm-vision name RUN names.csv"),
      ".",
    ),
    h("a", { class: "button", href: url, download: "names.csv" }, "Download names.csv"),
    h(
      "button",
      {
        type: "button",
        onclick: () => {
          newNames.clear();
          store(NAME_STORE, {});
          showNames();
          render({ keepPlace: true });
        },
      },
      "Forget",
    ),
  );
}
