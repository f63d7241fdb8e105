/**
 * Mooncake traces: JSONL, a request a line, e.g. `{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids":
 * [0, 7]}`. Source: https://github.com/kvcache-ai/Mooncake (FAST'25 traces), Apache-2.0.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import { show } from '../checks.ts';
import { TRACE_BLOCK_TOKENS } from './trace.ts';
import type { TraceEntry } from './trace.ts';

function isIndex(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/**
 * Parses the first `limit` requests; empty lines are skipped.
 *
 * @param file names the trace in errors
 * @throws BAD_TRACE_LINE with file, line and problem
 */
export function parseMooncake(content: string, file: string, limit: number = Infinity): TraceEntry[] {
  const entries: TraceEntry[] = [];
  const lines = content.replace(/^\u{feff}/u, '').split('\n');
  for (let index = 0; index < lines.length && entries.length < limit; index++) {
    const line = lines[index]!.trim();
    if (line !== '') entries.push(parseLine(line, file, index + 1));
  }
  return entries;
}

function parseLine(line: string, file: string, lineNumber: number): TraceEntry {
  const broken = (problem: string) => RoutedExpertsError.of('BAD_TRACE_LINE', file, lineNumber, problem);

  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch {
    throw broken(`not JSON: ${show(line)}`);
  }
  if (typeof record !== 'object' || record === null || Array.isArray(record)) {
    throw broken(`not a JSON object: ${show(record)}`);
  }
  const field = (name: string): unknown => {
    if (!Object.hasOwn(record, name)) throw broken(`field "${name}" is missing`);
    return (record as Record<string, unknown>)[name];
  };
  const length = (name: string): number => {
    const value = field(name);
    if (!isIndex(value) || value === 0) throw broken(`${name} is ${show(value)}, not a whole number ≥ 1`);
    return value;
  };

  const timestampMs = field('timestamp');
  if (typeof timestampMs !== 'number' || !Number.isFinite(timestampMs) || timestampMs < 0) {
    throw broken(`timestamp is ${show(timestampMs)}, not a number of milliseconds ≥ 0`);
  }
  const inputLength = length('input_length');
  const outputLength = length('output_length');
  const hashIds = field('hash_ids');
  if (!Array.isArray(hashIds)) throw broken(`hash_ids is ${show(hashIds)}, not a list`);
  const badId = hashIds.findIndex((id) => !isIndex(id));
  if (badId >= 0) throw broken(`hash_ids[${badId}] is ${show(hashIds[badId])}, not a whole number ≥ 0`);
  const numBlocks = Math.ceil(inputLength / TRACE_BLOCK_TOKENS);
  if (hashIds.length !== numBlocks) {
    throw broken(
      `hash_ids has ${hashIds.length} ids, an input_length of ${inputLength} has ${numBlocks} blocks of ` +
        `${TRACE_BLOCK_TOKENS} tokens`,
    );
  }
  return { timestampMs, inputLength, outputLength, hashIds };
}
