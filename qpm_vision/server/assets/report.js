// The page around the report, which is shown in a frame that is not trusted. This page acts; from the frame it takes only
// which button of which kept feature was pressed, where in the report one is, for the address, and its theme.

import { ask, at, follow, guarded, make, pageAddress, tell } from "./dom.js";
import {
  changed, draft, inList, isForbidden, label, lastEntered, load, page, reload, restore, run, save, setWanted, stop, toggleForbidden,
} from "./draft.js";
import { askForName } from "./naming.js";
import { details, progressText, summary } from "./outcome.js";

// In units of the objective, for each feature: much more than one feature gains against another.
const STAY = 1;

const THEMES = ["auto", "light", "dark"];
const THEME_STORE = "qpm-theme";

const LISTS = { ban: "banned", require: "required" };

// -- the frame --------------------------------------------------------------------------------------------------

const PATIENCE = 1000; // milliseconds after which a report that is loaded should have said so

let frame = null;
let isReady = false;

function showReport() {
  isReady = false;
  frame = make("iframe", { title: "Report", src: run.report.frame + location.hash });
  frame.onload = () => setTimeout(() => {
    if (!isReady) tell("The report has no buttons, because another program or version wrote it; write it anew.");
  }, PATIENCE);
  frame.setAttribute("sandbox", "allow-scripts"); // an origin of its own, also if its answer did not say so
  at("place").replaceChildren(frame);
}

window.addEventListener("hashchange", () => {
  if (frame) frame.src = run.report.frame + location.hash; // an address that was typed; the frame goes there as by a link
});

const theme = () => localStorage.getItem(THEME_STORE) || THEMES[0];

/** Tell the frame what is in the draft and how features are called. */
function tellFrame() {
  const numbers = run.features.map((feature) => feature.number);
  const [ban, require] = ["ban", "require"].map((list) => numbers.filter((number) => inList(list, number)));
  const forbid = Object.keys(draft.steering.forbid || {}).map((name) => [name, numbers.filter((number) => isForbidden(name, number))]);
  // To whatever is in the frame, whose origin has no name: nothing of it is a secret.
  frame?.contentWindow?.postMessage({ ban, require, forbid, names: run.names.names, theme: theme() }, "*");
}

const isKept = (number) => run.features.some((feature) => feature.number === number);

window.addEventListener("message", (event) => {
  if (frame === null || event.source !== frame.contentWindow || Object(event.data) !== event.data) return;
  const { what, list, feature, features, name, hash, theme: chosen } = event.data;
  if (what === "ready") {
    isReady = true;
    tellFrame();
    const same = Array.isArray(features) && features.length === run.features.length && features.every(isKept);
    if (!same) tell("The report is about other features than the run keeps now; write it anew.");
  } else if (what === "place" && typeof hash === "string" && hash.length < 1000) {
    history.replaceState(null, "", `${location.pathname}${location.search}#${hash.replace(/^#/, "")}`);
  } else if (what === "toggle" && Object.hasOwn(LISTS, list) && isKept(feature)) {
    setWanted(list, feature, !inList(list, feature));
  } else if (what === "forbid" && isKept(feature) && run.classes.some((entry) => entry.name === name)) {
    toggleForbidden(name, feature);
  } else if (what === "theme" && THEMES.includes(chosen)) {
    localStorage.setItem(THEME_STORE, chosen);
  } else if (what === "name" && isKept(feature)) {
    askForName(feature);
  }
});

// -- the draft --------------------------------------------------------------------------------------------------

