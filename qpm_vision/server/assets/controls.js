// Put behind a report in a frame: buttons on each feature. They only say that they were pressed; the page around acts.
(() => {
  "use strict";
  const page = window.qpmReport;
  if (!page || window.parent === window) return;

  const { classes, features } = page.data;
  const wanted = { ban: new Set(), require: new Set() };
  let forbidden = new Map(); // numbers of features by names of classes
  const say = (message) => window.parent.postMessage(message, location.origin);

  function button(text, pressed) {
    const element = document.createElement("button");
    element.type = "button";
    element.textContent = text;
    element.addEventListener("click", pressed);
    return element;
  }

  function labelled(text) {
    const group = document.createElement("div");
    group.className = "steer";
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", text);
    return group;
  }

  function ofFeature(column) {
    const { number: feature } = features[column];
    const group = labelled(`feature ${feature}`);
    group.dataset.feature = feature;
    for (const [list, text] of [["ban", "Ban"], ["require", "Require"]]) {
      const element = button(text, () => say({ what: "toggle", list, feature }));
      element.dataset.list = list;
      group.append(element);
    }
    group.append(button("Name", () => say({ what: "name", feature })));
    return group;
  }

  function ofClass(index) {
    const { name, features: columns } = classes[index];
    const group = labelled("Forbid for this class:");
    group.append("Forbid for this class: ");
    for (const { number: feature, name: called } of columns.map((column) => features[column])) {
      const element = button(called || `feature ${feature}`, () => say({ what: "forbid", name, feature }));
      Object.assign(element.dataset, { forbid: feature, class: name });
      group.append(element);
    }
    return group;
  }

  /** Mark what is banned and required, wherever it is mentioned. */
  function mark() {
    for (const element of document.querySelectorAll("#main .steer [data-list]")) {
      const { feature } = element.parentElement.dataset;
      element.setAttribute("aria-pressed", String(wanted[element.dataset.list].has(Number(feature))));
    }
    for (const element of document.querySelectorAll("#main .steer [data-forbid]")) {
      const numbers = forbidden.get(element.dataset.class);
      element.setAttribute("aria-pressed", String(Boolean(numbers?.has(Number(element.dataset.forbid)))));
    }
    for (const chip of document.querySelectorAll('.chip[href^="#feature="]')) {
      const number = Number(chip.getAttribute("href").split("=")[1]);
      const list = ["ban", "require"].find((name) => wanted[name].has(number));
      if (list) chip.dataset.wanted = list;
      else delete chip.dataset.wanted;
    }
  }

  // This frame can keep nothing, so the page around it remembers the theme.
  const themes = document.getElementById("theme");
  themes.addEventListener("change", () => say({ what: "theme", theme: themes.value }));

  window.addEventListener("message", (event) => {
    if (event.source !== window.parent) return;
    const { ban, require, forbid, names, theme } = event.data;
    if (theme !== themes.value) {
      themes.value = theme;
      themes.dispatchEvent(new Event("change"));
    }
    forbidden = new Map(forbid.map(([name, numbers]) => [name, new Set(numbers)]));
    wanted.ban = new Set(ban);
    wanted.require = new Set(require);
    let renamed = false;
    for (const entry of features) {
      const name = names[entry.number] || null;
      renamed ||= name !== entry.name;
      entry.name = name;
    }
    if (renamed) page.refresh();
    mark();
  });

  page.tools.feature.splice(0, Infinity, ofFeature); // names are the run's here, not those of this browser
  page.tools.card.push(ofFeature);
  page.tools.class.push(ofClass);
  new MutationObserver(mark).observe(document.getElementById("main"), { childList: true, subtree: true });
  window.addEventListener("hashchange", () => say({ what: "place", hash: location.hash }));
  page.refresh();
  say({ what: "ready", features: features.map((entry) => entry.number) });
})();
