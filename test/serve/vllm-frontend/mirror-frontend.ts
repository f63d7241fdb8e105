/**
 * The other side of the protocol: what vLLM's client does, with its checks, written from the description of the
 * protocol and not from the engine. Orders and names stand here once more, on purpose.
 */

import { Pull, Router, XPublisher } from 'zeromq';
import {
  addArray,
  check,
  pack,
  readArray,
  unpack,
  type AddFields,
  type Json,
  type RowPart,
} from './mirror-messages.ts';

const TYPE = { add: 0, abort: 1, wave: 2, utility: 3 } as const;
const READY_KEYS = [
  'max_model_len',
  'num_gpu_blocks',
  'block_size',
  'dp_stats_address',
  'dtype',
  'vllm_version',
  'world_size',
  'data_parallel_size',
  'tensor_parallel_size',
  'pipeline_parallel_size',
  'decode_context_parallel_size',
  'data_parallel_rank',
  'max_num_seqs',
  'max_num_batched_tokens',
  'instance_id',
];

/** What has come for one request. */
export type Received = {
  readonly tokens: number[];
  readonly rows: RowPart[];
  readonly finishReasons: number[];
  stopReason: unknown;
  prefill: Json | null;
  events: readonly Json[] | null;
  kvTransferParams: Json | null;
  logprobs: unknown[];
  promptLogprobs: unknown;
  numMessages: number;
};

export type MirrorOptions = Readonly<{
  numClients?: number;
  engineIndex?: number;
  /** With a coordinator: its sockets are opened, and it says READY to a subscriber. */
  hasCoordinator?: boolean;
  parallelConfig?: Json;
}>;

export class MirrorFrontend {
  readonly #options: Required<MirrorOptions>;
  readonly #handshake: Router;
  readonly #inputs: readonly Router[];
  readonly #outputs: readonly Pull[];
  readonly #coordinator: Readonly<{ publisher: XPublisher; stats: Pull }> | null;
  readonly #identity: Buffer;
  readonly requests: Map<string, Received> = new Map();
  readonly stats: Json[] = [];
  readonly finished: string[] = [];
  /** Of each message to the coordinator: its array. */
  readonly coordinatorMessages: unknown[][] = [];
  readonly #calls: Map<bigint | number, PromiseWithResolvers<unknown>> = new Map();
  readonly #watchers: Set<() => void> = new Set();
  readonly readyResponses: Json[] = [];
  #nextCall = 2n ** 63n + 11n;
  isDead = false;
  /** What would end vLLM's output loop. */
  failure: Error | null = null;

