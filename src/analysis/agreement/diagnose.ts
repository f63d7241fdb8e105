/**
 * Finds what happened to B on its way from A: each known disturbance is tried, and the first that explains what the
 * plain comparison does not is named. Disagreements of a few ids, as between precisions, do not hide a disturbance.
 */

import { layersVerdict } from './layer-verdicts.ts';
import { lengthVerdict, repeatedInPlace } from './length-verdicts.ts';
import { columnsVerdict, idsVerdict } from './id-verdicts.ts';
import { rowsVerdict, swappedVerdict, weightsVerdict } from './row-verdicts.ts';
import type { Agreement } from './agreement.ts';
import { agreementOf, setShare } from './agreement.ts';
import type { RowSet } from './row-set.ts';
import { asOneList, numRowsOf } from './row-set.ts';
import type { Verdict } from './verdict.ts';
import { percent, verdict } from './verdict.ts';

export type Comparison = Readonly<{ agreement: Agreement; verdict: Verdict }>;

/** `a`: the rollout; `b`: the trainer, or whatever should have the same rows. K must be the same. */
export function compareRowSets(a: RowSet, given: RowSet, milesRatio?: number): Comparison {
  const b = inOrderOf(a, given);
  if (a.requests.length !== b.requests.length && numRowsOf(a) === numRowsOf(b)) {
    // One of them does not know its requests.
    if (a.requests.length === 1) return compareRowSets(a, asOneList(b), milesRatio);
    if (b.requests.length === 1) return compareRowSets(asOneList(a), b, milesRatio);
  }
  const agreement = agreementOf(a, b, milesRatio);
  return { agreement, verdict: diagnose(a, b, agreement) };
}

/** Where both name the same requests, in whatever order, they are compared by name. */
function inOrderOf(a: RowSet, b: RowSet): RowSet {
  const byId = new Map(b.requests.map((request) => [request.id, request]));
  const requests = a.requests.map(({ id }) => byId.get(id)).filter((request) => request !== undefined);
  return requests.length === a.requests.length && byId.size === requests.length ? { ...b, requests } : b;
}

function diagnose(a: RowSet, b: RowSet, agreement: Agreement): Verdict {
  const isWhole = agreement.onlyA.length === 0 && agreement.onlyB.length === 0 && a.numLayers === b.numLayers;
  const hasSameLengths = a.requests.every(({ numRows }, r) => numRows === b.requests[r]?.numRows);
  if (isWhole && hasSameLengths && agreement.numExact === agreement.numCompared) {
    return verdict('identical', 'B is A, id for id');
  }
  if (a.numLayers !== b.numLayers) return layersVerdict(a, b) ?? unrelated(agreement);
  return (
    swappedVerdict(a, b) ??
    repeatedInPlace(a, b) ??
    rowsVerdict(a, b, 'inside') ??
    lengthVerdict(a, b, agreement) ??
    (setShare(agreement) === 1 ? columnsVerdict(a, b) : null) ??
    rowsVerdict(a, b, 'from the first row') ??
    layersVerdict(a, b) ??
    columnsVerdict(a, b) ??
    idsVerdict(a, b) ??
    weightsVerdict(a, b) ??
    scattered(agreement) ??
    unrelated(agreement)
  );
}

function scattered(agreement: Agreement): Verdict | null {
  const share = setShare(agreement);
  if (share < 0.5) return null;
  const differ = agreement.numCompared - agreement.numSets;
  const words =
    `B and A choose the same experts in ${percent(share)} of layers; ` +
    `${differ} of ${agreement.numCompared} rows differ, scattered over all positions: numerical differences`;
  return verdict('scattered', words, share);
}

function unrelated(agreement: Agreement): Verdict {
  const share = setShare(agreement);
  const words = `B and A agree in ${percent(share)} of layers from the first rows on: other tokens, or another model`;
  return verdict('unrelated', words, share);
}
