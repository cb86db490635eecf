// The page of tables: everything that a steering can say, also as the text of steer.yaml.

import { ask, at, guarded, make, pageAddress } from "./dom.js";
import {
  changed, draft, inList, isForbidden, label, lastEntered, load, nameOf, ofClass, page, reload, restore, run, save, setInList,
  setOfClass, setWanted, solve, stop, toggleForbidden,
} from "./draft.js";
import { askForName } from "./naming.js";
import { details, progressText, summary } from "./outcome.js";

const NUMBERS = ["stay", "border_bias", "centre_bias", "closest_pairs"];

function setNumber(what, text) {
  if (text === "" || Number(text) === 0) delete draft.steering[what];
  else draft.steering[what] = Number(text);
}

function setPreference(number, text) {
  const preferred = { ...(draft.steering.prefer || {}) };
  if (text === "" || Number(text) === 0) delete preferred[number];
  else preferred[number] = Number(text);
  draft.steering.prefer = preferred;
}

// -- what is shown ----------------------------------------------------------------------------------------------

page.isLive = () => at("live").checked;
page.seconds = () => Number(at("seconds").value);

page.draw = (yaml) => {
  const gap = run.gap === null ? "" : `, gap ${(100 * run.gap).toFixed(2)} %`;
  at("run").textContent =
    `${run.path} · ${run.classes.length} classes, ${run.features.length} of ${run.n_features} features, ` +
    `objective ${run.objective.toFixed(3)}${gap}`;
  document.title = `Steering ${run.path.split("/").pop()}`;
  at("restore").hidden = lastEntered() === null;
  if (yaml !== undefined) at("yaml").value = yaml === "{}\n" ? "" : yaml;
  for (const name of NUMBERS) at(name).value = draft.steering[name] ?? "";
  const focused = document.activeElement?.ariaLabel; // rows are built anew, and who uses the keyboard goes on from there
  const listed = [...(draft.steering.require || []), ...(draft.steering.ban || [])].filter((item) => typeof item === "number");
  const known = Object.fromEntries(run.features.map((feature) => [feature.number, feature]));
  const numbers = [...new Set([...run.features.map((feature) => feature.number), ...listed])];
  at("features").replaceChildren(...numbers.map((number) => featureRow(number, known[number])));
  drawClasses();
  if (focused) document.querySelector(`main [aria-label="${CSS.escape(focused)}"]`)?.focus();
};

page.showProgress = (state) => {
  at("stop").disabled = state === null || state.state !== "running";
  at("progress").textContent = state === null ? "" : progressText(state);
};

page.showOutcome = (result) => {
  if (result) {
    const sentences = summary(result).map((textContent) => make("p", { textContent }));
    at("outcome").replaceChildren(...sentences, ...details(result));
  } else if (!Object.values(draft.steering).some((value) => typeof value !== "object" || Object.keys(value).length)) {
    at("outcome").replaceChildren("Nothing is to change.");
  }
};

// -- the tables -------------------------------------------------------------------------------------------------

function featureRow(number, feature) {
  const box = (list) => make("input", {
    type: "checkbox",
    checked: inList(list, number),
    ariaLabel: `${list} ${label(number)}`,
    onchange: (event) => setWanted(list, number, event.target.checked),
  });
  const prefer = make("input", {
    type: "number",
    step: 0.1,
    value: (draft.steering.prefer || {})[number] ?? "",
    ariaLabel: `prefer ${label(number)}`,
    onchange: (event) => {
      setPreference(number, event.target.value);
      changed();
    },
  });
  const name = make("button", { type: "button", className: "name", textContent: "name", ariaLabel: `name ${label(number)}`, onclick: () => askForName(number) });
  return make("tr", {},
    make("td", {}, nameOf(number) ? `${label(number)} ` : `${number} `, ...(feature ? [name] : [])),
    make("td", { className: "number", textContent: feature ? feature.classes : "–" }),
    make("td", { className: "number", textContent: feature ? feature.bias.toFixed(3) : "–" }),
    make("td", {}, box("ban")),
    make("td", {}, box("require")),
    make("td", {}, prefer));
}

function drawClasses() {
  const wanted = at("filter").value.toLowerCase();
  at("classes").replaceChildren(...run.classes.filter((entry) => entry.name.toLowerCase().includes(wanted)).map(classRow));
}

function classRow({ name, features }) {
  const buttons = [...new Set([...features, ...ofClass("forbid", name)])].map((item) => {
    const button = make("button", {
      type: "button",
      className: "feature",
      textContent: typeof item === "number" ? label(item) : item,
      onclick: () => toggleForbidden(name, item),
    });
    button.setAttribute("aria-pressed", String(typeof item !== "number" || isForbidden(name, item)));
    return button;
  });
  const assign = make("input", {
    value: ofClass("assign", name).join(", "),
    placeholder: "numbers",
    size: 8,
    ariaLabel: `assign to ${name}`,
    onchange: (event) => setOfClass("assign", name, event.target.value.split(",").map((part) => part.trim()).filter(Boolean)),
  });
  return make("tr", {}, make("td", { textContent: name }), make("td", {}, ...buttons), make("td", {}, assign));
}

// -- what is pressed --------------------------------------------------------------------------------------------

at("to-report").href = pageAddress("/report");
at("filter").oninput = drawClasses;
for (const name of NUMBERS) {
  at(name).onchange = (event) => {
    setNumber(name, event.target.value);
    changed();
  };
}
at("require-other").onclick = () => {
  const text = at("other").value.trim();
  if (!text) return;
  setInList("require", /^\d+$/.test(text) ? Number(text) : text, true);
  at("other").value = "";
  changed();
};
at("apply").onclick = guarded(async () => {
  draft.steering = (await ask("POST", "/api/parse", { yaml: at("yaml").value })).steering;
  await changed();
});
at("save").onclick = save;
at("reload").onclick = reload;
at("clear").onclick = () => {
  draft.steering = {};
  changed();
};
at("restore").onclick = restore;
at("solve").onclick = solve;
at("stop").onclick = stop;
guarded(() => load(true))();
