/**
 * The metrics of `/metrics`: under vLLM's names where it has them (`vllm/v1/metrics/loggers.py`), and
 * `routed_experts:…` for rows.
 */

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { EngineCoreOutput, FinishReason } from '../contract/engine-core-output.ts';
import type { EngineStats } from '../engine/engine-core.ts';
import type { OffloadStats } from '../host/kv-tier/kv-offload.ts';
import type { StepTiming } from '../worker/engine-driver.ts';
import type { TransferCounts } from '../worker/executor.ts';
import type { EngineHost } from './engine-host.ts';
import type { Choice } from './generation.ts';
import type { KvExchange } from './kv/kv-exchange.ts';

const firstTokenBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const tokenBuckets = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10,
];
const requestBuckets = [0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480];
const stepBuckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];
const lengthBuckets = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000];
const iterationBuckets = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

const LOOP_RESOLUTION_MS = 10;

/** Of KV blocks outside the device: name, help and value. */
const OFFLOAD_TOTALS: readonly (readonly [name: string, help: string, pick: (stats: OffloadStats) => number])[] = [
  ['to_host_bytes_total', 'Bytes of KV and rows that went to host memory', (s) => s.bytesToHost],
  ['from_host_bytes_total', 'Bytes of KV and rows that came back from it', (s) => s.bytesFromHost],
  ['skipped_blocks_total', 'Evicted blocks that were not kept', (s) => s.blocksSkipped],
  ['loads_total', 'Loads begun', (s) => s.loads],
  ['failed_loads_total', 'Loads that failed', (s) => s.failedLoads],
  ['file_writes_total', 'Blocks written to files', (s) => s.files?.writes ?? 0],
  ['file_reads_total', 'Blocks looked for in files', (s) => s.files?.reads ?? 0],
  ['file_problems_total', 'Files that could not be used, written, read or believed', (s) => s.fileProblems],
];

type Times = { readonly arrivedAt: number; firstTokenAt: number; lastTokenAt: number };

/** Times are those of the server's clock, from the moment a request was handed to the engine. */
export class Metrics {
  readonly registry: Registry = new Registry();
  readonly #times: Map<string, Times> = new Map();
  readonly #loopDelay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  readonly #finished: Counter<'finished_reason'>;
  readonly #promptTokens: Counter;
  readonly #generationTokens: Counter;
  readonly #firstToken: Histogram;
  readonly #interToken: Histogram;
  readonly #endToEnd: Histogram;
  readonly #inference: Histogram;
  readonly #promptLength: Histogram;
  readonly #generationLength: Histogram;
  readonly #maxTokens: Histogram;
  readonly #paramN: Histogram;
  readonly #iterationTokens: Histogram;
  readonly #stepSeconds: Histogram;
  readonly #schedulerSeconds: Histogram;
  readonly #rows: Counter;
  readonly #rowsMissing: Counter;
  readonly #rowBytes: Counter;
  readonly #restarts: Counter;

