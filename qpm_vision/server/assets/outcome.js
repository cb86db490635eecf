// What a search found, in words and tables.

import { drawn, guarded, make } from "./dom.js";
import { label, run } from "./draft.js";

const number = (value) => value.toFixed(3);
const plural = (count, noun, many = `${noun}s`) => `${count} ${count === 1 ? noun : many}`;
const listed = (items) => items.map((item) => `${label(item.feature)} in ${plural(item.classes, "class", "classes")}`).join(", ");

/** How far a search is, as text. */
export function progressText({ state, elapsed, progress }) {
  const found = progress && progress.objective !== null ? `, objective ${number(run.objective)} → ${number(progress.objective)} so far` : "";
  const gap = progress && progress.gap !== null ? `, gap ${(100 * progress.gap).toFixed(2)} %` : "";
  return `${state}, ${elapsed.toFixed(0)} s${found}${gap}`;
}

/** The price and what is touched, as sentences. */
export function summary({ diff }) {
  const share = diff.objective_before ? ` (${((100 * diff.price) / Math.abs(diff.objective_before)).toFixed(2)} %)` : "";
  return [
    `Price: ${number(diff.price)}${share}, ${number(diff.objective_before)} → ${number(diff.objective_after)}.`,
    `Out: ${listed(diff.features_out) || "none"}.`,
    `In: ${listed(diff.features_in) || "none"}.`,
    `${diff.classes.length} of ${plural(diff.n_classes, "class changes", "classes change")}.`,
  ];
}

/** Buttons that show what would come in, which the report has no pictures of. */
function looks(items) {
  const pictures = make("div", { className: "pictures" });
  const buttons = items.map(({ feature }) => {
    const button = make("button", { type: "button", textContent: `Look at ${label(feature)}` });
    button.onclick = guarded(async () => {
      button.disabled = true;
      try {
        pictures.append(await drawn(`/api/features/${feature}`, `Feature ${feature} on images of the classes that it is most similar to, before fine-tuning`));
      } catch (error) {
        button.disabled = false;
        throw error;
      }
    });
    return button;
  });
  return items.length ? [make("p", { className: "row" }, ...buttons), pictures] : [];
}

/** The terms of the objective and the proof, and what each class loses and gains. */
export function details(result) {
  const { diff } = result;
  const cell = (text) => make("td", { textContent: text, className: "number" });
  const head = (text) => make("th", { textContent: text, className: "number", scope: "col" });
  const row = (name, before, after) =>
    make("tr", {}, make("th", { textContent: name, scope: "row" }), cell(number(before)), cell(number(after)));
  const proof = diff.bound === null ? "no bound"
    : `${number(diff.objective_changed)} of at most ${number(diff.bound)} with what was asked for, gap ${(100 * diff.gap).toFixed(2)} %`;
  return [
    ...looks(diff.features_in),
    make("table", {}, make("tbody", {},
      make("tr", {}, make("td"), head("before"), head("after")),
      row("objective", diff.objective_before, diff.objective_after),
      ...["similarity", "redundancy", "bias"].map((term) => row(term, diff.terms_before[term], diff.terms_after[term])))),
    make("p", { textContent: `Solved by ${result.solver}: ${result.termination} after ${result.seconds.toFixed(1)} s, ${proof}.` }),
    make("table", {}, make("tbody", {}, ...diff.classes.map((change) => make("tr", {},
      make("th", { textContent: change.class, scope: "row" }),
      make("td", { className: "lost", textContent: change.lost.map((feature) => `− ${label(feature)}`).join(", ") }),
      make("td", { className: "gained", textContent: change.gained.map((feature) => `+ ${label(feature)}`).join(", ") }))))),
  ];
}
