/** Rows as a rollout has them, and the known ways in which a trainer's copy of them goes wrong. */

import type { RequestRows, RowSet } from '../../src/analysis/agreement/row-set.ts';

/** A generator with a seed of its own: the same rows on every machine. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

export type Shape = Readonly<{ numLayers: number; topK: number; numExperts: number; lengths: readonly number[] }>;

/** K different experts a layer, in random order. */
export function randomRowSet({ numLayers, topK, numExperts, lengths }: Shape, random: () => number): RowSet {
  const requests = lengths.map((numRows, r): RequestRows => {
    const ids = new Int32Array(numRows * numLayers * topK);
    for (let at = 0; at < ids.length; at += topK) ids.set(drawn(numExperts, topK, random), at);
    return { id: `r${r}`, ids, numRows, promptLen: Math.floor(numRows / 2) };
  });
  return { numLayers, topK, requests };
}

function drawn(numExperts: number, topK: number, random: () => number): number[] {
  const chosen: number[] = [];
  while (chosen.length < topK) {
    const id = Math.floor(random() * numExperts);
    if (!chosen.includes(id)) chosen.push(id);
  }
  return chosen;
}

/** Each request's rows as another list of rows. */
function withRows(set: RowSet, change: (rows: number[][], request: RequestRows) => number[][]): RowSet {
  const width = set.numLayers * set.topK;
  const requests = set.requests.map((request) => {
    const rows = Array.from({ length: request.numRows }, (_, row) => [
      ...request.ids.subarray(row * width, (row + 1) * width),
    ]);
    const changed = change(rows, request);
    return { ...request, ids: Int32Array.from(changed.flat()), numRows: changed.length };
  });
  return { ...set, requests };
}

/** Each cell's K ids as other ids; as many. */
function withCells(set: RowSet, change: (ids: number[], layer: number, row: number) => number[]): RowSet {
  const { numLayers, topK } = set;
  return withRows(set, (rows) =>
    rows.map((row, r) =>
      Array.from({ length: numLayers }, (_, layer) =>
        change(row.slice(layer * topK, (layer + 1) * topK), layer, r),
      ).flat(),
    ),
  );
}

type Disturb = (set: RowSet, shape: Shape, random: () => number) => RowSet;

/** By name, and the verdict that is wanted. */
export const disturbances: Readonly<Record<string, Readonly<{ kind: string; disturb: Disturb }>>> = {
  'shifted by a row': {
    kind: 'shifted-rows',
    disturb: (set, _shape, random) =>
      withRows(set, (rows) => {
        const from = 1 + Math.floor(random() * (rows.length - 4));
        return rows.map((row, i) => (i < from ? row : rows[i - 1]!));
      }),
  },
  'shifted by a row, since one was dropped': {
    kind: 'shifted-rows',
    disturb: (set, _shape, random) =>
      withRows(set, (rows) => {
        const dropped = 1 + Math.floor(random() * (rows.length - 4));
        return rows.filter((_, i) => i !== dropped);
      }),
  },
  'shifted by a row from the first on': {
    kind: 'shifted-rows',
    disturb: (set) => withRows(set, (rows) => [rows[0]!.map(() => 0), ...rows.slice(0, -1)]),
  },
  'shifted by a layer': {
    kind: 'shifted-layers',
    disturb: (set) => {
      const { numLayers, topK } = set;
      return withRows(set, (rows) =>
        rows.map((row) => row.map((_, i) => row[(i + (numLayers - 1) * topK) % row.length]!)),
      );
    },
  },
  'prompt only': {
    kind: 'prompt-only',
    disturb: (set) => withRows(set, (rows, { promptLen }) => rows.slice(0, promptLen!)),
  },
  'prompt only, zeros behind': {
    kind: 'prompt-only',
    disturb: (set) =>
      withRows(set, (rows, { promptLen }) => rows.map((row, i) => (i < promptLen! ? row : row.map(() => 0)))),
  },
  'output only': {
    kind: 'output-only',
    disturb: (set) => withRows(set, (rows, { promptLen }) => rows.slice(promptLen!)),
  },
  'columns permuted': {
    kind: 'columns-permuted',
    disturb: (set) => withCells(set, (ids) => [...ids.slice(1), ids[0]!]),
  },
  'columns sorted': {
    kind: 'columns-sorted',
    disturb: (set) => withCells(set, (ids) => ids.toSorted((a, b) => a - b)),
  },
  'dense layers counted': {
    kind: 'dense-layers-counted',
    disturb: (set) => {
      const zeros = Array.from({ length: 2 * set.topK }, () => 0);
      return { ...withRows(set, (rows) => rows.map((row) => [...zeros, ...row])), numLayers: set.numLayers + 2 };
    },
  },
  'last row repeated': {
    kind: 'last-row-repeated',
    disturb: (set) => withRows(set, (rows) => [...rows, rows.at(-1)!]),
  },
  'last row repeated in place of its own': {
    kind: 'last-row-repeated',
    disturb: (set) => withRows(set, (rows) => [...rows.slice(0, -1), rows.at(-2)!]),
  },
  'padding counted': {
    kind: 'padding-counted',
    disturb: (set) => withRows(set, (rows) => [...rows, ...Array.from({ length: 3 }, () => rows[0]!.map(() => -1))]),
  },
  'padding counted in front': {
    kind: 'padding-counted',
    disturb: (set) => withRows(set, (rows) => [...Array.from({ length: 3 }, () => rows[0]!.map(() => 0)), ...rows]),
  },
  'two requests swapped': {
    kind: 'requests-swapped',
    disturb: (set) => {
      const [first, second, ...rest] = set.requests;
      const swapped = [
        { ...second!, id: first!.id },
        { ...first!, id: second!.id },
      ];
      return { ...set, requests: [...swapped, ...rest] };
    },
  },
  'physical ids': {
    kind: 'physical-ids',
    disturb: (set, { numExperts }, random) => {
      // Each expert has two slots, and tokens go to either.
      const slots = Array.from({ length: set.numLayers }, () => {
        const order = Array.from({ length: 2 * numExperts }, (_, i) => ({ i, at: random() }));
        return order.toSorted((a, b) => a.at - b.at).map(({ i }) => i);
      });
      return withCells(set, (ids, layer) => ids.map((id) => slots[layer]![id + (random() < 0.5 ? numExperts : 0)]!));
    },
  },
  'another weight version from a position on': {
    kind: 'other-weights',
    disturb: (set, { numExperts }, random) => {
      const from = 6 + Math.floor(random() * 4);
      return withCells(set, (ids, _layer, row) => {
        if (row < from || random() < 0.5) return ids;
        return drawn(numExperts, ids.length, random);
      });
    },
  },
};

/** A few ids differ, as between precisions. */
export function withNoise(set: RowSet, { numExperts }: Shape, share: number, random: () => number): RowSet {
  return withCells(set, (ids) => {
    if (random() >= share) return ids;
    const other = drawn(numExperts, ids.length + 1, random).find((id) => !ids.includes(id));
    return other === undefined ? ids : [...ids.slice(0, -1), other];
  });
}
