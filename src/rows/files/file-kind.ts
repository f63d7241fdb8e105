/** What a file is, by its first bytes; and the ones that are refused before anything of them is believed. */

import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { RoutedExpertsError } from '../../contract/errors.ts';

export type FileKind = 'npy' | 'zip' | 'parquet' | 'text';

const HEAD_BYTES = 64;

const PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'is a directory; name the files in it',
  EACCES: 'may not be read',
};

/**
 * The first bytes of a file, and its length.
 *
 * @throws BAD_FILE for a file that is missing, a directory, or empty
 */
function headOf(path: string): Readonly<{ head: Buffer; size: number }> {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    throw badFile(path, error);
  }
  try {
    const stat = fstatSync(file);
    if (stat.isDirectory()) throw RoutedExpertsError.of('BAD_FILE', path, PROBLEMS['EISDIR']!);
    const head = Buffer.alloc(HEAD_BYTES);
    const length = readSync(file, head);
    if (length === 0) throw RoutedExpertsError.of('BAD_FILE', path, 'is empty');
    return { head: head.subarray(0, length), size: stat.size };
  } finally {
    closeSync(file);
  }
}

/**
 * The kind of a file that holds rows.
 *
 * @throws BAD_FILE for what cannot be read, and for pickles
 */
export function fileKind(path: string): FileKind {
  const { head } = headOf(path);
  if (isPickle(head)) throw RoutedExpertsError.of('BAD_FILE', path, `is a pickle: ${convertRows(path)}`);
  if (head.toString('latin1', 0, 6) === '\u{93}NUMPY') return 'npy';
  if (head.toString('latin1', 0, 2) === 'PK') return 'zip';
  if (head.toString('latin1', 0, 4) === 'PAR1') return 'parquet';
  if (head[0] === 0x1f && head[1] === 0x8b) {
    throw RoutedExpertsError.of('BAD_FILE', path, 'is compressed; write it out with gzip -d first');
  }
  return 'text';
}

/**
 * A text file as a whole.
 *
 * @throws BAD_FILE for what cannot be read, is no text, or is a pickle
 */
export function readText(path: string): string {
  const { head } = headOf(path);
  if (isPickle(head) || head.toString('latin1', 0, 2) === 'PK') {
    throw RoutedExpertsError.of('BAD_FILE', path, `is a pickle or an archive: ${convertLoads(path)}`);
  }
  try {
    return readFileSync(path, 'utf8').replace(/^\u{feff}/u, '');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const isTooLarge = code === 'ERR_STRING_TOO_LONG' || code === 'ERR_FS_FILE_TOO_LARGE';
    if (!isTooLarge) throw badFile(path, error);
    throw RoutedExpertsError.of('BAD_FILE', path, 'is too large to be read at once; write one JSON object a line');
  }
}

/** The value of a JSON file. @throws BAD_FILE, with the place, for what is no JSON */
export function readJson(path: string): unknown {
  const text = readText(path);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_FILE', path, `is not JSON: ${(error as Error).message}`);
  }
}

export function badFile(path: string, error: unknown): RoutedExpertsError {
  const { code = '', message } = error as NodeJS.ErrnoException;
  return RoutedExpertsError.of('BAD_FILE', path, PROBLEMS[code] ?? `cannot be read: ${message}`);
}

/** Protocols 2 to 5 begin with their number. A text may begin like protocol 0, and is then no JSON. */
function isPickle(head: Buffer): boolean {
  return head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5;
}

/** Torch writes pickles in archives, too. */
export function convertRows(path: string): string {
  return (
    'reading it can run code; convert it where you trust it: ' +
    `python -c "import numpy, torch; d = torch.load('${path}', map_location='cpu', weights_only=True); ` +
    "numpy.save('rows.npy', torch.cat([r['topk_ids_of_layer'].permute(1, 0, 2) for r in d['records']])" +
    ".numpy().astype('int32'))\""
  );
}

function convertLoads(path: string): string {
  return (
    'reading it can run code; convert it where you trust it: ' +
    `python -c "import json, torch; d = torch.load('${path}', map_location='cpu', weights_only=True); ` +
    "json.dump({'weight': d['logical_count'].sum(0).tolist()}, open('loads.json', 'w'))\""
  );
}
