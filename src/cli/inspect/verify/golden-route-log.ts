/** A file of recorded answers about a log of routes. */

import { readFileSync } from 'node:fs';
import { balanceOf } from '../../../analysis/load/balance.ts';
import { countsOf } from '../../../analysis/counts.ts';
import { repeatsOf } from '../../../analysis/load/repeats.ts';
import type { Capture } from '../../../rows/captures/capture.ts';
import { rowWidth } from '../../../rows/captures/capture.ts';
import { passesOf } from '../../../rows/captures/sub-capture.ts';
import type { LoggedPass } from '../../../rows/captures/route-log.ts';
import { RouteLog } from '../../../rows/captures/route-log.ts';
import type { JsonObject } from '../../../rows/json-object.ts';
import { F64, differences } from './differences.ts';
import { traceFile } from './golden-data-set.ts';

/** `source` is a remark; `wholeLog` is of a log that the recorded one was cut from, and which is not there. */
const NOT_ANSWERED = new Set(['source', 'wholeLog']);

/** What differs. The log is `traces/<name>.jsonl`, above the file. */
export function verifyRouteLog(golden: JsonObject, file: string, name: string): string[] {
  const recorded = Object.fromEntries(Object.entries(golden).filter(([key]) => !NOT_ANSWERED.has(key)));
  return differences(recorded, routeLogAnswers(traceFile(`traces/${name}.jsonl`, file)), () => F64);
}

function routeLogAnswers(path: string): Readonly<Record<string, unknown>> {
  const log = new RouteLog();
  const passes: LoggedPass[] = [];
  const lines = readFileSync(path, 'utf8').split('\n');
  for (const [i, line] of lines.entries()) {
    const pass = line.trim() === '' ? null : log.add(JSON.parse(line), i + 1);
    if (pass !== null) passes.push(pass);
  }
  const last = log.end();
  if (last !== null) passes.push(last);
  const capture = captureOf(passes);
  const { ids } = capture;
  const width = rowWidth(capture);
  let leading = 1;
  const isFirst = (row: number): boolean => ids.subarray(0, width).every((id, i) => id === ids[row * width + i]);
  while (leading < capture.numRows && isFirst(leading)) leading++;
  const weights = passes.flatMap((pass) => rowsOf(pass.weights ?? [], width));
  const sums = weights.map((row) => row.reduce((sum, weight) => sum + weight, 0));
  const rest = passesOf(rowsAsPasses(capture), leading, capture.numRows);
  return {
    meta: log.meta,
    rows: capture.numRows,
    requestIds: log.requestIds,
    passes: passes.map(({ numRows }) => numRows),
    identicalLeadingRows: leading,
    identicalRow: [...ids.subarray(0, width)],
    distinctWeightsInLeading: new Set(weights.slice(0, leading).map((row) => row.join())).size,
    repeats: repeatsOf(capture),
    repeatsAfterLeading: repeatsOf(capture, leading),
    numExpertsAtLeast: capture.numExperts,
    weightSum: [Math.min(...sums), Math.max(...sums)],
    withAllRows: firstLayer(capture),
    withoutLeading: firstLayer(rest),
  };
}

function captureOf(passes: readonly LoggedPass[]): Capture {
  const { layers, topK } = passes[0]!;
  const ids = Int32Array.from(passes.flatMap((pass) => [...pass.ids]));
  const numRows = ids.length / (layers.length * topK);
  const numExperts = ids.reduce((most, id) => Math.max(most, id), 0) + 1;
  const requests = [{ id: 'all', firstRow: 0, numRows, promptLen: null, tokens: null }];
  return { name: 'log', numExperts, topK, layers, numRows, ids, requests, knowsRequests: false, steps: null };
}

function rowsAsPasses(capture: Capture): Capture {
  return { ...capture, steps: Array.from({ length: capture.numRows }, (_, row) => [[row, 1]]) };
}

function firstLayer(capture: Capture): unknown {
  const { numRows, topK, numExperts } = capture;
  return balanceOf(countsOf(capture).subarray(0, numExperts), { numRows, topK });
}

function rowsOf(values: ArrayLike<number>, width: number): number[][] {
  return Array.from({ length: values.length / width }, (_, row) =>
    Array.from({ length: width }, (__, i) => values[row * width + i]!),
  );
}
