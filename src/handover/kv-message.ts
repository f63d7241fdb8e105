/** What the two sides of a hand-over say to each other, however it is carried. */

import type { RowShape } from '../capture/row-shape.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import type { PdRows } from './handed-rows.ts';

export type HandoverOptions = Readonly<{
  engineId: string;
  blockSize: number;
  rowShape: RowShape;
  /** Model and block size: KV fits another engine only if this is equal. */
  shape: string;
  /** How rows are offered; on the side that loads, whether they are taken over at all: `splice` leaves them out. */
  rows: PdRows;
  /** How long blocks are kept for another engine to fetch them, ms. */
  leaseMs: number;
  /** How long another engine may take for its answer, ms. */
  loadMs: number;
  /** What becomes of a request whose load fails. */
  onLoadFailure: 'recompute' | 'fail';
  /** Of the first `numTokens` tokens. */
  tokenDigest: (tokens: Uint32Array, numTokens: number) => string;
}>;

/** Where KV can be had, and what comes with it. */
export type RemoteKv = Readonly<{
  engineId: string;
  /** The id under which that engine keeps the KV. */
  requestId: string;
  /** Tokens from the front of the prompt whose KV is there. */
  numTokens: number;
  /** Their rows come with the KV. */
  hasRows: boolean;
  /** Their rows, up to `numTokens`, if they came along by another way. */
  carried: RoutedRows | null;
}>;

/** The KV of the positions `[from, to)` is wanted; `from` is the first of a block. A peer may ask anything. */
export type KvQuestion = Readonly<{
  engineId: string;
  requestId: string;
  from: number;
  to: number;
  /** Rows are wanted from this position on; `null`: none. */
  rowsStart: number | null;
  /** Digest of rows that came by another way and are used only if they are this request's; absent: there are none. */
  rowsDigest?: string;
  /** See `HandoverOptions`. */
  shape: string;
  /** Digest of the tokens `[0, to)`. */
  tokens: string;
}>;

/** Keys are `[blocks of [from, to), blockSize, 2]`. Rows are those that were asked for; `null`: one is not there. */
export type KvAnswer = Readonly<{ keys: Uint32Array; rows: RoutedRows | null }>;

export type KvReply = KvAnswer | Readonly<{ refusal: string }>;
