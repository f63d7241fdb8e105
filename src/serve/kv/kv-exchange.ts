/**
 * The server's KV connector: keeps blocks for engines that will ask, fetches blocks from engines that have them. What
 * happens when is decided in `handover/`; here are its sockets, timers and promises.
 */

import { randomUUID } from 'node:crypto';
import { rowShape } from '../../capture/row-shape.ts';
import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { ExternalKv, KvConnector, KvLoad, KvLoadOutcome } from '../../contract/kv-connector.ts';
import type { CaptureRequest } from '../../contract/request.ts';
import { KvKeeper } from '../../handover/kv-keeper.ts';
import { KvLoader, type LoadCounts } from '../../handover/kv-loader.ts';
import { isLoss } from '../../worker/pipeline/loss.ts';
import type { HandoverOptions } from '../../handover/kv-message.ts';
import { rowsDigest } from './carried-rows.ts';
import { shapeOf, tokenDigest } from './kv-frames.ts';
import type { KvPeers } from './kv-peers.ts';
import type { KvServer } from './kv-server.ts';
import type { HostedKv, KvRole, TransferAnswer, TransferParams, TransferRules } from './transfer-params.ts';
import { transferAnswer } from './transfer-params.ts';

export type KvExchangeOptions = Pick<HandoverOptions, 'rows' | 'leaseMs' | 'loadMs' | 'onLoadFailure'> &
  Readonly<{
    role: KvRole;
    /** Where the KV of this engine is handed out; loopback unless others are to come. */
    host: string;
    /** 0: any free one. An engine that only decodes opens none. */
    port: number;
    /** Hosts that KV may be fetched from, beside loopback: requests name them, and any client may send one. */
    peers: readonly string[];
  }>;

/** What the exchange does with the engine. */
export type EngineSide = Readonly<{
  finishLoad: (loadId: number, outcome: KvLoadOutcome) => void;
  releaseBlocks: (requestIndex: number) => void;
  readKv: (blockIds: readonly number[]) => Promise<Uint32Array>;
  writeKv: (blockIds: readonly number[], keys: Uint32Array<ArrayBuffer>) => Promise<void>;
}>;

const LOOPBACK = ['127.0.0.1', '::1', 'localhost'];

export class KvExchange implements KvConnector {
  readonly engineId: string = randomUUID();
  readonly options: KvExchangeOptions;
  readonly rules: TransferRules;
  readonly counts: Readonly<LoadCounts>;
  readonly #keeper: KvKeeper;
  readonly #loader: KvLoader<HostedKv>;
  #engine: EngineSide | null = null;
  #server: KvServer | null = null;
  #peers: KvPeers | null = null;
  #onDrained: (() => void) | null = null;

  constructor(
    options: KvExchangeOptions,
    model: ModelConfig,
    engine: EngineConfig,
    onFailure: (requestId: string, error: Error) => void,
  ) {
    const { blockSize } = engine;
    const isPeer = (host: string): boolean => LOOPBACK.includes(host) || options.peers.includes(host);
    this.options = options;
    this.rules = { role: options.role, isPeer, rowShape: rowShape(model) };
    const shapes = { blockSize, rowShape: this.rules.rowShape, shape: shapeOf(model, blockSize) };
    const handover = { ...options, ...shapes, engineId: this.engineId, tokenDigest };
    this.#keeper = new KvKeeper(handover, {
      wakeAt: (time) => callAt(time, () => this.#keeper.expire(time)),
      prepare: (read, carried) => {
        if (carried === null) this.#keeper.prepared(read, null);
        else void rowsDigest(carried).then((digest) => this.#keeper.prepared(read, digest));
      },
      readKv: (read, blockIds) => {
        this.#engine!.readKv(blockIds).then(
          (keys) => this.#keeper.keysRead(read, keys),
          (error: Error) => this.#keeper.notRead(read, error.message),
        );
      },
      giveBack: (requestIndex) => {
        this.#engine!.releaseBlocks(requestIndex);
        this.#noteDrained();
      },
    });
    this.#loader = new KvLoader(handover, {
      wakeAt: (time) => callAt(time, () => this.#loader.expire(time)),
      ask: (fetch) => void this.#peers!.at(fetch.handover.remote).ask(fetch),
      cancel: (fetch) => this.#peers!.at(fetch.handover.remote).cancel(fetch),
      release: (remote) => this.#peers!.at(remote).release(remote.engineId, remote.requestId),
      writeKv: (load, keys) => void this.#writeKv(load, keys.slice()),
      finishLoad: ({ loadId, requestId }, outcome, problem) => {
        if (problem !== null) onFailure(requestId, new Error(problem));
        this.#engine!.finishLoad(loadId, outcome);
      },
    });
    this.counts = this.#loader.counts;
  }

  /** Before the first request. Rejects if the port is taken. */
  async open(engine: EngineSide): Promise<void> {
    this.#engine = engine;
    // Only engines that share KV need ZeroMQ.
    const { KvPeers } = await import('./kv-peers.ts');
    this.#peers = new KvPeers(this.rules.rowShape, this.#loader);
    if (this.options.role === 'decode') return;
    const { KvServer } = await import('./kv-server.ts');
    this.#server = await KvServer.listen(this.#keeper, this.options);
  }

  get numKept(): number {
    return this.#keeper.liveCounts().kept;
  }

  get numExpired(): number {
    return this.#keeper.numExpired;
  }

  get numBytesSent(): number {
    return this.#server?.numBytes ?? 0;
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
    if (params.kind === 'keep') this.#keeper.announce(requestIds[0]!, promptTokenIds);
    else this.#loader.announce(requestIds, { remote: params, promptTokenIds, rowsStart });
  }

  /**
   * Sees each output of the engine. With the last output of a request that is kept it returns what the proxy is to be
   * told.
   */
  onOutput({ requestId, finishReason, routedExperts }: EngineCoreOutput): TransferAnswer | null {
    if (finishReason === null) return null;
    this.#loader.ended(requestId);
    const offer = this.#keeper.ended(requestId, routedExperts);
    return offer === null ? null : transferAnswer(offer, this.options.host, this.#server!.port);
  }

  externalKv(request: CaptureRequest): ExternalKv | null {
    return this.#loader.externalKv(request);
  }

  startLoad(load: KvLoad): void {
    this.#loader.startLoad(load, Date.now());
  }

  keepsBlocks(request: CaptureRequest): boolean {
    return this.#keeper.keepsBlocks(request, Date.now());
  }

  onWorkersLost(): void {
    this.#keeper.onWorkersLost();
    this.#loader.onWorkersLost();
    this.#noteDrained();
  }

  /** Resolves once no other engine can come for blocks any more. */
  async drained(): Promise<void> {
    if (this.numKept > 0) await new Promise<void>((resolve) => (this.#onDrained = resolve));
  }

  close(): void {
    this.onWorkersLost();
    this.#server?.close();
    this.#peers?.close();
  }

  async #writeKv(load: KvLoad, keys: Uint32Array<ArrayBuffer>): Promise<void> {
    try {
      await this.#engine!.writeKv(load.blockIds, keys);
    } catch (error) {
      // The engine's own workers are lost: `onWorkersLost` makes the load void, or every request ends with the engine.
      if (!isLoss(error)) this.#loader.notWritten(load, (error as Error).message);
      return;
    }
    this.#loader.written(load);
  }

  #noteDrained(): void {
    if (this.numKept === 0) this.#onDrained?.();
  }
}

/** `time` in ms since 1970. The process does not wait for it. */
function callAt(time: number, run: () => void): void {
  setTimeout(run, Math.max(0, time - Date.now())).unref();
}
