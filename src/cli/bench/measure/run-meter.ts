/** Measures one run of an engine: times, processor time, bytes, and the memory of rows. */

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { rowShape } from '../../../capture/row-shape.ts';
import type { CaptureLiveCounts } from '../../../contract/capture.ts';
import type { DeadlineCounts } from '../../../contract/device.ts';
import type { EngineStats } from '../../../engine/engine-core.ts';
import type { DesignSession } from '../../../host/design-session.ts';
import type { OffloadStats } from '../../../host/kv-tier/kv-offload.ts';
import type { LiveEngine } from '../../../host/live-engine.ts';
import type { StepTiming } from '../../../worker/engine-driver.ts';
import type { TransferCounts, WorkerLiveCounts } from '../../../worker/executor.ts';
import { HeldRowsPeak, type HeldRows } from '../../../worker/held-rows-peak.ts';
import type { RankPasses } from '../../../worker/pipeline/lockstep/pass-times.ts';
import { sumOfHeld, type RankUsage } from '../../../worker/thread/rank-usage.ts';
import { ThreadMeter, type ThreadUsage } from '../../../worker/thread/thread-meter.ts';
import { TokenTimes, type TokenWaits } from './token-times.ts';

/** The most bytes of rows at once, of all ranks. Tables of a fixed size, in shared memory or not, are not counted. */
export type RowBytesPeak = Readonly<{
  /** Buffers of the devices that capture needs: allocated, not used. `null`: workers were lost on the way. */
  device: number | null;
  /** Row buffers between a worker's output and their return to the worker. `null`: workers were lost on the way. */
  inFlight: number | null;
  /** With cached KV blocks, in engine half and worker halves; `null`: not counted, or the design keeps none there. */
  cached: number | null;
  /** With requests until they end, in engine half and worker halves. `null`: not counted. */
  requests: number | null;
}>;

export type RunMeasures = TokenWaits &
  Readonly<{
    wallMs: number;
    /** Of each step, in order; ms. */
    stepMs: readonly number[];
    /** Engine time of all steps, ms; the longest of them; and how many (request, step) pairs they handled. */
    schedulerMs: number;
    longestSchedulerMs: number;
    requestSteps: number;
    tokensComputed: number;
    /** The longest time that the main thread's event loop did not turn, ms. */
    eventLoopStallMs: number;
    transfers: TransferCounts;
    /** Of the main thread, with the client in it. */
    mainThread: ThreadUsage;
    /** Of the workers' threads, summed; `null`: workers were lost on the way. */
    workerThreads: ThreadUsage | null;
    rowBytesPeak: RowBytesPeak;
    /** `null`: the ranks were not in lockstep, or lost on the way. */
    ranks: readonly RankPasses[] | null;
    /** Of the device's reads; `null`: it keeps to none, or workers were lost on the way. */
    deadlines: DeadlineCounts | null;
    engineStats: EngineStats;
    /** `null`: no KV is kept outside the devices. */
    offload: OffloadStats | null;
    numRestarts: number;
    /** After the drain. */
    workerLiveCounts: WorkerLiveCounts;
  }>;

export type RunMeterOptions = Readonly<{
  session: DesignSession;
  numRequests: number;
  /** Whether the halves are asked what they hold, which can take the main thread some hundredths of its time. */
  countsHeldRows: boolean;
}>;

const LOOP_RESOLUTION_MS = 1;
const NOTHING_HELD: CaptureLiveCounts = { requests: 0, bytes: 0 };

export class RunMeter {
  readonly #session: DesignSession;
  readonly #executor: DesignSession['executor'];
  readonly #mainThread = new ThreadMeter();
  readonly #tokens: TokenTimes;
  readonly #held: HeldRowsPeak | null;
  readonly #loopDelay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
  readonly #before: TransferCounts;
  readonly #stepMs: number[] = [];
  #startedAt = 0;
  #schedulerMs = 0;
  #longestSchedulerMs = 0;
  #requestSteps = 0;
  #tokensComputed = 0;

