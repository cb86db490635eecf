// What the address asks for is what is shown: #overview, #features, #feature=17, #class=wren, #pair=wren,robin, …

const VIEWS = {
  overview: overviewView,
  features: featuresView,
  feature: featureView,
  classes: classesView,
  class: (value) => classView(decoded(value)),
  pair: pairView,
  images: imagesView,
  image: (value) => imageView(decoded(value)),
  faithfulness: faithfulnessView,
  optimisation: optimisationView,
};
const TABS = { feature: "features", class: "classes", image: "images" };

const scrolled = new Map(); // how far each address was scrolled when it was left, for the way back
let shownAddress = null;
let byLink = true; // whether the next view was asked for by a link, not by the browser's buttons

function decoded(value) {
  try {
    return decodeURIComponent(value || "");
  } catch {
    return value;
  }
}

function missing(text) {
  return { title: "Not found", content: fromTemplate("missing", { text }) };
}

/** Go to an address, as a link does. */
function go(address) {
  byLink = true;
  if (location.hash === address) render();
  else location.hash = address;
}

/** Show what the address asks for. */
function render({ keepPlace = false, first = false } = {}) {
  const address = location.hash.slice(1) || "overview";
  if (shownAddress !== null && !keepPlace) scrolled.set(shownAddress, window.scrollY);
  const split = address.indexOf("=");
  const [kind, value] = split < 0 ? [address, null] : [address.slice(0, split), address.slice(split + 1)];
  let view;
  try {
    view = VIEWS[kind] ? VIEWS[kind](value) : missing(`There is no such page as “${decoded(address)}”.`);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    view = missing(`The address “${address}” is malformed.`);
  }
  const main = document.getElementById("main");
  main.replaceChildren(view.content);
  document.title = `${view.title} · ${report.title} · QPM`;
  for (const link of document.querySelectorAll("#tabs a")) {
    const current = link.getAttribute("href").slice(1).split("=")[0] === (TABS[kind] || kind);
    if (current) {
      link.setAttribute("aria-current", "page");
      const tabs = link.parentElement; // where not all of them fit, this one is brought into sight
      tabs.scrollLeft = link.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - link.offsetWidth) / 2;
    } else link.removeAttribute("aria-current");
  }
  shownAddress = address;
  if (keepPlace) return;
  if (!first) main.querySelector("h1")?.focus({ preventScroll: true });
  window.scrollTo(0, byLink ? 0 : scrolled.get(address) || 0);
  byLink = false;
}

// -- theme ----------------------------------------------------------------------------------------------------------

const THEME_STORE = "qpm-theme";
const THEMES = { auto: "as the system", light: "light", dark: "dark" };

function startTheme() {
  const select = document.getElementById("theme");
  const use = (theme) => document.documentElement.setAttribute("data-theme", theme);
  const known = stored(THEME_STORE);
  select.value = known in THEMES ? known : "auto";
  use(select.value);
  select.addEventListener("change", () => {
    use(select.value);
    store(THEME_STORE, select.value);
  });
}

// -- start ----------------------------------------------------------------------------------------------------------

history.scrollRestoration = "manual";
startTheme();
startSearch();
showNames();
document.addEventListener("click", (event) => {
  if (event.target.closest('a[href^="#"]')) byLink = true;
});
document.getElementById("skip").addEventListener("click", () => document.querySelector("#main h1")?.focus());
window.addEventListener("hashchange", () => render());
render({ first: true });
performance.mark("first-view");

/** For programs that serve the page, and for its tests. */
window.qpmReport = {
  data: report,
  tools,
  go,
  refresh: () => render({ keepPlace: true }),
  nameOf,
  rename,
  picture,
  logitsOf,
  enlarged,
  paintHeat,
};
