/**
 * KV from elsewhere, as the engine sees it: the scheduler's side of a KV connector, after vLLM's `KVConnectorBase_V1`.
 * The engine says when a load may begin and is told how it ended. Moving bytes, and waiting for them, is behind this
 * interface.
 *
 *     waiting ─▶ externalKv ─▶ blocks allocated ─▶ startLoad ─▶ … waits for remote KV … ─▶ EngineCore.finishLoad
 *             ─▶ waiting ─▶ running
 *     ended   ─▶ keepsBlocks ─▶ … another engine reads the blocks … ─▶ EngineCore.releaseBlocks
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

/** Called synchronously by the scheduler; must not block. */
export interface KvConnector {
  /** Returns what can be loaded for a request, or `null`. Called once per request, before its first admission. */
  externalKv(request: CaptureRequest): ExternalKv | null;

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
}
