/** What the two sides of a hand-over say to each other, however it is carried. */

import type { RoutedRows } from '../contract/routed-rows.ts';

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

/** The KV of the positions `[from, to)` is wanted; `from` is the first of a block. */
export type KvQuestion = Readonly<{
  engineId: string;
  requestId: string;
  from: number;
  to: number;
  /** Rows are wanted from this position on; `null`: none. */
  rowsStart: number | null;
  /** Digest of rows that came by another way and are used only if they are this request's; `null`: there are none. */
  rowsDigest: string | null;
  /** Model and block size: KV fits another engine only if this is equal. */
  shape: string;
  /** Digest of the tokens `[0, to)`. */
  tokens: string;
}>;

/** Keys are `[blocks of [from, to), blockSize, 2]`. Rows are those that were asked for; `null`: one is not there. */
export type KvAnswer = Readonly<{ keys: Uint32Array; rows: RoutedRows | null }>;

export type KvReply = Readonly<{ kind: 'kv'; answer: KvAnswer }> | Readonly<{ kind: 'refused'; reason: string }>;
