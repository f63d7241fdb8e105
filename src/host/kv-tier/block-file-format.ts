/**
 * A KV block as the bytes of a file. A block that is not whole, or not the one that is looked for, is not believed.
 *
 *     magic ─ length of the header (u32) ─ header, JSON ─ keys ─ rows ─ SHA-256 of all bytes before
 */

import { createHash } from 'node:crypto';
import { allocateRows, viewRows, type RowShape } from '../../capture/row-shape.ts';
import type { TierRows } from '../../handover/tier/tier-block.ts';
import type { TierIdentity } from './offload-options.ts';

const MAGIC = Buffer.from('REKVBLK1');
const DIGEST_BYTES = 32;

/** Of identity and tokens: what the file is named by. */
export function blockName(identity: TierIdentity, hash: string): string {
  return sha256(Buffer.from(JSON.stringify([identity, hash]))).toString('hex');
}

export type StoredBlock = Readonly<{ keys: Uint32Array; rows: TierRows | null }>;

/** What the reader expects. */
export type ExpectedBlock = Readonly<{ name: string; identity: TierIdentity; rowShape: RowShape; rowsOffset: number }>;

type Header = Readonly<{ name: string; identity: TierIdentity; rowsOffset: number }>;

export function encodeBlock(header: Header, { keys, rows }: StoredBlock): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  const parts = [MAGIC, length, text, bytesOf(keys), ...(rows === null ? [] : [bytesOf(rows.chunk)])];
  const whole = Buffer.concat(parts);
  return Buffer.concat([whole, sha256(whole)]);
}

/** The block, or what is wrong with the file. */
export function decodeBlock(file: Buffer, expected: ExpectedBlock): StoredBlock | string {
  const end = file.length - DIGEST_BYTES;
  if (end < MAGIC.length + 4 || !file.subarray(0, MAGIC.length).equals(MAGIC)) return 'it is no KV block';
  if (!sha256(file.subarray(0, end)).equals(file.subarray(end))) return 'it is corrupt: its checksum is wrong';
  const { name, identity, rowShape, rowsOffset } = expected;
  const textFrom = MAGIC.length + 4;
  const keysFrom = textFrom + file.readUInt32LE(MAGIC.length);
  const header = JSON.stringify({ name, identity, rowsOffset } satisfies Header);
  if (file.toString('utf8', textFrom, Math.min(keysFrom, end)) !== header) {
    return 'it holds a block of another model, of other weights or of other tokens';
  }
  const { blockSize, numStages } = identity;
  const rowsFrom = keysFrom + 8 * blockSize * numStages;
  const hasRows = rowsOffset < blockSize;
  if (end !== rowsFrom + (hasRows ? blockSize * rowShape.bytesPerRow : 0)) return 'it holds another number of tokens';
  const keys = alignedWords(file, keysFrom, rowsFrom);
  if (!hasRows) return { keys, rows: null };
  return { keys, rows: { offset: rowsOffset, chunk: alignedRows(file.subarray(rowsFrom, end), rowShape, blockSize) } };
}

/** Copies, which are aligned. */
function alignedWords(file: Buffer, from: number, to: number): Uint32Array {
  const words = new Uint32Array((to - from) / 4);
  new Uint8Array(words.buffer).set(file.subarray(from, to));
  return words;
}

function alignedRows(bytes: Uint8Array, rowShape: RowShape, numRows: number): TierRows['chunk'] {
  const copy = new Uint8Array(allocateRows(rowShape, numRows).buffer);
  copy.set(bytes);
  return viewRows(rowShape, copy, numRows);
}

function bytesOf({ buffer, byteOffset, byteLength }: Uint32Array | TierRows['chunk']): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
