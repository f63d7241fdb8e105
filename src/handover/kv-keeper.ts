/**
 * The keeping side of a hand-over, as a state machine: it keeps the blocks of ended requests for other engines until
 * they were read and released, or their lease is over. It has no promise, clock, socket or randomness of its own; the
 * server drives it with ZeroMQ and timers, the simulator with a virtual link.
 *
 *     announce ─▶ keepsBlocks ─▶ ended ─▶ … ─▶ release or expire ─▶ no reader is left ─▶ giveBack
 *                                  read ─▶ prepare … prepared ─▶ readKv … keysRead ─▶ the reply
 */

import type { CaptureRequest } from '../contract/request.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import { rowsBetween } from './handed-rows.ts';
import type { HandoverOptions, KvQuestion, KvReply, RemoteKv } from './kv-message.ts';

/** The blocks of a request that has ended. */
export type KeptKv = {
  readonly id: string;
  readonly requestIndex: number;
  readonly blockIds: readonly number[];
  readonly promptTokenIds: Uint32Array;
  /** Tokens from the front whose KV stands. */
  readonly numTokens: number;
  readonly expiresAt: number;
  /** Those of all these tokens that the request wants rows of, or `null`. */
  rows: RoutedRows | null;
  numReaders: number;
  /** Released or expired: no read may begin. */
  isOver: boolean;
};

/** What the loading side is to be told of a request, and which blocks that is. */
export type KvOffer = RemoteKv & Readonly<{ blockIds: readonly number[]; expiresAt: number }>;

/** A question whose blocks are held until it has its reply. */
export type KvRead = Readonly<{ question: KvQuestion; kept: KeptKv; reply: (reply: KvReply) => void }>;

/** What the keeper asks of its driver. All but `giveBack` may call the keeper back at once. */
export type KeeperActions = Readonly<{
  /** Call `expire` at this time: no lease ends before. */
  wakeAt: (time: number) => void;
  /** Sum up the rows, if there are any to be checked, and call `prepared`. */
  prepare: (read: KvRead, rows: RoutedRows | null) => void;
  /** Call `keysRead` or `notRead` when the device has been read. */
  readKv: (read: KvRead, blockIds: readonly number[]) => void;
  /** The blocks of the request belong to the engine again. */
  giveBack: (requestIndex: number) => void;
}>;

/** What of a request decides how it is kept. */
type EndedRequest = Pick<CaptureRequest, 'requestId' | 'index' | 'numTokens' | 'numPromptTokens' | 'blockIds'>;
type Announced = { readonly promptTokenIds: Uint32Array; keptId: string | null };

/**
 * Invariant: the blocks of a request are given back exactly once, when it was released or its lease is over and no peer
 * reads them; blocks that were lost with their device are never given back.
 */
export class KvKeeper {
  readonly #options: HandoverOptions;
  readonly #actions: KeeperActions;
  /** By the engine's requests. */
  readonly #announced: Map<string, Announced> = new Map();
  readonly #kept: Map<string, KeptKv> = new Map();
  readonly #reads: Set<KvRead> = new Set();
  #wakesAt = Infinity;
  /** Leases that ran out before the blocks were released. */
  numExpired = 0;

  constructor(options: HandoverOptions, actions: KeeperActions) {
    this.#options = options;
    this.#actions = actions;
  }

