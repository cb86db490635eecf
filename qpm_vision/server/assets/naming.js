// The dialogue in which a person names a feature.

import { make } from "./dom.js";
import { giveName, nameOf } from "./draft.js";

const LONGEST = 60; // characters, as the table of names has it

let open = null;

/** Let a person name a feature; nothing happens while another one is being named. */
export function askForName(number) {
  if (open) return;
  const problem = make("p", { className: "problem", role: "alert" });
  const field = make("input", { value: nameOf(number), maxLength: LONGEST, autocomplete: "off", placeholder: "such as: red crown" });
  const close = () => open.close();
  const form = make("form", { method: "dialog" },
    make("label", {}, `What would you call feature ${number}?`, field),
    problem,
    make("div", { className: "row" },
      make("button", { type: "submit", textContent: "Name it", className: "main" }),
      make("button", { type: "button", textContent: "Cancel", onclick: close })));
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      await giveName(number, field.value.trim().replace(/\s+/gu, " "));
      close();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  open = make("dialog", {}, form);
  open.addEventListener("close", () => {
    open.remove();
    open = null;
  });
  document.body.append(open);
  open.showModal();
  field.select();
}
