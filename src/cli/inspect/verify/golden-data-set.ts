/** A file of recorded answers about a data set. */

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Capture } from '../../../rows/captures/capture.ts';
import { readCapture } from '../../../rows/captures/capture-json.ts';
import { passesOf, positionsAsPasses, requestsOf } from '../../../rows/captures/sub-capture.ts';
import type { JsonObject } from '../../../rows/json-object.ts';
import { isObject } from '../../../rows/json-object.ts';
import type { DataSetOptions } from './data-set.ts';
import { dataSetAnswers } from './data-set.ts';
import type { Tolerance } from './differences.ts';
import { F32, F64, differences } from './differences.ts';

/** What tells how the data came about, and is no answer. */
const GIVEN = new Set(['seed', 'capture', 'trace', 'window', 'name', 'source']);

/** Keys whose recorded values are f32. */
const SINGLE = /^(steps\.(sglang|vllm)|verl\.metrics|nemo)/;

const toleranceOf = (path: string): Tolerance => (SINGLE.test(path) ? F32 : F64);

/** The differences of every key but those that say where the data are from. Throws for data that cannot be read. */
export function verifyDataSet(golden: JsonObject, file: string): string[] {
  const recorded = Object.fromEntries(Object.entries(golden).filter(([key]) => !GIVEN.has(key)));
  const thresholds = isObject(golden['screening']) ? golden['screening']['thresholds'] : undefined;
  const given = golden['options'] as DataSetOptions;
  const options = isObject(thresholds) ? ({ ...given, thresholds } as unknown as DataSetOptions) : given;
  return differences(recorded, dataSetAnswers(captureOf(golden, file), options), toleranceOf);
}

function captureOf(golden: JsonObject, file: string): Capture {
  const { trace, window } = golden;
  if (typeof trace !== 'string') return readCapture(golden, file);
  const path = traceFile(trace, file);
  const whole = readCapture(JSON.parse(readFileSync(path, 'utf8')), path);
  if (!isObject(window)) return whole;
  const { steps, requests } = window;
  if (isPair(steps)) return passesOf(whole, ...steps);
  // Such a trace knows no passes: pass p is row p of every request.
  return positionsAsPasses(isPair(requests) ? requestsOf(whole, ...requests) : whole);
}

function isPair(value: unknown): value is readonly [number, number] {
  return Array.isArray(value) && value.length === 2;
}

/** Looks for `trace` beside the file, and upwards from there, also in folders named `shared`. */
export function traceFile(trace: string, file: string): string {
  for (let folder = dirname(resolve(file)); ; folder = dirname(folder)) {
    for (const path of [join(folder, trace), join(folder, 'shared', trace)]) if (existsSync(path)) return path;
    if (folder === dirname(folder)) break;
  }
  const fromHere = [trace, join('..', 'shared', trace)].find((path) => existsSync(path));
  if (fromHere !== undefined) return fromHere;
  throw new Error(`${trace} is neither beside the file nor above it`);
}
