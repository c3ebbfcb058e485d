// What the answers for several files come to.

import { count, element, levelOf, percent, split } from "./words.js";

const byId = (id) => document.getElementById(id);
const STATES = {
  waiting: "waiting",
  running: "under way",
  answered: "answered",
  indeterminate: "no answer",
  failed: "failed",
};

const rows = new WeakMap();

/** Show the summary of the cards, if there are several. */
export function showSummary(cards) {
  byId("summary").hidden = cards.length < 2;
  byId("counts").textContent = countsOf(cards);
  const [shown, wanted] = [[...byId("rows").children], cards.map(rowOf)];
  // Not each time: whoever has come to a link by keyboard would lose it.
  if (shown.length !== wanted.length || shown.some((row, place) => row !== wanted[place])) {
    byId("rows").replaceChildren(...wanted);
  }
}

function countsOf(cards) {
  const by = (state) => cards.filter((card) => card.state === state).length;
  const parts = Object.entries(STATES).filter(([state]) => by(state)).map(([state, word]) => `${by(state)} ${word}`);
  const second = cards.filter(({ answer }) => answer?.action === "second_reader").length;
  const sent = second ? ` ${second} of them to a second reader.` : "";
  return `${count(cards.length, "file")}: ${parts.join(", ")}.${sent}`;
}

function rowOf(card) {
  if (!rows.has(card)) rows.set(card, makeRow(card));
  const row = rows.get(card);
  const { answer, error, state } = card;
  const isAnswered = state === "answered";
  const level = element("td", "");
  level.append(isAnswered ? levelCell(answer) : "");
  while (row.children.length > 1) row.lastElementChild.remove();
  row.append(
    element("td", isAnswered ? answer.prediction : STATES[state], isAnswered ? "" : "quiet"),
    element("td", isAnswered ? percent(answer.confidence) : "", "number"),
    level,
    element("td", error ? error.message : adviceOf(card)),
  );
  return row;
}

function makeRow({ file, root }) {
  const row = document.createElement("tr");
  const name = element("th", "");
  const link = element("a", file.name);
  link.href = `#${root.id}`;
  name.scope = "row";
  name.append(link);
  row.append(name);
  return row;
}

function levelCell(answer) {
  const level = element("span", levelOf(answer).split(" ")[0], "level");
  level.dataset.level = answer.uncertainty.level;
  return level;
}

const adviceOf = ({ answer }) => (answer ? split(answer.uncertainty.recommendation).what : "");
