// Building elements, and talking to the person and to the server.

const token = new URLSearchParams(location.search).get("token") || "";

export const at = (id) => document.getElementById(id);

/** The address of another page of this server. */
export const pageAddress = (path) => `${path}?token=${encodeURIComponent(token)}`;

/** An element; text only ever becomes text nodes, because names of classes are not to be trusted. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** What the server refused, with the status of its answer. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Send a request; returns the answer as it came. */
async function send(method, path, body) {
  const options = { method, headers: { "X-QPM-Token": token } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refusal("The server does not answer. Start `qpm-vision serve` again, and open the address that it prints; what was entered is kept.", 0);
  }
  if (!answer.ok) throw new Refusal((await answer.json()).error, answer.status);
  return answer;
}

/** Send a request; returns what the server says. */
export async function ask(method, path, body) {
  return (await send(method, path, body)).json();
}

/** A picture that the server draws, once it has. */
export async function drawn(path, alt) {
  await send("GET", path);
  return make("img", { src: pageAddress(path), alt });
}

/** Say something on the page; an empty text takes it away. */
export function tell(text, fine = false) {
  at("message").textContent = text;
  at("message").hidden = !text;
  at("message").classList.toggle("fine", fine);
}

/** An action whose errors are told. */
export function guarded(action) {
  return async (...given) => {
    try {
      return await action(...given);
    } catch (error) {
      tell(error.message);
    }
  };
}

/** Look at a job until it is over or nobody waits for it any more; returns its last state, or null. */
export async function follow(address, isWanted, onState) {
  for (;;) {
    const state = await ask("GET", address);
    if (!isWanted()) return null;
    onState(state);
    if (state.state !== "running") return state;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}
