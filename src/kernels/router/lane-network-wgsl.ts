/** The networks of lane-network.ts as WGSL, for a subgroup kernel's shape. */

import type { LaneOps, SortedList } from './lane-network.ts';
import { mergeLists, rankAcrossLanes, rowLayout, sortValues } from './lane-network.ts';

export type LaneNetwork = Readonly<{
  /** Lanes of a row, a power of two. */
  lanes: number;
  /** Keys of a lane that are sorted at once: a multiple of four, at most 32. */
  keys: number;
  /** Times that many. */
  chunks: number;
  /** Keys that a lane keeps, a power of two. */
  list: number;
  /** Places that are found, a power of two. */
  width: number;
  /** Whether a lane knows the best key that is not in its list, or takes the last that is for it. */
  isExact: boolean;
}>;

/** Lines of straight code; a value is the name of a constant. */
class Lines implements LaneOps<string> {
  readonly #lines: string[] = [];
  readonly #predicates = new Map<number, string>();

  #name(expression: string): string {
    const name = `v${this.#lines.length}`;
    this.#lines.push(`  let ${name} = ${expression};`);
    return name;
  }

  max(a: string, b: string): string {
    return this.#name(`max(${a}, ${b})`);
  }

  min(a: string, b: string): string {
    return this.#name(`min(${a}, ${b})`);
  }

  exchange(a: string, mask: number): string {
    return this.#name(`subgroupShuffleXor(${a}, ${mask}u)`);
  }

  lesserIfOdd(mask: number, a: string, b: string): string {
    let isOdd = this.#predicates.get(mask);
    if (isOdd === undefined) {
      const bits = [0, 1, 2, 3, 4].filter((bit) => ((mask >> bit) & 1) === 1);
      const folded = bits.map((bit) => (bit === bits[0] ? 'lane' : `(lane >> ${bit - bits[0]!}u)`)).join(' ^ ');
      isOdd = this.#name(`((${folded}) & ${2 ** bits[0]!}u) != 0u`);
      this.#predicates.set(mask, isOdd);
    }
    return this.#name(`select(max(${a}, ${b}), min(${a}, ${b}), ${isOdd})`);
  }

  greatest(values: readonly string[]): string {
    return values.length === 0 ? 'NONE' : values.reduce((best, value) => this.max(best, value));
  }

  /** The body of a function that ends with `result`. */
  returning(result: string): string {
    return [...this.#lines, `  return ${result};`].join('\n');
  }
}

const QUAD_NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

/**
 * `List`: the best keys of a lane, greatest first; `Ranked`: those of a row, in the lane's places. `dropped`: no key
 * that was left out is greater (of a `List`: than this or the last in the list).
 */
export function laneNetworkWgsl(network: LaneNetwork): string {
  const { lanes, keys, chunks, list, width } = network;
  const fields = Array.from({ length: list }, (_, i) => `k${i}`);
  const held = Math.min(list, keys * chunks);
  const own = fields.map((field) => `list.${field}`);
  const each = (change: (value: string) => string): string =>
    `List(${[...own, 'list.dropped'].map(change).join(', ')})`;
  const ranking = new Lines();
  const ranked = rankAcrossLanes(ranking, own, lanes, width);
  const { slots } = rowLayout(lanes, width);
  if (ranked.keys.length !== slots) throw new Error(`${ranked.keys.length} keys for ${slots} places of a lane`);
  return `
struct List {
${[...fields, 'dropped'].map((field) => `  ${field}: i32,`).join('\n')}
}

struct Ranked {
  keys: array<i32, ${slots}>,
  dropped: i32,
}

fn sortKeys(keys: Keys) -> List {
${sorting(network)}
}

fn mergeLists(a: List, b: List) -> List {
${merging(network)}
}

fn rankRow(list: List, lane: u32) -> Ranked {
${ranking.returning(`Ranked(array<i32, ${slots}>(${ranked.keys.join(', ')}), ${ranking.greatest(ranked.dropped)})`)}
}

// The list whose keys are lower by the lane's first id.
fn moveIds(list: List, first: i32) -> List {
  return ${each((value) => `${value} - first`)};
}

fn keepIf(list: List, isKept: bool) -> List {
  return ${each((value) => `select(NONE, ${value}, isKept)`)};
}

fn firstOf(list: List) -> i32 {
  return list.k0;
}

fn secondOf(list: List) -> i32 {
  return ${list > 1 ? 'list.k1' : 'NONE'};
}

fn lastOf(list: List) -> i32 {
  return list.${fields[held - 1]!};
}

// The best key of the list under \`bound\`.
fn nextBelow(list: List, bound: i32) -> i32 {
  var best = EMPTY;
${own.map((value) => `  best = max(best, select(EMPTY, ${value}, ${value} < bound));`).join('\n')}
  return best;
}
`;
}

function sorting({ keys, chunks, list, isExact }: LaneNetwork): string {
  const lines = new Lines();
  const names = Array.from({ length: keys }, (_, i) => `keys.${QUAD_NAMES[i >> 2]!}.${'xyzw'[i & 3]!}`);
  const sorted = sortValues(lines, names, list);
  return listOf(lines, sorted, list, isExact, keys * chunks > list);
}

function merging({ keys, list, isExact }: LaneNetwork): string {
  const lines = new Lines();
  const [a, b] = ['a', 'b'].map((name) => ({
    list: Array.from({ length: Math.min(list, keys) }, (_, i) => `${name}.k${i}`),
    dropped: [`${name}.dropped`],
  }));
  return listOf(lines, mergeLists(lines, a!, b!, list), list, isExact, true);
}

function listOf(lines: Lines, sorted: SortedList<string>, list: number, isExact: boolean, isLossy: boolean): string {
  const values = Array.from({ length: list }, (_, i) => sorted.list[i] ?? 'NONE');
  const bound = isExact || !isLossy ? lines.greatest(sorted.dropped) : values.at(-1)!;
  return lines.returning(`List(${[...values, bound].join(', ')})`);
}
