// The page: files come in, wait in a queue, and are answered one after another.

import { askAnswer, askModel, forgetKey, hasKey, keepKey } from "./api.js";
import { makeCard, showAnswer, showError, showRunning, showWaiting } from "./card.js";
import { showModel } from "./model.js";
import { showSummary } from "./summary.js";
import { count, levelOf, percent } from "./words.js";

const byId = (id) => document.getElementById(id);
const [alarm, chooser, keyForm, keyField] = ["alarm", "files", "key-form", "key"].map(byId);
let cards = [];
let model = null;
let isWorking = false;

async function meetModel() {
  try {
    model = await askModel();
  } catch (error) {
    model = null;
    if (error.status === 401) return askKey(hasKey() ? "This key is not valid. Type another one." : "");
    alarm.textContent = `The model can't be asked: ${error.message} Load this page again later.`;
    alarm.hidden = false;
    return;
  }
  alarm.hidden = keyForm.hidden = true;
  byId("forget").hidden = !hasKey();
  showModel(model);
  work();
}

function askKey(problem) {
  forgetKey();
  byId("forget").hidden = true;
  byId("key-error").textContent = problem;
  byId("model-wait").textContent = "The service tells of its model once it has a key.";
  keyForm.hidden = false;
  keyField.focus();
}

function add(files) {
  const made = Array.from(files, (file) => makeCard(file, { onRemove: remove, onAgain: again }));
  cards = [...made, ...cards];
  byId("cases").prepend(...made.map((card) => card.root));
  showSummary(cards);
  work();
}

function remove(...removed) {
  for (const card of removed) {
    card.stop.abort();
    card.root.remove();
  }
  cards = cards.filter((card) => !removed.includes(card));
  showSummary(cards);
  chooser.focus();
}

function again(card) {
  showWaiting(card, "Waiting …");
  card.root.focus();
  work();
}

/** Answer what waits, one after another, so that one person does not take the places of others. */
async function work() {
  if (isWorking) return;
  isWorking = true;
  for (let card; model && (card = cards.find((each) => each.state === "waiting")); showSummary(cards)) {
    await answer(card);
  }
  isWorking = false;
}

async function answer(card) {
  showRunning(card);
  try {
    showAnswer(card, await askAnswer(card.file, card.stop.signal, (seconds) => tellPause(card, seconds)));
    say(card);
    if (![model.version, model.canary].includes(card.answer.version)) showModel((model = await askModel()));
  } catch (error) {
    fail(card, error);
  }
}

function fail(card, error) {
  if (card.stop.signal.aborted || card.answer) return;
  if (error.status === 401) {
    model = null;
    showWaiting(card, "Waiting for an API key …");
    askKey("The service no longer takes this key. Type another one.");
    return;
  }
  showError(card, error);
  say(card);
}

function tellPause(card, seconds) {
  const progress = card.root.querySelector(".progress");
  progress.textContent = `The service is busy. Trying again in ${count(seconds, "second")} …`;
}

/** Tell those who hear the page instead of seeing it. */
function say({ file, state, answer: said, error }) {
  const what = {
    answered: () => `${said.prediction}, ${percent(said.confidence)}, ${levelOf(said)}.`,
    indeterminate: () => "no answer.",
    failed: () => `failed. ${error.message}`,
  };
  byId("said").textContent = `${file.name}: ${what[state]()} ${said ? said.uncertainty.recommendation : ""}`;
}

chooser.addEventListener("change", () => {
  add(chooser.files);
  // So that the same file can be chosen again.
  chooser.value = "";
});
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(keyField.value.trim());
  keyField.value = "";
  meetModel();
});
byId("forget").addEventListener("click", () => {
  forgetKey();
  location.reload();
});
byId("clear").addEventListener("click", () => remove(...cards));
// Anywhere: a browser would open what is dropped beside the field, and this page would be gone.
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("is-over", kind === "dragover");
    if (kind === "drop") add(event.dataTransfer.files);
  });
}
meetModel();
