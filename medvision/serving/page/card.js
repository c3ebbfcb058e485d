// One image and its answer, as a card: waiting, running, answered, indeterminate or failed.

import { element, fill, levelOf, nameIn, percent, split } from "./words.js";

const template = document.getElementById("case");
let made = 0;

/** Make the card of a file; `state`, `answer` and `error` say how far it has come. */
export function makeCard(file, { onRemove, onAgain }) {
  const root = template.content.firstElementChild.cloneNode(true);
  const card = { file, root, state: "waiting", answer: null, error: null, stop: new AbortController() };
  root.id = `case-${(made += 1)}`;
  root.querySelector(".file").textContent = file.name;
  root.querySelector(".remove").setAttribute("aria-label", `Remove ${file.name}`);
  root.querySelector(".remove").addEventListener("click", () => onRemove(card));
  root.querySelector(".again").addEventListener("click", () => onAgain(card));
  drawImage(root, file);
  followSlider(root);
  return card;
}

export function showWaiting(card, text) {
  become(card, "waiting");
  card.root.querySelector(".progress").textContent = text;
}

export function showRunning(card) {
  become(card, "running");
  card.root.querySelector(".progress").textContent = "Asking the model …";
}

/** Show why there is no answer; what lies in the file itself is not tried again. */
export function showError(card, error) {
  become(card, "failed");
  card.error = error;
  card.root.querySelector(".why").textContent = error.message;
  card.root.querySelector(".again").hidden = [400, 413, 415].includes(error.status);
  fill(card.root.querySelector(".facts"), error.requestId ? [["Request id", element("code", error.requestId)]] : []);
}

/** Show an answer; one that is indeterminate has neither label, nor bars, nor heat map. */
export function showAnswer(card, answer) {
  const { root } = card;
  const isAnswered = answer.status === "answered";
  become(card, answer.status);
  card.answer = answer;
  showAdvice(root, answer);
  root.querySelector(".verdict-row .over").textContent = isAnswered ? "Most probable class" : "The model gives";
  root.querySelector(".verdict-row .verdict").textContent = isAnswered ? answer.prediction : "No answer";
  root.querySelector(".level").textContent = isAnswered ? levelOf(answer) : "Indeterminate";
  root.querySelector(".level").dataset.level = answer.uncertainty.level;
  root.querySelector(".bars").hidden = !isAnswered;
  root.querySelector(".bars tbody").replaceChildren(...(isAnswered ? barsOf(answer) : []));
  if (isAnswered && answer.heat_map_png) showHeat(root, answer);
  fill(root.querySelector(".facts"), factsOf(answer));
}

function become(card, state) {
  card.state = card.root.dataset.state = state;
  card.error = null;
  card.root.setAttribute("aria-busy", String(state === "running"));
  card.root.querySelector(".progress").hidden = !["waiting", "running"].includes(state);
  card.root.querySelector(".error").hidden = state !== "failed";
  card.root.querySelector(".said").hidden = !["answered", "indeterminate"].includes(state);
}

function showAdvice(root, answer) {
  const { what, why } = split(answer.uncertainty.recommendation);
  const advice = root.querySelector(".advice");
  advice.dataset.kind = answer.status === "indeterminate" ? "indeterminate" : what ? "act" : "note";
  advice.querySelector("strong").textContent = what;
  advice.querySelector("span").textContent = why;
}

function drawImage(root, file) {
  const image = root.querySelector(".image");
  const url = URL.createObjectURL(file);
  image.alt = file.name;
  image.addEventListener("load", () => {
    URL.revokeObjectURL(url);
    root.querySelector(".stack").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  });
  image.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    image.remove();
    root.querySelector(".undrawn").textContent = "This browser can't draw this kind of file.";
    root.querySelector(".undrawn").hidden = false;
  });
  image.src = url;
}

function showHeat(root, answer) {
  const heat = root.querySelector(".heat");
  heat.src = `data:image/png;base64,${answer.heat_map_png}`;
  heat.alt = `Heat map for ${answer.prediction}`;
  heat.hidden = root.querySelector(".fade").hidden = root.querySelector(".caption").hidden = false;
  root.querySelector(".caption").textContent = `Where the model looked for ${answer.prediction}. It does not show `
    + "that the model was right to.";
  if (!root.querySelector(".image")) {
    root.querySelector(".undrawn").textContent = "This browser can't draw this kind of file: the heat map is alone.";
  }
}

function followSlider(root) {
  const [slider, shown, heat] = ["input", ".share", ".heat"].map((name) => root.querySelector(name));
  const follow = () => {
    heat.style.opacity = slider.value / 100;
    shown.textContent = `${slider.value} %`;
    slider.setAttribute("aria-valuetext", shown.textContent);
  };
  slider.addEventListener("input", follow);
  follow();
}

function barsOf(answer) {
  const held = answer.uncertainty.prediction_set;
  return Object.entries(answer.probabilities).map(([name, share]) => {
    const row = document.createElement("tr");
    const label = nameIn("th", name);
    const track = element("td", "", "track");
    const bar = element("span", "", "bar");
    label.scope = "row";
    bar.style.width = `${100 * share}%`;
    row.classList.toggle("is-out", held ? !held.includes(name) : name !== answer.prediction);
    track.append(bar);
    row.append(label, track, element("td", percent(share), "number"));
    return row;
  });
}

function factsOf(answer) {
  const { uncertainty: { domain_distance: distance }, called, members } = answer;
  const facts = answer.status === "answered" ? [["Not ruled out", setOf(answer.uncertainty)]] : [];
  facts.push(...Object.entries(called).map(([name, is]) => [name, `${is ? "above" : "below"} its operating point`]));
  facts.push(...(members.length > 1 ? members.map((member) => [member.model, scoresOf(member)]) : []));
  facts.push(["Kind of image", distance === null ? "not checked by this model" : kindOf(distance)]);
  return [
    ...facts,
    ["Answered by", `${answer.model} ${answer.version}, in ${Math.round(answer.processing_time_ms)} ms`],
    ["Request id", element("code", answer.request_id)],
  ];
}

const kindOf = (distance) =>
  `${distance <= 1 ? "like" : "unlike"} those it knows: distance ${distance.toFixed(2)}, limit 1`;

const scoresOf = (member) =>
  Object.entries(member.probabilities).map(([name, share]) => `${name} ${percent(share)}`).join(", ");

/** Say which classes a prediction set holds, and how far that can be relied on. */
function setOf({ prediction_set: held, coverage }) {
  if (held === null) return "not known: this model has no prediction sets";
  const said = element("span", "");
  said.append(...(held.length ? held.map((name) => nameIn("span", name, "chip")) : ["no class is likely enough"]));
  if (coverage !== null) {
    const share = Number((100 * coverage).toFixed(1));
    said.append(element("small", `Such sets hold the true class of ${share} % of the images, in each class.`));
  }
  return said;
}
