"use strict";

// The steering that is entered lives in `steering`, a plain object as in steer.yaml. Every change is kept in the tab at
// once (sessionStorage), and as the last one of all tabs (localStorage), so that neither a reload nor the end of the
// server loses it.

const token = new URLSearchParams(location.search).get("token") || "";
const at = (id) => document.getElementById(id);

let run = null;
let steering = {};
let version = "";
let solving = null;
let waiting = null;

async function ask(method, path, body) {
  const options = { method, headers: { "X-QPM-Token": token } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start `qpm-vision serve` again; what was entered is kept.");
  }
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.error);
  return data;
}

function tell(text, fine = false) {
  at("message").textContent = text;
  at("message").hidden = !text;
  at("message").classList.toggle("fine", fine);
}

function guarded(action) {
  return async (...given) => {
    try {
      await action(...given);
    } catch (error) {
      tell(error.message);
    }
  };
}

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const label = (number) => (run.names[number] ? `${run.names[number]} (${number})` : String(number));

// -- the steering -----------------------------------------------------------------------------------------------

const inList = (key, number) => (steering[key] || []).includes(number);

function setInList(key, number, wanted) {
  const others = (steering[key] || []).filter((item) => item !== number);
  steering[key] = wanted ? [...others, number] : others;
}

function setOfClass(key, name, numbers) {
  const of = { ...(steering[key] || {}) };
  if (numbers.length) of[name] = numbers;
  else delete of[name];
  steering[key] = of;
}

function setNumber(key, text) {
  if (text === "" || Number(text) === 0) delete steering[key];
  else steering[key] = Number(text);
}

function setPreference(number, text) {
  const preferred = { ...(steering.prefer || {}) };
  if (text === "" || Number(text) === 0) delete preferred[number];
  else preferred[number] = Number(text);
  steering.prefer = preferred;
}

const key = () => `qpm-steering:${run.path}`;

function keep() {
  const text = JSON.stringify({ steering, version });
  sessionStorage.setItem(key(), text);
  localStorage.setItem(key(), text);
}

const changed = guarded(async () => {
  keep();
  draw();
  const parsed = await ask("POST", "/api/parse", { steering });
  steering = parsed.steering;
  keep();
  at("yaml").value = parsed.yaml === "{}\n" ? "" : parsed.yaml;
  tell("");
  if (at("live").checked) {
    clearTimeout(waiting);
    waiting = setTimeout(solve, 400);
  }
});

// -- solving ----------------------------------------------------------------------------------------------------

