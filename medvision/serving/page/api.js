// What the page asks of the service. Whatever goes wrong is a Refusal, whose message a person can read.

const KEY = "medvision-api-key";
const MOST_TRIES = 5;
const LONGEST_PAUSE_S = 60;
// As the service has it: of a body that is larger by far it might close the connection before it says why.
export const MAX_FILE_BYTES = 10 * 2 ** 20;

export class Refusal extends Error {
  constructor(message, { status = 0, requestId = null, pauseS = null } = {}) {
    super(message);
    Object.assign(this, { status, requestId, pauseS });
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

export const askModel = () => ask("api/v1/model_info");

/** Return the answer for a file; where the service is busy, wait as long as it says, a few times. */
export async function askAnswer(file, signal, onPause) {
  if (file.size > MAX_FILE_BYTES) {
    throw new Refusal(`Expected 10 MiB at most; found ${(file.size / 2 ** 20).toFixed(1)} MiB.`, { status: 413 });
  }
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask("api/v1/predict/advanced?heat_map=true", { method: "POST", body: formOf(file), signal });
    } catch (error) {
      if (error.status !== 429 || tries === MOST_TRIES) throw error;
      onPause(error.pauseS);
      await pause(error.pauseS, signal);
    }
  }
}

function formOf(file) {
  const form = new FormData();
  // Not under its own name, which often is a patient's.
  form.append("image", file, "image");
  return form;
}

async function ask(path, options = {}) {
  const headers = hasKey() ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {};
  let response, body;
  try {
    response = await fetch(path, { ...options, headers });
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (response) throw new Refusal(`The answer was not understood (status ${response.status}).`, response);
    throw new Refusal("The service was not reached, or the file could not be read.");
  }
  if (!response.ok) throw refusalOf(response, body);
  return body;
}

function refusalOf(response, problem) {
  const pauseS = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_PAUSE_S);
  const said = problem.detail ?? `The service answered with status ${response.status}.`;
  return new Refusal(said, { status: response.status, requestId: problem.request_id ?? null, pauseS });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
