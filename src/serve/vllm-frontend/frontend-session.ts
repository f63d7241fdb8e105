/**
 * The engine's side of one frontend, from its first request to its end: messages of API servers and of the coordinator
 * come in, outputs and replies go out. It has no promise, no clock and no socket; times are arguments, in seconds of a
 * clock that does not jump.
 *
 *     onMessage ─▶ ┌─────────────────┐ ─▶ engine: add, abort, pause …
 *     onOutput ──▶ │ FrontendSession │ ─▶ outbox of each API server ─▶ flush ─▶ send
 *     onStep… ───▶ └─────────────────┘ ─▶ tellCoordinator
 *
 * Invariant: each request that was added, and not aborted by its client, gets one last output; each call one reply.
 */

import type { WithLayers } from '../../capture/row-layers.ts';
import type { EngineCoreOutput } from '../../contract/engine-core-output.ts';
import type { TransferAnswer } from '../kv/transfer-params.ts';
import { Calls } from './calls.ts';
import { FrontendRequest, type LogprobSource } from './frontend-request.ts';
import { Outbox } from './outbox.ts';
import type { SessionEngine } from './session-engine.ts';
import { countFields, countsOf, SchedulerStats } from './scheduler-stats.ts';
import { Waves } from './waves.ts';
import type { AddRequest } from './wire/add-request.ts';
import { readFrontendMessage, type MessageRules } from './wire/frontend-message.ts';
import { encodeOutputs, ENGINE_CORE_DEAD, type WireOutput } from './wire/output-message.ts';

export interface SessionPorts {
  readonly engine: SessionEngine;
  readonly send: (clientIndex: number, frames: Uint8Array[]) => void;
  /** `null` without a coordinator. */
  readonly tellCoordinator: ((frames: Uint8Array[]) => void) | null;
  readonly warn: (text: string) => void;
}

export type SessionOptions = Readonly<{
  engineIndex: number;
  rules: MessageRules;
  numExperts: number;
  numWorkers: number;
  blockSize: number;
  /** Until a frontend names another. */
  weightVersion: string;
  logprobs: LogprobSource;
  /** Gives rows the layers that their reader wants. */
  withLayers: WithLayers;
}>;

export class FrontendSession {
  readonly #options: SessionOptions;
  readonly #ports: SessionPorts;
  readonly #outboxes: readonly Outbox[];
  readonly #gone: Set<number> = new Set();
  readonly #live: Map<string, FrontendRequest> = new Map();
  /** Requests that wait for the end of a pause, in order. */
  readonly #held: Map<string, FrontendRequest> = new Map();
  readonly #calls: Calls;
  readonly #waves: Waves;
  readonly #stats: SchedulerStats = new SchedulerStats();
  /** When the steps in flight began, oldest first. */
  readonly #stepsBegun: number[] = [];
  readonly #named: Set<string> = new Set();
  #hasNewStats = false;
  #lastCounts = '';
  #isStopping = false;

