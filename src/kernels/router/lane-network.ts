/**
 * How the lanes of a row find its best keys together: straight-line networks of maxima, minima and exchanges between
 * lanes, without a branch. They are written once, over operations that a caller gives: as WGSL they are a kernel's
 * text, on arrays a test.
 *
 *     in a lane     quads are sorted, then merged; a list keeps the `length` best
 *     between two   lists shorter than `width` are merged whole, over twice the lanes; of longer ones the better half
 *     groups        stays, and each lane keeps half as many: max(Aᵢ, Bₙ₋₁₋ᵢ) are the n best of both, a bitonic
 *                   sequence that log n compare-exchanges sort
 *
 * At last lane p of the row holds the keys of the places p · slots to p · slots + slots − 1, best first.
 */

/** Operations on a value in each lane. */
export interface LaneOps<V> {
  max(a: V, b: V): V;
  min(a: V, b: V): V;
  /** The value of the lane whose number differs in the bits of `mask`. */
  exchange(a: V, mask: number): V;
  /** The lesser in lanes whose number has an odd number of the bits of `mask`, the greater in the others. */
  lesserIfOdd(mask: number, a: V, b: V): V;
}

/**
 * A sorted list, greatest first, and values of which the greatest is the best one that did not get in. `null`: lower
 * than any.
 */
export type SortedList<V> = Readonly<{ list: readonly (V | null)[]; dropped: readonly V[] }>;

/** The `length` (a power of two) best of `values`, four at a time. */
export function sortValues<V>(ops: LaneOps<V>, values: readonly V[], length: number): SortedList<V> {
  let lists: SortedList<V>[] = [];
  for (let i = 0; i < values.length; i += 4) {
    const four: (V | null)[] = values.slice(i, i + 4);
    for (const [a, b] of [
      [0, 1],
      [2, 3],
      [0, 2],
      [1, 3],
      [1, 2],
    ] as const)
      compareExchange(ops, four, a, b);
    const next = four[length];
    lists.push({ list: four.slice(0, length), dropped: next === undefined || next === null ? [] : [next] });
  }
  while (lists.length > 1) {
    const merged: SortedList<V>[] = [];
    for (let i = 0; i < lists.length; i += 2) {
      merged.push(i + 1 < lists.length ? mergeLists(ops, lists[i]!, lists[i + 1]!, length) : lists[i]!);
    }
    lists = merged;
  }
  return lists[0]!;
}

/** The `length` (a power of two) best of two lists. */
export function mergeLists<V>(ops: LaneOps<V>, a: SortedList<V>, b: SortedList<V>, length: number): SortedList<V> {
  const dropped = [...a.dropped, ...b.dropped];
  if (a.list.length + b.list.length <= length) {
    const size = 2 ** Math.ceil(Math.log2(Math.max(a.list.length, b.list.length)));
    const merged = mergeOddEven(ops, padded(a.list, size), padded(b.list, size));
    return { list: merged.slice(0, a.list.length + b.list.length), dropped };
  }
  const first = padded(a.list, length);
  const second = padded(b.list, length).toReversed();
  for (const [i, value] of first.entries()) {
    const loser = lesser(ops, value, second[i]!);
    if (loser !== null) dropped.push(loser);
  }
  const best = first.map((value, i) => greater(ops, value, second[i]!));
  sortBitonic(ops, best);
  return { list: best, dropped };
}

/** How the lanes of a row hold its best: the place of a key says lane and slot. */
export type RowLayout = Readonly<{ lanes: number; slots: number }>;

/** Lanes that hold different keys, of `lanes`; the rest of them repeat those. */
export function rowLayout(lanes: number, width: number): RowLayout {
  return { lanes: Math.min(lanes, width), slots: Math.max(1, width / lanes) };
}

/** The keys of a lane's places in the row, and those that are left out. */
export type RankedKeys<V> = Readonly<{ keys: readonly V[]; dropped: readonly V[] }>;

/**
 * The `width` best of the lists of `lanes` lanes. Both, and the length of a list, are powers of two; the lists hold
 * `width` together, at least. Slot s of lane p has place `(p mod layout.lanes) · slots + s`.
 */
export function rankAcrossLanes<V>(given: LaneOps<V>, list: readonly V[], lanes: number, width: number): RankedKeys<V> {
  // A first run, on nothing, finds what the distances come to; the second one names lanes by the places that they will
  // hold.
  const { basis } = rank(
    NOTHING,
    list.map(() => null),
    lanes,
    width,
  );
  const { keys, dropped } = rank(
    {
      max: (a, b) => given.max(a, b),
      min: (a, b) => given.min(a, b),
      exchange: (a, mask) => given.exchange(a, coordinates(basis, mask)),
      lesserIfOdd: (mask, a, b) => {
        const own = basis.reduce((sum, vector, j) => sum | (parity(vector & mask) << j), 0);
        return given.lesserIfOdd(own, a, b);
      },
    },
    list,
    lanes,
    width,
  );
  return { keys, dropped };
}

