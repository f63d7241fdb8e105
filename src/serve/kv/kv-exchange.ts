/** The server's KV connector: keeps blocks for engines that will ask, fetches blocks from engines that have them. */

import { randomUUID } from 'node:crypto';
import { rowShape, viewRows } from '../../capture/row-shape.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { ExternalKv, KvConnector, KvLoad, KvLoadOutcome } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { completeRows, rowsDigest } from './carried-rows.ts';
import { KeptKv } from './kept-kv.ts';
import type { KvAnswer, KvClient } from './kv-client.ts';
import { shapeOf, tokenDigest } from './kv-frames.ts';
import type { KvServer } from './kv-server.ts';
import type { KvRole, PdRows, RemoteKv, TransferAnswer, TransferParams, TransferRules } from './transfer-params.ts';

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

/** Of the choices of one request: they have one prompt. */
type Handover = {
  readonly params: TransferParams;
  readonly promptTokenIds: Uint32Array;
  readonly rowsStart: number | null;
  /** Requests of the engine that may still fetch. */
  readonly readers: Set<string>;
  /** Answers under way, by the range that was asked for: choices that begin together fetch once. */
  readonly reads: Map<string, Promise<KvAnswer>>;
  /** By what others ask for the KV that is kept. A client may use an id again while the KV of the one before is still kept. */
  keptId: string | null;
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
  #connect: ((host: string, port: number) => KvClient) | null = null;
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

  /** Before the first request. Rejects if the port is taken. ZeroMQ is loaded here, for those who use it. */
  async open(engine: EngineSide): Promise<void> {
    this.#engine = engine;
    const { host, port, role } = this.options;
    const client = await import('./kv-client.ts');
    this.#connect = (...address) => new client.KvClient(...address);
    if (role === 'decode') return;
    const { KvServer } = await import('./kv-server.ts');
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

  get rules(): TransferRules {
    const { role, peers } = this.options;
    const isPeer = (host: string): boolean => LOOPBACK.includes(host) || peers.includes(host);
    return { role, isPeer, rowShape: rowShape(this.#model) };
  }

  /**
   * Tells of a request before the engine schedules its choices; of several the first one's KV is kept, and all begin with KV from elsewhere.
   * `rowsStart`: from where on rows are wanted, `null` = none.
   */
  announce(
    requestIds: readonly string[],
    params: TransferParams,
    promptTokenIds: Uint32Array,
    rowsStart: number | null,
  ): void {
    const concerned = params.kind === 'keep' ? requestIds.slice(0, 1) : requestIds;
    const readers = new Set(concerned);
    const handover: Handover = { params, promptTokenIds, rowsStart, readers, reads: new Map(), keptId: null };
    for (const requestId of concerned) this.#handovers.set(requestId, handover);
  }

  /** An output of the engine, in passing. Answers what the proxy is to be told, with the last output of a request that is kept. */
  onOutput(output: EngineCoreOutput): TransferAnswer | null {
    if (output.finishReason === null) return null;
    const handover = this.#handovers.get(output.requestId);
    if (handover === undefined) return null;
    this.#handovers.delete(output.requestId);
    if (handover.params.kind === 'remote') {
      this.#release(handover, handover.params, output.requestId);
      return null;
    }
    const { keptId } = handover;
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
    const params = this.#handovers.get(request.requestId)?.params;
    if (params?.kind !== 'remote') return null;
    const numTokens = Math.min(params.numTokens, request.numPromptTokens);
    // To be spliced is to be declared missing: whoever asked for that wants the KV all the same.
    const hasRows = this.options.rows === 'splice' || params.carried !== null || params.hasRows;
    return { numTokens, hasRows };
  }

  startLoad(load: KvLoad): void {
    void this.#load(load, this.#generation);
  }

  keepsBlocks(request: CaptureRequest): boolean {
    const handover = this.#handovers.get(request.requestId);
    if (handover?.params.kind !== 'keep') return false;
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
      const numBlocks = load.blockIds.length;
      if (answer.keys.length !== numBlocks * this.#blockSize * 2) {
        throw new Error(`${answer.keys.length} words of KV came for ${numBlocks} blocks`);
      }
      const rows = this.#rowsOf(answer, load, handover, handover.params);
      // The keys go to another thread, and other choices may be waiting for them too.
      await engine.writeKv(load.blockIds, answer.keys.slice());
      this.counts.tokensLoaded += load.to - load.from;
      outcome = { kind: 'loaded', rows };
      this.#release(handover, handover.params, load.requestId);
    } catch (error) {
      this.counts.failedLoads++;
      this.#onFailure(load.requestId, error as Error);
      outcome = { kind: this.options.onLoadFailure };
    }
    if (generation === this.#generation) engine.finishLoad(load.loadId, outcome);
  }

  #fetch(load: KvLoad, handover: Handover, remote: RemoteKv): Promise<KvAnswer> {
    const key = `${load.from} ${load.to}`;
    let read = handover.reads.get(key);
    if (read === undefined) {
      read = this.#read(load, handover, remote).finally(() => handover.reads.delete(key));
      handover.reads.set(key, read);
    }
    return read;
  }

  async #read({ from, to }: KvLoad, { promptTokenIds, rowsStart }: Handover, remote: RemoteKv): Promise<KvAnswer> {
    const way = this.#wayOf(remote, rowsStart);
    const start = Math.max(rowsStart ?? 0, from);
    const answer = await this.#client(remote).read(
      {
        engineId: remote.engineId,
        requestId: remote.requestId,
        from,
        to,
        rowsStart: way === 'with-kv' && start < to ? start : null,
        ...(way === 'carry' ? { rowsDigest: await rowsDigest(remote.carried!) } : {}),
        shape: this.#shape,
        tokens: tokenDigest(promptTokenIds, to),
      },
      this.options.loadMs,
    );
    this.counts.bytesLoaded += answer.keys.byteLength + answer.rows.byteLength;
    return answer;
  }

  /** Which way the rows of a load come; `null`: none are wanted, or there are none. */
  #wayOf(remote: RemoteKv, rowsStart: number | null): PdRows | null {
    if (rowsStart === null) return null;
    if (this.options.rows === 'splice') return 'splice';
    if (remote.carried !== null) return 'carry';
    return remote.hasRows ? 'with-kv' : null;
  }

  /** The rows to go with the load, or `null` if there are none. Throws if they are not those that were promised: L4 leaves no third way. */
  #rowsOf(answer: KvAnswer, load: KvLoad, handover: Handover, remote: RemoteKv): RoutedRows | null {
    const way = this.#wayOf(remote, handover.rowsStart);
    if (way === null) return null;
    if (way === 'carry') return remote.carried;
    const start = Math.max(handover.rowsStart!, load.from);
    const count = Math.max(0, load.to - start);
    const shape = rowShape(this.#model);
    const none: RoutedRows = {
      start,
      count,
      numLayers: shape.numLayers,
      topK: shape.topK,
      dtype: shape.dtype,
      rowsPerChunk: Math.max(1, count),
      chunkOrigin: start,
      chunks: [null],
      missing: count > 0 ? [[start, load.to]] : [],
    };
    if (way === 'splice' || count === 0) return none;
    const isWhole = answer.rowsStart === start && answer.rowsEnd === load.to;
    if (!isWhole || answer.rows.length !== count * shape.bytesPerRow) {
      throw new Error('the rows did not come with the KV');
    }
    return { ...none, chunks: [viewRows(shape, answer.rows.slice(), count)], missing: [] };
  }

  /** The request fetches no more. When none of its kind does, the other engine is told. */
  #release({ readers }: Handover, { engineId, requestId, host, port }: RemoteKv, reader: string): void {
    if (!readers.delete(reader) || readers.size > 0) return;
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
      client = this.#connect!(host, port);
      this.#clients.set(address, client);
    }
    return client;
  }
}
