/** Reads the text of `GET /metrics`. */

/**
 * Return the samples of one metric, each with its labels.
 * @param {string} text
 * @param {string} name
 * @returns {{labels: Record<string, string>, value: number}[]}
 */
export function samples(text, name) {
  const found = [];
  for (const line of text.split("\n")) {
    const [, labels = "", value = ""] = line.startsWith(name) ? (/^[\w:]+(?:\{(.*)\})? (\S+)$/.exec(line) ?? []) : [];
    if (value === "" || !/[ {]/.test(line[name.length] ?? "")) continue;
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key = "", one = ""]) => [
      key,
      one.replaceAll(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c)),
    ]);
    found.push({ labels: Object.fromEntries(pairs), value: Number(value) });
  }
  return found;
}
