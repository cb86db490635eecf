// Building the page. Text only ever becomes text nodes: names of classes and images are not to be trusted.

/** An element; `attributes` may hold listeners (onclick: f), `style` as an object, and false for "not at all". */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, entry] of Object.entries(value)) element.style.setProperty(key, entry);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of SVG. */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
}

/** A copy of a view's prose, whose elements with `data-slot` are filled: {slot: content}. */
function fromTemplate(id, slots) {
  const content = document.getElementById(`view-${id}`).content.cloneNode(true);
  for (const place of content.querySelectorAll("[data-slot]")) {
    const filling = slots[place.dataset.slot];
    if (filling === undefined) throw new Error(`nothing for the slot ${place.dataset.slot} of ${id}`);
    place.replaceChildren();
    append(place, [filling]);
  }
  return content;
}

// -- text -----------------------------------------------------------------------------------------------------------

const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const number = (value, digits = 2) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
const whole = (value) => value.toLocaleString("en");
const plural = (count, noun, many = `${noun}s`) => `${whole(count)} ${count === 1 ? noun : many}`;

/** Nodes with commas and an "and" between them. */
function enumerated(nodes) {
  return nodes.flatMap((node, place) => [place === 0 ? "" : place === nodes.length - 1 ? " and " : ", ", node]);
}

/** What search compares: without case and in one Unicode form. */
const folded = (text) => text.normalize("NFKC").toLowerCase();
