/** Reads the `packed` form: raw bytes, or the base64 that a choice of an answer has. */

import { presentPieces, routedRows } from '../../capture/routed-rows.ts';
import type { RowArray } from '../../capture/row-shape.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { narrowIds, packedBytes, unpackIds, type NarrowIds } from './pack-ids.ts';
import { CLIENTS_ROWS, HEADER_BYTES, readHeader, type PackedHeader } from './packed-layout.ts';

/** What a reader of packed rows may need beside them. */
export type ReadPackedOptions = Readonly<{
  /** Undoes one zstd frame; without it compressed rows are an error. On Node: `zstdDecompressSync`. */
  decompress?: (frame: Uint8Array) => Uint8Array;
  /** The rows of a choice that was read before; `null`: those that the client said it has. */
  rowsOfChoice?: (choice: number | null) => RoutedRows;
}>;

/** `numBytes`: how long the packed rows are; others may follow. */
export type PackedRows = Readonly<{ rows: RoutedRows; bits: number; numBytes: number }>;

/**
 * The rows in one chunk of memory of their own.
 *
 * @throws BAD_ROWS for what is not of this form, breaks off, or needs an option that is not given
 */
export function readPacked(bytes: Uint8Array, options: ReadPackedOptions = {}): PackedRows {
  try {
    return decodePacked(bytes, options);
  } catch (error) {
    throw RoutedExpertsError.of('BAD_ROWS', 'packed', (error as Error).message);
  }
}

/** As `readPacked`, with an Error that says what is wrong of "it". */
export function decodePacked(bytes: Uint8Array, options: ReadPackedOptions): PackedRows {
  const header = readHeader(bytes);
  const { bits, numLayers, topK, start, count, missing } = header;
  const width = numLayers * topK;
  const numPresent = countRows(header);
  // A header of a few bytes must not ask for more memory than its blocks can fill.
  if (numPresent > 0 && numPresent * packedFloor(header) > 8 * bytes.length) throw new Error('its rows break off');
  const blocks = new Blocks(bytes, header, options.decompress);
  const present = blocks.read(numPresent * width);
  const all = narrowIds(bits, count * width);
  let at = 0;
  const form = { numLayers, topK, dtype: bits <= 8 ? 'uint8' : 'uint16' } as const;
  const rows = routedRows(form, start, start + count, { chunks: [all], missing });
  for (const piece of presentPieces(rows, header.prefixEnd)) {
    piece.rows.set(present.subarray(at, at + piece.rows.length));
    at += piece.rows.length;
  }
  if (header.prefixEnd > start) copyPrefix(rows, header, options.rowsOfChoice);
  return { rows, bits, numBytes: blocks.end };
}

/** The fewest bits of a row; zstd shortens runs without a limit that a reader could hold against it. */
function packedFloor({ isCompressed, bits, numLayers, topK }: PackedHeader): number {
  return isCompressed ? 0 : bits * numLayers * topK;
}

function countRows({ start, count, prefixEnd, missing }: PackedHeader): number {
  let last = start;
  let numMissing = 0;
  for (const [from, to] of missing) {
    if (from < last || to <= from || to > start + count) throw new Error('its missing rows are not ranges of its rows');
    last = to;
    numMissing += Math.max(0, to - Math.max(from, prefixEnd));
  }
  if (prefixEnd < start || prefixEnd > start + count) throw new Error(`its prefix ends at position ${prefixEnd}`);
  return start + count - prefixEnd - numMissing;
}

class Blocks {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #header: PackedHeader;
  readonly #decompress: ReadPackedOptions['decompress'];
  /** Behind the last byte read. */
  end: number;

  constructor(bytes: Uint8Array, header: PackedHeader, decompress: ReadPackedOptions['decompress']) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#header = header;
    this.#decompress = decompress;
    this.end = HEADER_BYTES + 8 * header.missing.length;
  }

  /** All `numIds` ids of the blocks. */
  read(numIds: number): NarrowIds {
    const { bits, numLayers, topK, rowsPerBlock } = this.#header;
    const parts: NarrowIds[] = [];
    let left = numIds;
    for (let block = this.#next(); block.length > 0; block = this.#next()) {
      const ids = narrowIds(bits, Math.min(left, rowsPerBlock * numLayers * topK));
      if (ids.length === 0) throw new Error('it has more blocks than rows');
      this.#decode(block, ids);
      left -= ids.length;
      parts.push(ids);
    }
    if (left > 0) throw new Error('its packed rows break off');
    const all = narrowIds(bits, numIds);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  #next(): Uint8Array {
    const from = this.end + 4;
    if (from > this.#bytes.length) throw new Error('its packed rows break off');
    this.end = from + this.#view.getUint32(this.end, true);
    if (this.end > this.#bytes.length) throw new Error('its packed rows break off');
    return this.#bytes.subarray(from, this.end);
  }

  #decode(block: Uint8Array, ids: NarrowIds): void {
    const { bits, isCompressed } = this.#header;
    if (!isCompressed) {
      if (block.length !== packedBytes(ids.length, bits)) throw new Error('its blocks are not as long as their rows');
      unpackIds(block, bits, ids);
      return;
    }
    if (this.#decompress === undefined) throw new Error('its rows are compressed: give decompress');
    const planes = this.#decompress(block);
    if (planes.length !== ids.length * ids.BYTES_PER_ELEMENT)
      throw new Error('its blocks are not as long as their rows');
    for (let i = 0; i < ids.length; i++) ids[i] = bits <= 8 ? planes[i]! : planes[i]! | (planes[ids.length + i]! << 8);
  }
}

function copyPrefix(rows: RoutedRows, header: PackedHeader, rowsOfChoice: ReadPackedOptions['rowsOfChoice']): void {
  const { start, prefixEnd, prefixChoice, numLayers, topK } = header;
  if (rowsOfChoice === undefined) throw new Error('its first rows are those of another choice: give rowsOfChoice');
  const source = rowsOfChoice(prefixChoice === CLIENTS_ROWS ? null : prefixChoice);
  if (source.numLayers !== numLayers || source.topK !== topK)
    throw new Error('its first rows are of another shape in that choice');
  const target: RowArray = rows.chunks[0]!;
  let numCopied = 0;
  for (const piece of presentPieces(source, start, prefixEnd)) {
    target.set(piece.rows, (piece.position - start) * numLayers * topK);
    numCopied += piece.count;
  }
  const numWanted = [...presentPieces(rows, start, prefixEnd)].reduce((sum, piece) => sum + piece.count, 0);
  if (numCopied < numWanted) throw new Error('its first rows are not all there in that choice');
}
