// Images with their predictions, and one image: what decided.

function imagesView() {
  const which = report.split === "train" ? "training" : "test";
  const part = (title, about, places, none) => [
    h("h2", {}, `${title} (${whole(places.length)})`),
    h("p", {}, places.length ? about : none),
    growing("div", { class: "gallery" }, places, mistakeFigure),
  ];
  return {
    title: "Images",
    content: fromTemplate("images", {
      wrong: part(
        "Wrong",
        "The surest mistakes first.",
        report.wrong,
        `No ${which} image that was looked at is wrong.`,
      ),
      close: part("Right by a narrow margin", "Those with the closest runner-up first.", report.close, "None."),
      clear: part(
        "Clearly right",
        "The best image of each class.",
        report.class_order.flatMap((index) => classes[index].images.slice(0, 1)),
        "None.",
      ),
    }),
  };
}

function mistakeFigure(place) {
  const { label, predicted, runner_up: next } = images[place];
  const caption =
    label === predicted
      ? [classes[label].name, h("small", {}, `next: ${classes[next].name}`)]
      : [classes[label].name, h("small", { class: "wrong" }, `taken for ${classes[predicted].name}`)];
  return pictureOf(place, { caption });
}

function imageView(key) {
  const place = imageByKey.get(key);
  if (place === undefined) return missing(`There is no image ${key} in this report.`);
  const entry = images[place];
  const right = entry.label === entry.predicted;
  const rest = h("div", { "aria-busy": "true" }, h("p", {}, "Reading the maps …"));
  const ranked = h("div");
  let rival = right ? entry.runner_up : entry.label;
  const fill = async () => {
    const { contributions } = await picture(place);
    rest.replaceChildren(...decision(place, contributions, rival, (index) => ((rival = index), fill())));
    rest.removeAttribute("aria-busy");
    ranked.replaceChildren(...ranking(contributions));
  };
  fill();
  const content = fromTemplate("image", {
    heading: entry.name,
    picture: pictureOf(place),
    verdict: [
      h("strong", { class: right ? "right" : "wrong" }, right ? "Right: " : "Wrong: "),
      right
        ? ["it is ", classLink(entry.label), ", and the model says so."]
        : ["it is ", classLink(entry.label), ", but the model says ", classLink(entry.predicted), "."],
      " The runner-up is ",
      classLink(entry.runner_up),
      ".",
    ],
    ranking: ranked,
    decision: rest,
    legend: legend(),
  });
  return { title: entry.name, content };
}

/** Why the predicted class and not `rival`: a tug of war of the features that only one of them has. */
function decision(place, contributions, rival, choose) {
  const { predicted, label, runner_up: next } = images[place];
  const logits = logitsOf(contributions);
  const { shared, own, other } = difference(predicted, rival);
  const colours = colouring([...own, ...other, ...shared]);
  const pulls = [
    ...own.map((column) => [column, contributions[column]]),
    ...other.map((column) => [column, -contributions[column]]),
  ].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const largest = Math.max(...[...own, ...other, ...shared].map((column) => Math.abs(contributions[column])), 1e-9);
  const lead = logits[predicted] - logits[rival];
  const [nameA, nameB] = [classes[predicted].name, classes[rival].name];
  const rivals = [...new Set([next, label])].filter((index) => index !== predicted);
  const row = (column, pull, whose) =>
    h(
      "li",
      { class: "pull" },
      pictureOf(place, { column, colour: colours.get(column), frame: true }),
      h("div", { class: "pull-text" }, h("h3", {}, chip(column, colours)), h("p", {}, whose)),
      h(
        "div",
        { class: "bars" },
        pull === null
          ? bar(contributions[column] / largest, signed(contributions[column]))
          : tug(pull / largest, number(Math.abs(pull))),
      ),
    );
  return [
    h(
      "section",
      {},
      h("h2", {}, `Why ${nameA} and not ${nameB}?`),
      rivals.length > 1 &&
        h(
          "div",
          { class: "controls", role: "group", "aria-label": "Compare with" },
          rivals.map((index) =>
            h(
              "button",
              { type: "button", "aria-pressed": String(index === rival), onclick: () => choose(index) },
              index === label ? `the right class, ${classes[index].name}` : `the runner-up, ${classes[index].name}`,
            ),
          ),
        ),
      h("p", {}, decisionSentence(pulls, shared, colours, nameA, nameB, lead)),
      h(
        "p",
        { class: "tug-heads", "aria-hidden": "true" },
        h("span", {}, `← for ${nameB}`),
        h("span", {}, `for ${nameA} →`),
      ),
      h(
        "ul",
        { class: "pulls" },
        pulls.map(([column, pull]) =>
          row(
            column,
            pull,
            `Only ${has(predicted, column) ? nameA : nameB} has it: speaks for ${pull < 0 ? nameB : nameA}`,
          ),
        ),
      ),
    ),
    shared.length > 0 &&
      h(
        "section",
        {},
        h("h2", {}, "Features of both"),
        h("p", {}, "They count for both classes alike, so they decide nothing between them."),
        h(
          "ul",
          { class: "pulls" },
          shared.map((column) => row(column, null, "Both have it")),
        ),
      ),
  ].filter(Boolean);
}

/** A bar from the middle, to the right for the predicted class and to the left for its rival. */
function tug(share, text) {
  const sides = share < 0 ? { right: "50%" } : { left: "50%" };
  const filled = h("i", {
    class: share < 0 ? "rival" : "",
    style: { ...sides, width: `${(50 * Math.abs(share)).toFixed(1)}%` },
  });
  return [h("span", { class: "bar tug", "aria-hidden": "true" }, filled), h("span", { class: "value" }, text)];
}

/** The classes with the highest scores. */
function ranking(contributions) {
  const logits = logitsOf(contributions);
  const scores = softmax(logits);
  const order = scores.map((_, index) => index).sort((a, b) => logits[b] - logits[a]);
  return [
    h("h2", {}, "The most likely classes"),
    h(
      "ol",
      { class: "scores" },
      order
        .slice(0, 5)
        .map((index) =>
          h(
            "li",
            {},
            classLink(index),
            h(
              "div",
              { class: "bars" },
              bar(scores[index], `${percent(scores[index])} · logit ${number(logits[index])}`),
            ),
          ),
        ),
    ),
    h("small", {}, "Scores are a softmax of the logits, and are not calibrated."),
  ];
}

function decisionSentence(pulls, shared, colours, nameA, nameB, lead) {
  const [for_, against] = [pulls.filter(([, pull]) => pull > 0), pulls.filter(([, pull]) => pull < 0)];
  const listed = (some) =>
    enumerated(
      some.slice(0, 2).map(([column, pull]) => h("span", {}, chip(column, colours), ` ${number(Math.abs(pull))}`)),
    );
  return [
    for_.length
      ? [listed(for_), ` ${for_.length > 1 ? "speak" : "speaks"} for ${nameA}`]
      : `Nothing speaks for ${nameA}`,
    against.length ? [", ", listed(against), ` for ${nameB}`] : `, nothing for ${nameB}`,
    `. In all, ${nameA} leads by ${number(lead)}`,
    shared.length ? `; they share ${plural(shared.length, "more feature")}.` : ".",
    " Numbers are activations in standard deviations above the mean.",
  ];
}
