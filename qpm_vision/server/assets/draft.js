// The steering that is entered: a plain object as in steer.yaml. Every change is kept in the tab at once (sessionStorage)
// and as the last one of all tabs (localStorage), so that neither a reload nor the end of the server loses it; what another
// tab saves is taken over where nothing is entered here, and told where something is.

import { Refusal, ask, follow, guarded, tell } from "./dom.js";

export const draft = { steering: {}, version: "", saved: {} };
export let run = null;

/** What a page does when something changes; each page sets its own. */
export const page = {
  /** The steering, the run or a name changed. */
  draw() {},
  /** A search is under way: the state of the job; or none is: null. */
  showProgress() {},
  /** The outcome of a search, or null where there is none for what is entered now. */
  showOutcome() {},
  /** Whether to search at once after each change. */
  isLive: () => true,
  /** Seconds that a search may take. */
  seconds: () => 10,
};

// -- names ------------------------------------------------------------------------------------------------------

export const nameOf = (number) => run.names.names[number] || "";

/** "red crown (17)", or "17". */
export const label = (number) => (nameOf(number) ? `${nameOf(number)} (${number})` : String(number));

/** Give a feature a name, or take it away with an empty one. */
export async function giveName(number, name) {
  const names = Object.fromEntries(
    run.features.map((feature) => [feature.number, feature.number === number ? name : nameOf(feature.number)]).filter(([, given]) => given),
  );
  try {
    run.names = await ask("PUT", "/api/names", { names, version: run.names.version });
  } catch (error) {
    if (!(error instanceof Refusal) || error.status !== 409) throw error;
    await loadNames();
    throw new Refusal(`${error.message} The names are loaded again now; press once more to add this one.`, 409);
  }
  announce("names", run.names.version);
  drawAll();
}

async function loadNames() {
  run.names = await ask("GET", "/api/names");
  drawAll();
}

let outcome = null;

function drawAll() {
  page.draw();
  page.showOutcome(outcome);
}

function setOutcome(result) {
  outcome = result;
  page.showOutcome(outcome);
}

// -- the steering -----------------------------------------------------------------------------------------------

/** The number of a feature that may be listed by its name. */
const numberOf = (item) =>
  typeof item === "number" ? item : Number(Object.entries(run.names.names).find(([, name]) => name === item)?.[0] ?? NaN);

export const inList = (list, number) => (draft.steering[list] || []).some((item) => numberOf(item) === number);

export function setInList(list, item, wanted) {
  const others = (draft.steering[list] || []).filter((other) => other !== item && numberOf(other) !== item);
  draft.steering[list] = wanted ? [...others, item] : others;
}

/** Put a feature into a list, out of the contrary one, or out of both. */
export function setWanted(list, number, wanted) {
  setInList(list, number, wanted);
  setInList(list === "ban" ? "require" : "ban", number, false);
  changed();
}

/** What a list such as "forbid" says about a class. */
export function ofClass(list, name) {
  const all = draft.steering[list] || {};
  return Object.hasOwn(all, name) ? all[name] : [];
}

export function setOfClass(list, name, items) {
  const others = Object.entries(draft.steering[list] || {}).filter(([other]) => other !== name);
  draft.steering[list] = Object.fromEntries(items.length ? [...others, [name, items]] : others);
  changed();
}

export const isForbidden = (name, number) => ofClass("forbid", name).some((item) => numberOf(item) === number);

/** Forbid a feature for a class, or allow it again. */
export function toggleForbidden(name, item) {
  const others = ofClass("forbid", name).filter((other) => other !== item && numberOf(other) !== item);
  setOfClass("forbid", name, others.length < ofClass("forbid", name).length ? others : [...others, item]);
}

const isDirty = (steering, saved) => JSON.stringify(steering) !== JSON.stringify(saved);

const key = (what) => `qpm-${what}:${run.path}`;

/** What is entered, kept in this tab. */
function keepHere() {
  sessionStorage.setItem(key("entered"), JSON.stringify(draft));
}

/** The steering that was entered last, in any tab, if it is another one than here. */
export function lastEntered() {
  const last = JSON.parse(localStorage.getItem(key("entered")) || "null");
  return last && isDirty(last, draft.steering) ? last : null;
}

let changes = 0;

