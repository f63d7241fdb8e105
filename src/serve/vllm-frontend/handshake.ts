/**
 * How an engine joins a frontend that waits for it:
 *
 *     begin ─▶ HELLO … INIT ─▶ ready response on every input ─▶ [01 … READY of the coordinator] ─▶ READY ─▶ joined
 *
 * Events in, actions out; sockets and times are the caller's.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import { isObject } from '../../rows/json-object.ts';
import { pack, unpack } from './wire/msgpack.ts';

/** Where the frontend's sockets are. Input and output `i` belong to API server `i`. */
export type FrontendAddresses = Readonly<{
  inputs: readonly string[];
  outputs: readonly string[];
  /** `null`: there is no coordinator. */
  coordinator: Readonly<{ input: string; output: string }> | null;
  /** Goes back to the frontend as it came. */
  stats: string | null;
}>;

/** The engine, as a frontend asks after it. Sizes in tokens unless they count something else. */
export type EngineFacts = Readonly<{
  engineIndex: number;
  version: string;
  instanceId: string;
  maxModelLen: number;
  numBlocks: number;
  blockSize: number;
  maxNumSeqs: number;
  maxNumBatchedTokens: number;
  numWorkers: number;
  /** Of a pipeline; each has equally many workers. */
  numStages: number;
}>;

export interface HandshakePorts {
  say(frame: Uint8Array): void;
  /** Connects to the frontend's sockets; the first message on every input is `readyResponse`. */
  join(addresses: FrontendAddresses, readyResponse: Uint8Array): void;
  /** The frontend has the engine. */
  joined(): void;
  fail(error: RoutedExpertsError): void;
}

export type HandshakeOptions = Readonly<{
  /** For messages. */
  address: string;
  engine: EngineFacts;
  /** What a frontend of several engines with a MoE config compares; `null`: not known. */
  parallelConfigHash: string | null;
}>;

/** Of this engine's side: a frontend that started no engine waits for one that is remote and headless. */
const REMOTE = { local: false, headless: true } as const;
const COORDINATOR_READY = 'READY';

export class Handshake {
  readonly #options: HandshakeOptions;
  readonly #ports: HandshakePorts;
  #phase: 'new' | 'greeted' | 'joining' | 'over' = 'new';
  #readyMessage: Uint8Array = new Uint8Array(0);

  constructor(options: HandshakeOptions, ports: HandshakePorts) {
    this.#options = options;
    this.#ports = ports;
  }

  begin(): void {
    this.#phase = 'greeted';
    this.#ports.say(pack({ status: 'HELLO', ...REMOTE }));
  }

  /** The frontend says something. */
  onFrame(frame: Uint8Array): void {
    // INIT comes once. The frontend waits for READY, and says nothing else.
    if (this.#phase !== 'greeted') return;
    const { address, engine, parallelConfigHash: hash } = this.#options;
    try {
      const { addresses, dataParallelSize } = readInit(frame);
      if (dataParallelSize > 1 && hash === null) throw new Error(hashProblem(dataParallelSize));
      this.#phase = 'joining';
      const known = hash === null ? {} : { parallel_config_hash: hash };
      this.#readyMessage = pack({ status: 'READY', ...REMOTE, ...known });
      this.#ports.join(addresses, pack(readyResponse(engine, addresses, dataParallelSize)));
      if (addresses.coordinator === null) this.#finish();
    } catch (error) {
      this.#phase = 'over';
      this.#ports.fail(RoutedExpertsError.of('BAD_FRONTEND', address, (error as Error).message));
    }
  }

  /** Returns whether the coordinator's message belongs to the handshake. */
  onCoordinator(frames: readonly Uint8Array[]): boolean {
    const isReady = frames.length === 1 && Buffer.from(frames[0]!).toString('latin1') === COORDINATOR_READY;
    // It tells each engine that joins later, too.
    if (isReady && this.#phase === 'joining') this.#finish();
    return isReady;
  }

  #finish(): void {
    this.#phase = 'over';
    this.#ports.say(this.#readyMessage);
    this.#ports.joined();
  }
}

/** Throws an Error for a frame that is no INIT. */
function readInit(frame: Uint8Array): Readonly<{ addresses: FrontendAddresses; dataParallelSize: number }> {
  const init = unpack(frame);
  const given = isObject(init) ? init['addresses'] : null;
  if (!isObject(init) || !isObject(given)) throw new Error('its answer to HELLO has no addresses');
  const inputs = addressList(given['inputs'], 'inputs');
  const outputs = addressList(given['outputs'], 'outputs');
  if (inputs.length !== outputs.length) {
    throw new Error(`it has ${inputs.length} inputs and ${outputs.length} outputs, and should have equally many`);
  }
  const [input, output, stats] = ['coordinator_input', 'coordinator_output', 'frontend_stats_publish_address'].map(
    (name) => (typeof given[name] === 'string' ? given[name] : null),
  );
  const parallel = isObject(init['parallel_config']) ? init['parallel_config'] : {};
  const size = parallel['data_parallel_size'];
  return {
    addresses: { inputs, outputs, coordinator: input && output ? { input, output } : null, stats: stats ?? null },
    dataParallelSize: typeof size === 'number' ? size : 1,
  };
}

function addressList(value: unknown, name: string): readonly string[] {
  const isList = Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string');
  if (!isList) throw new Error(`its ${name} are no list of addresses`);
  return value;
}

function hashProblem(dataParallelSize: number): string {
  return (
    `it runs ${dataParallelSize} engines with a MoE config, and compares a hash of the configuration that only vLLM ` +
    'can compute; give it a dense config, start one frontend for each engine, or give --parallel-config-hash'
  );
}

/** Every key that any version asks for: a missing one ends the frontend. */
function readyResponse(
  engine: EngineFacts,
  addresses: FrontendAddresses,
  dataParallelSize: number,
): Readonly<Record<string, unknown>> {
  const numTokens = (engine.numBlocks - 1) * engine.blockSize;
  return {
    max_model_len: engine.maxModelLen,
    num_gpu_blocks: engine.numBlocks,
    block_size: engine.blockSize,
    dp_stats_address: addresses.stats,
    dtype: 'bfloat16',
    vllm_version: engine.version,
    world_size: engine.numWorkers,
    data_parallel_size: dataParallelSize,
    tensor_parallel_size: engine.numWorkers / engine.numStages,
    pipeline_parallel_size: engine.numStages,
    decode_context_parallel_size: 1,
    data_parallel_rank: engine.engineIndex,
    max_num_seqs: engine.maxNumSeqs,
    max_num_batched_tokens: engine.maxNumBatchedTokens,
    instance_id: engine.instanceId,
    kv_cache_size_tokens: numTokens,
    kv_cache_max_concurrency: numTokens / engine.maxModelLen,
    kv_events_config: null,
    weight_transfer_backend: null,
    enable_sleep_mode: true,
    supports_draft_weight_updates: false,
  };
}
