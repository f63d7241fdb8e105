/** The server's KV connector: keeps blocks for engines that will ask, fetches blocks from engines that have them. */

import { randomUUID } from 'node:crypto';
import { rowShape } from '../../capture/row-shape.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { ExternalKv, KvConnector, KvLoad, KvLoadOutcome } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import { isLoss } from '../../worker/pipeline/loss.ts';
import { completeRows } from './carried-rows.ts';
import { KeptKv } from './kept-kv.ts';
import { shapeOf } from './kv-frames.ts';
import type { RemoteHandover } from './kv-loader.ts';
import { KvLoader } from './kv-loader.ts';
import type { KvServer } from './kv-server.ts';
import type { KvRole, PdRows, TransferAnswer, TransferParams, TransferRules } from './transfer-params.ts';

export type KvExchangeOptions = Readonly<{
  role: KvRole;
  /** How rows are handed over; as the one that loads, whether they are taken over at all. */
  rows: PdRows;
  /** Where the KV of this engine is handed out; loopback unless others are to come. */
  host: string;
  /** 0: any free one. An engine that only decodes opens none. */
  port: number;
  /** How long blocks are kept for somebody to fetch them, ms. */
  leaseMs: number;
  /** How long a load may take, ms. */
  loadMs: number;
  /** What becomes of a request whose load fails. */
  onLoadFailure: 'recompute' | 'fail';
  /** Hosts that KV may be fetched from, beside loopback: requests name them, and requests come from anybody. */
  peers: readonly string[];
}>;

/** What the exchange does with the engine. */
export type EngineSide = Readonly<{
  finishLoad: (loadId: number, outcome: KvLoadOutcome) => void;
  releaseBlocks: (requestIndex: number) => void;
  readKv: (blockIds: readonly number[]) => Promise<Uint32Array>;
  writeKv: (blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>) => Promise<void>;
}>;

/** A request whose KV is to be kept. */
type KeptHandover = {
  readonly promptTokenIds: Uint32Array;
  /** By what others ask for it. A client may use an id again while the KV of the one before is still kept. */
  keptId: string | null;
};

export type KvCounts = { loads: number; failedLoads: number; tokensLoaded: number };

const LOOPBACK = ['127.0.0.1', '::1', 'localhost'];

export class KvExchange implements KvConnector {
  readonly engineId: string = randomUUID();
  readonly options: KvExchangeOptions;
  readonly counts: KvCounts = { loads: 0, failedLoads: 0, tokensLoaded: 0 };
  readonly #model: ModelConfig;
  readonly #blockSize: number;
  readonly #shape: string;
  readonly #kept: KeptKv;
  /** By the requests of the engine. */
  readonly #keeping: Map<string, KeptHandover> = new Map();
  readonly #loading: Map<string, RemoteHandover> = new Map();
  readonly #onFailure: (requestId: string, error: Error) => void;
  #engine: EngineSide | null = null;
  #server: KvServer | null = null;
  #loader: KvLoader | null = null;
  /** Counts up when the workers are lost: what began before is void. */
  #generation = 0;

  constructor(
    options: KvExchangeOptions,
    model: ModelConfig,
    engine: EngineConfig,
    onFailure: (requestId: string, error: Error) => void,
  ) {
    this.options = options;
    this.#model = model;
    this.#blockSize = engine.blockSize;
    this.#shape = shapeOf(model, engine.blockSize);
    this.#onFailure = onFailure;
    this.#kept = new KeptKv((requestIndex) => this.#engine!.releaseBlocks(requestIndex));
  }

