/**
 * The results of a campaign, or of a share of it, as a file: a line that says what it is of, then a line for each shard
 * that is done. A process that is killed leaves a line that is not whole. It does not count, and its shard runs again.
 */

import { appendFileSync, existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { Part, PartHeader } from './core/part.ts';

const FORMAT = 'routed-experts campaign 1';

/** Reads a file of results. Throws BAD_FILE. */
export function readPart(file: string): Part {
  return parsePart(file, wholeLines(file));
}

/** Begins a file of results, or goes on with the one that there is. Throws BAD_FILE. */
export class ResultFile {
  readonly part: Part;
  readonly #file: string;

  constructor(file: string, header: PartHeader) {
    this.#file = file;
    if (existsSync(file)) {
      const text = wholeLines(file);
      truncateSync(file, Buffer.byteLength(text));
      if (text !== '') {
        this.part = parsePart(file, text);
        return;
      }
    }
    this.part = { ...header, file, results: [] };
    try {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, `${JSON.stringify({ format: FORMAT, ...header })}\n`);
    } catch (error) {
      throw RoutedExpertsError.of('BAD_FILE', file, `cannot be written: ${(error as Error).message}`);
    }
  }

  /** The line is written when this returns. */
  append(shard: number, result: unknown): void {
    appendFileSync(this.#file, `${JSON.stringify({ shard, result })}\n`);
  }
}

function wholeLines(file: string): string {
  try {
    const text = readFileSync(file, 'utf8');
    return text.slice(0, text.lastIndexOf('\n') + 1);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', file, `cannot be read: ${(error as Error).message}`);
  }
}

function parsePart(file: string, text: string): Part {
  const [head = '', ...lines] = text.split('\n').slice(0, -1);
  const { format, ...header } = parseLine(head) as { format?: unknown } & PartHeader;
  if (format !== FORMAT) {
    throw RoutedExpertsError.of('BAD_FILE', file, 'holds no results of a campaign; give a file that --shard wrote');
  }
  const results: [number, unknown][] = [];
  for (const [i, line] of lines.entries()) {
    const { shard, result } = parseLine(line) as { shard?: unknown; result?: unknown };
    if (typeof shard !== 'number' || typeof result !== 'object') {
      throw RoutedExpertsError.of('BAD_FILE', file, `line ${i + 2} is no result of a shard; delete the line`);
    }
    results.push([shard, result]);
  }
  return { ...header, file, results };
}

/** An empty object for a line that is none. */
function parseLine(line: string): object {
  try {
    const value = JSON.parse(line) as unknown;
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