const NOTHING: LaneOps<null> = { max: () => null, min: () => null, exchange: () => null, lesserIfOdd: () => null };

function rank<V>(
  ops: LaneOps<V>,
  list: readonly V[],
  lanes: number,
  width: number,
): RankedKeys<V> & Readonly<{ basis: readonly number[] }> {
  let values = [...list];
  const dropped: V[] = [];
  // Bit j of a place, in units of the values of a lane, is the distance masks[j] between lanes. Spare: distances
  // between copies.
  let masks: number[] = [];
  const spare: number[] = [];
  const order = (bit: number, others: readonly V[]): void => {
    const isUpper = dual([...masks, ...spare], bit);
    values = values.map((value, r) => ops.lesserIfOdd(isUpper, value, others[r]!));
  };
  const orderAcross = (bit: number): void =>
    order(
      bit,
      values.map((value) => ops.exchange(value, masks[bit]!)),
    );
  for (let group = 1; group < lanes; group *= 2) {
    const opposite = masks.reduce((all, mask) => all ^ mask, group);
    const backwards = values.toReversed();
    if (values.length * 2 ** masks.length < width) {
      masks.push(group);
      order(
        masks.length - 1,
        backwards.map((value) => ops.exchange(value, opposite)),
      );
      for (let bit = masks.length - 2; bit >= 0; bit--) orderAcross(bit);
    } else {
      const half = Math.max(1, values.length / 2);
      const others = backwards.slice(0, half).map((value) => ops.exchange(value, opposite));
      for (const [r, other] of others.entries()) dropped.push(ops.min(values[r]!, other));
      const isSplit = values.length > 1;
      values = others.map((other, r) => ops.max(values[r]!, other));
      if (isSplit) masks = [opposite, ...masks];
      else spare.push(group);
      for (let bit = masks.length - 1; bit >= Number(isSplit); bit--) orderAcross(bit);
      // The upper half lies in the other lane backwards.
      if (isSplit)
        order(
          0,
          values.toReversed().map((value) => ops.exchange(value, opposite)),
        );
    }
    sortBitonic(ops, values);
  }
  return { keys: values, dropped, basis: [...masks, ...spare] };
}

/** The bits whose parity, in a lane's number, says whether `basis[index]` is part of it. */
function dual(basis: readonly number[], index: number): number {
  for (let bits = 1; bits < 2 ** basis.length; bits++) {
    if (basis.every((vector, j) => parity(vector & bits) === Number(j === index))) return bits;
  }
  throw new Error('distances between lanes are independent');
}

/** Which vectors of the basis come to `mask`, as bits. */
function coordinates(basis: readonly number[], mask: number): number {
  for (let bits = 0; bits < 2 ** basis.length; bits++) {
    if (basis.reduce((sum, vector, j) => sum ^ (((bits >> j) & 1) * vector), 0) === mask) return bits;
  }
  throw new Error('distances between lanes are a basis');
}

function parity(bits: number): number {
  let odd = 0;
  for (let left = bits; left > 0; left >>= 1) odd ^= left & 1;
  return odd;
}

function mergeOddEven<V>(ops: LaneOps<V>, a: readonly (V | null)[], b: readonly (V | null)[]): (V | null)[] {
  if (a.length === 1) {
    const two = [a[0]!, b[0]!];
    compareExchange(ops, two, 0, 1);
    return two;
  }
  const part = (values: readonly (V | null)[], odd: number): (V | null)[] => values.filter((_, i) => i % 2 === odd);
  const even = mergeOddEven(ops, part(a, 0), part(b, 0));
  const odd = mergeOddEven(ops, part(a, 1), part(b, 1));
  const merged = even.flatMap((value, i) => [value, odd[i]!]);
  for (let i = 1; i + 1 < merged.length; i += 2) compareExchange(ops, merged, i, i + 1);
  return merged;
}

function sortBitonic<V>(ops: LaneOps<V>, values: V[]): void;
function sortBitonic<V>(ops: LaneOps<V>, values: (V | null)[]): void {
  for (let distance = values.length / 2; distance >= 1; distance /= 2) {
    for (let i = 0; i < values.length; i++) {
      if ((i & distance) === 0) compareExchange(ops, values, i, i + distance);
    }
  }
}

function compareExchange<V>(ops: LaneOps<V>, values: (V | null)[], i: number, j: number): void {
  const [a, b] = [values[i]!, values[j]!];
  values[i] = greater(ops, a, b);
  values[j] = lesser(ops, a, b);
}

function greater<V>(ops: LaneOps<V>, a: V | null, b: V | null): V | null {
  if (a === null || b === null) return a ?? b;
  return ops.max(a, b);
}

function lesser<V>(ops: LaneOps<V>, a: V | null, b: V | null): V | null {
  return a === null || b === null ? null : ops.min(a, b);
}

function padded<V>(list: readonly (V | null)[], length: number): (V | null)[] {
  return Array.from({ length }, (_, i) => list[i] ?? null);
}