  /** After a drain all are 0 (L7). `requests` were announced and have not ended. */
  liveCounts(): Readonly<{ requests: number; kept: number; reads: number }> {
    return { requests: this.#announced.size, kept: this.#kept.size, reads: this.#reads.size };
  }

  /** What another engine may begin to read, or `null`. */
  find(keptId: string): KeptKv | null {
    const kept = this.#kept.get(keptId);
    return kept === undefined || kept.isOver ? null : kept;
  }

  /** The KV of this request of the engine is to be kept when it ends. */
  announce(requestId: string, promptTokenIds: Uint32Array): void {
    this.#announced.set(requestId, { promptTokenIds, keptId: null });
  }

  /** See `KvConnector`. */
  keepsBlocks(request: EndedRequest, now: number): boolean {
    const announced = this.#announced.get(request.requestId);
    if (announced === undefined) return false;
    const { blockSize, leaseMs } = this.#options;
    // A client may use an id again while the KV of the request before is still kept.
    const id = `${request.requestId}/${request.index}`;
    // The last sampled token was never an input: it has no KV.
    const numTokens = Math.min(request.numTokens - 1, request.numPromptTokens);
    const kept: KeptKv = {
      id,
      requestIndex: request.index,
      blockIds: request.blockIds.slice(0, Math.ceil(numTokens / blockSize)),
      promptTokenIds: announced.promptTokenIds,
      numTokens,
      expiresAt: now + leaseMs,
      rows: null,
      numReaders: 0,
      isOver: false,
    };
    this.#kept.set(id, kept);
    announced.keptId = id;
    this.#wakeAt(kept.expiresAt);
    return true;
  }

  /** A request of the engine has ended, with these rows. `null`: nothing of it is kept. */
  ended(requestId: string, rows: RoutedRows | null): KvOffer | null {
    const keptId = this.#announced.get(requestId)?.keptId ?? null;
    this.#announced.delete(requestId);
    const kept = keptId === null ? null : this.find(keptId);
    if (kept === null) return null;
    const { id, numTokens, blockIds, expiresAt } = kept;
    kept.rows = rows === null ? null : rowsBetween(rows, rows.start, numTokens);
    const { engineId, rows: way } = this.#options;
    const hasRows = way === 'with-kv' && kept.rows !== null;
    const carried = way === 'carry' ? kept.rows : null;
    return { engineId, requestId: id, numTokens, hasRows, carried, blockIds, expiresAt };
  }

  /** Another engine asks. Its blocks are held until `reply` is called, which is once. */
  read(question: KvQuestion, reply: KvRead['reply']): void {
    const kept = this.find(question.requestId);
    const reason = this.#refusal(question, kept);
    if (kept === null || reason !== null) {
      reply({ refusal: reason! });
      return;
    }
    const read: KvRead = { question, kept, reply };
    kept.numReaders += 1;
    this.#reads.add(read);
    this.#actions.prepare(read, question.rowsDigest === undefined ? null : kept.rows);
  }

  /** `rowsDigest`: of the rows that were to be summed up; `null`: there were none. */
  prepared(read: KvRead, rowsDigest: string | null): void {
    // Other requests' KV stands in the blocks of workers that were lost meanwhile.
    if (!this.#reads.has(read)) return;
    const { question, kept } = read;
    if (question.rowsDigest !== undefined && question.rowsDigest !== rowsDigest) {
      this.notRead(read, `the rows that were carried are not those of request ${kept.id}`);
      return;
    }
    const { blockSize } = this.#options;
    this.#actions.readKv(read, kept.blockIds.slice(question.from / blockSize, Math.ceil(question.to / blockSize)));
  }

  keysRead(read: KvRead, keys: Uint32Array): void {
    const { question, kept } = read;
    const { rowsStart, to } = question;
    this.#endRead(read, { keys, rows: rowsStart === null ? null : rowsBetween(kept.rows, rowsStart, to) });
  }

  notRead(read: KvRead, reason: string): void {
    this.#endRead(read, { refusal: reason });
  }

  /** Another engine reads these blocks no more. Unknown ids are ignored: a lease may have run out before. */
  release(engineId: string, keptId: string): void {
    const kept = this.#kept.get(keptId);
    if (kept !== undefined && engineId === this.#options.engineId) this.#end(kept);
  }

  /** Leases that end at `now` or before are over. */
  expire(now: number): void {
    this.#wakesAt = Infinity;
    for (const kept of this.#kept.values()) {
      if (kept.isOver) continue;
      if (kept.expiresAt > now) this.#wakeAt(kept.expiresAt);
      else {
        this.numExpired += 1;
        this.#end(kept);
      }
    }
  }

  /** The blocks are gone with their device: there is nothing to give back, and nothing to be read. */
  onWorkersLost(): void {
    const reads = [...this.#reads];
    this.#kept.clear();
    this.#reads.clear();
    for (const { reply } of reads) reply({ refusal: 'the KV was lost with its workers' });
  }

  /** One wake-up call at a time: leases that end later wait for it. */
  #wakeAt(time: number): void {
    if (time >= this.#wakesAt) return;
    this.#wakesAt = time;
    this.#actions.wakeAt(time);
  }

  /** Why a question is refused, or `null`. */
  #refusal(question: KvQuestion, kept: KeptKv | null): string | null {
    const { engineId, blockSize, shape, tokenDigest } = this.#options;
    const { requestId, from, to, rowsStart } = question;
    if (question.engineId !== engineId) return `engine ${question.engineId} is not here; it may have restarted`;
    if (question.shape !== shape) return `the KV here is of ${shape}, not of ${question.shape}`;
    if (kept === null) return `no KV is kept for request ${requestId}; its lease may be over`;
    const isRange = Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from < to && from % blockSize === 0;
    if (!isRange || to > kept.numTokens) return `[${from}, ${to}) is not within ${kept.numTokens} tokens`;
    if (rowsStart !== null && !Number.isInteger(rowsStart)) return `rows cannot start at ${String(rowsStart)}`;
    if (to > kept.promptTokenIds.length || tokenDigest(kept.promptTokenIds, to) !== question.tokens) {
      return `request ${requestId} has other tokens here`;
    }
    return null;
  }

  #endRead(read: KvRead, reply: KvReply): void {
    if (!this.#reads.delete(read)) return;
    read.kept.numReaders -= 1;
    this.#settle(read.kept);
    read.reply(reply);
  }

  #end(kept: KeptKv): void {
    kept.isOver = true;
    this.#settle(kept);
  }

  #settle(kept: KeptKv): void {
    if (!kept.isOver || kept.numReaders > 0) return;
    this.#kept.delete(kept.id);
    this.#actions.giveBack(kept.requestIndex);
  }
}
