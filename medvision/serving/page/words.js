// How numbers and answers are said, and the few elements that are made of words.

/** Return a probability as percent; what is not quite none or all is not said to be. */
export function percent(share) {
  const shown = (100 * share).toFixed(1);
  if (share > 0 && shown === "0.0") return "< 0.1 %";
  if (share < 1 && shown === "100.0") return "> 99.9 %";
  return `${shown} %`;
}

export const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** Return a recommendation as what to do, which may be empty, and why. */
export function split(recommendation) {
  const [, what, why] = recommendation.match(/^([^:.]+): (.*)$/s) ?? [null, "", recommendation];
  return { what, why: what ? why.charAt(0).toUpperCase() + why.slice(1) : why };
}

export const levelOf = (answer) => {
  const { level } = answer.uncertainty;
  return `${level.charAt(0).toUpperCase()}${level.slice(1)} uncertainty`;
};

export function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Return the name of a class or a file, which may go on in the next line after what joins its words. */
export function nameIn(tag, name, className = "") {
  const made = element(tag, "", className);
  for (const part of name.split(/(?<=[_\-./])/)) made.append(part, document.createElement("wbr"));
  return made;
}

/** Fill a description list with pairs of a term and its text, or a term and an element. */
export function fill(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([term, said]) => {
      const pair = element("div", "");
      const value = element("dd", "");
      value.append(said);
      pair.append(element("dt", term), value);
      return pair;
    }),
  );
}
