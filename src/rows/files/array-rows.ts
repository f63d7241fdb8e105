/** Rows in arrays of files: `.npy`, and every array of a `.npz` that holds rows. */

import { createReadStream } from 'node:fs';
import { open } from 'yauzl';
import type { Entry, ZipFile } from 'yauzl';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RowBatch, RowSource } from '../row-batch.ts';
import { badFile, convertRows } from './file-kind.ts';
import type { NpyHeader, NpyRows } from './npy-stream.ts';
import { ByteReader, npyBatches, readNpyHeader } from './npy-stream.ts';
import type { ReadRowsHints } from './rows-hints.ts';

const CHUNK_BYTES = 1024 * 1024;

type RowsOfArray = NpyRows & Readonly<{ numLayers: number; topK: number }>;

const UNKNOWN = { requests: false, promptLengths: false, steps: false, tokens: false };

/** A `.npy` of `[T, L, K]`, of `[T, K]` (one layer, unless hints say more), or of `[requests, T, L, K]`. */
export async function npyRows(path: string, hints: ReadRowsHints): Promise<RowSource> {
  const stream = (): AsyncIterable<Uint8Array> => createReadStream(path, { highWaterMark: CHUNK_BYTES });
  const first = stream();
  const header = await readNpyHeader(new ByteReader(first), path);
  const rows = rowsOfArray(header, hints, path);
  return {
    form: 'npy',
    shape: shapeOf(rows, hints),
    knows: { ...UNKNOWN, requests: rows.perRequest > 0 },
    async *batches() {
      const reader = new ByteReader(stream());
      yield* npyBatches(reader, await readNpyHeader(reader, path), rows, path);
      if ((await reader.take(new Uint8Array(1))) > 0) {
        throw RoutedExpertsError.of('BAD_FILE', path, `goes on behind its rows, at byte ${reader.offset - 1}`);
      }
    },
  };
}

/** The arrays of a `.npz` one after the other, each a request or a part of its own. */
export async function npzRows(path: string, hints: ReadRowsHints): Promise<RowSource> {
  const members = await membersOf(path);
  let shape: RowsOfArray | null = null;
  const used: string[] = [];
  for (const name of members) {
    const header = await withMember(path, name, (reader) => readNpyHeader(reader, `${path}, ${name}`));
    if (header.shape.length < 3) continue;
    const rows = rowsOfArray(header, hints, `${path}, ${name}`);
    shape ??= rows;
    if (rows.numLayers !== shape.numLayers || rows.topK !== shape.topK) {
      const found = `${rows.numLayers} × ${rows.topK}, ${used[0]} is ${shape.numLayers} × ${shape.topK}`;
      throw RoutedExpertsError.of('BAD_FILE', path, `mixes shapes: ${name} is ${found}`);
    }
    used.push(name);
  }
  if (shape === null) throw RoutedExpertsError.of('BAD_FILE', path, 'has no array [rows, layers, K]');
  return {
    form: 'npz',
    shape: shapeOf(shape, hints),
    knows: UNKNOWN,
    async *batches() {
      for (const name of used) yield* memberBatches(path, name, hints);
    },
  };
}

function product(sizes: readonly number[]): number {
  return sizes.reduce((all, size) => all * size, 1);
}

function rowsOfArray({ shape }: NpyHeader, { rowShape }: ReadRowsHints, file: string): RowsOfArray {
  const fail = (problem: string): never => {
    throw RoutedExpertsError.of('BAD_FILE', file, problem);
  };
  if (shape.length < 2 || shape.length > 4) fail(`is of shape (${shape.join(', ')}), rows are [T, L, K]`);
  const [numLayers, topK] =
    shape.length > 2
      ? [shape.at(-2)!, shape.at(-1)!]
      : [rowShape?.numLayers ?? 1, shape[1]! / (rowShape?.numLayers ?? 1)];
  if (rowShape !== undefined && (rowShape.numLayers !== numLayers || rowShape.topK !== topK)) {
    fail(`its rows are ${numLayers} × ${topK}, not ${rowShape.numLayers} × ${rowShape.topK}`);
  }
  const numRows = product(shape.length > 2 ? shape.slice(0, -2) : shape.slice(0, 1));
  const width = numLayers * topK;
  if (numRows === 0 || width === 0) fail(`is of shape (${shape.join(', ')}): there are no rows in it`);
  return { numRows, width, numLayers, topK, perRequest: shape.length === 4 ? shape[1]! : 0 };
}

function shapeOf({ numLayers, topK }: RowsOfArray, { numExperts }: ReadRowsHints): RowSource['shape'] {
  return { layers: null, numLayers, topK, numExperts: numExperts ?? null };
}

async function membersOf(path: string): Promise<string[]> {
  const names: string[] = [];
  const zip = await eachEntry(path, ({ fileName }) => {
    if (fileName.endsWith('.pkl')) {
      throw RoutedExpertsError.of('BAD_FILE', path, `is a pickle of torch: ${convertRows(path)}`);
    }
    if (fileName.endsWith('.npy')) names.push(fileName);
    return false;
  });
  zip.close();
  return names;
}

async function* memberBatches(path: string, name: string, hints: ReadRowsHints): AsyncGenerator<RowBatch> {
  const file = `${path}, ${name}`;
  const { zip, stream } = await openMember(path, name);
  try {
    const reader = new ByteReader(stream);
    const header = await readNpyHeader(reader, file);
    yield* npyBatches(reader, header, rowsOfArray(header, hints, file), file);
  } finally {
    zip.close();
  }
}

async function withMember<T>(path: string, name: string, read: (reader: ByteReader) => Promise<T>): Promise<T> {
  const { zip, stream } = await openMember(path, name);
  try {
    return await read(new ByteReader(stream));
  } finally {
    zip.close();
  }
}

type OpenMember = Readonly<{ zip: ZipFile; stream: AsyncIterable<Uint8Array> }>;

async function openMember(path: string, name: string): Promise<OpenMember> {
  let found: Entry | null = null;
  const zip = await eachEntry(path, (entry) => {
    if (entry.fileName === name) found = entry;
    return found !== null;
  });
  return new Promise((resolve, reject) => {
    zip.openReadStream(found!, (error, stream) => {
      if (error === null) resolve({ zip, stream });
      else reject(badFile(path, error));
    });
  });
}

/** Calls `look` with each entry until it returns true. The archive stays open. @throws BAD_FILE for a broken archive */
function eachEntry(path: string, look: (entry: Entry) => boolean): Promise<ZipFile> {
  return new Promise((resolve, reject) => {
    open(path, { lazyEntries: true, autoClose: false }, (error, zip) => {
      if (error !== null) {
        reject(badFile(path, error));
        return;
      }
      zip.on('error', (problem: Error) => reject(badFile(path, problem)));
      zip.on('end', () => resolve(zip));
      zip.on('entry', (entry: Entry) => {
        try {
          if (look(entry)) resolve(zip);
          else zip.readEntry();
        } catch (problem) {
          zip.close();
          reject(problem);
        }
      });
      zip.readEntry();
    });
  });
}
