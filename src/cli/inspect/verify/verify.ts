/** Recorded answers in a directory, compared file by file. */

import { readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { RoutedExpertsError } from '../../../contract/errors.ts';
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

/** The `*.json` of a directory in order of name. @throws BAD_FILE if it cannot be read or has none */
export function answerFiles(directory: string): readonly string[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', directory, `${(error as Error).message}; give a directory of *.json`);
  }
  const files = names.filter((name) => name.endsWith('.json')).sort();
  if (files.length === 0) throw RoutedExpertsError.of('BAD_FILE', directory, 'holds no *.json');
  return files.map((name) => join(directory, name));
}

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
