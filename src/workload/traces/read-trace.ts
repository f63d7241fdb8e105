/** Reads a request trace or a recording from a file: the only part of a workload that touches the file system. */

import { readFileSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RecordedRouting } from '../../contract/recorded-routing.ts';
import { parseAzure } from './azure.ts';
import { parseMooncake } from './mooncake.ts';
import { parseRecording } from './recording.ts';
import { checkTraceOptions, traceWorkload } from './trace.ts';
import type { TraceEntry, TraceOptions } from './trace.ts';
import type { Workload } from '../workload.ts';

type Parser = (content: string, file: string, limit?: number) => TraceEntry[];

const problems: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'is a directory, not a file',
  EACCES: 'may not be read',
  ERR_STRING_TOO_LONG: 'is too large to be read at once; cut it to the requests you need',
  ERR_FS_FILE_TOO_LARGE: 'is too large to be read at once; cut it to the requests you need',
};

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException;
    throw RoutedExpertsError.of('BAD_FILE', path, problems[code] ?? `cannot be read: ${message}`);
  }
}

/**
 * By the file's extension, and where that says nothing by its first character: a JSON object or the head of a table.
 */
function parserFor(path: string, content: string): Parser {
  const extension = extname(path).toLowerCase();
  if (extension === '.jsonl' || extension === '.ndjson') return parseMooncake;
  if (extension === '.csv') return parseAzure;
  const start = content.replace(/^\u{feff}/u, '').trimStart();
  if (start.startsWith('{')) return parseMooncake;
  if (/^[^\n]*,/u.test(start)) return parseAzure;
  throw RoutedExpertsError.of('BAD_FILE', path, 'neither a Mooncake trace (JSONL) nor an Azure trace (CSV)');
}

/**
 * Reads a Mooncake (JSONL) or Azure (CSV) trace. The workload is named after the file.
 *
 * @throws BAD_VALUE for an option out of range, BAD_FILE for a file that is missing, empty or of another kind,
 * BAD_TRACE_LINE for a
 *   broken line
 */
export function readTrace(path: string, options: TraceOptions): Workload {
  checkTraceOptions(options);
  const content = readText(path);
  if (content.trim() === '') throw RoutedExpertsError.of('BAD_FILE', path, 'the file is empty');
  const entries = parserFor(path, content)(content, path, options.requests);
  return traceWorkload({ file: path, name: basename(path), entries }, options);
}

/** Reads a recording of routed experts. @throws BAD_FILE for a file that is missing or not a recording */
export function readRecording(path: string): RecordedRouting {
  return parseRecording(path, basename(path), readText(path));
}
