/** Recorded answers in a directory, compared file by file. */

import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { JsonObject } from '../../../rows/json-object.ts';
import { isObject } from '../../../rows/json-object.ts';
import { verifyDataSet } from './golden-data-set.ts';
import { isMapsGolden, verifyEplb, verifyMaps } from './golden-eplb.ts';
import { verifyRouteLog } from './golden-route-log.ts';

export type VerifiedFile = Readonly<{
  name: string;
  /** Values that were compared belong to it: `data set`, `placements`, `maps`, `log`; `unreadable` is none. */
  kind: string;
  /** What was compared besides, in words. */
  remark: string;
  differences: readonly string[];
}>;

/** A file that cannot be read, or is of no known kind, has a difference that says so. */
export function verifyFile(file: string): VerifiedFile {
  const name = basename(file);
  try {
    const golden: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (!isObject(golden)) throw new Error('is no JSON object');
    return { name, ...verifyGolden(golden, file, name.replace(/\.json$/, '')) };
  } catch (error) {
    return { name, kind: 'unreadable', remark: '', differences: [(error as Error).message] };
  }
}

function verifyGolden(golden: JsonObject, file: string, name: string): Omit<VerifiedFile, 'name'> {
  if (Array.isArray(golden['cases'])) {
    return { kind: 'placements', remark: `${golden['cases'].length} cases`, differences: verifyEplb(golden) };
  }
  if (isMapsGolden(golden)) return { kind: 'maps', remark: '', differences: verifyMaps(golden) };
  if (Array.isArray(golden['passes'])) {
    const remark = golden['wholeLog'] === undefined ? '' : 'wholeLog aside: that log is not there';
    return { kind: 'log', remark, differences: verifyRouteLog(golden, file, name) };
  }
  if (isObject(golden['options'])) {
    return { kind: 'data set', remark: `${String(golden['rows'])} rows`, differences: verifyDataSet(golden, file) };
  }
  throw new Error('is no file of recorded answers that is known here');
}
