/**
 * KV from elsewhere, as the engine sees it: the scheduler's side of a KV connector, after vLLM's `KVConnectorBase_V1`.
 * The engine says when a load may begin and is told how it ended. Moving bytes, and waiting for them, is behind this
 * interface.
 *
 *     waiting ─▶ externalKv ─▶ blocks allocated ─▶ startLoad ─▶ … waits for remote KV … ─▶ EngineCore.finishLoad
 *             ─▶ waiting ─▶ running
 *     ended   ─▶ keepsBlocks ─▶ … another engine reads the blocks … ─▶ EngineCore.releaseBlocks
 *
 * A tier is a connector that keeps blocks which the prefix cache gives up, and brings them back:
 *
 *     evicted ─▶ onEvicted … ─▶ onPlanned ─▶ the blocks are read, ahead of the step that overwrites them
 */

import type { FinishReason } from './engine-core-output.ts';
import type { CaptureRequest } from './request.ts';
import type { RoutedRows } from './routed-rows.ts';

/** What the connector can load for a request. */
export type ExternalKv = Readonly<{
  /** How many tokens from the front of the request have KV there. */
  numTokens: number;
  /** Whether their rows come with it. */
  hasRows: boolean;
}>;

/** One load. It keeps its blocks until it has ended, even if its request is aborted meanwhile. */
export type KvLoad = Readonly<{
  /** Names the load in `finishLoad`; no two loads of one engine share it. */
  loadId: number;
  requestId: string;
  /** The positions to load: `from` is the first of a block, `to` need not be the last of one. */
  from: number;
  to: number;
  /** The blocks that the load fills: those of `[from, to)`, in order. */
  blockIds: readonly number[];
}>;

/**
 * `recompute`: the request keeps its prefix hits and computes the rest. `fail`: it ends with finish reason `error`.
 */
export type KvLoadOutcome =
  Readonly<{ kind: 'loaded'; rows: RoutedRows | null }> | Readonly<{ kind: 'recompute' }> | Readonly<{ kind: 'fail' }>;

/** The rows of an evicted block. They may be under way: the step that computes them has not come back. */
export type EvictedRows = Readonly<{
  /** The block has no rows before this position. */
  from: number;
  /**
   * Those of the whole block, of which the ones before `from` are undefined; `null` as long as one is under way. A view
   * that never changes.
   */
  read: () => Uint8Array | Uint16Array | Int32Array | null;
}>;

/** A cached block that is about to hold other tokens: its KV is that of all steps planned before. */
export type EvictedBlock = Readonly<{
  blockId: number;
  /** Its hash: `hashWords` u32 of `hashes` from `at` on. Valid inside the call. */
  hashes: Uint32Array;
  at: number;
  hashWords: number;
  /** `null`: nobody wants them. */
  rows: EvictedRows | null;
}>;

/** What a request looks for behind the prefix that is cached in the engine. */
export type PrefixQuestion = Readonly<{
  /** Tokens of that prefix, in whole blocks. */
  numComputed: number;
  /** A block without the rows that the request wants of it is of no use. */
  needsRows: boolean;
}>;

/** Called synchronously by the scheduler; must not block. */
export interface KvConnector {
  /**
   * Returns what can be loaded for a request, or `null`. Called once per request, before its first admission. A tier is
   * asked whenever a request looks for its prefix, with the hashes of all full blocks that it may hit.
   */
  externalKv(request: CaptureRequest, question: PrefixQuestion): ExternalKv | null;

  /** Starts a load. It is ended with `EngineCore.finishLoad`, after this call has returned. */
  startLoad(load: KvLoad): void;

  /**
   * The request has ended. `true`: its blocks, `request.blockIds`, are kept until
   * `EngineCore.releaseBlocks(request.index)`. Not called for an aborted or failed request.
   */
  keepsBlocks(request: CaptureRequest, finishReason: FinishReason): boolean;

  /**
   * The workers died: every load in flight is void and every kept block is gone. The connector must not end these loads
   * or release these blocks.
   */
  onWorkersLost(): void;

  /** `true`: a tier. It has the methods below. */
  readonly isTier?: boolean;

  /** A computed block leaves the prefix cache, inside the planning of a step. */
  onEvicted?(block: EvictedBlock): void;

  /**
   * A planning ends, with a step or without. Reads that the workers are handed now run behind every step planned before
   * and ahead of this one, as vLLM's `build_connector_meta` has it.
   */
  onPlanned?(): void;

  /** The prefix cache was reset: what was cached before is not to come back. Not called for lost workers. */
  onCacheReset?(): void;
}
