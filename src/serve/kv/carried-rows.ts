/**
 * Rows in `kv_transfer_params` (`--pd-rows carry`):
 *
 *     "remote_routed_experts": {"shape": [S, L, K], "start": n, "dtype": "uint8" | "uint16", "data": base64, "crc32": of the bytes}
 *
 * They end where the KV ends: S = remote_num_tokens − start. An engine that lacks one of them carries none.
 */

import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { routedRows } from '../../capture/routed-rows.ts';
import type { RowShape } from '../../capture/row-shape.ts';
import { viewRows } from '../../capture/row-shape.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { BodyFields } from '../body/body-fields.ts';
import { badField } from '../body/body-fields.ts';
import type { JsonParts } from '../../rows/json-parts.ts';
import { base64String, objectWith } from '../../rows/json-parts.ts';
import { rowPieces } from '../../rows/row-pieces.ts';

/** The rows up to position `end` if all of them are there, else `null`. */
export function completeRows(rows: RoutedRows | null, end: number): RoutedRows | null {
  if (rows === null || rows.missing.length > 0 || rows.start + rows.count < end) return null;
  return { ...rows, count: Math.max(0, end - rows.start) };
}

/** The JSON object, in parts. The rows must be complete. */
export function carriedParts(rows: RoutedRows): JsonParts {
  const { count, numLayers, topK, start } = rows;
  const dtype = unsigned(rows);
  let checksum = 0;
  const summed = function* (): Generator<Uint8Array> {
    for (const piece of rowPieces(rows, dtype, 0)) {
      checksum = crc32(piece, checksum);
      yield piece;
    }
  };
  // Members are written one after the other: the checksum stands when its turn comes.
  const members = function* (): Generator<readonly [string, JsonParts]> {
    yield ['data', base64String(summed())];
    yield ['crc32', [String(checksum)]];
  };
  return objectWith({ shape: [count, numLayers, topK], start, dtype }, members());
}

/** Throws BAD_FIELD for whatever is not as it is written above, or not of a model of this shape. */
export function readCarriedRows(fields: BodyFields, shape: RowShape, numTokens: number): RoutedRows {
  const start = fields.whole('start', 0, numTokens) ?? 0;
  const count = numTokens - start;
  const wanted = [count, shape.numLayers, shape.topK];
  const given = fields.raw('shape');
  const isShape = Array.isArray(given) && given.length === 3 && given.every((size, i) => size === wanted[i]);
  if (!isShape) throw badField(fields.nameOf('shape'), given, `[${wanted.join(', ')}]`);
  const dtype = fields.raw('dtype');
  if (dtype !== shape.dtype) throw badField(fields.nameOf('dtype'), dtype, `"${shape.dtype}", which this model has`);
  const data = fields.raw('data');
  const numBytes = count * shape.bytesPerRow;
  const bytes = typeof data === 'string' ? Buffer.from(data, 'base64') : null;
  if (bytes?.length !== numBytes) throw badField(fields.nameOf('data'), data, `base64 of ${numBytes} bytes`);
  const checksum = fields.whole('crc32', 0, 2 ** 32 - 1);
  const found = crc32(bytes);
  if (checksum !== found) throw badField(fields.nameOf('crc32'), checksum ?? undefined, `that of the data, ${found}`);
  // A pooled buffer may begin anywhere.
  const aligned = new Uint8Array(bytes);
  return routedRows(shape, start, numTokens, { chunks: [viewRows(shape, aligned, count)] });
}

/** By which the engine that has the KV tells whether rows that came by another way are its own. */
export async function rowsDigest(rows: RoutedRows): Promise<string> {
  const hash = createHash('sha256');
  for (const piece of rowPieces(rows, unsigned(rows), 0)) {
    hash.update(piece);
    await nextTurn();
  }
  return hash.digest('base64');
}

function unsigned({ dtype }: RoutedRows): 'uint8' | 'uint16' {
  return dtype === 'uint8' ? 'uint8' : 'uint16';
}
