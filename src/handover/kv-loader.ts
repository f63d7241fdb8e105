/**
 * The loading side of a hand-over, as a state machine: it asks another engine for KV, waits no longer than it may,
 * checks what comes, has it written to the blocks of the request, and hands the rows to the engine. It has no promise,
 * clock, socket or randomness of its own; the server drives it with ZeroMQ and timers, the simulator with a virtual
 * link.
 *
 *     announce ─▶ externalKv ─▶ startLoad ─▶ ask … answered ─▶ writeKv … written ─▶ finishLoad ─▶ ended
 *                                             │ refused, expire ─────── notWritten ─▶ finishLoad
 */

import type { ExternalKv, KvLoad, KvLoadOutcome } from '../contract/kv-connector.ts';
import type { CaptureRequest } from '../contract/request.ts';
import type { RoutedRows } from '../contract/routed-rows.ts';
import { rowsOfBytes, type PdRows } from './handed-rows.ts';
import type { HandoverOptions, KvAnswer, KvQuestion, RemoteKv } from './kv-message.ts';

/** How requests begin with KV from elsewhere. */
type Begin<Remote> = Readonly<{
  remote: Remote;
  promptTokenIds: Uint32Array;
  /** From where on rows are wanted; `null`: none are. */
  rowsStart: number | null;
}>;

/** The requests that begin with one KV, the choices of a prompt; `readers` may still fetch it. */
type Handover<Remote> = Begin<Remote> & Readonly<{ readers: Set<string> }>;

/** A question that has no answer yet. Requests that begin together with one KV fetch it once. */
export type KvFetch<Remote> = Readonly<{
  /** Never used again. */
  id: number;
  handover: Handover<Remote>;
  /** Without the digest of carried rows. */
  question: KvQuestion;
  /** Rows that came by another way, whose digest the question must bear; `null`: there are none. */
  carried: RoutedRows | null;
  /** What the loads get, unless the question asks for rows; `null`: none are wanted, or there are none. */
  rows: RoutedRows | null;
  deadline: number;
  /** Those that wait for the answer. */
  loads: KvLoad[];
}>;

/** What the loader asks of its driver. None of these may call the loader back before it has returned. */
export type LoaderActions<Remote> = Readonly<{
  /** Call `expire` at this time: no deadline is before. */
  wakeAt: (time: number) => void;
  /** Call `answered` or `refused` when a reply has come. */
  ask: (fetch: KvFetch<Remote>) => void;
  /** No load waits for the reply any more. */
  cancel: (fetch: KvFetch<Remote>) => void;
  /** Tell the other engine that its blocks are read no more. */
  release: (remote: Remote) => void;
  /** Call `written` or `notWritten` when the keys are in the load's blocks. Other loads may read the same keys. */
  writeKv: (load: KvLoad, keys: Uint32Array) => void;
  /** See `EngineCore.finishLoad`; `problem`: why the load failed. It may call `ended`. */
  finishLoad: (load: KvLoad, outcome: KvLoadOutcome, problem: string | null) => void;
}>;

/** Since the start; `bytesLoaded` are bytes of KV and rows that came. */
export type LoadCounts = { loads: number; failedLoads: number; tokensLoaded: number; bytesLoaded: number };

/**
 * Invariant: a load is waited for by one fetch, or is being written, until it is finished; a load whose workers were
 * lost is neither, and is never finished.
 */
export class KvLoader<Remote extends RemoteKv> {
  readonly #options: HandoverOptions;
  readonly #actions: LoaderActions<Remote>;
  readonly counts: LoadCounts = { loads: 0, failedLoads: 0, tokensLoaded: 0, bytesLoaded: 0 };
  /** By the engine's requests. */
  readonly #handovers: Map<string, Handover<Remote>> = new Map();
  readonly #fetches: Set<KvFetch<Remote>> = new Set();
  /** By load id. */
  readonly #writes: Map<number, Readonly<{ handover: Handover<Remote>; rows: RoutedRows | null }>> = new Map();
  #nextFetchId = 0;
  #wakesAt = Infinity;

  constructor(options: HandoverOptions, actions: LoaderActions<Remote>) {
    this.#options = options;
    this.#actions = actions;
  }

