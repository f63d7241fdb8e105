/** Which cells a bench runs, and in which order. */

import type { DesignName } from '../../contract/config.ts';
import { random } from '../../workload/random.ts';

/** One design at one share of opted-in requests. */
export type Cell = Readonly<{ design: DesignName; optInShare: number }>;

export type PlannedRun = Readonly<{ cell: Cell; repeat: number }>;

/**
 * Every design at every share; `off`, which knows no opt-in, once. A cell's figures are compared with `off` of the same repeat, so `off` is
 * always among them.
 */
export function planCells(designs: readonly DesignName[], optInShares: readonly number[]): readonly Cell[] {
  const unique = [...new Set<DesignName>(['off', ...designs])];
  return unique.flatMap((design): readonly Cell[] =>
    design === 'off'
      ? [{ design, optInShare: 0 }]
      : [...new Set(optInShares)].map((optInShare) => ({ design, optInShare })),
  );
}

/** Repeats are interleaved, each in an order of its own, so that drift of the machine's speed falls on all cells alike. */
export function planRuns(cells: readonly Cell[], repeats: number, seed: number): readonly PlannedRun[] {
  const runs: PlannedRun[] = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const place of random(seed, `bench/order/${repeat}`).permutation(cells.length)) {
      runs.push({ cell: cells[place]!, repeat });
    }
  }
  return runs;
}

export function cellName({ design, optInShare }: Cell): string {
  return design === 'off' ? design : `${design} ${Math.round(optInShare * 100)} %`;
}