  private constructor({ session, numRequests, countsHeldRows }: RunMeterOptions) {
    this.#session = session;
    this.#executor = session.executor;
    this.#tokens = new TokenTimes(numRequests);
    this.#held = countsHeldRows ? new HeldRowsPeak(rowShape(session.config.model).bytesPerRow) : null;
    this.#before = session.executor.transferCounts();
  }

  /** Before the engine is made. Rejects with DEVICE_LOST or WORKER_LOST. */
  static async of(options: RunMeterOptions): Promise<RunMeter> {
    await options.session.executor.takeUsage();
    await options.session.executor.takePasses();
    return new RunMeter(options);
  }

  /** The run begins. */
  start(): void {
    this.#startedAt = performance.now();
    this.#loopDelay.enable();
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedAt;
  }

  /** The request of that place goes to the engine. */
  added(place: number): void {
    this.#tokens.added(place, performance.now());
  }

  /** An output of the request brought tokens. */
  tokensCame(place: number): void {
    this.#tokens.tokensCame(place, performance.now());
  }

  step(timing: StepTiming, engine: LiveEngine): void {
    this.#stepMs.push(timing.stepMs);
    this.#schedulerMs += timing.schedulerMs;
    this.#longestSchedulerMs = Math.max(this.#longestSchedulerMs, timing.schedulerMs);
    this.#requestSteps += timing.numRequests;
    this.#tokensComputed += timing.numTokens;
    this.#held?.afterStep(timing.numTokens, () => engine.stats().capture ?? NOTHING_HELD);
  }

  /** After the drain. Rejects with DEVICE_LOST or WORKER_LOST. */
  async measures(engine: LiveEngine): Promise<RunMeasures> {
    const wallMs = this.elapsedMs;
    this.#loopDelay.disable();
    const mainThread = await this.#mainThread.take();
    const after = engine.transferCounts();
    // New workers began to measure in the middle of it.
    const hasStayed = this.#session.executor === this.#executor;
    const usage = hasStayed ? await this.#executor.takeUsage() : null;
    const ranks = hasStayed ? await this.#executor.takePasses() : null;
    const engineStats = engine.stats();
    const held = this.#held?.take(engineStats.capture ?? NOTHING_HELD) ?? null;
    return {
      ttftMs: this.#tokens.ttftMs,
      itlMs: this.#tokens.itlMs,
      wallMs,
      stepMs: this.#stepMs,
      schedulerMs: this.#schedulerMs,
      longestSchedulerMs: this.#longestSchedulerMs,
      requestSteps: this.#requestSteps,
      tokensComputed: this.#tokensComputed,
      eventLoopStallMs: Math.max(0, this.#loopDelay.max / 1e6 - LOOP_RESOLUTION_MS),
      transfers: {
        deviceToHost: after.deviceToHost - this.#before.deviceToHost,
        captureDeviceToHost: after.captureDeviceToHost - this.#before.captureDeviceToHost,
        acrossThreads: after.acrossThreads - this.#before.acrossThreads,
      },
      mainThread,
      workerThreads: usage === null ? null : { cpuUs: usage.cpuUs, gcPauses: usage.gcPauses },
      rowBytesPeak: rowBytesPeak(held, usage),
      ranks,
      deadlines: usage?.deadlines ?? null,
      engineStats,
      offload: engine.offloadStats(),
      numRestarts: engine.workers.numRestarts,
      workerLiveCounts: await engine.workerLiveCounts(),
    };
  }

  /** Ends what measures by itself. */
  close(): void {
    this.#loopDelay.disable();
    this.#mainThread.close();
  }
}

/** `engine`: what the engine half held. */
function rowBytesPeak(engine: HeldRows | null, workers: RankUsage | null): RowBytesPeak {
  const isCounted = engine !== null && workers !== null;
  const { requests, cached } = isCounted ? sumOfHeld(engine, workers.held) : { requests: null, cached: null };
  return { device: workers?.deviceRowBytes ?? null, inFlight: workers?.rowBytesInFlight ?? null, cached, requests };
}
