// Search for classes and features: a combobox as the ARIA practices describe it.

const MOST_FOUND = 12;

const searchableClasses = classes.map((entry, index) => [folded(entry.name), "class", entry.name, classHref(index)]);

/** What can be found: [folded text, what it is, text, link]; features may have got other names since. */
function searchable() {
  const named = features.map((_, column) => [
    folded(featureLabel(column)),
    "feature",
    featureLabel(column),
    featureHref(column),
  ]);
  return [...searchableClasses, ...named];
}

/** The best matches of a query: those that begin with it first. */
function found(query) {
  const hits = [];
  for (const entry of searchable()) {
    const at = entry[0].indexOf(query);
    if (at >= 0) hits.push([at === 0 ? 0 : /\W/u.test(entry[0][at - 1]) ? 1 : 2, entry]);
  }
  return hits.sort((a, b) => a[0] - b[0] || a[1][0].length - b[1][0].length).map(([, entry]) => entry);
}

function startSearch() {
  const field = document.getElementById("search");
  const list = document.getElementById("search-results");
  const status = document.getElementById("search-status");
  let current = -1;

  function close() {
    list.hidden = true;
    current = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function show() {
    const query = folded(field.value.trim());
    if (!query) {
      status.textContent = "";
      return close();
    }
    const hits = found(query);
    list.replaceChildren(
      ...hits
        .slice(0, MOST_FOUND)
        .map(([, kind, text, href], place) =>
          h(
            "li",
            { role: "option", id: `result-${place}`, "data-href": href, "aria-selected": "false" },
            h("span", {}, text),
            h("small", {}, kind),
          ),
        ),
    );
    if (!hits.length) list.append(h("li", { class: "none" }, "Nothing has that in its name."));
    status.textContent =
      hits.length > MOST_FOUND ? `${whole(hits.length)} found, ${MOST_FOUND} shown` : `${whole(hits.length)} found`;
    list.hidden = false;
    current = -1;
    field.setAttribute("aria-expanded", "true");
    field.removeAttribute("aria-activedescendant");
  }

  function move(step) {
    const options = [...list.querySelectorAll("[role=option]")];
    if (!options.length) return;
    options[current]?.setAttribute("aria-selected", "false");
    current = (current + step + options.length + (current < 0 && step < 0 ? 1 : 0)) % options.length;
    options[current].setAttribute("aria-selected", "true");
    options[current].scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", options[current].id);
  }

  function take(option) {
    if (!option) return;
    field.value = "";
    status.textContent = "";
    close();
    go(option.dataset.href);
  }

  field.addEventListener("input", show);
  field.addEventListener("focus", show);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else if (event.key === "Enter") take(list.querySelectorAll("[role=option]")[Math.max(0, current)]);
    else if (event.key === "Escape") {
      field.value = "";
      show();
    } else return;
    event.preventDefault();
  });
  list.addEventListener("pointerdown", (event) => {
    event.preventDefault(); // the field keeps the focus until the choice is made
    take(event.target.closest("[role=option]"));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    field.focus();
  });
}
