/** How much two sources of rows agree, position by position: in order, as sets, and by miles' rule. */

import type { PositionRange } from '../../contract/routed-rows.ts';
import { mean, quotient } from '../statistics.ts';
import type { RowSet } from './row-set.ts';
import { commonIds, isRouting } from './row-set.ts';

export type LayerAgreement = Readonly<{
  layer: number;
  /** Shares of positions: the same ids in the same order; the same set. `null`: no position is compared. */
  exact: number | null;
  sets: number | null;
  /** Mean share of the K ids that both have. */
  overlap: number | null;
}>;

/** The first difference in row order. */
export type FirstDifference = Readonly<{
  request: string;
  position: number;
  layer: number;
  a: readonly number[];
  b: readonly number[];
  /** Whether the sets differ, too. */
  isOfSets: boolean;
}>;

/** Rows of one request that one source has and the other has not, or has only padding for. */
export type OneSided = Readonly<{ request: string; ranges: readonly PositionRange[] }>;

/**
 * miles' rule (`utils/replay_base.py::check_replay_result`): a token differs in a layer if fewer than
 * max(1, ⌈ratio × valid ids⌉) of its ids are common; over 1 % of tokens fails.
 */
export type MilesResult = Readonly<{
  ratio: number;
  numTokens: number;
  /** The layer with the most. */
  numDifferent: number;
  worstLayer: number | null;
  share: number | null;
  passes: boolean;
}>;

export type Agreement = Readonly<{
  /** Rows that both have, and how many of them are the same: ids and order; as sets in every layer. */
  numCompared: number;
  numExact: number;
  numSets: number;
  perLayer: readonly LayerAgreement[];
  first: FirstDifference | null;
  onlyA: readonly OneSided[];
  onlyB: readonly OneSided[];
  /** Rows of −1 or of zeros, in either. */
  paddingRows: Readonly<{ a: number; b: number }>;
  miles: MilesResult;
}>;

/** Routing differs freely between precisions: one common id is enough. */
export const MILES_RATIO = 0;
const MILES_SHARE = 0.01;

/** Layers that only one has are not compared. */
export function agreementOf(a: RowSet, b: RowSet, milesRatio: number = MILES_RATIO): Agreement {
  const { topK } = a;
  const numLayers = Math.min(a.numLayers, b.numLayers);
  const exact = new Float64Array(numLayers);
  const sets = new Float64Array(numLayers);
  const overlap = new Float64Array(numLayers);
  const different = new Float64Array(numLayers);
  const counts = { numCompared: 0, numExact: 0, numSets: 0 };
  const padding = { a: 0, b: 0 };
  const onlyA: OneSided[] = [];
  const onlyB: OneSided[] = [];
  let first: FirstDifference | null = null;
  for (const [r, request] of a.requests.entries()) {
    const other = b.requests[r];
    const gaps = { a: new Ranges(), b: new Ranges() };
    const numRows = Math.max(request.numRows, other?.numRows ?? 0);
    for (let position = 0; position < numRows; position++) {
      const inA = position < request.numRows;
      const inB = other !== undefined && position < other.numRows;
      const isA = inA && isRouting(a, request, position);
      const isB = inB && isRouting(b, other, position);
      if (inA && !isA) padding.a++;
      if (inB && !isB) padding.b++;
      if (isA && !isB) gaps.a.add(position);
      if (isB && !isA) gaps.b.add(position);
      if (!isA || !isB) continue;
      counts.numCompared++;
      let sameSets = 0;
      let sameLayers = 0;
      for (let layer = 0; layer < numLayers; layer++) {
        const at = (position * a.numLayers + layer) * topK;
        const bt = (position * b.numLayers + layer) * topK;
        const common = commonIds(topK, request.ids, at, other.ids, bt);
        let valid = 0;
        let isExact = true;
        for (let k = 0; k < topK; k++) {
          if (request.ids[at + k]! >= 0) valid++;
          if (request.ids[at + k] !== other.ids[bt + k]) isExact = false;
        }
        overlap[layer]! += common / topK;
        if (common < Math.max(1, Math.ceil(milesRatio * valid)) && valid > 0) different[layer]!++;
        const isSet = isExact || common === topK;
        if (isSet) {
          sets[layer]!++;
          sameSets++;
        }
        if (isExact) {
          exact[layer]!++;
          sameLayers++;
        } else {
          first ??= {
            request: request.id,
            position,
            layer,
            a: [...request.ids.subarray(at, at + topK)],
            b: [...other.ids.subarray(bt, bt + topK)],
            isOfSets: !isSet,
          };
        }
      }
      if (sameLayers === numLayers) counts.numExact++;
      if (sameSets === numLayers) counts.numSets++;
    }
    if (gaps.a.ranges.length > 0) onlyA.push({ request: request.id, ranges: gaps.a.ranges });
    if (gaps.b.ranges.length > 0) onlyB.push({ request: request.id, ranges: gaps.b.ranges });
  }
  for (const request of b.requests.slice(a.requests.length)) {
    onlyB.push({ request: request.id, ranges: [[0, request.numRows]] });
  }
  const shareOf = (values: Float64Array, layer: number): number | null => quotient(values[layer]!, counts.numCompared);
  return {
    ...counts,
    perLayer: Array.from({ length: numLayers }, (_, layer) => ({
      layer,
      exact: shareOf(exact, layer),
      sets: shareOf(sets, layer),
      overlap: shareOf(overlap, layer),
    })),
    first,
    onlyA,
    onlyB,
    paddingRows: padding,
    miles: milesOf(different, counts.numCompared, milesRatio),
  };
}

/** Share of compared layers of rows whose sets agree. */
export function setShare({ perLayer }: Agreement): number {
  return mean(perLayer.map(({ sets }) => sets ?? 0)) ?? 0;
}

function milesOf(different: Float64Array, numTokens: number, ratio: number): MilesResult {
  let worst = 0;
  different.forEach((count, layer) => {
    if (count > different[worst]!) worst = layer;
  });
  const numDifferent = different[worst] ?? 0;
  const share = quotient(numDifferent, numTokens);
  return {
    ratio,
    numTokens,
    numDifferent,
    worstLayer: numDifferent === 0 ? null : worst,
    share,
    passes: share !== null && share <= MILES_SHARE,
  };
}

class Ranges {
  readonly ranges: [from: number, to: number][] = [];

  add(position: number): void {
    const newest = this.ranges.at(-1);
    if (newest?.[1] === position) newest[1]++;
    else this.ranges.push([position, position + 1]);
  }
}