/** To be called after every change of `draft.steering`. */
export const changed = guarded(async () => {
  changes += 1;
  const mine = changes;
  keep();
  page.draw();
  forget();
  setOutcome(null);
  const parsed = await ask("POST", "/api/parse", { steering: draft.steering });
  if (mine !== changes) return; // changed again meanwhile
  draft.steering = parsed.steering;
  keep();
  tell("");
  page.draw(parsed.yaml);
  if (page.isLive()) waiting = setTimeout(solve, 400);
});

function keep() {
  keepHere();
  localStorage.setItem(key("entered"), JSON.stringify(draft.steering));
}

/** Take up what was entered last and not saved. */
export function restore() {
  draft.steering = lastEntered() || draft.steering;
  return changed();
}

// -- solving ----------------------------------------------------------------------------------------------------

let turns = 0; // searches that were asked for; only the last one is waited for
let solving = null;
let waiting = null;

/** Search for the assignment that the steering leads to. */
export const solve = guarded(async () => {
  const turn = forget();
  if (!Object.keys(draft.steering).length) return;
  const { id } = await ask("POST", "/api/solve", { steering: draft.steering, seconds: page.seconds() });
  if (turn !== turns) return cancel(id);
  solving = id;
  const ended = await follow(`/api/solve/${id}`, () => turn === turns, page.showProgress);
  if (ended === null) return;
  solving = null;
  if (ended.error) tell(ended.error);
  setOutcome(ended.result);
});

/** Let go of the search under way; returns the turn of the next one. */
function forget() {
  clearTimeout(waiting);
  page.showProgress(null);
  if (solving !== null) cancel(solving);
  solving = null;
  turns += 1;
  return turns;
}

/** End a search with the best assignment so far. */
const cancel = (id) => ask("DELETE", `/api/solve/${id}`).catch(() => {}); // it may be gone with its server

/** End the search under way with the best assignment so far. */
export const stop = () => solving !== null && cancel(solving);

// -- the file ---------------------------------------------------------------------------------------------------

/** Load the run; `own`: with what was entered in this tab, if it differs from what was saved. */
export async function load(own) {
  run = await ask("GET", "/api/run");
  const here = JSON.parse((own && sessionStorage.getItem(key("entered"))) || "null");
  Object.assign(draft, run.steering, { saved: structuredClone(run.steering.steering) });
  const problems = [...run.problems];
  if (here && isDirty(here.steering, here.saved)) {
    if (here.version !== draft.version) problems.push("steer.yaml was changed since. What is entered here is not saved.");
    Object.assign(draft, here);
  }
  keepHere();
  const { yaml } = await ask("POST", "/api/parse", { steering: draft.steering });
  tell(problems.join("\n"));
  setOutcome(null);
  page.draw(yaml);
  if (page.isLive()) solve();
}

/** Write steer.yaml; where it has changed since, show that instead. */
export const save = guarded(async () => {
  const entered = draft.steering;
  try {
    Object.assign(draft, await ask("PUT", "/api/steering", { steering: entered, version: draft.version }));
  } catch (error) {
    if (!(error instanceof Refusal) || error.status !== 409) throw error;
    localStorage.setItem(key("entered"), JSON.stringify(entered));
    await load(false);
    const remedy = run.problems.length ? "" : " It is shown here now; what you had entered can be taken up again.";
    throw new Refusal(error.message + remedy, 409);
  }
  draft.saved = structuredClone(draft.steering);
  keep();
  announce("saved", draft.version);
  page.draw();
  tell(`Saved. To make a run of it: qpm-vision steer "${run.path}" NEWRUN --file "${run.path}/steer.yaml"`, true);
});

/** Show what is saved. */
export const reload = guarded(() => load(false));

// -- other tabs -------------------------------------------------------------------------------------------------

function announce(what, version) {
  localStorage.setItem(key(what), version);
}

window.addEventListener(
  "storage",
  guarded(async (event) => {
    if (run === null) return;
    if (event.key === key("names") && event.newValue !== run.names.version) await loadNames();
    if (event.key !== key("saved") || event.newValue === draft.version) return;
    if (isDirty(draft.steering, draft.saved)) {
      tell("steer.yaml was saved in another tab. What is entered here is not saved; load steer.yaml to see that.");
    } else {
      await load(false);
      tell("steer.yaml was saved in another tab; it is shown here now.", true);
    }
  }),
);
