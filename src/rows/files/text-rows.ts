/** Rows in text: captures in JSON, answers of servers in every wire form, logs of routes; a value or one a line. */

import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { AnsweredRows } from '../answers.ts';
import { rowsOfAnswers } from '../answers.ts';
import { captureSource } from '../captures/capture-source.ts';
import { isCaptureJson, readCapture } from '../captures/capture-json.ts';
import type { Capture } from '../captures/capture.ts';
import type { LoggedPass } from '../captures/route-log.ts';
import { RouteLog, isRouteLine } from '../captures/route-log.ts';
import type { ReadRowsOptions } from '../read-rows.ts';
import type { RowBatch, RowSource } from '../row-batch.ts';
import { readText } from './file-kind.ts';
import type { ReadRowsHints } from './rows-hints.ts';

/** Rows, and the capture where it is held as a whole. */
export type TextRows = Readonly<{ source: RowSource; capture: Capture | null }>;

type Line = Readonly<{ value: unknown; number: number }>;

/** @throws BAD_FILE for text without rows, and for a line that is not JSON */
export async function textRows(path: string, hints: ReadRowsHints): Promise<TextRows> {
  const first = await firstLine(path);
  if (first === null) return wholeText(path, hints);
  if (isRouteLine(first)) return { source: await routeLogRows(path, hints), capture: null };
  if (isCaptureJson(first)) return wholeText(path, hints);
  return { source: await answerRows(path, hints, () => jsonLines(path)), capture: null };
}

/** The value of the first line; `null` where the text is no list of lines, but one value over several. */
async function firstLine(path: string): Promise<unknown> {
  for await (const text of textLines(path)) {
    if (text.trim() === '') continue;
    try {
      return JSON.parse(text) as unknown;
    } catch {
      return null;
    }
  }
  throw RoutedExpertsError.of('BAD_FILE', path, 'is empty');
}

function textLines(path: string): AsyncIterable<string> {
  return createInterface({ input: createReadStream(path, 'utf8'), crlfDelay: Infinity });
}

/** @throws BAD_TRACE_LINE for a line that is not JSON */
async function* jsonLines(path: string): AsyncGenerator<Line> {
  let number = 0;
  for await (const text of textLines(path)) {
    number++;
    if (text.trim() === '') continue;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw RoutedExpertsError.of('BAD_TRACE_LINE', path, number, `is not JSON: ${(error as Error).message}`);
    }
    yield { value, number };
  }
}

/** A value over several lines; or a text that is no JSON: the rows of one answer as they stand. */
async function wholeText(path: string, hints: ReadRowsHints): Promise<TextRows> {
  const text = readText(path);
  let value: unknown = text;
  const start = text.trimStart();
  if (/^[[{"]/.test(start)) {
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw RoutedExpertsError.of('BAD_FILE', path, `is not JSON: ${(error as Error).message}`);
    }
  }
  if (isCaptureJson(value)) {
    const capture = readCapture(value, path);
    return { source: captureSource(capture), capture };
  }
  const one = async function* (): AsyncGenerator<Line> {
    yield { value, number: 1 };
  };
  return { source: await answerRows(path, hints, one), capture: null };
}

const ANSWERS = { requests: true, promptLengths: false, steps: false, tokens: false };

/** The first rows say the shape. */
async function answerRows(path: string, hints: ReadRowsHints, lines: () => AsyncIterable<Line>): Promise<RowSource> {
  for await (const { value, number } of lines()) {
    for (const { form, rows } of answersOf(path, { value, number }, hints)) {
      const { numLayers, topK } = rows;
      return {
        form,
        shape: { layers: null, numLayers, topK, numExperts: hints.numExperts ?? null },
        knows: ANSWERS,
        batches: () => answerBatches(path, lines(), hints),
      };
    }
  }
  throw RoutedExpertsError.of('BAD_FILE', path, 'has no rows of a known form (docs/inspect.md lists them)');
}

/** @throws BAD_TRACE_LINE for rows that are not of the form that they look like, or need a shape that nobody gave */
function answersOf(path: string, { value, number }: Line, options: ReadRowsOptions): readonly AnsweredRows[] {
  try {
    return [...rowsOfAnswers(value, options)];
  } catch (error) {
    const { message } = error as Error;
    const problem = message.includes('rowShape') ? "SGLang's form has no shape: give --layers and --top-k" : message;
    throw RoutedExpertsError.of('BAD_TRACE_LINE', path, number, problem);
  }
}

async function* answerBatches(
  path: string,
  lines: AsyncIterable<Line>,
  options: ReadRowsOptions,
): AsyncGenerator<RowBatch> {
  let shape: string | null = null;
  for await (const { value, number } of lines) {
    let answer = 0;
    for (const { ids, rows } of answersOf(path, { value, number }, options)) {
      const own = `${rows.numLayers} × ${rows.topK}`;
      shape ??= own;
      const place = `line ${number}, answer ${answer++}`;
      if (own !== shape) {
        throw RoutedExpertsError.of('BAD_FILE', path, `mixes shapes: ${place} is ${own}, the first is ${shape}`);
      }
      const width = rows.numLayers * rows.topK;
      yield {
        ids,
        numRows: rows.count,
        startsRequest: true,
        endsStep: false,
        placeOf: (entry) => `${place}, row ${Math.floor(entry / width)}`,
      };
    }
  }
}

/** The number of experts is not in such a log: hints may say it. */
async function routeLogRows(path: string, { numExperts }: ReadRowsHints): Promise<RowSource> {
  for await (const { layers, topK } of loggedPasses(path)) {
    return {
      form: 'route log',
      shape: { layers, numLayers: layers.length, topK, numExperts: numExperts ?? null },
      knows: { requests: false, promptLengths: false, steps: true, tokens: false },
      batches: () => routeLogBatches(path, layers),
    };
  }
  throw RoutedExpertsError.of('BAD_FILE', path, 'is a log of routes without a route');
}

async function* routeLogBatches(path: string, layers: readonly number[]): AsyncGenerator<RowBatch> {
  let isFirst = true;
  for await (const pass of loggedPasses(path)) {
    if (pass.layers.join() !== layers.join()) {
      const problem = `a pass of layers ${pass.layers.join(', ')}, the first has ${layers.join(', ')}`;
      throw RoutedExpertsError.of('BAD_TRACE_LINE', path, pass.firstLine, problem);
    }
    const { ids, numRows, weights, firstLine: line } = pass;
    const width = layers.length * pass.topK;
    yield {
      ids,
      numRows,
      startsRequest: isFirst,
      endsStep: true,
      ...(weights !== null && { weights }),
      placeOf: (entry) => `row ${Math.floor(entry / width)} of the pass that begins in line ${line}`,
    };
    isFirst = false;
  }
}

async function* loggedPasses(path: string): AsyncGenerator<LoggedPass> {
  const log = new RouteLog();
  let last = 0;
  try {
    for await (const { value, number } of jsonLines(path)) {
      last = number;
      const pass = log.add(value, number);
      if (pass !== null) yield pass;
    }
    const pass = log.end();
    if (pass !== null) yield pass;
  } catch (error) {
    if (error instanceof RoutedExpertsError) throw error;
    throw RoutedExpertsError.of('BAD_TRACE_LINE', path, last, (error as Error).message);
  }
}
