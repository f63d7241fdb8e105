/** `.npy` bytes as they come, cut into batches of whole rows: a file of any size in the memory of a few batches. */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RowBatch, RowIds } from '../row-batch.ts';

/** What the header of a `.npy` says. */
export type NpyHeader = Readonly<{ dtype: NpyDtype; shape: readonly number[]; dataStart: number }>;

type NpyDtype = Readonly<{ size: number; read: (bytes: Uint8Array, count: number) => RowIds | null }>;

const BATCH_BYTES = 4 * 1024 * 1024;

/** Element types that hold ids. `null`: an id is beyond 31 bits. */
const DTYPES: Readonly<Record<string, NpyDtype>> = {
  '|u1': { size: 1, read: (bytes, count) => bytes.subarray(0, count) },
  '|i1': { size: 1, read: (bytes, count) => Int32Array.from(new Int8Array(bytes.buffer, 0, count)) },
  '<u2': { size: 2, read: (bytes, count) => new Uint16Array(bytes.buffer, 0, count) },
  '<i2': { size: 2, read: (bytes, count) => Int32Array.from(new Int16Array(bytes.buffer, 0, count)) },
  '<i4': { size: 4, read: (bytes, count) => new Int32Array(bytes.buffer, 0, count) },
  '<u4': { size: 4, read: (bytes, count) => narrowed(new Uint32Array(bytes.buffer, 0, count)) },
  '<i8': { size: 8, read: (bytes, count) => narrowed(new BigInt64Array(bytes.buffer, 0, count)) },
  '<u8': { size: 8, read: (bytes, count) => narrowed(new BigUint64Array(bytes.buffer, 0, count)) },
};

function narrowed(wide: Uint32Array | BigInt64Array | BigUint64Array): Int32Array | null {
  const ids = new Int32Array(wide.length);
  for (let i = 0; i < wide.length; i++) {
    const id = Number(wide[i]!);
    if (id > 0x7fff_ffff || id < -1) return null;
    ids[i] = id;
  }
  return ids;
}

/** Bytes in order, whose next ones can be asked for by number. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #left: Uint8Array = new Uint8Array(0);
  #offset = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Bytes that were taken so far. */
  get offset(): number {
    return this.#offset;
  }

  /** Fills `into` and returns how many bytes there were: fewer at the end only. */
  async take(into: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < into.length) {
      if (this.#left.length === 0) {
        const next = await this.#chunks.next();
        if (next.done === true) break;
        this.#left = next.value;
      }
      const part = this.#left.subarray(0, into.length - filled);
      into.set(part, filled);
      filled += part.length;
      this.#left = this.#left.subarray(part.length);
    }
    this.#offset += filled;
    return filled;
  }
}

const MAGIC = '\u{93}NUMPY';

/** @throws BAD_FILE for another form, dtype or order of elements, with what to do */
export async function readNpyHeader(reader: ByteReader, file: string): Promise<NpyHeader> {
  const fail = (problem: string): never => {
    throw RoutedExpertsError.of('BAD_FILE', file, problem);
  };
  const take = async (count: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(count);
    const taken = await reader.take(bytes);
    return taken === count ? bytes : fail(`is truncated: the .npy header ends at byte ${reader.offset}`);
  };
  const start = await take(8);
  if (latin1(start.subarray(0, 6)) !== MAGIC) fail('begins with no .npy header');
  const isLong = start[6]! >= 2;
  const length = await take(isLong ? 4 : 2);
  const size = length.reduceRight((sum, byte) => sum * 256 + byte, 0);
  if (size > 65_536) fail(`has a .npy header of ${size} bytes`);
  const header = latin1(await take(size));
  const descr = /'descr':\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order':\s*(True|False)/.exec(header)?.[1];
  const dimensions = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1];
  if (descr === undefined && /'descr':\s*\[/.test(header)) fail('holds records, not ids: save the array of ids alone');
  if (descr === undefined || order === undefined || dimensions === undefined)
    fail('has a .npy header of no known kind');
  if (descr === '|O') fail('holds pickled objects: reading them can run code; save an array of integers');
  const dtype = DTYPES[descr!];
  if (dtype === undefined) fail(`is of dtype ${descr}, ids are integers, little-endian: save arr.astype('<i4')`);
  if (order === 'True') fail('is in Fortran order: save numpy.ascontiguousarray(arr)');
  const shape = (dimensions ?? '')
    .split(',')
    .filter((text) => text.trim() !== '')
    .map(Number);
  return { dtype: dtype!, shape, dataStart: reader.offset };
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

/** Rows of a part: `numRows` of `width` ids. `perRequest` rows each are a request's own; 0: requests are unknown. */
export type NpyRows = Readonly<{ numRows: number; width: number; perRequest: number }>;

/**
 * The rows behind a header.
 *
 * @throws BAD_FILE where the file ends early, with the bytes that are missing
 */
export async function* npyBatches(
  reader: ByteReader,
  { dtype, dataStart }: NpyHeader,
  { numRows, width, perRequest }: NpyRows,
  file: string,
): AsyncGenerator<RowBatch> {
  const rowBytes = width * dtype.size;
  const rowsPerBatch = Math.max(1, Math.floor(BATCH_BYTES / Math.max(1, rowBytes)));
  const bytes = new Uint8Array(rowsPerBatch * rowBytes);
  for (let row = 0; row < numRows;) {
    const toEnd = perRequest === 0 ? numRows : row - (row % perRequest) + perRequest;
    const count = Math.min(rowsPerBatch, toEnd - row);
    const taken = await reader.take(bytes.subarray(0, count * rowBytes));
    if (taken < count * rowBytes) {
      const wanted = dataStart + numRows * rowBytes;
      const problem = `is truncated: it ends at byte ${reader.offset}, its header promises ${wanted}`;
      throw RoutedExpertsError.of('BAD_FILE', file, problem);
    }
    const start = dataStart + row * rowBytes;
    const ids = dtype.read(bytes, count * width);
    if (ids === null) {
      const problem = `holds an id beyond 31 bits, or below -1, between byte ${start} and byte ${reader.offset}`;
      throw RoutedExpertsError.of('BAD_FILE', file, problem);
    }
    yield {
      ids,
      numRows: count,
      startsRequest: row === 0 || (perRequest > 0 && row % perRequest === 0),
      endsStep: false,
      placeOf: (entry) => `byte ${start + entry * dtype.size}`,
    };
    row += count;
  }
}