page.draw = () => {
  at("run").textContent = run.path;
  document.title = `Report ${run.path.split("/").pop()}`;
  at("restore").hidden = lastEntered() === null;
  const { forbid = {}, ...rest } = draft.steering;
  const chips = [
    ...Object.entries(LISTS).flatMap(([list, text]) =>
      (rest[list] || []).map((item) => chip(list, `${text}: ${shown(item)}`, () => setWanted(list, item, false)))),
    ...Object.entries(forbid).flatMap(([name, items]) =>
      items.map((item) => chip("ban", `not in ${name}: ${shown(item)}`, () => toggleForbidden(name, item)))),
  ];
  const others = Object.entries(rest)
    .filter(([list, value]) => !(list in LISTS) && list !== "stay" && (typeof value !== "object" || Object.keys(value).length))
    .map(([list]) => list);
  if (others.length) chips.push(`Also: ${others.join(", ")}.`);
  at("wanted").replaceChildren(...(chips.length ? chips : ["Nothing is to change. Ban or require a feature of the report to see what that costs."]));
  at("stay").checked = (rest.stay || 0) > 0;
  at("save").disabled = JSON.stringify(draft.steering) === JSON.stringify(draft.saved);
  at("clear").disabled = !Object.keys(draft.steering).length;
  tellFrame();
};

const shown = (item) => (typeof item === "number" ? label(item) : item);

/** Something that the draft says, with a button that takes it back. */
function chip(kind, text, onclick) {
  const button = make("button", { type: "button", textContent: "×", ariaLabel: `take back ${text}`, onclick });
  return make("span", { className: `wanted ${kind}` }, text, button);
}

page.showProgress = (state) => {
  const running = state !== null && state.state === "running";
  at("stop").hidden = !running;
  at("progress").textContent = running ? progressText(state) : "";
};

page.showOutcome = (result) => {
  at("outcome").replaceChildren(...(result ? summary(result).map((textContent) => make("p", { textContent })) : []));
  at("details").replaceChildren(...(result ? details(result) : []));
  at("more").hidden = !result;
};

// -- writing the report -----------------------------------------------------------------------------------------

let writing = null;

function showState() {
  const { there, outdated, possible } = run.report;
  at("write").textContent = there ? "Write the report anew" : "Write the report";
  at("write").hidden = writing !== null || !possible;
  at("stop-writing").hidden = writing === null;
  if (writing !== null) return;
  at("report-state").textContent = outdated ? "The report is older than the run." : "";
  if (there) return;
  const text = possible
    ? "The run has no report yet. Writing one takes a while, because it looks at the images of the run: press “Write the report” above."
    : "The run is not finished, so there is no report of it. Features can be steered on the page of tables.";
  at("place").replaceChildren(make("p", { textContent: text, className: "empty" }));
}

const write = guarded(async () => {
  const begun = await ask("POST", "/api/report", {});
  await watch(begun.id);
});

async function watch(number) {
  writing = number;
  showState();
  const show = ({ progress }) => {
    at("report-state").textContent = progress ? `Writing: ${progress.task}, ${progress.done} of ${progress.total}` : "Writing …";
  };
  let ended = null;
  try {
    ended = await follow(`/api/report/${number}`, () => writing === number, show);
  } finally {
    writing = null;
    run.report = (await ask("GET", "/api/run")).report;
    showState();
  }
  if (ended.error) tell(ended.error);
  if (ended.result) {
    showReport();
    tell(`Written: ${ended.result.written}.`, true);
  }
}

// -- what is pressed --------------------------------------------------------------------------------------------

at("to-steering").href = pageAddress("/steering");
at("save").onclick = save;
at("reload").onclick = reload;
at("restore").onclick = restore;
at("stop").onclick = stop;
at("stay").onchange = ({ target }) => {
  if (target.checked) draft.steering.stay = STAY;
  else delete draft.steering.stay;
  changed();
};
at("clear").onclick = () => {
  draft.steering = {};
  changed();
};
at("write").onclick = write;
at("stop-writing").onclick = guarded(() => ask("DELETE", `/api/report/${writing}`));
guarded(async () => {
  await load(true);
  showState();
  if (run.report.there) showReport();
  if (run.report.writing !== null) await watch(run.report.writing);
})();