  /** Before the first request. Rejects if the port is taken. */
  async open(engine: EngineSide): Promise<void> {
    this.#engine = engine;
    const { host, port, role, rows, loadMs } = this.options;
    const common = { blockSize: this.#blockSize, shape: this.#shape };
    this.#loader = await KvLoader.open({ ...common, model: this.#model, rows, loadMs });
    if (role === 'decode') return;
    const { KvServer } = await import('./kv-server.ts');
    const { readKv } = engine;
    this.#server = await KvServer.listen({ ...common, host, port, engineId: this.engineId, kept: this.#kept, readKv });
  }

  get numKept(): number {
    return this.#kept.size;
  }

  get numExpired(): number {
    return this.#kept.numExpired;
  }

  get numBytesSent(): number {
    return this.#server?.numBytesSent ?? 0;
  }

  get numBytesLoaded(): number {
    return this.#loader?.numBytes ?? 0;
  }

  get rules(): TransferRules {
    const { role, peers } = this.options;
    const isPeer = (host: string): boolean => LOOPBACK.includes(host) || peers.includes(host);
    return { role, isPeer, rowShape: rowShape(this.#model) };
  }

  /**
   * Tells of a request before the engine schedules its choices; of several the first one's KV is kept, and all begin
   * with KV from elsewhere. `rowsStart`: from where on rows are wanted, `null` = none.
   */
  announce(
    requestIds: readonly string[],
    params: TransferParams,
    promptTokenIds: Uint32Array,
    rowsStart: number | null,
  ): void {
    if (params.kind === 'keep') {
      this.#keeping.set(requestIds[0]!, { promptTokenIds, keptId: null });
      return;
    }
    const readers = new Set(requestIds);
    const handover: RemoteHandover = { remote: params, promptTokenIds, rowsStart, readers, reads: new Map() };
    for (const requestId of requestIds) this.#loading.set(requestId, handover);
  }

  /**
   * An output of the engine, in passing. Answers what the proxy is to be told, with the last output of a request that
   * is kept.
   */
  onOutput(output: EngineCoreOutput): TransferAnswer | null {
    if (output.finishReason === null) return null;
    const { requestId } = output;
    const remote = this.#loading.get(requestId);
    if (remote !== undefined) {
      this.#loading.delete(requestId);
      this.#loader!.release(remote, requestId);
    }
    const keptId = this.#keeping.get(requestId)?.keptId ?? null;
    this.#keeping.delete(requestId);
    const kept = keptId === null ? null : this.#kept.get(keptId);
    if (keptId === null || kept === null) return null;
    kept.rows = output.routedExperts;
    const { rows } = this.options;
    const complete = completeRows(kept.rows, kept.numTokens);
    const params = {
      do_remote_prefill: true,
      do_remote_decode: false,
      remote_engine_id: this.engineId,
      remote_request_id: keptId,
      remote_block_ids: [kept.blockIds],
      remote_host: this.options.host,
      remote_port: this.#server!.port,
      tp_size: 1,
      remote_num_tokens: kept.numTokens,
      remote_blocks_expiry_time: kept.expiresAt / 1e3,
      transfer_mode: 'pull',
      remote_rows: rows === 'with-kv' && complete !== null,
    } as const;
    return { params, carried: rows === 'carry' ? complete : null };
  }

  externalKv(request: CaptureRequest): ExternalKv | null {
    const remote = this.#loading.get(request.requestId)?.remote;
    if (remote === undefined) return null;
    // To be spliced is to be declared missing: whoever asked for that wants the KV all the same.
    const hasRows = this.options.rows === 'splice' || remote.carried !== null || remote.hasRows;
    return { numTokens: Math.min(remote.numTokens, request.numPromptTokens), hasRows };
  }

  startLoad(load: KvLoad): void {
    void this.#load(load, this.#generation);
  }

  keepsBlocks(request: CaptureRequest): boolean {
    const handover = this.#keeping.get(request.requestId);
    if (handover === undefined) return false;
    // The last sampled token was never an input: it has no KV.
    const numTokens = Math.min(request.numTokens - 1, request.numPromptTokens);
    handover.keptId = `${request.requestId}/${request.index}`;
    this.#kept.keep(handover.keptId, {
      requestIndex: request.index,
      blockIds: request.blockIds.slice(0, Math.ceil(numTokens / this.#blockSize)),
      promptTokenIds: handover.promptTokenIds,
      numTokens,
      expiresAt: Date.now() + this.options.leaseMs,
      rows: null,
    });
    return true;
  }

  onWorkersLost(): void {
    this.#generation++;
    this.#kept.forgetAll();
  }

  /** Resolves once nobody can come for blocks any more. */
  drained(): Promise<void> {
    return this.#kept.emptied();
  }

  close(): void {
    this.#kept.forgetAll();
    this.#server?.close();
    this.#loader?.close();
  }

  /** Never rejects: whatever goes wrong is the end of this load, and of nothing else. */
  async #load(load: KvLoad, generation: number): Promise<void> {
    const engine = this.#engine!;
    const handover = this.#loading.get(load.requestId);
    let outcome: KvLoadOutcome;
    this.counts.loads++;
    try {
      if (handover === undefined) throw new Error('its request is gone');
      const { keys, rows } = await this.#loader!.load(load, handover);
      if (generation !== this.#generation) return;
      await engine.writeKv(load.blockIds, keys);
      this.counts.tokensLoaded += load.to - load.from;
      outcome = { kind: 'loaded', rows };
      this.#loader!.release(handover, load.requestId);
    } catch (error) {
      // The engine's own workers are lost: `onWorkersLost` makes the load void, or every request ends with the engine.
      if (isLoss(error)) return;
      this.counts.failedLoads++;
      this.#onFailure(load.requestId, error as Error);
      outcome = { kind: this.options.onLoadFailure };
    }
    if (generation === this.#generation) engine.finishLoad(load.loadId, outcome);
  }
}
