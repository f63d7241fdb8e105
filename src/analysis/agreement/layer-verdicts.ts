/** Disturbances of layers: shifted, or dense ones counted. */

import type { RowSet } from './row-set.ts';
import { explain, sampledRows } from './alignment.ts';
import { commonIds } from './row-set.ts';
import { LEAST_EXPLAINED, LEAST_GAIN } from './thresholds.ts';
import type { Verdict } from './verdict.ts';
import { count, verdict } from './verdict.ts';

const MOST_SHIFT = 4;

/** `null`: the layers stand where they should, or no shift explains B. */
export function layersVerdict(a: RowSet, b: RowSet): Verdict | null {
  if (a.numLayers !== b.numLayers) return denseVerdict(a, b);
  if (a.numLayers < 2) return null;
  const plain = explain(a, b, (request, row, layer) => ({ request, row, layer })).sets;
  let best = { shift: 0, sets: 0 };
  for (let shift = -MOST_SHIFT; shift <= MOST_SHIFT; shift++) {
    if (shift === 0 || Math.abs(shift) >= a.numLayers) continue;
    const { sets } = explain(a, b, (request, row, layer) => ({ request, row, layer: layer + shift }));
    if (sets > best.sets) best = { shift, sets };
  }
  const { shift, sets } = best;
  if (sets < LEAST_EXPLAINED || sets - plain < LEAST_GAIN * (1 - plain)) return null;
  const direction = shift > 0 ? `layer ${shift} of B is layer 0 of A` : `layer 0 of B is layer ${-shift} of A`;
  return verdict('shifted-layers', `B is A shifted by ${count(Math.abs(shift), 'layer')}: ${direction}`, sets);
}

/** One of them has layers that the other has not: each layer of the shorter one is looked for in the longer one. */
function denseVerdict(a: RowSet, b: RowSet): Verdict | null {
  const isB = b.numLayers > a.numLayers;
  const [short, long] = isB ? [a, b] : [b, a];
  const places: number[] = [];
  for (let layer = 0; layer < short.numLayers; layer++) {
    const from = (places.at(-1) ?? -1) + 1;
    const found = Array.from({ length: long.numLayers - from }, (_, i) => from + i).find(
      (candidate) => layerAgreement(short, layer, long, candidate) >= LEAST_EXPLAINED,
    );
    if (found === undefined) return null;
    places.push(found);
  }
  const extra = Array.from({ length: long.numLayers }, (_, layer) => layer).filter((layer) => !places.includes(layer));
  const list = `${extra.slice(0, 8).join(', ')}${extra.length > 8 ? ', …' : ''}`;
  const words = isB
    ? `B counts ${count(extra.length, 'layer')} that A does not have (${list}): dense ones, without a router`
    : `A counts ${count(extra.length, 'layer')} that B does not have (${list}): dense ones, without a router`;
  return verdict('dense-layers-counted', words);
}

function layerAgreement(a: RowSet, layer: number, b: RowSet, other: number): number {
  let same = 0;
  let looked = 0;
  for (const [r, position] of sampledRows(a)) {
    const rows = b.requests[r];
    if (rows === undefined || position >= rows.numRows) continue;
    looked++;
    const at = (position * a.numLayers + layer) * a.topK;
    const bt = (position * b.numLayers + other) * b.topK;
    if (commonIds(a.topK, a.requests[r]!.ids, at, rows.ids, bt) === a.topK) same++;
  }
  return looked === 0 ? 0 : same / looked;
}
