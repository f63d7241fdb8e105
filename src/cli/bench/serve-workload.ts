/** Serves one workload through an engine of its own, as its client. Measures with a `RunMeter`; verifies nothing. */

import type { EngineCoreOutput, FinishReason } from '../../contract/engine-core-output.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { RowJoiner } from '../../capture/row-joiner.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import type { DesignSession } from '../../host/design-session.ts';
import { LiveEngine } from '../../host/live-engine.ts';
import { Arrivals } from '../../workload/arrivals.ts';
import type { LoopMode } from '../../workload/arrivals.ts';
import type { Workload } from '../../workload/workload.ts';
import { toEngineRequest } from '../../workload/workload.ts';
import { WantedBytes } from './measure/wanted-bytes.ts';
import { RunMeter, type RunMeasures } from './measure/run-meter.ts';

/** What became of one request of the workload. */
export type ServedRequest = {
  readonly requestId: string;
  readonly promptTokenIds: Uint32Array;
  readonly optedIn: boolean;
  /** It ends at this length unless it is aborted. */
  readonly mostOutputTokens: number;
  readonly outputTokenIds: number[];
  finishReason: FinishReason | 'refused' | null;
  /** Why it was refused, or its design failed. */
  refusal: string | null;
  /** At its end: what came with its outputs, joined. */
  rows: RoutedRows | null;
};

export type ServeOptions = Readonly<{
  /** Its workers, which stay. */
  session: DesignSession;
  workload: Workload;
  optedIn: readonly boolean[];
  mode: LoopMode;
  /**
   * For each request the number of its output tokens after which it is aborted (0 = at once), or `null` = not at all.
   */
  abortAfter: readonly (number | null)[];
  /** How often lost workers are started again; absent = a loss is final. */
  maxRestarts?: number;
  /** See `RunMeter`; absent = no. */
  countsHeldRows?: boolean;
}>;

export type ServeResult = RunMeasures &
  Readonly<{
    requests: readonly ServedRequest[];
    /** The most bytes of rows that may leave the devices: of the scheduled tokens of requests that opted in (L5). */
    wantedRowBytes: number;
  }>;

/**
 * Rejects with what ended the run early (DEVICE_LOST, WORKER_LOST); requests that the engine refuses end as `refused`.
 */
export async function serveWorkload(options: ServeOptions): Promise<ServeResult> {
  const { session, workload, maxRestarts = 0, countsHeldRows = false } = options;
  const served = workload.requests.map((request, i): ServedRequest => ({
    requestId: request.requestId,
    promptTokenIds: request.promptTokenIds,
    optedIn: options.optedIn[i]!,
    mostOutputTokens: Math.min(request.maxTokens, session.config.engine.maxModelLen - request.promptTokenIds.length),
    outputTokenIds: [],
    finishReason: null,
    refusal: null,
    rows: null,
  }));
  const wanted = new WantedBytes(...session.stageModels);
  const joiners = new Map<number, RowJoiner>();
  const placeOf = new Map(served.map((request, i) => [request.requestId, i]));
  const arrivals = new Arrivals(workload, options.mode);
  let numSubmitted = 0;
  let numInFlight = 0;
  let timer: NodeJS.Timeout | null = null;

  const meter = await RunMeter.of({ session, numRequests: served.length, countsHeldRows });
  const engine = new LiveEngine(session, {
    maxRestarts,
    onOutput,
    onBegin: (step) => wanted.add(step),
    onStep: (timing) => {
      if (timing.numRequests === 0) return;
      meter.step(timing, engine);
      submitDue();
    },
  });

  function onOutput(output: EngineCoreOutput): void {
    const place = placeOf.get(output.requestId)!;
    const request = served[place]!;
    if (output.newTokenIds.length > 0) meter.tokensCame(place);
    for (const token of output.newTokenIds) request.outputTokenIds.push(token);
    if (output.routedExperts !== null) {
      const joiner = joiners.get(place) ?? new RowJoiner();
      joiners.set(place, joiner);
      joiner.add(output.routedExperts);
    }
    if (output.finishReason === null) {
      const abortAfter = options.abortAfter[place];
      if (abortAfter !== null && request.outputTokenIds.length >= abortAfter!) engine.abort([request.requestId]);
      return;
    }
    request.finishReason = output.finishReason;
    request.refusal = output.failure?.message ?? null;
    const rows = joiners.get(place)?.rows ?? null;
    request.rows = rows && session.withLayers(rows);
    joiners.delete(place);
    numInFlight--;
  }

  function submit(place: number): void {
    const request = workload.requests[place]!;
    numInFlight++;
    meter.added(place);
    try {
      engine.add(toEngineRequest(request, options.optedIn[place]!));
    } catch (error) {
      if (!(error instanceof RoutedExpertsError) || error.code === 'INVARIANT') throw error;
      served[place]!.finishReason = 'refused';
      served[place]!.refusal = error.message;
      numInFlight--;
      return;
    }
    if (options.abortAfter[place] === 0) engine.abort([request.requestId]);
  }

  function submitDue(): void {
    // A request that is refused or aborted at once makes room for the next one: repeat until no request is due.
    for (;;) {
      const due = arrivals.numDue(numSubmitted, meter.elapsedMs, numInFlight);
      if (due === 0) break;
      for (let i = 0; i < due; i++) submit(arrivals.order[numSubmitted++]!);
    }
    if (numSubmitted === arrivals.order.length) engine.drain();
    const nextMs = arrivals.nextMs(numSubmitted);
    if (nextMs !== null && timer === null) {
      timer = setTimeout(
        () => {
          timer = null;
          submitDue();
        },
        Math.max(0, nextMs - meter.elapsedMs),
      );
    }
  }

  try {
    meter.start();
    submitDue();
    await engine.ended();
    const wantedRowBytes = (wanted.bytes * session.executor.devices.length) / session.stageModels.length;
    return { requests: served, wantedRowBytes, ...(await meter.measures(engine)) };
  } finally {
    meter.close();
    if (timer !== null) clearTimeout(timer);
  }
}
