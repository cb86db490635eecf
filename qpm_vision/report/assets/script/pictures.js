// Images and heat maps. A picture is drawn on a canvas when it comes near the window, never before.

const OPACITY = 0.85; // these three are those of qpm_vision.explain.heatmaps.overlay, and a test compares the results
const GREY_RANGE = 0.76;
const DARKNESS = 0.7;

const LEAST_PIXELS = 160; // a smaller image is enlarged before the map is laid over it, so that the map stays smooth
const MOST_KEPT = 400;
const kept = new Map(); // pictures by place, the least recently used first

const allThere = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
  else resolve();
});

/** The decoded image, the maps of all features (levels) and what each feature adds, of one image. */
function picture(place) {
  let found = kept.get(place);
  kept.delete(place);
  found = found || load(place);
  kept.set(place, found);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  return found;
}

async function load(place) {
  const id = `picture-${place}`;
  // The pictures stand behind the script, so that the page shows itself before they are all read. One of which nothing
  // follows yet may still be coming in.
  if (!document.getElementById(id)?.nextSibling) await allThere;
  const [thumbnail, maps, contributions] = document.getElementById(id).textContent.split(" ");
  const image = new Image();
  image.src = thumbnail
    ? `data:image/${report.maps.image};base64,${thumbnail}`
    : `images/${images[place].key}.${report.maps.image}`;
  const [levels] = await Promise.all([inflated(bytes(maps)), image.decode()]);
  return { image, levels, contributions: new Float32Array(bytes(contributions).buffer) };
}

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

async function inflated(data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The map of one feature, in [0, 1], row by row. */
function strengths(levels, column) {
  const { height, width } = report.maps;
  const from = column * height * width;
  return Float32Array.from(levels.subarray(from, from + height * width), (level) => level / report.maps.levels);
}

/** A map enlarged bilinearly to side × side; a value keeps its place relative to the image. */
function enlarged(map, height, width, side) {
  const result = new Float32Array(side * side);
  const axis = (length) =>
    Array.from({ length: side }, (_, pixel) => {
      const at = Math.max(0, ((pixel + 0.5) * length) / side - 0.5);
      const low = Math.min(length - 1, Math.floor(at));
      return [low, Math.min(length - 1, low + 1), at - low];
    });
  const columns = axis(width);
  axis(height).forEach(([top, bottom, down], y) => {
    columns.forEach(([left, right, along], x) => {
      const above = map[top * width + left] * (1 - along) + map[top * width + right] * along;
      const below = map[bottom * width + left] * (1 - along) + map[bottom * width + right] * along;
      result[y * side + x] = above * (1 - down) + below * down;
    });
  });
  return result;
}

function rgb(colour) {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}

/** Grey where a feature is absent, its colour where it is strong; the image can be recognised below. */
function paintHeat(context, side, presence, colour) {
  // The operations of the canvas do the arithmetic, because pixels of an image out of a file must not be read.
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, side, side);
  context.globalCompositeOperation = "source-over";
  context.fillStyle = `rgba(127.5, 127.5, 127.5, ${1 - GREY_RANGE})`;
  context.fillRect(0, 0, side, side);
  // grey · (1 − o) + paint · (0.7 + 0.3 · grey / 0.88) · o, in two steps: the product with grey, and the rest added.
  const lightest = (1 + GREY_RANGE) / 2;
  layer(context, side, presence, colour, "multiply", (1 - DARKNESS) / lightest);
  layer(context, side, presence, colour, "lighter", DARKNESS);
  context.globalCompositeOperation = "source-over";
}

function layer(context, side, presence, colour, operation, factor) {
  const mask = document.createElement("canvas");
  mask.width = mask.height = side;
  const pixels = new ImageData(side, side);
  const [red, green, blue] = rgb(colour).map((value) => Math.round(value * factor));
  const data = pixels.data;
  for (let place = 0; place < presence.length; place++) {
    data[4 * place] = red;
    data[4 * place + 1] = green;
    data[4 * place + 2] = blue;
    data[4 * place + 3] = 255 * OPACITY * presence[place]; // rounded by the array
  }
  mask.getContext("2d").putImageData(pixels, 0, 0);
  context.globalCompositeOperation = operation;
  context.drawImage(mask, 0, 0);
}