const solve = guarded(async () => {
  await stop();
  if (!Object.keys(steering).length) {
    at("diff").replaceChildren("Nothing is to change.");
    return;
  }
  const mine = (await ask("POST", "/api/solve", { steering, seconds: Number(at("seconds").value) })).id;
  solving = mine;
  at("stop").disabled = false;
  for (;;) {
    const state = await ask("GET", `/api/solve/${mine}`);
    if (solving !== mine) return;
    showProgress(state);
    if (state.state !== "running") {
      solving = null;
      at("stop").disabled = true;
      if (state.error) tell(state.error);
      if (state.result) showDiff(state.result);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
});

async function stop() {
  if (solving === null) return;
  const last = solving;
  solving = null;
  await ask("DELETE", `/api/solve/${last}`).catch(() => {});
}

function showProgress(state) {
  const seen = state.progress;
  const gap = seen && seen.gap !== null ? `, gap ${(100 * seen.gap).toFixed(2)} %` : "";
  const objective = seen && seen.objective !== null ? `objective ${seen.objective.toFixed(3)}${gap}, ` : "";
  at("progress").textContent = seen ? `${state.state}: ${objective}${seen.time.toFixed(1)} s` : state.state;
}

function showDiff(result) {
  const { diff } = result;
  const number = (value) => value.toFixed(3);
  const row = (name, before, after) =>
    make("tr", {}, make("th", { textContent: name }), cell(number(before)), cell(number(after)));
  const cell = (text) => make("td", { textContent: text, className: "number" });
  const terms = make("table", {}, make("tbody", {},
    make("tr", {}, make("th"), ...["before", "after"].map((textContent) => make("th", { textContent, className: "number" }))),
    row("objective", diff.objective_before, diff.objective_after),
    ...["similarity", "redundancy", "bias"].map((t) => row(t, diff.terms_before[t], diff.terms_after[t]))));
  const counted = (list) => list.map((f) => `${label(f.feature)} in ${f.classes}`).join(", ") || "none";
  const proof = diff.bound === null ? "no bound" : `bound ${number(diff.bound)}, gap ${(100 * diff.gap).toFixed(2)} %`;
  const changes = make("table", {}, make("tbody", {}, ...diff.classes.map((c) => make("tr", {},
    make("th", { textContent: c.class }),
    make("td", { className: "lost", textContent: c.lost.map((f) => `− ${label(f)}`).join(", ") }),
    make("td", { className: "gained", textContent: c.gained.map((f) => `+ ${label(f)}`).join(", ") })))));
  at("diff").replaceChildren(
    make("p", { textContent: `Price: ${number(diff.price)} of the former objective; ${proof} (${result.termination} after ${result.seconds.toFixed(1)} s).` }),
    terms,
    make("p", { textContent: `Features out: ${counted(diff.features_out)}` }),
    make("p", { textContent: `Features in: ${counted(diff.features_in)}` }),
    make("p", { textContent: `${diff.classes.length} of ${diff.n_classes} classes change.` }),
    changes);
}

// -- the tables -------------------------------------------------------------------------------------------------

function draw() {
  for (const name of ["stay", "border_bias", "closest_pairs"]) at(name).value = steering[name] ?? "";
  const numbers = [...new Set([...run.features.map((f) => f.number), ...(steering.require || []), ...(steering.ban || [])])];
  const known = Object.fromEntries(run.features.map((f) => [f.number, f]));
  at("features").replaceChildren(...numbers.map((number) => featureRow(number, known[number])));
  drawClasses();
}

function featureRow(number, feature) {
  const box = (list, other) => make("input", {
    type: "checkbox",
    checked: inList(list, number),
    ariaLabel: `${list} ${label(number)}`,
    onchange: (event) => {
      setInList(list, number, event.target.checked);
      setInList(other, number, false);
      changed();
    },
  });
  const prefer = make("input", {
    type: "number",
    step: 0.1,
    value: (steering.prefer || {})[number] ?? "",
    ariaLabel: `prefer ${label(number)}`,
    onchange: (event) => {
      setPreference(number, event.target.value);
      changed();
    },
  });
  return make("tr", {},
    make("td", { textContent: label(number) }),
    make("td", { className: "number", textContent: feature ? feature.classes : "–" }),
    make("td", { className: "number", textContent: feature ? feature.bias.toFixed(3) : "–" }),
    make("td", {}, box("ban", "require")),
    make("td", {}, box("require", "ban")),
    make("td", {}, prefer));
}

function drawClasses() {
  const wanted = at("filter").value.toLowerCase();
  at("classes").replaceChildren(...run.classes.filter((c) => c.name.toLowerCase().includes(wanted)).map(classRow));
}

function classRow({ name, features }) {
  const forbidden = ((steering.forbid || {})[name] || []);
  const shown = [...new Set([...features, ...forbidden])];
  const buttons = shown.map((number) => {
    const button = make("button", {
      type: "button",
      className: "feature",
      textContent: label(number),
      onclick: () => {
        const others = forbidden.filter((f) => f !== number);
        setOfClass("forbid", name, others.length < forbidden.length ? others : [...forbidden, number]);
        changed();
      },
    });
    button.setAttribute("aria-pressed", String(forbidden.includes(number)));
    return button;
  });
  const assign = make("input", {
    value: ((steering.assign || {})[name] || []).join(", "),
    placeholder: "numbers",
    size: 8,
    ariaLabel: `assign to ${name}`,
    onchange: (event) => {
      setOfClass("assign", name, event.target.value.split(",").map((part) => part.trim()).filter(Boolean));
      changed();
    },
  });
  return make("tr", {}, make("td", { textContent: name }), make("td", {}, ...buttons), make("td", {}, assign));
}

// -- the file ---------------------------------------------------------------------------------------------------

async function load(ownDraft) {
  run = await ask("GET", "/api/run");
  ({ steering, version } = run);
  const own = ownDraft ? sessionStorage.getItem(key()) : null;
  if (own) ({ steering, version } = JSON.parse(own));
  const last = localStorage.getItem(key());
  at("restore").hidden = !last || JSON.stringify(JSON.parse(last).steering) === JSON.stringify(steering);
  const gap = run.gap === null ? "" : `, gap ${(100 * run.gap).toFixed(2)} %`;
  at("run").replaceChildren(`${run.path} · ${run.classes.length} classes, ${run.features.length} of ${run.n_features} features, objective ${run.objective.toFixed(3)}${gap}`);
  if (run.has_report) at("run").append(" · ", make("a", { href: `/report?token=${encodeURIComponent(token)}`, textContent: "report", target: "_blank" }));
  document.title = `Steering ${run.path.split("/").pop()}`;
  const parsed = await ask("POST", "/api/parse", { steering });
  at("yaml").value = parsed.yaml === "{}\n" ? "" : parsed.yaml;
  draw();
  tell(run.problem || "");
}

at("filter").oninput = drawClasses;
for (const name of ["stay", "border_bias", "closest_pairs"]) {
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
  ({ steering } = await ask("POST", "/api/parse", { yaml: at("yaml").value }));
  await changed();
});
at("save").onclick = guarded(async () => {
  ({ version, steering } = await ask("PUT", "/api/steering", { steering, version }));
  keep();
  at("restore").hidden = true;
  tell(`Saved. To make a run of it: qpm-vision steer "${run.path}" NEWRUN --file "${run.path}/steer.yaml"`, true);
});
at("reload").onclick = guarded(async () => {
  await load(false);
  sessionStorage.setItem(key(), JSON.stringify({ steering, version }));
});
at("clear").onclick = () => {
  steering = {};
  changed();
};
at("restore").onclick = () => {
  ({ steering } = JSON.parse(localStorage.getItem(key())));
  at("restore").hidden = true;
  changed();
};
at("solve").onclick = solve;
at("stop").onclick = guarded(async () => {
  if (solving !== null) await ask("DELETE", `/api/solve/${solving}`);
});
guarded(() => load(true))();
