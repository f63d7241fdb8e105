/** The server's KV connector: keeps blocks for engines that will ask, fetches blocks from engines that have them. */

import { randomUUID } from 'node:crypto';
import { rowShape, viewRows } from '../../capture/row-shape.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { ExternalKv, KvConnector, KvLoad, KvLoadOutcome } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { KeptKv } from './kept-kv.ts';
import { KvClient } from './kv-client.ts';
import type { KvAnswer } from './kv-client.ts';
import { shapeOf, tokenDigest } from './kv-frames.ts';
import { KvServer } from './kv-server.ts';
import type { RemoteKv, TransferAnswer, TransferParams } from './transfer-params.ts';

export type KvExchangeOptions = Readonly<{
  /** Where the KV of this engine is handed out; loopback unless others are to come. */
  host: string;
  /** 0: any free one. */
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

type Handover = {
  readonly params: TransferParams;
  readonly promptTokenIds: Uint32Array;
  readonly rowsStart: number | null;
  isReleased: boolean;
};

export type KvCounts = { loads: number; failedLoads: number; tokensLoaded: number; bytesLoaded: number };

/** Connections to other engines; one that was opened longest ago makes room for a new one. */
const MAX_CLIENTS = 64;
const LOOPBACK = ['127.0.0.1', '::1', 'localhost'];

export class KvExchange implements KvConnector {
  readonly engineId: string = randomUUID();
  readonly options: KvExchangeOptions;
  readonly counts: KvCounts = { loads: 0, failedLoads: 0, tokensLoaded: 0, bytesLoaded: 0 };
  readonly #model: ModelConfig;
  readonly #blockSize: number;
  readonly #shape: string;
  readonly #kept: KeptKv;
  readonly #handovers: Map<string, Handover> = new Map();
  readonly #clients: Map<string, KvClient> = new Map();
  readonly #onFailure: (requestId: string, error: Error) => void;
  #engine: EngineSide | null = null;
  #server: KvServer | null = null;
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
    const { host, port } = this.options;
    this.#server = await KvServer.listen({
      host,
      port,
      engineId: this.engineId,
      shape: this.#shape,
      blockSize: this.#blockSize,
      kept: this.#kept,
      readKv: engine.readKv,
    });
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

  isPeer(host: string): boolean {
    return LOOPBACK.includes(host) || this.options.peers.includes(host);
  }

  /** Tells of a request before the engine schedules it. `rowsStart`: from where on it wants rows, `null` = none. */
  announce(requestId: string, params: TransferParams, promptTokenIds: Uint32Array, rowsStart: number | null): void {
    this.#handovers.set(requestId, { params, promptTokenIds, rowsStart, isReleased: false });
  }

  /** An output of the engine, in passing. Answers what the proxy is to be told, with the last output of a request that is kept. */
  onOutput(output: EngineCoreOutput): TransferAnswer | null {
    if (output.finishReason === null) return null;
    const handover = this.#handovers.get(output.requestId);
    if (handover === undefined) return null;
    this.#handovers.delete(output.requestId);
    if (handover.params.kind === 'remote') {
      this.#release(handover, handover.params);
      return null;
    }
    const kept = this.#kept.get(output.requestId);
    if (kept === null) return null;
    kept.rows = output.routedExperts;
    return {
      do_remote_prefill: true,
      do_remote_decode: false,
      remote_engine_id: this.engineId,
      remote_request_id: output.requestId,
      remote_block_ids: [kept.blockIds],
      remote_host: this.options.host,
      remote_port: this.#server!.port,
      tp_size: 1,
      remote_num_tokens: kept.numTokens,
      remote_blocks_expiry_time: kept.expiresAt / 1e3,
      transfer_mode: 'pull',
      remote_rows: kept.rows !== null && kept.rows.missing.length === 0,
    };
  }

  externalKv(request: CaptureRequest): ExternalKv | null {
    const params = this.#handovers.get(request.requestId)?.params;
    if (params?.kind !== 'remote') return null;
    return { numTokens: Math.min(params.numTokens, request.numPromptTokens), hasRows: params.hasRows };
  }

  startLoad(load: KvLoad): void {
    void this.#load(load, this.#generation);
  }

  keepsBlocks(request: CaptureRequest): boolean {
    const handover = this.#handovers.get(request.requestId);
    if (handover?.params.kind !== 'keep') return false;
    // The last sampled token was never an input: it has no KV.
    const numTokens = Math.min(request.numTokens - 1, request.numPromptTokens);
    this.#kept.keep(request.requestId, {
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
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  /** Never rejects: whatever goes wrong is the end of this load, and of nothing else. */
  async #load(load: KvLoad, generation: number): Promise<void> {
    const engine = this.#engine!;
    const handover = this.#handovers.get(load.requestId);
    let outcome: KvLoadOutcome;
    this.counts.loads++;
    try {
      if (handover?.params.kind !== 'remote') throw new Error('its request is gone');
      const answer = await this.#fetch(load, handover, handover.params);
      if (generation !== this.#generation) return;
      const rows = this.#rowsOf(answer, load, handover, handover.params);
      await engine.writeKv(load.blockIds, answer.keys);
      this.counts.tokensLoaded += load.to - load.from;
      this.counts.bytesLoaded += answer.keys.byteLength + answer.rows.byteLength;
      outcome = { kind: 'loaded', rows };
      this.#release(handover, handover.params);
    } catch (error) {
      this.counts.failedLoads++;
      this.#onFailure(load.requestId, error as Error);
      outcome = { kind: this.options.onLoadFailure };
    }
    if (generation === this.#generation) engine.finishLoad(load.loadId, outcome);
  }

  #fetch(load: KvLoad, handover: Handover, remote: RemoteKv): Promise<KvAnswer> {
    const wanted = handover.rowsStart === null || !remote.hasRows ? null : Math.max(handover.rowsStart, load.from);
    return this.#client(remote).read(
      {
        engineId: remote.engineId,
        requestId: remote.requestId,
        from: load.from,
        to: load.to,
        rowsStart: wanted !== null && wanted < load.to ? wanted : null,
        shape: this.#shape,
        tokens: tokenDigest(handover.promptTokenIds, load.to),
      },
      this.options.loadMs,
    );
  }

  /** The rows that came, or `null` if none were promised. Throws if they are not those that were: L4 leaves no third way. */
  #rowsOf(answer: KvAnswer, load: KvLoad, handover: Handover, remote: RemoteKv): RoutedRows | null {
    const numBlocks = load.blockIds.length;
    if (answer.keys.length !== numBlocks * this.#blockSize * 2) {
      throw new Error(`${answer.keys.length} words of KV came for ${numBlocks} blocks`);
    }
    if (handover.rowsStart === null || !remote.hasRows) return null;
    const start = Math.max(handover.rowsStart, load.from);
    const shape = rowShape(this.#model);
    const count = load.to - start;
    if (count > 0) {
      const isWhole = answer.rowsStart === start && answer.rowsEnd === load.to;
      if (!isWhole || answer.rows.length !== count * shape.bytesPerRow)
        throw new Error('the rows did not come with the KV');
    }
    const bytes = answer.rows.slice();
    return {
      start,
      count: Math.max(0, count),
      numLayers: shape.numLayers,
      topK: shape.topK,
      dtype: shape.dtype,
      rowsPerChunk: Math.max(1, count),
      chunkOrigin: start,
      chunks: [viewRows(shape, bytes, Math.max(0, count))],
      missing: [],
    };
  }

  #release(handover: Handover, { engineId, requestId, host, port }: RemoteKv): void {
    if (handover.isReleased) return;
    handover.isReleased = true;
    this.#client({ host, port }).release(engineId, requestId);
  }

  #client({ host, port }: Pick<RemoteKv, 'host' | 'port'>): KvClient {
    const address = `${host}:${port}`;
    let client = this.#clients.get(address);
    if (client === undefined) {
      const oldest = this.#clients.size < MAX_CLIENTS ? undefined : this.#clients.entries().next().value;
      if (oldest !== undefined) {
        this.#clients.delete(oldest[0]);
        oldest[1].close();
      }
      client = new KvClient(host, port);
      this.#clients.set(address, client);
    }
    return client;
  }
}
