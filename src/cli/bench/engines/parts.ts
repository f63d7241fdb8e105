/** A workload dealt out to data-parallel engines, and their results as those of one. */

import type { ThreadUsage } from '../../../worker/thread/thread-meter.ts';
import { sumOfDeadlines } from '../../../worker/thread/rank-usage.ts';
import type { ServeOptions, ServeResult } from '../serve-workload.ts';

type EngineRun = Omit<ServeOptions, 'session'>;

/** Request i goes to engine i mod `size`; a closed loop keeps its share in flight on each. */
export function partsOf(run: EngineRun, size: number): readonly EngineRun[] {
  const { workload, optedIn, abortAfter, mode } = run;
  return Array.from({ length: size }, (_, engine): EngineRun => {
    const own = <T>(values: readonly T[]): T[] => values.filter((_value, i) => i % size === engine);
    const concurrency = mode.kind === 'closed' ? Math.max(1, Math.ceil((mode.concurrency - engine) / size)) : 0;
    return {
      ...run,
      workload: { ...workload, requests: own(workload.requests) },
      optedIn: own(optedIn),
      abortAfter: own(abortAfter),
      mode: mode.kind === 'closed' ? { kind: 'closed', concurrency } : mode,
    };
  });
}

/** Times of all engines, sums of what they did and used; the run lasts as long as its slowest engine. */
export function mergeServed(parts: readonly ServeResult[]): ServeResult {
  const sum = (of: (part: ServeResult) => number): number => parts.reduce((total, part) => total + of(part), 0);
  const most = (of: (part: ServeResult) => number): number => Math.max(...parts.map(of));
  const numRequests = sum(({ requests }) => requests.length);
  const workers = parts.map(({ workerThreads }) => workerThreads);
  const ranks = parts.map((part) => part.ranks);
  return {
    requests: Array.from(
      { length: numRequests },
      (_, i) => parts[i % parts.length]!.requests[Math.floor(i / parts.length)]!,
    ),
    wantedRowBytes: sum((part) => part.wantedRowBytes),
    ttftMs: parts.flatMap(({ ttftMs }) => ttftMs),
    itlMs: parts.flatMap(({ itlMs }) => itlMs),
    wallMs: most(({ wallMs }) => wallMs),
    stepMs: parts.flatMap(({ stepMs }) => stepMs),
    schedulerMs: sum(({ schedulerMs }) => schedulerMs),
    longestSchedulerMs: most(({ longestSchedulerMs }) => longestSchedulerMs),
    requestSteps: sum(({ requestSteps }) => requestSteps),
    tokensComputed: sum(({ tokensComputed }) => tokensComputed),
    eventLoopStallMs: most(({ eventLoopStallMs }) => eventLoopStallMs),
    transfers: parts.map(({ transfers }) => transfers).reduce(sumOf),
    mainThread: parts.map(({ mainThread }) => mainThread).reduce(sumOfThreads),
    workerThreads: workers.reduce((a, b) => (a === null || b === null ? null : sumOfThreads(a, b))),
    rowBytesPeak: parts.map(({ rowBytesPeak }) => rowBytesPeak).reduce(sumOf),
    ranks: ranks.some((each) => each === null) ? null : ranks.flatMap((each) => each!),
    deadlines: sumOfDeadlines(parts.map(({ deadlines }) => deadlines)),
    engineStats: parts.map(({ engineStats }) => engineStats).reduce(sumOf),
    offload: parts.map(({ offload }) => offload).reduce(sumOf),
    numRestarts: sum(({ numRestarts }) => numRestarts),
    workerLiveCounts: parts.map(({ workerLiveCounts }) => workerLiveCounts).reduce(sumOf),
  };
}

/** Of numbers, and of records of them at any depth; what is unknown of one is unknown of all. */
function sumOf<T>(a: T, b: T): T {
  if (a === null || b === null) return null as T;
  if (typeof a === 'number') return (a + (b as number)) as T;
  const others = b as Readonly<Record<string, unknown>>;
  return Object.fromEntries(
    Object.entries(a as object).map(([name, value]) => [name, sumOf(value, others[name])]),
  ) as T;
}

function sumOfThreads(a: ThreadUsage, b: ThreadUsage): ThreadUsage {
  const longestMs = Math.max(a.gcPauses.longestMs, b.gcPauses.longestMs);
  return { ...sumOf(a, b), gcPauses: { count: a.gcPauses.count + b.gcPauses.count, longestMs } };
}
