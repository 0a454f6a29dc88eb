/**
 * Lays out a graph without circles in columns, by the longest path to each node.
 *
 * A node that is before one in a later column has a free place in each column between, so that no edge runs behind a box.
 */

const MOST = 200; // nodes of a graph with free places: more would be too wide to follow an edge

/**
 * @typedef {object} Placed
 * @property {number} column from 0: behind the columns of all nodes before it
 * @property {number} row from 0
 */

/**
 * Return a place for each node: behind those before it, and near them. Names in `after` that are not in `nodes` are
 * left out. Linear in nodes and edges, but for the sorting of each column.
 * @param {{name: string, after: string[]}[]} nodes
 * @returns {Map<string, Placed>}
 */
export function layers(nodes) {
  const known = new Set(nodes.map(({ name }) => name));
  const before = new Map(nodes.map(({ name, after }) => [name, after.filter((other) => known.has(other))]));
  /** @type {Map<string, string[]>} */
  const dependants = new Map(nodes.map(({ name }) => [name, []]));
  for (const [name, others] of before) for (const other of others) dependants.get(other)?.push(name);
  const missing = new Map([...before].map(([name, others]) => [name, others.length]));
  /** @type {Map<string, number>} */
  const columns = new Map();
  const free = nodes.map(({ name }) => name).filter((name) => missing.get(name) === 0);
  for (let n = 0; n < free.length; n++) {
    const name = /** @type {string} */ (free[n]);
    columns.set(name, Math.max(-1, ...(before.get(name) ?? []).map((other) => columns.get(other) ?? 0)) + 1);
    for (const other of dependants.get(name) ?? []) {
      missing.set(other, (missing.get(other) ?? 0) - 1);
      if (missing.get(other) === 0) free.push(other);
    }
  }
  /** @type {string[][]} */
  const byColumn = [];
  const add = (/** @type {string} */ name, /** @type {number} */ column) => {
    while (byColumn.length <= column) byColumn.push([]);
    byColumn[column]?.push(name);
  };
  for (const { name } of nodes) {
    const column = columns.get(name) ?? 0;
    add(name, column);
    const last = Math.max(0, ...(dependants.get(name) ?? []).map((other) => columns.get(other) ?? 0));
    for (let between = column + 1; between < last && nodes.length <= MOST; between++) {
      add(freePlace(name, between), between);
      before.set(freePlace(name, between), [between === column + 1 ? name : freePlace(name, between - 1)]);
    }
  }
  /** @type {Map<string, Placed>} */
  const placed = new Map();
  for (const [column, names] of byColumn.entries()) {
    const wanted = new Map(names.map((name, n) => [name, middle(before.get(name) ?? [], placed) ?? n]));
    names.sort((a, b) => (wanted.get(a) ?? 0) - (wanted.get(b) ?? 0));
    let next = 0;
    for (const name of names) {
      // As far down as those before it, so that a chain is a straight line.
      const row = Math.max(next, Math.floor(wanted.get(name) ?? 0));
      placed.set(name, { column, row });
      next = row + 1;
    }
  }
  return placed;
}

/**
 * Return the places through which the edge from one node to another runs, with those of both.
 * @param {Map<string, Placed>} placed @param {string} from @param {string} to
 * @returns {Placed[]}
 */
export function route(placed, from, to) {
  const [first, last] = [placed.get(from), placed.get(to)];
  if (first === undefined || last === undefined) return [];
  const between = [];
  for (let column = first.column + 1; column < last.column; column++) {
    const place = placed.get(freePlace(from, column));
    if (place !== undefined) between.push(place);
  }
  return [first, ...between, last];
}

/** A name that no node has. @param {string} name @param {number} column */
function freePlace(name, column) {
  return `${name} ${column}`;
}

/** @param {string[]} names @param {Map<string, Placed>} placed */
function middle(names, placed) {
  const rows = names.map((name) => placed.get(name)?.row ?? 0);
  return rows.length === 0 ? null : rows.reduce((sum, row) => sum + row, 0) / rows.length;
}
