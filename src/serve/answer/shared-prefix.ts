/**
 * Rows that a packed answer need not repeat: those that the client says it has, and those of the prompt that an earlier
 * choice of the same prompt has. Both are compared first: what is left out is what the client puts in its place.
 */

import { crc32 } from 'node:zlib';
import type { WithLayers } from '../../capture/row-layers.ts';
import { presentPieces } from '../../capture/routed-rows.ts';
import type { RowArray } from '../../capture/row-shape.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { CLIENTS_ROWS } from '../../rows/packed/packed-layout.ts';
import type { KnownRows } from '../body/generation-job.ts';
import type { Choice } from './generation.ts';

type Sharing = Readonly<{
  choice: Choice;
  /** Of the choice, from where they are wanted. */
  rows: RoutedRows;
  known: KnownRows | null;
  choices: readonly Choice[];
  withLayers: WithLayers;
}>;

/** `choice`: the index of the choice whose rows come first, or `CLIENTS_ROWS`. */
export type SharedPrefix = Readonly<{ end: number; choice: number }>;

export function sharedPrefix({ choice, rows, known, choices, withLayers }: Sharing): SharedPrefix | undefined {
  const first = choices.find(({ promptTokenIds }) => promptTokenIds === choice.promptTokenIds)!;
  if (first !== choice && first.rows !== null) {
    const end = commonEnd(withLayers(first.rows), rows, choice.promptTokenIds.length);
    if (end > rows.start) return { end, choice: first.index };
  }
  if (known === null || known.end <= rows.start || known.end > rows.start + rows.count) return undefined;
  return digest(rows, known.end) === known.crc32 ? { end: known.end, choice: CLIENTS_ROWS } : undefined;
}

/** The position before `limit` up to which both have the same rows and lack none; as far as whole pieces tell. */
function commonEnd(source: RoutedRows, rows: RoutedRows, limit: number): number {
  let end = rows.start;
  for (const piece of presentPieces(rows, rows.start, limit)) {
    if (piece.position !== end) return end;
    const { numLayers, topK } = rows;
    for (const other of presentPieces(source, piece.position, piece.position + piece.count)) {
      if (other.position !== end) return end;
      const from = (other.position - piece.position) * numLayers * topK;
      const part = piece.rows.subarray(from, from + other.rows.length);
      if (!bytesOf(part).equals(bytesOf(other.rows))) return end;
      end += other.count;
    }
  }
  return end;
}

/** CRC-32 of the rows before `end`; `null` if one is missing, or if ids are wider than they need be. */
function digest(rows: RoutedRows, end: number): number | null {
  if (rows.dtype === 'int32') return null;
  let at = rows.start;
  let sum = 0;
  for (const piece of presentPieces(rows, rows.start, end)) {
    if (piece.position !== at) return null;
    sum = crc32(bytesOf(piece.rows), sum);
    at += piece.count;
  }
  return at === end ? sum : null;
}

function bytesOf({ buffer, byteOffset, byteLength }: RowArray): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
