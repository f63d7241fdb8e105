/** Writes rows in the `packed` form, a block at a time: `packed-layout.ts` has the bytes. */

import { presentPieces } from '../../capture/routed-rows.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { bitsOfId, GROUP_IDS, narrowIds, packIds, targetWords, type NarrowIds } from './pack-ids.ts';
import { writeHeader } from './packed-layout.ts';

/** Narrow ids of a block, in bytes: packed in about 0.1 ms, and compressed in about 1 ms. */
export const BLOCK_BYTES: number = 192 * 1024;

/** Makes one zstd frame. */
export type Compress = (bytes: Uint8Array) => Uint8Array;

export type PackOptions = Readonly<{
  numExperts: number;
  /** Absent: ids are packed and not compressed. */
  compress?: Compress | undefined;
  /** Rows before `end` are those of another choice, and left out. */
  prefix?: Readonly<{ end: number; choice: number }> | undefined;
}>;

/** Each part is valid until the next is asked for. */
export function* packedParts(rows: RoutedRows, { numExperts, compress, prefix }: PackOptions): Generator<Uint8Array> {
  const bits = bitsOfId(numExperts);
  const width = rows.numLayers * rows.topK;
  const rowBytes = width * (bits <= 8 ? 1 : 2);
  const rowsPerBlock = Math.max(1, Math.floor(BLOCK_BYTES / Math.max(1, rowBytes)));
  const { start, count, numLayers, topK, missing } = rows;
  const prefixEnd = prefix?.end ?? start;
  const isCompressed = compress !== undefined;
  const header = { bits, isCompressed, topK, numLayers, start, count, rowsPerBlock, missing };
  yield writeHeader({ ...header, prefixEnd, prefixChoice: prefix?.choice ?? 0 });

  const ids = narrowIds(bits, GROUP_IDS * Math.ceil((rowsPerBlock * width) / GROUP_IDS));
  const encode = isCompressed ? compressed(bits, compress) : packed(bits, ids.length);
  let numIds = 0;
  for (const piece of presentPieces(rows, prefixEnd)) {
    for (let done = 0; done < piece.rows.length;) {
      const part = Math.min(piece.rows.length - done, rowsPerBlock * width - numIds);
      ids.set(piece.rows.subarray(done, done + part), numIds);
      numIds += part;
      done += part;
      if (numIds < rowsPerBlock * width) continue;
      yield* block(encode(ids, numIds));
      numIds = 0;
    }
  }
  if (numIds > 0) yield* block(encode(ids, numIds));
  yield new Uint8Array(4);
}

function* block(bytes: Uint8Array): Generator<Uint8Array> {
  yield new Uint8Array(Uint32Array.of(bytes.length).buffer);
  yield bytes;
}

type Encode = (ids: NarrowIds, numIds: number) => Uint8Array;

function packed(bits: number, maxIds: number): Encode {
  const target = new Uint32Array(targetWords(maxIds, bits));
  return (ids, numIds) => {
    const bytes = packIds(ids, numIds, bits, target);
    if (bytes !== null) return bytes;
    throw RoutedExpertsError.of('INVARIANT', `a row has an id of more than ${bits} bits`);
  };
}

function compressed(bits: number, compress: Compress): Encode {
  if (bits <= 8) return (ids, numIds) => compress(ids.subarray(0, numIds) as Uint8Array);
  return (ids, numIds) => {
    const planes = new Uint8Array(2 * numIds);
    for (let i = 0; i < numIds; i++) {
      planes[i] = ids[i]! & 0xff;
      planes[numIds + i] = ids[i]! >>> 8;
    }
    return compress(planes);
  };
}