  constructor(modelName: string) {
    // Labels that all metrics share cost nothing when a metric counts.
    this.registry.setDefaultLabels({ model_name: modelName, engine: '0' });
    const registers = [this.registry];
    this.#finished = new Counter({
      name: 'vllm:request_success_total',
      help: 'Requests that ended, by the reason',
      labelNames: ['finished_reason'],
      registers,
    });
    this.#promptTokens = this.#counter('vllm:prompt_tokens_total', 'Prompt tokens of requests that ended');
    this.#generationTokens = this.#counter('vllm:generation_tokens_total', 'Tokens generated');
    this.#firstToken = this.#histogram('vllm:time_to_first_token_seconds', 'Until the first token', firstTokenBuckets);
    this.#interToken = this.#histogram('vllm:inter_token_latency_seconds', 'Between two outputs', tokenBuckets);
    this.#endToEnd = this.#histogram('vllm:e2e_request_latency_seconds', 'Until the last token', requestBuckets);
    this.#inference = this.#histogram('vllm:request_decode_time_seconds', 'First to last token', requestBuckets);
    this.#promptLength = this.#histogram('vllm:request_prompt_tokens', 'Prompt tokens of a request', lengthBuckets);
    this.#generationLength = this.#histogram(
      'vllm:request_generation_tokens',
      'Tokens generated for a request',
      lengthBuckets,
    );
    this.#maxTokens = this.#histogram('vllm:request_params_max_tokens', 'max_tokens of a request', lengthBuckets);
    this.#paramN = this.#histogram('vllm:request_params_n', 'n of a request', [1, 2, 5, 10, 20]);
    this.#iterationTokens = this.#histogram(
      'vllm:iteration_tokens_total',
      'Tokens computed in a step',
      iterationBuckets,
    );
    this.#stepSeconds = this.#histogram('routed_experts:step_seconds', 'Time of a step', stepBuckets);
    this.#schedulerSeconds = this.#histogram('routed_experts:scheduler_seconds', 'Engine time of a step', stepBuckets);
    this.#rows = this.#counter('routed_experts:rows_total', 'Rows handed to clients');
    this.#rowsMissing = this.#counter('routed_experts:rows_missing_total', 'Rows reported missing to clients');
    this.#rowBytes = this.#counter(
      'routed_experts:row_bytes_total',
      'Bytes of rows in their wire form, base64 included',
    );
    this.#restarts = this.#counter('routed_experts:worker_restarts_total', 'Lost workers that were started again');
  }

  /** Adds what is read from the engine at each scrape. */
  observe(host: EngineHost, numHttpRequests: () => number): void {
    this.#loopDelay.enable();
    const { engine } = host.options;
    const stats = (pick: (stats: EngineStats) => number) => () => pick(host.engine.stats());
    this.#gauge(
      'vllm:num_requests_running',
      'Requests that hold KV blocks',
      stats((s) => s.numRunning),
    );
    this.#gauge(
      'vllm:num_requests_waiting',
      'Requests that wait for KV blocks',
      stats((s) => s.numWaiting + s.numWaitingForRemoteKvs),
    );
    const usage = stats((s) => s.numUsedBlocks / (s.numUsedBlocks + s.numFreeBlocks));
    this.#gauge('vllm:kv_cache_usage_perc', 'Share of the KV blocks in use, in [0, 1]', usage);
    this.#total(
      'vllm:prefix_cache_queries_total',
      'Tokens looked up in the prefix cache',
      stats((s) => s.numPrefixQueryTokens),
    );
    this.#total(
      'vllm:prefix_cache_hits_total',
      'Tokens found in the prefix cache',
      stats((s) => s.numPrefixHitTokens),
    );
    this.#total(
      'vllm:num_preemptions_total',
      'Requests that lost their KV blocks to others',
      stats((s) => s.numPreemptions),
    );
    if (engine.numSpeculativeTokens > 0) this.#observeDrafts(stats);
    const cacheConfig = new Gauge({
      name: 'vllm:cache_config_info',
      help: 'The KV cache',
      labelNames: ['block_size', 'num_gpu_blocks', 'enable_prefix_caching'],
      registers: [this.registry],
    });
    cacheConfig.set(
      {
        block_size: String(engine.blockSize),
        num_gpu_blocks: String(engine.numBlocks),
        enable_prefix_caching: engine.enablePrefixCaching ? 'True' : 'False',
      },
      1,
    );
    const transfers = (pick: (counts: TransferCounts) => number) => () => pick(host.engine.transferCounts());
    this.#total(
      'routed_experts:device_to_host_bytes_total',
      'Bytes read from the device',
      transfers((t) => t.deviceToHost),
    );
    const forCapture = transfers((t) => t.captureDeviceToHost);
    this.#total('routed_experts:capture_device_to_host_bytes_total', 'Of these, bytes of rows', forCapture);
    this.#total(
      'routed_experts:thread_bytes_total',
      'Bytes between threads',
      transfers((t) => t.acrossThreads),
    );
    const refused = stats((s) => s.numPrefixRefusedTokens);
    this.#total('routed_experts:prefix_refused_tokens_total', 'Cached tokens computed again for want of rows', refused);
    this.#gauge(
      'routed_experts:live_row_bytes',
      'Rows of requests alive',
      stats((s) => s.capture?.bytes ?? 0),
    );
    this.#gauge(
      'routed_experts:cached_row_bytes',
      'Rows kept with cached blocks',
      stats((s) => s.capture?.cachedBytes ?? 0),
    );
    this.#gauge('routed_experts:http_requests_active', 'Requests whose answer is not complete', numHttpRequests);
    this.#gauge('routed_experts:event_loop_stall_seconds', 'Longest stall since the scrape before', () =>
      this.#takeStall(),
    );
  }

  #observeDrafts(stats: (pick: (stats: EngineStats) => number) => () => number): void {
    this.#total(
      'vllm:spec_decode_num_drafts_total',
      'Drafts verified, one per request and step',
      stats((s) => s.numDrafts),
    );
    this.#total(
      'vllm:spec_decode_num_draft_tokens_total',
      'Tokens of drafts verified',
      stats((s) => s.numDraftTokens),
    );
    this.#total(
      'vllm:spec_decode_num_accepted_tokens_total',
      'Draft tokens accepted',
      stats((s) => s.numAcceptedTokens),
    );
  }

  /** Adds what is read of KV that comes from and goes to other engines. */
  observeKv(host: EngineHost, kv: KvExchange): void {
    const stats = (pick: (stats: EngineStats) => number) => () => pick(host.engine.stats());
    this.#total(
      'vllm:external_prefix_cache_hits_total',
      'Tokens whose KV came from elsewhere',
      stats((s) => s.numExternalTokens),
    );
    this.#gauge(
      'routed_experts:kv_waiting_requests',
      'Requests that wait for KV from elsewhere',
      stats((s) => s.numWaitingForRemoteKvs),
    );
    this.#gauge(
      'routed_experts:kv_kept_blocks',
      'Blocks kept for others to fetch',
      stats((s) => s.numKeptBlocks),
    );
    this.#total('routed_experts:kv_loads_total', 'Loads begun', () => kv.counts.loads);
    this.#total('routed_experts:kv_failed_loads_total', 'Loads that failed', () => kv.counts.failedLoads);
    this.#total('routed_experts:kv_loaded_bytes_total', 'Bytes of KV and rows that came', () => kv.counts.bytesLoaded);
    this.#total('routed_experts:kv_sent_bytes_total', 'Bytes of KV and rows handed out', () => kv.numBytesSent);
    this.#total('routed_experts:kv_expired_leases_total', 'Leases that ran out', () => kv.numExpired);
  }

  /** Adds what is read of KV blocks that are kept outside the device. */
  observeOffload({ engine }: EngineHost): void {
    const stats = (pick: (stats: OffloadStats) => number) => () => pick(engine.offloadStats()!);
    const hits = (): number => engine.stats().numExternalTokens;
    this.#total('vllm:external_prefix_cache_hits_total', 'Tokens whose KV came back from host memory or files', hits);
    for (const [name, help, pick] of OFFLOAD_TOTALS) this.#total(`routed_experts:offload_${name}`, help, stats(pick));
    this.#gauge(
      'routed_experts:offload_host_blocks',
      'KV blocks in host memory',
      stats((s) => s.hostBlocks),
    );
    this.#gauge(
      'routed_experts:offload_file_blocks',
      'KV blocks in files',
      stats((s) => s.files?.blocks ?? 0),
    );
  }

  submitted(requestIds: readonly string[], maxTokens: number, n: number): void {
    const arrivedAt = performance.now();
    for (const id of requestIds) this.#times.set(id, { arrivedAt, firstTokenAt: 0, lastTokenAt: 0 });
    this.#maxTokens.observe(maxTokens);
    this.#paramN.observe(n);
  }

  onStep({ numTokens, stepMs, schedulerMs }: StepTiming): void {
    this.#iterationTokens.observe(numTokens);
    this.#stepSeconds.observe(stepMs / 1e3);
    this.#schedulerSeconds.observe(schedulerMs / 1e3);
  }

  onOutput(choice: Choice, { requestId, newTokenIds, finishReason }: EngineCoreOutput): void {
    const times = this.#times.get(requestId);
    if (times === undefined) return;
    const now = performance.now();
    if (newTokenIds.length > 0) {
      this.#generationTokens.inc(newTokenIds.length);
      if (times.firstTokenAt === 0) {
        times.firstTokenAt = now;
        this.#firstToken.observe((now - times.arrivedAt) / 1e3);
      } else this.#interToken.observe((now - times.lastTokenAt) / 1e3);
      times.lastTokenAt = now;
    }
    if (finishReason !== null) this.#onFinish(choice, finishReason, times, now);
  }

  onRestart(): void {
    this.#restarts.inc();
  }

  /** Rows on their way to a client. */
  rowsSent(numRows: number, numMissing: number): void {
    this.#rows.inc(numRows - numMissing);
    this.#rowsMissing.inc(numMissing);
  }

  rowBytesSent(numBytes: number): void {
    this.#rowBytes.inc(numBytes);
  }

  /** Returns the longest stall of the event loop since the last call, in seconds. */
  #takeStall(): number {
    const stallMs = Math.max(0, this.#loopDelay.max / 1e6 - LOOP_RESOLUTION_MS);
    this.#loopDelay.reset();
    return Number.isFinite(stallMs) ? stallMs / 1e3 : 0;
  }

  close(): void {
    this.#loopDelay.disable();
    this.registry.clear();
  }

  #onFinish(choice: Choice, reason: FinishReason, times: Times, now: number): void {
    this.#times.delete(choice.requestId);
    this.#finished.inc({ finished_reason: reason });
    this.#promptTokens.inc(choice.promptTokenIds.length);
    this.#promptLength.observe(choice.promptTokenIds.length);
    this.#generationLength.observe(choice.tokenIds.length);
    this.#endToEnd.observe((now - times.arrivedAt) / 1e3);
    if (times.firstTokenAt > 0) this.#inference.observe((now - times.firstTokenAt) / 1e3);
  }

  #counter(name: string, help: string): Counter {
    return new Counter({ name, help, registers: [this.registry] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name, help, buckets, registers: [this.registry] });
  }

  #gauge(name: string, help: string, read: () => number): void {
    const gauge = new Gauge({
      name,
      help,
      registers: [],
      collect() {
        this.set(read());
      },
    });
    this.registry.registerMetric(gauge);
  }

  /** A counter whose value is read at each scrape. */
  #total(name: string, help: string, read: () => number): void {
    let counted = 0;
    const counter = new Counter({
      name,
      help,
      registers: [],
      collect() {
        const now = read();
        this.inc(Math.max(0, now - counted));
        counted = now;
      },
    });
    this.registry.registerMetric(counter);
  }
}