  constructor(options: SessionOptions, ports: SessionPorts) {
    const { rules, numExperts, engineIndex } = options;
    this.#options = options;
    this.#ports = ports;
    this.#outboxes = Array.from({ length: rules.numClients }, () => new Outbox(numExperts));
    this.#waves = new Waves(engineIndex);
    const { engine } = ports;
    this.#calls = new Calls(options, {
      engine,
      warn: (text) => ports.warn(text),
      reply: (clientIndex, reply) => this.#outboxes[clientIndex]!.push(reply),
      abortAll: () => this.#abortAll(),
      submitHeld: () => this.#submitHeld(),
      onReset: () => this.#stats.noteReset(),
    });
  }

  /** Requests that are owed an end. */
  get numRequests(): number {
    return this.#live.size + this.#held.size;
  }

  /** A message of the API server at `clientIndex`. */
  onMessage(clientIndex: number, frames: readonly Uint8Array[], now: number): void {
    // Its connection came back too late.
    if (this.#gone.has(clientIndex)) return;
    const message = readFrontendMessage(frames, clientIndex, this.#options.rules);
    switch (message.kind) {
      case 'add':
        this.#add(message.add, now);
        break;
      case 'refused':
        this.#refuse(message, message.problem);
        break;
      case 'abort':
        this.#abort(message.requestIds);
        break;
      case 'utility':
        this.#calls.take(message.call);
        break;
      case 'start-wave':
        this.#ports.warn('a frontend starts a wave, which only the coordinator does: ignored');
        break;
      case 'unreadable':
        this.#ports.warn(`a message of API server ${clientIndex} cannot be read: ${message.problem}`);
        break;
      default:
        message satisfies never;
    }
    this.#calls.settle(this.#live.size);
    this.#publishCounts(now);
  }

  onCoordinator(frames: readonly Uint8Array[]): void {
    const message = readFrontendMessage(frames, 0, this.#options.rules);
    if (message.kind === 'start-wave') this.#waves.onStart(message.wave, message.excluded);
    else this.#ports.warn(`the coordinator says "${message.kind}", and may only start waves: ignored`);
  }

  /** An output of the engine. `transfer`: where its KV can be fetched, with the last output. */
  onOutput(output: EngineCoreOutput, transfer: TransferAnswer | null, now: number): void {
    const request = this.#live.get(output.requestId);
    if (request === undefined) return;
    const { clientIndex } = request.add;
    if (output.finishReason !== null) this.#end(output.requestId, clientIndex);
    if (output.failure !== undefined) this.#ports.warn(output.failure.message);
    if (request.isDropped) return;
    this.#outboxes[clientIndex]!.push(request.wireOutput(output, transfer, this.#stepsBegun[0] ?? now));
    const numMissing = output.routedExperts?.missing.length ?? 0;
    if (numMissing > 0 && output.finishReason !== 'abort') {
      this.#ports.warn(`request "${output.requestId}": rows are missing; vLLM is sent 255 or 65535 in their place`);
    }
  }

  onStepBegun(now: number): void {
    this.#stepsBegun.push(now);
  }

  /** The outputs of a step were taken in. */
  onStepEnded(now: number): void {
    this.#stepsBegun.shift();
    this.#hasNewStats = true;
    this.#calls.settle(this.#live.size);
    this.#publishCounts(now);
  }

  /** Every step in flight is void. */
  onWorkersLost(): void {
    this.#stepsBegun.length = 0;
    this.#calls.settle(this.#live.size);
  }

  /** An API server is gone: its requests end, and nothing is sent to it. */
  onClientGone(clientIndex: number): void {
    this.#gone.add(clientIndex);
    this.#calls.forgetClient(clientIndex);
    const ids = [...this.#live, ...this.#held].filter(([, { add }]) => add.clientIndex === clientIndex);
    this.#abort(ids.map(([id]) => id));
    this.#outboxes[clientIndex]!.clear();
    this.#calls.settle(this.#live.size);
  }

  /** All API servers are gone. */
  get isOver(): boolean {
    return this.#gone.size === this.#outboxes.length;
  }

  /** Ends every request, and refuses those that come from here on. */
  stop(): void {
    this.#isStopping = true;
    this.#abortAll();
    this.#calls.stop();
  }

  /** The engine is stopping for good, or dead: after all that waits, its frontends are told. */
  sayDead(now: number): void {
    while (this.flush(now));
    for (const clientIndex of this.#outboxes.keys()) {
      if (!this.#gone.has(clientIndex)) this.#ports.send(clientIndex, [ENGINE_CORE_DEAD]);
    }
  }

  /**
   * Sends what waits, one message for each API server. `true`: more waits, which is to be sent in a later turn of the
   * event loop.
   */
  flush(now: number): boolean {
    const header = { engineIndex: this.#options.engineIndex, timestamp: now };
    for (const [clientIndex, outbox] of this.#outboxes.entries()) {
      if (this.#gone.has(clientIndex)) outbox.clear();
      else if (!outbox.isEmpty) {
        this.#ports.send(clientIndex, outbox.take(header, outbox.isReplyNext ? null : this.#takeStats()));
      }
    }
    // Statistics go to one API server only: they are added up. They may travel alone.
    const listener = this.#outboxes.findIndex((outbox, i) => outbox.isEmpty && !this.#gone.has(i));
    if (this.#hasNewStats && listener >= 0) {
      this.#ports.send(listener, this.#outboxes[listener]!.take(header, this.#takeStats()));
    }
    return this.#outboxes.some((outbox) => !outbox.isEmpty);
  }

  #add(add: AddRequest, now: number): void {
    const { requestId } = add.request;
    const named = this.#named;
    const ports = this.#ports;
    if (this.#isStopping) {
      this.#finish(add.clientIndex, requestId, 'abort');
      return;
    }
    if (this.#live.has(requestId) || this.#held.has(requestId)) {
      // An error output would end the request that runs.
      ports.warn(`request "${requestId}" came again while it is alive: ignored`);
      return;
    }
    for (const name of add.ignored) {
      if (!named.has(name)) ports.warn(`${name} has no effect here, in request "${requestId}" and later ones`);
      named.add(name);
    }
    const startWave = this.#waves.onRequest(add.wave, this.#calls);
    if (startWave !== null) this.#tellCoordinator(now, { startWave });
    const request = new FrontendRequest(add, now, this.#options);
    if (this.#calls.isPaused) this.#held.set(requestId, request);
    else this.#submit(request);
    if (add.abortsImmediately) this.#abort([requestId]);
  }

  #submitHeld(): void {
    const held = [...this.#held.values()];
    this.#held.clear();
    for (const request of held) this.#submit(request);
  }

  #submit(request: FrontendRequest): void {
    const { add } = request;
    const { requestId } = add.request;
    this.#live.set(requestId, request);
    try {
      this.#ports.engine.add(add);
    } catch (error) {
      this.#live.delete(requestId);
      this.#refuse({ requestId, clientIndex: add.clientIndex }, (error as Error).message);
    }
  }

  /** vLLM's protocol has no place for the reason: it stands in this engine's log. */
  #refuse({ requestId, clientIndex }: Readonly<{ requestId: string; clientIndex: number }>, problem: string): void {
    const isAlive = this.#live.has(requestId) || this.#held.has(requestId);
    this.#ports.warn(`request "${requestId}" is refused: ${problem}`);
    if (!isAlive) this.#finish(clientIndex, requestId, 'error');
  }

  /** The last output of a request that the engine does not have. */
  #finish(clientIndex: number, requestId: string, finishReason: 'abort' | 'error'): void {
    const nothing = { stopReason: null, rows: null, logprobs: null, promptLogprobs: null, prefill: null, times: null };
    const output: WireOutput = { requestId, newTokenIds: [], finishReason, kvTransferParams: null, ...nothing };
    this.#outboxes[clientIndex]!.push(output);
    this.#noteFinished(clientIndex, requestId);
  }

  /** By their client, which expects no output of them any more. */
  #abort(requestIds: readonly string[]): void {
    for (const requestId of requestIds) {
      const held = this.#held.get(requestId);
      if (this.#held.delete(requestId)) this.#noteFinished(held!.add.clientIndex, requestId);
      const request = this.#live.get(requestId);
      if (request !== undefined) request.isDropped = true;
    }
    this.#ports.engine.abort(requestIds);
  }

  /** By the engine: each client is told. */
  #abortAll(): void {
    for (const [requestId, { add }] of this.#held) this.#finish(add.clientIndex, requestId, 'abort');
    this.#held.clear();
    this.#ports.engine.abort([...this.#live.keys()]);
  }

  #end(requestId: string, clientIndex: number): void {
    this.#live.delete(requestId);
    this.#noteFinished(clientIndex, requestId);
    if (this.#live.size === 0) this.#waves.onIdle();
  }

  #noteFinished(clientIndex: number, requestId: string): void {
    if (this.#ports.tellCoordinator !== null) this.#outboxes[clientIndex]!.noteFinished(requestId);
  }

  #takeStats(): Readonly<Record<string, unknown>> | null {
    if (!this.#hasNewStats) return null;
    this.#hasNewStats = false;
    const stats = this.#ports.engine.stats();
    return this.#stats.take(stats, countsOf(stats, this.#held.size));
  }

  /** Of two frontends each learns from the coordinator how much the other has sent here. */
  #publishCounts(now: number): void {
    if (this.#ports.tellCoordinator === null) return;
    const counts = countsOf(this.#ports.engine.stats(), this.#held.size);
    const key = `${counts.numRunning} ${counts.numWaiting}`;
    if (key === this.#lastCounts) return;
    this.#lastCounts = key;
    this.#tellCoordinator(now, { stats: { ...countFields(counts), current_wave: this.#waves.current } });
  }

  #tellCoordinator(
    timestamp: number,
    what: Readonly<{ stats: Record<string, unknown> } | { startWave: number }>,
  ): void {
    const { engineIndex, numExperts } = this.#options;
    this.#ports.tellCoordinator?.(encodeOutputs({ engineIndex, timestamp, ...what }, numExperts));
  }
}
