/**
 * KV from elsewhere, as the engine sees it: the scheduler's side of a KV connector, after vLLM's `KVConnectorBase_V1`.
 * The engine says when a load may begin and is told how it ended; who moves bytes, and waits for them, is behind this
 * interface.
 *
 *     waiting ─▶ numExternalTokens ─▶ blocks allocated ─▶ startLoad ─▶ … waits for remote KV … ─▶ EngineCore.finishLoad ─▶ waiting ─▶ running
 *     ended   ─▶ keepsBlocks ─▶ … others read the blocks … ─▶ EngineCore.releaseBlocks
 */

import type { FinishReason } from './engine-core-output.ts';
import type { CaptureRequest } from './request.ts';
import type { RoutedRows } from './routed-rows.ts';

/** What the connector can load for a request. */
export type ExternalKv = Readonly<{
  /** Tokens from the front of the request whose KV is there. */
  numTokens: number;
  /** Their rows come with it. */
  hasRows: boolean;
}>;

/** One load. The blocks stay the load's until it has ended, even if its request is aborted meanwhile. */
export type KvLoad = Readonly<{
  /** Names the load in `finishLoad`; never used again. */
  loadId: number;
  requestId: string;
  /** The positions to load: `from` is the first of a block, `to` need not be the last of one. */
  from: number;
  to: number;
  /** Where they go: the blocks of `[from, to)`, in order. */
  blockIds: readonly number[];
}>;

/**
 * `recompute`: the request goes on with what it has and computes the rest. `fail`: it ends with finish reason `error`.
 */
export type KvLoadOutcome =
  Readonly<{ kind: 'loaded'; rows: RoutedRows | null }> | Readonly<{ kind: 'recompute' }> | Readonly<{ kind: 'fail' }>;

/** Called synchronously by the scheduler; must not block. */
export interface KvConnector {
  /** Asked once per request, when it is about to be admitted for the first time. `null`: nothing. */
  externalKv(request: CaptureRequest): ExternalKv | null;

  /** The blocks are the request's. End it with `EngineCore.finishLoad`, after this call has returned. */
  startLoad(load: KvLoad): void;

  /**
   * The request has ended. `true`: its blocks, `request.blockIds`, are kept until
   * `EngineCore.releaseBlocks(request.index)`. An aborted or failed request is not asked about.
   */
  keepsBlocks(request: CaptureRequest, finishReason: FinishReason): boolean;

  /**
   * The workers died: every load in flight is void and every kept block is gone. Neither is to be ended or released.
   */
  onWorkersLost(): void;
}
