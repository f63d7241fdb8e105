/**
 * The `packed` form, byte by byte; numbers are little-endian and unsigned.
 *
 *     offset  bytes
 *          0      4  "rxp1"
 *          4      1  bits of an id, b: ⌈log2 experts⌉, 1 … 16
 *          5      1  what a block holds: 0 ids of b bits; 1 a zstd frame of the ids' low bytes, and, where b > 8,
 *                    all of their high bytes behind them
 *          6      2  K, experts a layer
 *          8      4  L, layers
 *         12      4  start: position of the first row
 *         16      4  count: positions from there on
 *         20      4  rows of a block; the last block has what is left
 *         24      4  prefix end p: rows [start, p) are not here, but those of another choice; p = start: none
 *         28      4  that choice, by its index in the answer; 2³² − 1: the rows that the client said it has
 *         32      4  missing ranges, M
 *         36    8·M  for each: from, to (positions)
 *                    then blocks, of the rows that are neither missing nor of the prefix, in order:
 *                    4 bytes: n, the bytes that follow; n bytes. A block with n = 0 is the end.
 *
 * A row is L·K ids, those of a layer in their order, best first. Bits are filled from the lowest up (`pack-ids.ts`);
 * each block begins at a byte.
 */

import type { PositionRange } from '../../contract/routed-rows.ts';

export const MAGIC = 0x31_70_78_72;
export const HEADER_BYTES = 36;
/** `prefixChoice` of rows that the client said it has. */
export const CLIENTS_ROWS: number = 2 ** 32 - 1;

export type PackedHeader = Readonly<{
  bits: number;
  isCompressed: boolean;
  topK: number;
  numLayers: number;
  start: number;
  count: number;
  rowsPerBlock: number;
  /** Rows `[start, prefixEnd)` are those of `prefixChoice`. */
  prefixEnd: number;
  prefixChoice: number;
  missing: readonly PositionRange[];
}>;

export function writeHeader(header: PackedHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + 8 * header.missing.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, header.bits);
  view.setUint8(5, Number(header.isCompressed));
  view.setUint16(6, header.topK, true);
  const { numLayers, start, count, rowsPerBlock, prefixEnd, prefixChoice, missing } = header;
  const words = [numLayers, start, count, rowsPerBlock, prefixEnd, prefixChoice, missing.length, ...missing.flat()];
  for (const [i, word] of words.entries()) view.setUint32(8 + 4 * i, word, true);
  return bytes;
}

/** Throws an Error for what is no header. */
export function readHeader(bytes: Uint8Array): PackedHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES || view.getUint32(0, true) !== MAGIC) throw new Error('its rows are not "rxp1"');
  const word = (i: number): number => view.getUint32(8 + 4 * i, true);
  const numMissing = word(6);
  if (bytes.length < HEADER_BYTES + 8 * numMissing) throw new Error('its packed rows break off');
  const missing = Array.from({ length: numMissing }, (_, i) => [word(7 + 2 * i), word(8 + 2 * i)] as const);
  const [bits, content] = [view.getUint8(4), view.getUint8(5)];
  if (bits < 1 || bits > 16 || content > 1) throw new Error(`its packed rows are of ${bits} bits and kind ${content}`);
  return {
    bits,
    isCompressed: content === 1,
    topK: view.getUint16(6, true),
    numLayers: word(0),
    start: word(1),
    count: word(2),
    rowsPerBlock: word(3),
    prefixEnd: word(4),
    prefixChoice: word(5),
    missing,
  };
}
