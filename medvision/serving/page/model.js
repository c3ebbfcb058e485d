// The panel that says which model answers, what it was found to be able to do, and what not.

import { MAX_FILE_BYTES } from "./api.js";
import { count, element, figure, fill, nameIn } from "./words.js";

const FIGURES = {
  accuracy: "Accuracy",
  balanced_accuracy: "Balanced accuracy",
  auroc: "AUROC",
  auprc: "AUPRC",
  ece: "ECE (calibration)",
  brier: "Brier score",
};
const byId = (id) => document.getElementById(id);

/** Show what the service says of its model. */
export function showModel(info) {
  document.title = `${info.name} ${info.version} – medvision`;
  byId("served-name").textContent = info.name;
  byId("served-version").textContent = info.grade ? `${info.version}, grade: ${info.grade}` : info.version;
  const kinds = `${info.formats.join(", ")}, ${MAX_FILE_BYTES / 2 ** 20} MiB at most.`;
  byId("takes").textContent = `${kinds} Each is sent to this service alone, without its file name.`;
  byId("model-name").textContent = info.name;
  fill(byId("model-facts"), factsOf(info));
  fill(byId("model-figures"), figuresOf(info));
  byId("model-classes").tBodies[0].replaceChildren(...info.classes.map((name) => classRow(name, info)));
  byId("model-limits").replaceChildren(...limitsOf(info).map((limit) => element("li", limit)));
  byId("model-wait").hidden = true;
  byId("model-body").hidden = false;
}

function factsOf(info) {
  const facts = [["Version", info.version === info.number ? info.version : `${info.version} (number ${info.number})`]];
  if (info.verdict) {
    facts.push(["Verdict", `${info.verdict.replaceAll("_", " ")}, under policy ${info.policy}`]);
    facts.push(["Grade", element("span", info.grade, "grade")], ["Validated", info.validated_at.slice(0, 10)]);
  } else {
    facts.push(["Verdict", element("strong", "none: in development only")]);
  }
  if (info.n_test_images !== null) facts.push(["Test set", testSet(info)]);
  if (info.canary) facts.push(["Beside it", `version ${info.canary} answers a share of the images`]);
  return [...facts, ["Engine", info.engine], ["Package", element("code", info.package_digest.slice(0, 12))]];
}

function testSet(info) {
  const images = count(info.n_test_images, "image");
  return info.n_test_patients === null ? images : `${images} of ${count(info.n_test_patients, "patient")}`;
}

function figuresOf(info) {
  const known = Object.keys(FIGURES).filter((name) => name in info.figures);
  return known.map((name) => [FIGURES[name], figureOf(info, name)]);
}

/** Return a figure, with its interval below it where the verdict has one. */
function figureOf(info, name) {
  const said = element("span", figure(info.figures[name]));
  const [low, high] = info.intervals[name] ?? [];
  if (low !== undefined) said.append(element("small", `${figure(low)}–${figure(high)}`, "interval"));
  return said;
}

function classRow(name, info) {
  const row = document.createElement("tr");
  const label = nameIn("th", name);
  label.scope = "row";
  row.append(label, ...["sensitivity", "specificity"].map((kind) => numberCell(info, `${kind}.${name}`)));
  return row;
}

function numberCell(info, name) {
  const cell = element("td", "", "number");
  cell.append(figureOf(info, name));
  return cell;
}

function limitsOf(info) {
  return [
    ...info.limits,
    `It knows ${count(info.classes.length, "class", "classes")} alone: what else an image shows, it can't name.`,
    "The figures are those of its test set; on other scanners and other patients they may differ.",
  ];
}