  /** After a drain all are 0 (L7). `requests` were announced and have not ended. */
  liveCounts(): Readonly<{ requests: number; loads: number }> {
    const waiting = [...this.#fetches].flatMap(({ loads }) => loads);
    return { requests: this.#handovers.size, loads: waiting.length + this.#writes.size };
  }

  isWaitedFor(fetch: KvFetch<Remote>): boolean {
    return this.#fetches.has(fetch);
  }

  /** These requests of the engine begin with one KV from elsewhere. */
  announce(requestIds: readonly string[], begin: Begin<Remote>): void {
    const handover = { ...begin, readers: new Set(requestIds) };
    for (const requestId of requestIds) this.#handovers.set(requestId, handover);
  }

  /** See `KvConnector`. */
  externalKv({ requestId, numPromptTokens }: Pick<CaptureRequest, 'requestId' | 'numPromptTokens'>): ExternalKv | null {
    const remote = this.#handovers.get(requestId)?.remote;
    if (remote === undefined) return null;
    // Rows that are to be spliced are declared missing: a client that asked for that wants the KV all the same.
    const hasRows = this.#options.rows === 'splice' || remote.carried !== null || remote.hasRows;
    return { numTokens: Math.min(remote.numTokens, numPromptTokens), hasRows };
  }

  /** See `KvConnector`. */
  startLoad(load: KvLoad, now: number): void {
    this.counts.loads += 1;
    const handover = this.#handovers.get(load.requestId)!;
    for (const fetch of this.#fetches) {
      const { from, to } = fetch.question;
      if (fetch.handover !== handover || from !== load.from || to !== load.to) continue;
      fetch.loads.push(load);
      return;
    }
    const fetch = this.#fetchFor(load, handover, now + this.#options.loadMs);
    this.#fetches.add(fetch);
    this.#wakeAt(fetch.deadline);
    this.#actions.ask(fetch);
  }

  /** KV has come. `isIntact`: its checksum is that of what was sent. */
  answered(fetch: KvFetch<Remote>, answer: KvAnswer, isIntact: boolean): void {
    const problem = this.#problemOf(fetch, answer, isIntact);
    if (problem !== null) {
      this.refused(fetch, problem);
      return;
    }
    // Blocks of a load that has failed, or whose workers were lost, may be another request's.
    if (!this.#fetches.delete(fetch)) return;
    const { handover, loads, question } = fetch;
    this.counts.bytesLoaded += answer.keys.byteLength + (answer.rows?.count ?? 0) * this.#options.rowShape.bytesPerRow;
    const rows = question.rowsStart === null ? fetch.rows : answer.rows;
    for (const load of loads) this.#writes.set(load.loadId, { handover, rows });
    for (const load of loads) this.#actions.writeKv(load, answer.keys);
  }

  /** No KV will come: the other engine does not give it, or cannot be reached. */
  refused(fetch: KvFetch<Remote>, reason: string): void {
    if (!this.#fetches.delete(fetch)) return;
    for (const load of fetch.loads) this.#fail(load, reason);
  }

  /** Fetches whose deadline is `now` or before wait no longer. */
  expire(now: number): void {
    this.#wakesAt = Infinity;
    for (const fetch of this.#fetches) {
      if (fetch.deadline > now) this.#wakeAt(fetch.deadline);
      else {
        this.#actions.cancel(fetch);
        this.refused(fetch, `no answer within ${this.#options.loadMs} ms`);
      }
    }
  }

  /** The keys of a load are in its blocks. */
  written(load: KvLoad): void {
    const write = this.#writes.get(load.loadId);
    if (write === undefined) return;
    this.#writes.delete(load.loadId);
    this.counts.tokensLoaded += load.to - load.from;
    this.#leave(write.handover, load.requestId);
    this.#actions.finishLoad(load, { kind: 'loaded', rows: write.rows }, null);
  }

  notWritten(load: KvLoad, reason: string): void {
    if (this.#writes.delete(load.loadId)) this.#fail(load, reason);
  }

  /** A request of the engine is over, and fetches no more. */
  ended(requestId: string): void {
    const handover = this.#handovers.get(requestId);
    if (handover === undefined) return;
    this.#handovers.delete(requestId);
    this.#leave(handover, requestId);
  }

  /** The engine has given up every load: its blocks may be another request's when their KV comes. */
  onWorkersLost(): void {
    for (const fetch of this.#fetches) this.#actions.cancel(fetch);
    this.#fetches.clear();
    this.#writes.clear();
  }

  /** One wake-up call at a time: later deadlines wait for it. */
  #wakeAt(time: number): void {
    if (time >= this.#wakesAt) return;
    this.#wakesAt = time;
    this.#actions.wakeAt(time);
  }

  /** Which way the rows come; `null`: none are wanted, or there are none. */
  #wayOf({ carried, hasRows }: RemoteKv, rowsStart: number | null): PdRows | null {
    if (rowsStart === null) return null;
    if (this.#options.rows === 'splice') return 'splice';
    if (carried !== null) return 'carry';
    return hasRows ? 'with-kv' : null;
  }

  #fetchFor(load: KvLoad, handover: Handover<Remote>, deadline: number): KvFetch<Remote> {
    const { from, to } = load;
    const { remote, promptTokenIds, rowsStart } = handover;
    const { shape, rowShape, tokenDigest } = this.#options;
    const way = this.#wayOf(remote, rowsStart);
    const carried = way === 'carry' ? remote.carried : null;
    const start = Math.max(rowsStart ?? 0, from);
    const missing = rowsOfBytes(rowShape, { start, end: Math.max(start, to), bytes: 'missing' });
    return {
      id: this.#nextFetchId++,
      handover,
      question: {
        engineId: remote.engineId,
        requestId: remote.requestId,
        from,
        to,
        rowsStart: way === 'with-kv' && start < to ? start : null,
        shape,
        tokens: tokenDigest(promptTokenIds, to),
      },
      carried,
      rows: way === null ? null : (carried ?? missing),
      deadline,
      loads: [load],
    };
  }

  /** Why KV that came is not taken over, or `null`. */
  #problemOf({ question, loads }: KvFetch<Remote>, { keys, rows }: KvAnswer, isIntact: boolean): string | null {
    if (!isIntact) return 'the KV that came is not what was sent: its checksum is wrong';
    const numBlocks = loads[0]!.blockIds.length;
    if (keys.length !== numBlocks * this.#options.blockSize * 2) {
      return `${keys.length} words of KV came for ${numBlocks} blocks`;
    }
    const { rowsStart, to } = question;
    if (rowsStart === null) return null;
    // Rows that were promised come, or the load fails: L4 leaves no third way.
    const isWhole = rows?.start === rowsStart && rows.start + rows.count === to && rows.missing.length === 0;
    return isWhole ? null : 'the rows did not come with the KV';
  }

  #fail(load: KvLoad, problem: string): void {
    this.counts.failedLoads += 1;
    this.#actions.finishLoad(load, { kind: this.#options.onLoadFailure }, problem);
  }

  /** When none of its requests fetches any more, the other engine is told. */
  #leave({ readers, remote }: Handover<Remote>, requestId: string): void {
    if (readers.delete(requestId) && readers.size === 0) this.#actions.release(remote);
  }
}