/** Draw an image, with a feature over it where `column` is one. */
async function draw(canvas, place, column, colour) {
  const { image, levels } = await picture(place);
  const times = Math.max(1, Math.ceil(LEAST_PIXELS / image.naturalWidth));
  const side = (canvas.width = canvas.height = times * image.naturalWidth);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, side, side);
  if (column === null) return null;
  const { height, width } = report.maps;
  const map = strengths(levels, column);
  paintHeat(context, side, enlarged(map, height, width, side), colour);
  return map;
}

/** Where a map is strongest, and how strong, in words. */
function described(map) {
  const { height, width } = report.maps;
  const peak = map.reduce((best, value, place) => (value > map[best] ? place : best), 0);
  if (!map[peak]) return "not active";
  const third = (at, length, names) => names[Math.min(2, Math.floor((3 * (at + 0.5)) / length))];
  const down = third(Math.floor(peak / width), height, ["top", "", "bottom"]);
  const along = third(peak % width, width, ["left", "", "right"]);
  const where = [down, along].filter(Boolean).join(" ") || "centre";
  return `strongest at the ${where}, ${percent(map[peak], 0)} of full strength`;
}

// -- elements -------------------------------------------------------------------------------------------------------

const waiting = new WeakMap();
const nearby = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      nearby.unobserve(entry.target);
      waiting.get(entry.target)();
    }
  },
  { rootMargin: "300px" },
);

/** Call a function once, when an element comes near the window. */
function whenNear(element, call) {
  waiting.set(element, call);
  nearby.observe(element);
}

/**
 * A picture of image `place`, linked to its page.
 * Options: column and colour of a feature to show; frame: whether the feature describes the image's class;
 * caption: nodes below it.
 */
function pictureOf(place, { column = null, colour = null, frame = false, caption = null } = {}) {
  const entry = images[place];
  const what = `image ${entry.name} of class ${classes[entry.label].name}`;
  const canvas = h("canvas", { role: "img", width: LEAST_PIXELS, height: LEAST_PIXELS });
  const label = (text) => canvas.setAttribute("aria-label", text);
  label(column === null ? what : `${featureLabel(column)} on ${what}`);
  whenNear(canvas, async () => {
    const map = await draw(canvas, place, column, colour);
    if (map) label(`${featureLabel(column)} on ${what}: ${described(map)}`);
    canvas.dataset.drawn = "";
  });
  const style = frame && colour ? { "--frame": colour } : {};
  const link = h("a", { class: frame ? "picture framed" : "picture", href: `#image=${entry.key}`, style }, canvas);
  return caption === null ? link : h("figure", {}, link, h("figcaption", {}, caption));
}

/** An average map: where a feature is, over many images. Full colour is its own maximum, which the caption states. */
function averageMap(column, colour) {
  const rows = features[column].average;
  const peak = Math.max(0, ...rows.flat());
  const canvas = h("canvas", { role: "img", class: "average" });
  const map = Float32Array.from(rows.flat(), (value) => (peak ? value / peak : 0));
  canvas.setAttribute(
    "aria-label",
    `average map of ${featureLabel(column)}: ${peak ? described(map).split(",")[0] : "not active"}`,
  );
  canvas.width = canvas.height = LEAST_PIXELS;
  whenNear(canvas, () => {
    const context = canvas.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, LEAST_PIXELS, LEAST_PIXELS);
    paintHeat(context, LEAST_PIXELS, enlarged(map, rows.length, rows[0].length, LEAST_PIXELS), colour);
    canvas.dataset.drawn = "";
  });
  return { canvas, peak };
}

/** What the colours say: the scale at once, the rest when it is asked for. */
function legend() {
  return h(
    "details",
    { class: "legend" },
    h(
      "summary",
      {},
      h("span", { class: "scale" }, "not active", h("b", { "aria-hidden": "true" }), "full strength"),
      h("span", {}, "How to read the colours"),
    ),
    h(
      "p",
      {},
      "A colour is a feature: where it is on the image, and how strongly. Full strength is the 99 % quantile of the " +
        `feature’s maxima over the ${whole(report.n_train)} training images, the same for all images, so that a ` +
        "weak activation looks weak. Grey: not active, or negative. A frame: the feature describes the class of the " +
        "image. " +
        "Within a page no two features have the same colour as far as the twelve colours go. ",
      h("a", { href: "#faithfulness" }, "Can the heat maps be trusted?"),
    ),
  );
}
