/** Which cells a bench runs, and in which order. */

import { random } from '../../workload/random.ts';

/** One design at one share of opted-in requests. */
export type Cell = Readonly<{ design: string; optInShare: number }>;

const OFF: Cell = { design: 'off', optInShare: 0 };

/**
 * `group`: runs of one group are neighbours in time, and compared with the `off` among them. `label`: which tokens the
 * run serves, > 0; a design never gets the same twice, since its worker lives through all its runs; different designs
 * do, so that one answer serves for all.
 */
export type PlannedRun = Readonly<{ cell: Cell; repeat: number; group: number; label: number }>;

/** Every design at every share; `off`, which knows no opt-in and is always among them, once. */
export function planCells(designs: readonly string[], optInShares: readonly number[]): readonly Cell[] {
  const unique = [...new Set<string>(['off', ...designs])];
  return unique.flatMap((design): readonly Cell[] =>
    design === 'off' ? [OFF] : [...new Set(optInShares)].map((optInShare) => ({ design, optInShare })),
  );
}

export type RepeatOptions = Readonly<{
  cells: readonly Cell[];
  /** Those that need another pair. */
  open: readonly Cell[];
  repeat: number;
  seed: number;
}>;

/**
 * The runs of one repeat, group by group. Repeats are interleaved, so that drift of the machine's speed falls on all
 * cells alike. Each design that has an open cell has a group of runs: its open cells and one of `off`, so that a ratio
 * is between runs a few seconds apart. Groups, and the runs of a group, are in an order of their own in each repeat.
 * The intervals of the ratios rest on it: the toss of a coin decides which run of a pair comes first.
 */
export function planRepeat({ cells, open, repeat, seed }: RepeatOptions): readonly (readonly PlannedRun[])[] {
  const designs = [...new Set(cells.map((cell) => cell.design))].filter((design) => design !== 'off');
  const groups = designs.map((design) => [OFF, ...cells.filter((cell) => cell.design === design)]);
  if (groups.length === 0) groups.push([OFF]);
  const mostRuns = Math.max(...groups.map((members) => members.length - 1), groups.length);
  const stream = random(seed, `bench/order/${repeat}`);
  const numRuns = new Map<string, number>();
  const planned: PlannedRun[][] = [];
  for (const place of stream.permutation(groups.length)) {
    const members = groups[place]!.filter((cell) => cell === OFF || open.includes(cell));
    const order = stream.permutation(members.length);
    if (members.length === 1 && designs.length > 0) continue;
    const group = repeat * groups.length + place;
    planned.push(
      Array.from(order, (member) => {
        const cell = members[member]!;
        const before = numRuns.get(cell.design) ?? 0;
        numRuns.set(cell.design, before + 1);
        return { cell, repeat, group, label: 1 + repeat * mostRuns + before };
      }),
    );
  }
  return planned;
}

export function cellName({ design, optInShare }: Cell): string {
  return design === 'off' ? design : `${design} ${Math.round(optInShare * 100)} %`;
}
