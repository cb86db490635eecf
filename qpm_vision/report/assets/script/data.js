// What the page knows: the report, lookups into it, and the names that people give to features.

const report = JSON.parse(document.getElementById("report-data").textContent);
const { classes, features, images } = report;

const classByName = new Map(classes.map((entry, index) => [entry.name, index]));
const columnByNumber = new Map(features.map((entry, column) => [entry.number, column]));
const imageByKey = new Map(images.map((entry, place) => [entry.key, place]));

/** Classes that each feature describes. */
const classesWith = features.map(() => []);
classes.forEach((entry, index) => entry.features.forEach((column) => classesWith[column].push(index)));

const has = (index, column) => classes[index].features.includes(column);

/** Columns that two classes share, and that only one of them has. */
function difference(first, second) {
  const own = classes[first].features;
  const other = classes[second].features;
  return {
    shared: own.filter((column) => other.includes(column)),
    own: own.filter((column) => !other.includes(column)),
    other: other.filter((column) => !own.includes(column)),
  };
}

/** How often test images of one class were taken for the other. */
function confusion(actual, predicted) {
  const found = report.confusions.find(([a, p]) => a === actual && p === predicted);
  return found ? found[2] : 0;
}

/** Share of a class's test images that are right; null without any. */
const accuracyOf = (index) => (classes[index].n_test ? classes[index].n_right / classes[index].n_test : null);

/** Test images that were taken for another class, or of another class for it. */
const mistakesOf = classes.map(() => 0);
for (const [actual, predicted, count] of report.confusions) {
  mistakesOf[actual] += count;
  mistakesOf[predicted] += count;
}

// -- scores of an image ---------------------------------------------------------------------------------------------

/** Logit of each class from what each feature adds. */
function logitsOf(contributions) {
  return classes.map((entry) => entry.features.reduce((sum, column) => sum + contributions[column], 0));
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

// -- colours --------------------------------------------------------------------------------------------------------

/**
 * A colour for each of these columns. A feature keeps its own colour wherever it can; where two of one view have the
 * same, the later one takes a colour that none of them uses, so that within a view no two are alike.
 */
function colouring(columns) {
  const colours = new Map();
  const free = new Set(report.palette);
  const clashing = [];
  for (const column of columns) {
    if (colours.has(column)) continue;
    const preferred = features[column].colour;
    if (free.delete(preferred)) colours.set(column, preferred);
    else clashing.push(column);
  }
  for (const column of clashing) {
    if (colours.has(column)) continue;
    const [next] = free;
    free.delete(next);
    colours.set(column, next || features[column].colour);
  }
  return colours;
}

// -- names of features ----------------------------------------------------------------------------------------------

const NAME_STORE = `qpm-names:${report.title}:${features.map((entry) => entry.number).join(",")}`;
const LONGEST_NAME = 60;

/** Names that were given on this page and are not in the run yet, by column. */
const newNames = new Map(Object.entries(stored(NAME_STORE) || {}).map(([column, name]) => [Number(column), name]));

function stored(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null; // no storage here, as in private windows; the names then last as long as the page
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // see above
  }
}

/** What people call a feature, or null. */
function nameOf(column) {
  return (newNames.has(column) ? newNames.get(column) : features[column].name) || null;
}

/** "red crown (17)", or "feature 17". */
function featureLabel(column) {
  const name = nameOf(column);
  return name ? `${name} (${features[column].number})` : `feature ${features[column].number}`;
}

/** Why a name cannot be given, or null; the same rules as for names.csv. */
function nameProblem(column, name) {
  if (name.length > LONGEST_NAME) return `A name has at most ${LONGEST_NAME} characters.`;
  if (/^\d+$/u.test(name)) return "A name must not be a number, which stands for a feature.";
  if (/\p{C}/u.test(name)) return "A name must not have control characters.";
  const twin = features.findIndex((_, other) => other !== column && name && nameOf(other) === name);
  return twin >= 0 ? `Feature ${features[twin].number} has this name already.` : null;
}

/** Give a feature a name; an empty one takes it away. */
function rename(column, name) {
  if (name === (features[column].name || "")) newNames.delete(column);
  else newNames.set(column, name);
  store(NAME_STORE, Object.fromEntries(newNames));
}

/** The table that `qpm-vision name` reads. */
function namesTable() {
  const quoted = (text) => (/[",\n]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = features.map((entry, column) => `${entry.number},${quoted(nameOf(column) || "")}`);
  return ["feature,name", ...rows, ""].join("\n");
}