  private constructor(
    options: Required<MirrorOptions>,
    sockets: Readonly<{
      handshake: Router;
      inputs: readonly Router[];
      outputs: readonly Pull[];
      coordinator: Readonly<{ publisher: XPublisher; stats: Pull }> | null;
    }>,
  ) {
    this.#options = options;
    this.#handshake = sockets.handshake;
    this.#inputs = sockets.inputs;
    this.#outputs = sockets.outputs;
    this.#coordinator = sockets.coordinator;
    this.#identity = Buffer.from([options.engineIndex & 255, options.engineIndex >> 8]);
    for (const [client, output] of this.#outputs.entries()) void this.#receive(output, client);
  }

  /** Its sockets are bound; the engine may connect. `address`: where an earlier frontend was. */
  static async open(options: MirrorOptions = {}, address = 'tcp://127.0.0.1:*'): Promise<MirrorFrontend> {
    const all = { numClients: 1, engineIndex: 0, hasCoordinator: false, parallelConfig: {}, ...options };
    const handshake = new Router({ linger: 0 });
    await handshake.bind(address);
    const inputs: Router[] = [];
    const outputs: Pull[] = [];
    for (let i = 0; i < all.numClients; i++) {
      const input = new Router({ linger: 0, sendHighWaterMark: 0, receiveHighWaterMark: 0, mandatory: true });
      const output = new Pull({ linger: 0, receiveHighWaterMark: 0 });
      await input.bind('tcp://127.0.0.1:*');
      await output.bind('tcp://127.0.0.1:*');
      inputs.push(input);
      outputs.push(output);
    }
    let coordinator: Readonly<{ publisher: XPublisher; stats: Pull }> | null = null;
    if (all.hasCoordinator) {
      coordinator = { publisher: new XPublisher({ linger: 0, verbosity: 'allSubs' }), stats: new Pull({ linger: 0 }) };
      await coordinator.publisher.bind('tcp://127.0.0.1:*');
      await coordinator.stats.bind('tcp://127.0.0.1:*');
    }
    return new MirrorFrontend(all, { handshake, inputs, outputs, coordinator });
  }

  get address(): string {
    return this.#handshake.lastEndpoint!;
  }

  /** HELLO is checked as vLLM checks it. */
  async receiveHello(): Promise<void> {
    const [identity, frame] = await this.#handshake.receive();
    check(identity!.equals(this.#identity), `an engine of index ${identity!.toString('hex')}`);
    const hello = unpack(frame!) as Json;
    check(hello['status'] === 'HELLO', `status ${String(hello['status'])} where HELLO was due`);
    check(hello['local'] === false && hello['headless'] === true, 'an engine that is local, or not headless');
  }

  async sendInit(override: Json = {}): Promise<void> {
    const addresses = {
      inputs: this.#inputs.map((socket) => socket.lastEndpoint),
      outputs: this.#outputs.map((socket) => socket.lastEndpoint),
      coordinator_input: this.#coordinator?.publisher.lastEndpoint ?? null,
      coordinator_output: this.#coordinator?.stats.lastEndpoint ?? null,
      frontend_stats_publish_address: this.#coordinator === null ? null : 'ipc://stats',
    };
    await this.sendRaw([pack({ addresses, parallel_config: this.#options.parallelConfig, ...override })]);
  }

  /** On the handshake socket. */
  async sendRaw(frames: readonly Uint8Array[]): Promise<void> {
    await this.#handshake.send([this.#identity, ...frames] as Uint8Array[]);
  }

  async receiveReadyResponses(): Promise<void> {
    for (const input of this.#inputs) {
      const [identity, frame] = await input.receive();
      check(identity!.equals(this.#identity), 'a ready response of another engine');
      const response = unpack(frame!) as Json;
      for (const key of READY_KEYS) check(Object.hasOwn(response, key), `a ready response without ${key}`);
      this.readyResponses.push(response);
    }
  }

  async greetSubscriber(): Promise<void> {
    const [subscription] = await this.#coordinator!.publisher.receive();
    check(subscription!.equals(Buffer.from([1])), 'no subscription to everything');
    await this.#coordinator!.publisher.send(Buffer.from('READY'));
    void (async () => {
      for await (const [frame] of this.#coordinator!.stats) {
        this.coordinatorMessages.push(unpack(frame!) as unknown[]);
        this.#wake();
      }
    })();
  }

  async receiveReady(): Promise<Json> {
    const [, frame] = await this.#handshake.receive();
    const ready = unpack(frame!) as Json;
    check(ready['status'] === 'READY', `status ${String(ready['status'])} where READY was due`);
    check(ready['local'] === false && ready['headless'] === true, 'an engine that is local, or not headless');
    return ready;
  }

  /** The whole handshake. As vLLM does, the handshake socket is closed behind it. */
  async attach(): Promise<void> {
    await this.receiveHello();
    await this.sendInit();
    await this.receiveReadyResponses();
    if (this.#coordinator !== null) await this.greetSubscriber();
    await this.receiveReady();
    this.#handshake.close();
  }

  async startWave(wave: number, excluded: number | null): Promise<void> {
    await this.#coordinator!.publisher.send([Buffer.from([TYPE.wave]), pack([wave, excluded])] as Buffer[]);
  }

  /** Any frames, as an API server sends them. */
  async send(frames: readonly (Uint8Array | Buffer)[], client = 0): Promise<void> {
    await this.#inputs[client]!.send([this.#identity, ...frames] as Uint8Array[]);
  }

  async add(fields: AddFields): Promise<Received> {
    const received: Received = {
      tokens: [],
      rows: [],
      finishReasons: [],
      stopReason: null,
      prefill: null,
      events: null,
      kvTransferParams: null,
      logprobs: [],
      promptLogprobs: null,
      numMessages: 0,
    };
    this.requests.set(fields.id, received);
    await this.send([Buffer.from([TYPE.add]), pack(addArray(fields))], fields.client);
    return received;
  }

  async abort(ids: readonly string[], client = 0): Promise<void> {
    for (const id of ids) this.requests.delete(id);
    await this.send([Buffer.from([TYPE.abort]), pack(ids)], client);
  }

  /** Resolves with the result of a call. Rejects with the failure message. */
  async call(method: string, args: readonly unknown[] = [], client = 0): Promise<unknown> {
    const callId = this.#nextCall++;
    const pending = Promise.withResolvers<unknown>();
    this.#calls.set(callId, pending);
    await this.send([Buffer.from([TYPE.utility]), pack([client, callId, method, args])], client);
    return this.#alive(pending.promise);
  }

  /** Resolves with what came for a request, once it has ended. */
  async generate(fields: AddFields): Promise<Received> {
    const received = await this.add(fields);
    await this.until(() => received.finishReasons.length > 0);
    return received;
  }

  /** Waits for the next messages until `isTrue`; rejects when the frontend would have failed. */
  async until(isTrue: () => boolean, capMs = 20_000): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = (): void => {
      if (isTrue()) resolve();
      else if (this.failure !== null) reject(this.failure);
    };
    const timer = setTimeout(() => reject(new Error('waited too long')), capMs);
    this.#watchers.add(look);
    try {
      look();
      await promise;
    } finally {
      clearTimeout(timer);
      this.#watchers.delete(look);
    }
  }

  /** As when the frontend's process ends. */
  close(): void {
    if (this.#handshake.closed && this.#outputs.every(({ closed }) => closed)) return;
    for (const socket of [...this.#inputs, ...this.#outputs, this.#handshake]) socket.close();
    this.#coordinator?.publisher.close();
    this.#coordinator?.stats.close();
  }

  async #alive<T>(promise: Promise<T>): Promise<T> {
    const { promise: died, reject } = Promise.withResolvers<never>();
    const look = (): void => {
      if (this.failure !== null) reject(this.failure);
      if (this.isDead) reject(new Error('the engine is dead'));
    };
    this.#watchers.add(look);
    look();
    try {
      return await Promise.race([promise, died]);
    } finally {
      this.#watchers.delete(look);
    }
  }

  async #receive(output: Pull, client: number): Promise<void> {
    for await (const frames of output) {
      try {
        this.#take(frames, client);
      } catch (error) {
        this.failure ??= error as Error;
      }
      this.#wake();
    }
  }

  #wake(): void {
    for (const look of this.#watchers) look();
  }

  #take(frames: readonly Buffer[], client: number): void {
    if (frames.length === 1 && frames[0]!.toString('latin1') === 'ENGINE_CORE_DEAD') {
      this.isDead = true;
      return;
    }
    const items = unpack(frames[0]!) as unknown[];
    check(Array.isArray(items) && items.length <= 8, 'outputs that are no array of 8');
    const [engineIndex = 0, outputs = [], stats = null, timestamp = 0, utility = null, finished = null] = items;
    check(engineIndex === this.#options.engineIndex, `outputs of engine ${String(engineIndex)}`);
    check(typeof timestamp === 'number' && timestamp > 0, 'outputs without a time');
    if (utility !== null) {
      const [callId, failure, result] = utility as [bigint, string | null, [null, unknown] | null];
      const call = this.#calls.get(callId);
      check(call !== undefined, `a reply to the unknown call ${callId}`);
      this.#calls.delete(callId);
      if (failure === null) call!.resolve(result![1]);
      else call!.reject(new Error(failure));
      return;
    }
    if (stats !== null) this.stats.push(stats as Json);
    if (finished !== null) this.finished.push(...(finished as string[]));
    let numFrames = 0;
    const arrayOf = (value: unknown): RowPart => {
      const part = readArray(value, frames);
      if (part.isFrame) check((value as unknown[])[2] === ++numFrames, 'frames out of their order');
      return part;
    };
    for (const output of outputs as unknown[][]) this.#takeOutput(output, client, arrayOf);
    check(numFrames === frames.length - 1, `${frames.length - 1} frames, of which ${numFrames} are named`);
  }

  #takeOutput(output: readonly unknown[], client: number, arrayOf: (value: unknown) => RowPart): void {
    check(output.length === 16, `an output of ${output.length} fields`);
    const [id, tokens, logprobs, promptLogprobs, pooling, finishReason, stopReason, events, kv, ec, , prefill, rows] =
      output as [string, number[], unknown[] | null, unknown[] | null, null, number | null, ...unknown[]];
    check(pooling === null && ec === null && output[14] === null && output[15] === null, 'fields that are not ours');
    check(output[13] === 0, 'NaNs');
    const received = this.requests.get(id);
    // vLLM ignores outputs of requests that it does not have.
    const places = (value: unknown[] | null): unknown[] | null =>
      value && [...value.slice(0, 3).map(arrayOf), value[3]];
    const lists = places(logprobs);
    const tensors = places(promptLogprobs);
    const part = rows === null ? null : arrayOf(rows);
    if (received === undefined) return;
    check(received.finishReasons.length === 0, `an output of "${id}" behind its last one`);
    received.numMessages++;
    received.tokens.push(...tokens);
    if (lists !== null) received.logprobs.push(lists);
    if (tensors !== null) received.promptLogprobs = tensors;
    if (part !== null) {
      const before = received.rows[0];
      check(part.shape.length === 3 && part.shape[0]! > 0, `rows of shape ${part.shape.join('×')}`);
      check(before === undefined || before.shape.slice(1).every((size, i) => size === part.shape[i + 1]), 'other rows');
      received.rows.push(part);
    }
    if (prefill !== null) received.prefill = prefill as Json;
    if (events !== null) received.events = events as Json[];
    if (kv !== null) received.kvTransferParams = kv as Json;
    if (finishReason !== null) {
      received.finishReasons.push(finishReason);
      received.stopReason = stopReason;
    }
    check(client === (this.#clientOf.get(id) ?? client), `an output of "${id}" at API server ${client}`);
  }

  readonly #clientOf: Map<string, number> = new Map();

  /** The API server to which outputs of a request must go. */
  expectAt(id: string, client: number): void {
    this.#clientOf.set(id, client);
  }
}
